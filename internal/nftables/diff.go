package nftables

import (
	"bytes"
	"slices"
)

// change is what turns one table into another, in one transaction. Its parts are carried out in the
// order of the fields: what is in the way goes before what comes, what something refers to comes before it, and
// chains that packets come to come last.
type change struct {
	rebuild     bool         // delete the whole table first
	create      bool         // create the table
	adopt       bool         // become the owner of the table, which an agent that ended has left
	flags       uint32       // of the table, for create and adopt
	emptyChains []string     // delete all rules in these
	emptySets   []string     // delete all elements in these
	remove      []difference // elements to delete
	dropSets    []string
	dropChains  []string
	newChains   []Chain // that have no hook, without their rules
	newSets     []*Set  // without their elements
	add         []difference
	newHooks    []Chain // chains that have a hook, without their rules
	fill        []Chain // append the rules of these

	// drift is the number of tables, chains, rules, sets and elements that differ.
	drift int
}

// difference are the elements, by index, that one set should lose or gain.
type difference struct {
	set *Set // as it is, or as it should be
	at  []int32
}

// empty says whether there is nothing to do.
func (c *change) empty() bool { return c.drift == 0 }

// diff says how to turn what the kernel holds into what is wanted.
func diff(actual, wanted *Table) *change {
	if !actual.present || actual.flags == wanted.flags && actual.foreign == 0 {
		return diffPresent(actual, wanted)
	}
	if actual.flags == flagsOrphan && wanted.flags == flagsOwned && actual.foreign == 0 {
		c := diffPresent(actual, wanted)
		c.adopt = true
		c.drift++
		return c
	}
	// A table that is asleep, owned by others or that holds other kinds of things cannot be repaired bit by
	// bit on every kernel.
	c := diffPresent(&Table{}, wanted)
	c.rebuild = true
	c.drift = actual.foreign + diffPresent(actual, wanted).drift
	if actual.flags != wanted.flags {
		c.drift++
	}
	return c
}

func diffPresent(actual, wanted *Table) *change {
	c := &change{flags: wanted.flags}
	if !actual.present {
		c.create = true
		c.drift++
	}
	c.dropUnwanted(actual, wanted)
	for i := range wanted.Sets {
		c.diffSet(actual.Set(wanted.Sets[i].Name), &wanted.Sets[i])
	}
	for i := range wanted.Chains {
		c.diffChain(actual.Chain(wanted.Chains[i].Name), &wanted.Chains[i])
	}
	return c
}

// hooks says whether chains that have a hook come or go.
func (c *change) hooks(actual *Table) bool {
	return len(c.newHooks) > 0 ||
		slices.ContainsFunc(c.dropChains, func(name string) bool { return actual.Chain(name).Hook != Hook{} })
}

// dropUnwanted drops the sets and chains that are not wanted, or are of another kind.
func (c *change) dropUnwanted(actual, wanted *Table) {
	for i := range actual.Sets {
		s := &actual.Sets[i]
		if w := wanted.Set(s.Name); w != nil && w.SameKind(s) || s.anonymous {
			continue // an anonymous one goes with its rule, which is not ours either
		}
		if s.Data == Verdicts {
			// Kernels before Linux 6.4 let the chains that it goes to not be deleted in the transaction in which the
			// map is (commit 628bd3e49cba).
			c.emptySets = append(c.emptySets, s.Name)
		}
		c.dropSets = append(c.dropSets, s.Name)
		c.drift++
	}
	for i := range actual.Chains {
		a := &actual.Chains[i]
		if w := wanted.Chain(a.Name); w != nil && w.sameKind(a) || a.flags&chainFlagBinding != 0 {
			continue // as an anonymous set
		}
		c.emptyChains = append(c.emptyChains, a.Name)
		c.dropChains = append(c.dropChains, a.Name)
		c.drift += 1 + len(a.Rules)
	}
}

// dropped says whether a chain or set that is referred to by name goes, if perhaps in favour of another.
func (c *change) dropped(r Rule) bool {
	return slices.ContainsFunc(c.dropSets, r.refersTo) || slices.ContainsFunc(c.dropChains, r.refersTo)
}

// diffSet compares a set with what is wanted. It may be missing.
func (c *change) diffSet(s, w *Set) {
	switch {
	case s == nil || !s.SameKind(w):
		c.newSets = append(c.newSets, w)
		c.drift++
		s = &Set{Key: w.Key, Ranges: w.Ranges, Data: w.Data}
	case s.malformed:
		c.emptySets = append(c.emptySets, s.Name)
		c.drift++
	}
	remove, add := c.diffElements(s, w)
	c.drift += max(len(remove), len(add))
	if len(remove) > 0 {
		c.remove = append(c.remove, difference{s, remove})
	}
	if len(add) > 0 {
		c.add = append(c.add, difference{w, add})
	}
}

// diffChain compares a chain, and its rules, with what is wanted. It may be missing. A chain is filled again where
// a rule differs, or refers to what is replaced.
func (c *change) diffChain(a, w *Chain) {
	kept := a != nil && w.sameKind(a)
	var rules []Rule
	switch {
	case kept:
		rules = a.Rules
	case w.Hook == Hook{}:
		c.newChains = append(c.newChains, *w)
		c.drift++
	default:
		c.newHooks = append(c.newHooks, *w)
		c.drift++
	}
	n := diffRules(rules, w.Rules)
	c.drift += n
	if n == 0 && !slices.ContainsFunc(w.Rules, c.dropped) {
		return
	}
	if kept {
		c.emptyChains = append(c.emptyChains, w.Name)
	}
	c.fill = append(c.fill, *w)
}

// diffRules counts the rules that differ.
func diffRules(a, b []Rule) int {
	a, b = unlike(a, b)
	return max(len(a), len(b))
}

// unlike are the rules that differ: those between the common beginning and the common end.
func unlike(a, b []Rule) (_, _ []Rule) {
	for len(a) > 0 && len(b) > 0 && a[0].equal(b[0]) {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1].equal(b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

// pair walks through the elements of two sets of one kind, in the order of their keys. It calls visit with the indices
// of two that are equal, and have one label or the first has none; and with an index and -1 for one that only one set
// has.
func pair(actual, wanted *Set, visit func(actual, wanted int)) {
	for i, j := 0, 0; i < actual.n || j < wanted.n; {
		order := 0
		switch {
		case j == wanted.n:
			order = -1
		case i == actual.n:
			order = 1
		default:
			order = bytes.Compare(actual.row(i), wanted.row(j))
		}
		switch {
		case order == 0 && same(actual, i, wanted, j) && (actual.label(i) == wanted.label(j) || actual.label(i) == ""):
			visit(i, j)
			i, j = i+1, j+1
		case order <= 0:
			visit(i, -1)
			i++
		default:
			visit(-1, j)
			j++
		}
	}
}

// diffElements compares the elements of two sets of one kind. One that passes to another label is replaced, so that
// its counter begins again at zero; one whose label is not known, since an earlier agent left it, is kept. An element
// that goes to a chain which is replaced is replaced as well.
func (c *change) diffElements(actual, wanted *Set) (remove, add []int32) {
	if actual.n == wanted.n && actual.n > 0 && &actual.rows[0] == &wanted.rows[0] && actual.Data != Verdicts && sameLabels(actual, wanted) {
		return nil, nil
	}
	pair(actual, wanted, func(a, w int) {
		if a >= 0 && (w < 0 || slices.Contains(c.dropChains, actual.verdict(a).chain)) {
			remove = append(remove, int32(a))
		}
		if w >= 0 && (a < 0 || slices.Contains(c.dropChains, wanted.verdict(w).chain)) {
			add = append(add, int32(w))
		}
	})
	return remove, add
}

// sameLabels says whether two sets of as many elements share their labels.
func sameLabels(a, b *Set) bool {
	return len(a.labels) == len(b.labels) && (len(a.labels) == 0 || &a.labels[0] == &b.labels[0])
}
