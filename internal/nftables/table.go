package nftables

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Table is what a table of ours should hold, or what was read of one. Once it is handed
// to an Engine it must not be changed.
type Table struct {
	Chains []Chain
	Sets   []Set

	places map[string]int // of chains that were in the table when it was cloned; see Chain
	kernelTable
}

// kernelTable is what only a table in the kernel has.
type kernelTable struct {
	present bool
	flags   uint32 // NFT_TABLE_F_… of linux/netfilter/nf_tables.h
	owner   uint32 // port id of the socket that owns it, as read; 0 if none does
	ours    bool   // this engine owned it when it was read, so that nobody else could change it
	foreign int    // stateful objects and flow tables: kinds of things that we never make
}

// Chain is a chain with its rules in order. Rules may go to chains before and after their own.
type Chain struct {
	Name  string
	Hook  Hook // the zero value for a chain that only rules and verdict maps go to
	Rules []Rule
	// Tally makes the engine follow what the counters in the rules count (Engine.Tallies).
	Tally bool

	flags uint32 // NFT_CHAIN_…, of which NFT_CHAIN_BASE is left out
}

// Hook is where a base chain is called from.
type Hook struct {
	Kind     string // KindNAT or KindFilter
	Number   uint32 // unix.NF_INET_…, or unix.NF_NETDEV_…
	Priority int32
	// Drop makes the chain drop what comes to its end, instead of letting it pass. The kernel calls a new chain a
	// moment before its rules are in force.
	Drop bool
	// Device is the name of the device whose packets the chain sees; for tables of family netdev alone. The chain goes
	// when the device does; kernels from 6.16 on keep it, without device.
	Device string
}

// The kinds of base chains.
const (
	KindNAT    = "nat"
	KindFilter = "filter"
)

// Set is a set, or a map if it has data. Its elements are added by Add and AddRange.
type Set struct {
	Name string
	// Key is the type of the keys; several types are a concatenation.
	Key []Type
	// Ranges says that elements are ranges of keys. In a concatenation, each field is a range of its own.
	Ranges bool
	// Data is the type of the data; Verdicts makes a verdict map, and 0 a set.
	Data Type
	// Counters says that each element counts the packets that find it (Engine.Counts).
	Counters bool
	// Labels says what the labels of elements are, in messages, such as "pool".
	Labels string

	elements
	kernelSet
}

// kernelSet is what only a set in the kernel has.
type kernelSet struct {
	strange   bool     // it has properties that no set of ours has
	anonymous bool     // it lives and dies with a rule
	malformed bool     // its elements are none that we could have made; they were left out
	counts    []uint64 // what the elements have counted, as last read; nil for nothing
}

// Chain finds a chain by name; nil if there is none.
func (t *Table) Chain(name string) *Chain {
	if i, ok := t.places[name]; ok && i < len(t.Chains) && t.Chains[i].Name == name {
		return &t.Chains[i]
	}
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// Set finds a set by name; nil if there is none.
func (t *Table) Set(name string) *Set {
	for i := range t.Sets {
		if t.Sets[i].Name == name {
			return &t.Sets[i]
		}
	}
	return nil
}

// SameKind says whether a set can become another by a change of its elements.
func (s *Set) SameKind(o *Set) bool {
	return !s.strange && !o.strange && slices.Equal(s.Key, o.Key) && s.Ranges == o.Ranges && s.Data == o.Data && s.Counters == o.Counters
}

// sameKind says whether a chain can become another by a change of its rules.
func (c *Chain) sameKind(d *Chain) bool { return c.Hook == d.Hook && c.flags == d.flags }

// size counts the elements of all sets.
func (t *Table) size() int {
	n := 0
	for i := range t.Sets {
		n += t.Sets[i].Len()
	}
	return n
}

// manyChains is how many chains a table has that is not searched for each.
const manyChains = 20

// clone copies a table, but for the rules and elements, which nobody changes.
func (t *Table) clone() *Table {
	c := &Table{Chains: slices.Clone(t.Chains), Sets: slices.Clone(t.Sets), kernelTable: kernelTable{present: true}}
	if len(c.Chains) >= manyChains {
		c.places = make(map[string]int, len(c.Chains))
		for i := len(c.Chains) - 1; i >= 0; i-- {
			c.places[c.Chains[i].Name] = i // the first of two with one name
		}
	}
	return c
}

// check refuses what the kernel would refuse, or take for something else.
func (t *Table) check() error {
	var all []error
	for i := range t.Chains {
		c := &t.Chains[i]
		if t.Chain(c.Name) != c {
			all = append(all, fmt.Errorf("chain %q is there twice", c.Name))
		}
		for j := range c.Rules {
			if err := c.Rules[j].err; err != nil {
				all = append(all, fmt.Errorf("rule %d of chain %s: %w", j+1, c.Name, err))
			}
		}
	}
	for i := range t.Sets {
		s := &t.Sets[i]
		if t.Set(s.Name) != s {
			all = append(all, fmt.Errorf("set %q is there twice", s.Name))
		}
		if err := s.check(); err != nil {
			all = append(all, fmt.Errorf("set %s: %w", s.Name, err))
		}
	}
	return errors.Join(all...)
}

// concat says whether the keys are concatenations.
func (s *Set) concat() bool { return len(s.Key) > 1 }

// halves says whether the kernel holds a range as two elements, its first key and the one after its last
// (net/netfilter/nft_set_rbtree.c). Ranges of concatenations are one (net/netfilter/nft_set_pipapo.c).
func (s *Set) halves() bool { return s.Ranges && !s.concat() }

// What linux/netfilter/nf_tables.h has and golang.org/x/sys/unix has not.
const (
	setFlagConcat = 1 << 7 // NFT_SET_CONCAT
	dataVerdict   = 0xffffff00
	verdictLen    = 16 // of struct nft_verdict, which the kernel reports as the length of data
)

// flags are the flags of the set in the kernel.
func (s *Set) flags() uint32 {
	var flags uint32
	if s.Ranges {
		flags |= unix.NFT_SET_INTERVAL
		if s.concat() {
			flags |= setFlagConcat
		}
	}
	if s.Data != 0 {
		flags |= unix.NFT_SET_MAP
	}
	return flags
}
