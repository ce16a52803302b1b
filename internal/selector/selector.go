// Package selector reads and evaluates selectors: Calico's expressions over labels, as in the field
// nodeSelector of an IPPool.
//
//	all()                          everything; an empty selector says the same
//	global()                       everything; only policies may say so, see Selector.Global
//	has(k), !has(k)                the label k is there, or is not
//	k == 'v', k != 'v'             its value is v, or is not
//	k in {'v', 'w'}                its value is one of these
//	k not in {'v', 'w'}            its value is none of these
//	k contains 'v'                 its value contains v
//	k starts with 'v'              its value begins with v
//	k ends with 'v'                its value ends with v
//	! x, x && y, x || y, (x)       not, and, or; binding in this order
//
// A label that is missing satisfies !=, not in and !has, and nothing else. Values stand in single or
// double quotes and have no escapes. Label names consist of letters, digits and "_./-". Space is blanks
// and tabs. All this is as in Calico (libcalico-go/lib/selector); what differs is that errors say where
// and what was expected, and that the length and the nesting of a selector are bounded.
//
// A Selector is immutable, and safe for concurrent use.
package selector

import (
	"slices"
	"strings"
)

// op says what a node of a parsed selector asks.
type op uint8

const (
	opAll op = iota
	opGlobal
	opHas
	opEqual
	opNotEqual
	opIn
	opNotIn
	opContains
	opStartsWith
	opEndsWith
	// From here on by how strongly they bind, strongest first.
	opNot // one operand, which is no opNot
	opAnd // two operands or more, none of them opAnd
	opOr  // two operands or more, none of them opOr
)

// node is a part of a parsed selector.
type node struct {
	op       op
	label    string
	values   []string // one; for opIn and opNotIn any number, sorted and distinct
	operands []node
}

// Selector is a parsed selector. Its zero value is that of the empty selector, all().
type Selector struct {
	root node
}

// Matches says whether the selector holds for something with these labels. It does not allocate.
func (s *Selector) Matches(labels map[string]string) bool { return s.root.matches(labels) }

func (n *node) matches(labels map[string]string) bool {
	switch n.op {
	case opAll, opGlobal:
		return true
	case opNot:
		return !n.operands[0].matches(labels)
	case opAnd:
		for i := range n.operands {
			if !n.operands[i].matches(labels) {
				return false
			}
		}
		return true
	case opOr:
		for i := range n.operands {
			if n.operands[i].matches(labels) {
				return true
			}
		}
		return false
	}
	value, ok := labels[n.label]
	if !ok {
		return n.op == opNotEqual || n.op == opNotIn
	}
	return n.matchesValue(value)
}

// matchesValue answers for a label that is there.
func (n *node) matchesValue(value string) bool {
	switch n.op {
	case opEqual:
		return value == n.values[0]
	case opNotEqual:
		return value != n.values[0]
	case opIn, opNotIn:
		_, found := slices.BinarySearch(n.values, value)
		return found == (n.op == opIn)
	case opContains:
		return strings.Contains(value, n.values[0])
	case opStartsWith:
		return strings.HasPrefix(value, n.values[0])
	case opEndsWith:
		return strings.HasSuffix(value, n.values[0])
	default: // opHas
		return true
	}
}

// Global says whether global() occurs in the selector. It means something to Calico's policies only, and
// is refused in pools.
func (s *Selector) Global() bool { return s.root.global() }

func (n *node) global() bool {
	return n.op == opGlobal || slices.ContainsFunc(n.operands, func(o node) bool { return o.global() })
}
