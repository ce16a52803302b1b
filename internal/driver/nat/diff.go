package nat

import (
	"slices"

	"golang.org/x/sys/unix"
)

// change is what turns one table into another, in one transaction. Its parts are carried out in the
// order of the fields: what is in the way goes before what comes.
type change struct {
	rebuild     bool         // delete the whole table first
	create      bool         // create the table
	adopt       bool         // become the owner of the table, which an agent that ended has left
	flags       uint32       // of the table, for create and adopt
	emptyChains []string     // delete all rules in these
	emptySets   []string     // delete all elements in these
	remove      []difference // ranges to delete
	dropSets    []string
	dropChains  []string
	newSets     []set // without their ranges
	add         []difference
	newChains   []chain // without their rules
	fill        []chain // append the rules of these

	// drift is the number of tables, chains, rules, sets and ranges that differ.
	drift int
}

// difference is a list of ranges that one set should lose or gain.
type difference struct {
	set      string
	segments []segment
}

// empty says whether there is nothing to do.
func (c *change) empty() bool { return c.drift == 0 }

// diff says how to turn what the kernel holds into what is wanted.
func diff(actual, wanted *table) *change {
	if !actual.present || actual.flags == wanted.flags && actual.foreign == 0 {
		return diffPresent(actual, wanted)
	}
	if actual.flags == flagsOrphan && wanted.flags == flagsOwned && actual.foreign == 0 {
		c := diffPresent(actual, wanted)
		c.adopt = true
		c.drift++
		return c
	}
	// A table that is asleep, owned by others or that holds other kinds of things cannot be mended bit by
	// bit on every kernel.
	c := diffPresent(&table{}, wanted)
	c.rebuild = true
	c.drift = actual.foreign + diffPresent(actual, wanted).drift
	if actual.flags != wanted.flags {
		c.drift++
	}
	return c
}

func diffPresent(actual, wanted *table) *change {
	c := &change{flags: wanted.flags}
	if !actual.present {
		c.create = true
		c.drift++
	}
	c.diffSets(actual, wanted)
	c.diffChains(actual, wanted)
	return c
}

// hooks says whether chains that have a hook come or go.
func (c *change) hooks(actual *table) bool {
	return slices.ContainsFunc(c.newChains, func(n chain) bool { return n.hook != hook{} }) ||
		slices.ContainsFunc(c.dropChains, func(name string) bool { return actual.chain(name).hook != hook{} })
}

// diffSets compares sets by name. A set of the wrong kind is replaced.
func (c *change) diffSets(actual, wanted *table) {
	for i := range actual.sets {
		s := &actual.sets[i]
		if w := wanted.set(s.name); w == nil || w.spec != s.spec {
			if s.spec.flags&unix.NFT_SET_ANONYMOUS != 0 {
				continue // it goes with its rule, which is not ours either
			}
			c.dropSets = append(c.dropSets, s.name)
			c.drift++
		}
	}
	for i := range wanted.sets {
		w := &wanted.sets[i]
		s := actual.set(w.name)
		if s == nil || s.spec != w.spec {
			c.newSets = append(c.newSets, *w)
			c.drift++
			s = &set{}
		} else if s.malformed {
			c.emptySets = append(c.emptySets, s.name)
			c.drift++
		}
		remove, add := diffSegments(s.segments, w.segments)
		c.drift += max(len(remove), len(add))
		if len(remove) > 0 {
			c.remove = append(c.remove, difference{set: w.name, segments: remove})
		}
		if len(add) > 0 {
			c.add = append(c.add, difference{set: w.name, segments: add})
		}
	}
}

// diffChains compares chains by name, and their rules. A chain with the wrong hook is replaced. Where
// chains or sets come or go, every chain is filled anew, since what rules refer to must be in place
// first, and what nothing refers to can go.
func (c *change) diffChains(actual, wanted *table) {
	for i := range actual.chains {
		a := &actual.chains[i]
		if w := wanted.chain(a.name); w == nil || !w.sameKind(a) {
			if a.flags&chainFlagBinding != 0 {
				continue // as an anonymous set
			}
			c.emptyChains = append(c.emptyChains, a.name)
			c.dropChains = append(c.dropChains, a.name)
			c.drift += 1 + len(a.rules)
		}
	}
	for i := range wanted.chains {
		w := &wanted.chains[i]
		if a := actual.chain(w.name); a == nil || !w.sameKind(a) {
			c.newChains = append(c.newChains, *w)
			c.drift++
		}
	}
	refill := len(c.dropChains)+len(c.newChains)+len(c.dropSets)+len(c.newSets) > 0
	for i := range wanted.chains {
		w := &wanted.chains[i]
		a := actual.chain(w.name)
		kept := a != nil && w.sameKind(a)
		var rules []rule
		if kept {
			rules = a.rules
		}
		n := diffRules(rules, w.rules)
		c.drift += n
		if n == 0 && !refill {
			continue
		}
		if kept {
			c.emptyChains = append(c.emptyChains, w.name)
		}
		c.fill = append(c.fill, *w)
	}
}

func (c *chain) sameKind(d *chain) bool { return c.hook == d.hook && c.flags == d.flags }

// diffRules counts the rules that differ.
func diffRules(a, b []rule) int {
	a, b = unlike(a, b)
	return max(len(a), len(b))
}

// unlike are the rules that differ: those between the common beginning and the common end.
func unlike(a, b []rule) (_, _ []rule) {
	for len(a) > 0 && len(b) > 0 && a[0].form == b[0].form {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1].form == b[len(b)-1].form {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

// pair walks through two sorted lists of ranges. It calls visit with two ranges where both lists have
// the same one for the same pool, and with a range and nil where only one of them has it.
func pair(actual, wanted []segment, visit func(actual, wanted *segment)) {
	for i, j := 0, 0; i < len(actual) || j < len(wanted); {
		switch {
		case j == len(wanted):
			visit(&actual[i], nil)
			i++
		case i == len(actual):
			visit(nil, &wanted[j])
			j++
		case actual[i].sameRange(wanted[j]) && (actual[i].pool == wanted[j].pool || actual[i].pool == ""):
			visit(&actual[i], &wanted[j])
			i, j = i+1, j+1
		case actual[i].first.Compare(wanted[j].first) <= 0:
			visit(&actual[i], nil)
			i++
		default:
			visit(nil, &wanted[j])
			j++
		}
	}
}

// diffSegments compares ranges. One that passes to another pool is replaced, so that its counter begins
// anew; one whose pool is not known, since an earlier agent left it, is kept.
func diffSegments(actual, wanted []segment) (remove, add []segment) {
	pair(actual, wanted, func(a, w *segment) {
		switch {
		case w == nil:
			remove = append(remove, *a)
		case a == nil:
			add = append(add, *w)
		}
	})
	return remove, add
}
