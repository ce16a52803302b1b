package diagnose

import (
	"cmp"
	"slices"
)

// Kind is a kind of problem. docs/troubleshooting.md has a section on each.
type Kind string

// The kinds.
const (
	ConntrackFull              Kind = "ConntrackFull"
	InsertFailures             Kind = "InsertFailures"
	PortsUsedUp                Kind = "PortsUsedUp"
	ForwardingOff              Kind = "ForwardingOff"
	AddressMissing             Kind = "AddressMissing"
	PoolOverlapsSubnet         Kind = "PoolOverlapsSubnet"
	PoolOverlapsServices       Kind = "PoolOverlapsServices"
	ForeignTranslation         Kind = "ForeignTranslation"
	PossibleForeignTranslation Kind = "PossibleForeignTranslation"
	NotExamined                Kind = "NotExamined"
)

// Kinds lists every kind, the worst first: what drops packets, then what sends wrong ones, then what may.
func Kinds() []Kind {
	return []Kind{ForwardingOff, AddressMissing, ConntrackFull, PortsUsedUp, InsertFailures, ForeignTranslation, PoolOverlapsSubnet, PoolOverlapsServices,
		PossibleForeignTranslation, NotExamined}
}

// Problem is one thing that stands in the way of the plan.
type Problem struct {
	Kind Kind `json:"kind"`
	// Object is what the problem is with, such as "IPPool pods" or "interface eth0", and Field the part of
	// it, such as spec.addresses, or "".
	Object string `json:"object"`
	Field  string `json:"field,omitempty"`
	// What is wrong, and the Remedy, each one or two sentences without the full stop at the end.
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// String says in one line what is wrong.
func (p Problem) String() string {
	s := p.Object
	if p.Field != "" {
		s += ", " + p.Field
	}
	return s + ": " + p.What
}

// maxPerKind bounds the problems of one kind that are listed; all are counted.
const maxPerKind = 50

// Report is what was found at one moment.
type Report struct {
	// Problems, the worst first; at most 50 of a kind.
	Problems []Problem
	// Counts has every kind that there is, also those of which nothing was found.
	Counts map[Kind]int
}

// report sorts and bounds what was found.
func report(found []Problem) Report {
	r := Report{Problems: make([]Problem, 0, len(found)), Counts: map[Kind]int{}}
	order := map[Kind]int{}
	for i, k := range Kinds() {
		order[k], r.Counts[k] = i, 0
	}
	slices.SortStableFunc(found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(order[a.Kind], order[b.Kind]), cmp.Compare(a.Object, b.Object), cmp.Compare(a.What, b.What))
	})
	for _, p := range found {
		if r.Counts[p.Kind]++; r.Counts[p.Kind] <= maxPerKind {
			r.Problems = append(r.Problems, p)
		}
	}
	return r
}
