package selector

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

const (
	// MaxLength is how long a selector may be, in bytes: room for the names of some thousand nodes, and more than
	// "kubectl apply" can remember of an object. The CRDs say the same of their fields.
	MaxLength = 262144
	// MaxDepth is how deep parentheses may nest.
	MaxDepth = 100
)

// Error says what is wrong with a selector, and where.
type Error struct {
	// Position counts characters from 1; one behind the last means the end of the selector.
	Position int
	// Expected says what could stand there instead.
	Expected string
	// Found is what stands there, as a phrase.
	Found string
}

// Error renders the fault on one line.
func (e *Error) Error() string {
	return fmt.Sprintf("at character %d: expected %s, found %s", e.Position, e.Expected, e.Found)
}

// Parse reads a selector. An empty one, or one of nothing but space, is all(). The error is an *Error.
func Parse(text string) (*Selector, error) {
	if len(text) > MaxLength {
		return nil, &Error{
			Position: utf8.RuneCountInString(text[:MaxLength]) + 1,
			Expected: fmt.Sprintf("the end, since a selector has at most %d bytes", MaxLength),
			Found:    fmt.Sprintf("%d more", len(text)-MaxLength),
		}
	}
	p := parser{scanner: scanner{text: text}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.token.kind == tokenEnd {
		return &Selector{}, nil
	}
	root, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.token.kind != tokenEnd {
		return nil, p.unexpected("&&, || or the end")
	}
	return &Selector{root: root}, nil
}

// parser is a recursive descent over the tokens of a selector, one token ahead.
type parser struct {
	scanner scanner
	token   token
}

func (p *parser) advance() error {
	var err error
	p.token, err = p.scanner.next()
	return err
}

// accept takes the current token if it is of this kind.
func (p *parser) accept(kind tokenKind) (bool, error) {
	if p.token.kind != kind {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) unexpected(expected string) error {
	return p.scanner.errorAt(p.token.start, expected)
}

// or reads one and-expression or several with || between them.
func (p *parser) or(depth int) (node, error) {
	return p.series(depth, tokenOr, opOr, p.and)
}

// and reads one term or several with && between them.
func (p *parser) and(depth int) (node, error) {
	return p.series(depth, tokenAnd, opAnd, p.term)
}

func (p *parser) series(depth int, between tokenKind, joined op, read func(int) (node, error)) (node, error) {
	first, err := read(depth)
	if err != nil || p.token.kind != between {
		return first, err
	}
	n := node{op: joined}
	n.join(first)
	for {
		more, err := p.accept(between)
		if err != nil || !more {
			return n, err
		}
		operand, err := read(depth)
		if err != nil {
			return node{}, err
		}
		n.join(operand)
	}
}

// join appends an operand; one of the same kind, which stood in parentheses, dissolves.
func (n *node) join(operand node) {
	if operand.op == n.op {
		n.operands = append(n.operands, operand.operands...)
		return
	}
	n.operands = append(n.operands, operand)
}

// term reads any number of ! and what they apply to.
func (p *parser) term(depth int) (node, error) {
	negated := false
	for p.token.kind == tokenNot {
		negated = !negated
		if err := p.advance(); err != nil {
			return node{}, err
		}
	}
	n, err := p.operand(depth)
	if err != nil || !negated {
		return n, err
	}
	if n.op == opNot { // it stood in parentheses
		return n.operands[0], nil
	}
	return node{op: opNot, operands: []node{n}}, nil
}

func (p *parser) operand(depth int) (node, error) {
	t := p.token
	switch t.kind {
	case tokenAll:
		return node{op: opAll}, p.advance()
	case tokenGlobal:
		return node{op: opGlobal}, p.advance()
	case tokenHas:
		return node{op: opHas, label: t.text}, p.advance()
	case tokenLabel:
		return p.comparison(t.text)
	case tokenOpenParenthesis:
		return p.parenthesis(depth + 1)
	}
	return node{}, p.unexpected("a label, all(), has(...), ! or (")
}

func (p *parser) parenthesis(depth int) (node, error) {
	if depth > MaxDepth {
		return node{}, p.unexpected(fmt.Sprintf("at most %d parentheses within each other", MaxDepth))
	}
	if err := p.advance(); err != nil {
		return node{}, err
	}
	n, err := p.or(depth)
	if err != nil {
		return node{}, err
	}
	if p.token.kind != tokenCloseParenthesis {
		return node{}, p.unexpected("&&, || or )")
	}
	return n, p.advance()
}

// comparison reads the operator and the value behind a label.
func (p *parser) comparison(label string) (node, error) {
	operator, err := p.scanner.operator()
	if err != nil {
		return node{}, err
	}
	if err := p.advance(); err != nil {
		return node{}, err
	}
	n := node{op: operator, label: label}
	if operator == opIn || operator == opNotIn {
		n.values, err = p.set()
		return n, err
	}
	if p.token.kind != tokenString {
		return node{}, p.unexpected("a value in quotes")
	}
	n.values = []string{p.token.text}
	return n, p.advance()
}

// set reads values in braces. It may be empty, and a comma may stand behind the last value.
func (p *parser) set() ([]string, error) {
	if p.token.kind != tokenOpenBrace {
		return nil, p.unexpected("{ and values in quotes")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	var values []string
	for p.token.kind == tokenString {
		values = append(values, p.token.text)
		if err := p.advance(); err != nil {
			return nil, err
		}
		comma, err := p.accept(tokenComma)
		if err != nil {
			return nil, err
		}
		if !comma {
			if p.token.kind != tokenCloseBrace {
				return nil, p.unexpected(", or }")
			}
			break
		}
	}
	if p.token.kind != tokenCloseBrace {
		return nil, p.unexpected("a value in quotes or }")
	}
	slices.Sort(values)
	return slices.Compact(values), p.advance()
}
