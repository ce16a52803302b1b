package nat

import (
	"cmp"
	"net/netip"
	"slices"
)

// table is what our table holds or should hold.
type table struct {
	present bool
	flags   uint32 // NFT_TABLE_F_… of linux/netfilter/nf_tables.h
	owner   uint32 // port id of the socket that owns it, as read; 0 if none does
	ours    bool   // this driver owned it when it was read, so that nobody else could change it
	foreign int    // stateful objects and flow tables: kinds of things that we never make
	chains  []chain
	sets    []set
}

// chain is a chain with its rules in order.
type chain struct {
	name  string
	flags uint32 // NFT_CHAIN_…, of which NFT_CHAIN_BASE is left out
	hook  hook   // the zero value for a chain that is only jumped to
	rules []rule
}

// hook is where a base chain is called from.
type hook struct {
	kind     string // "nat"
	number   uint32 // unix.NF_INET_…
	priority int32
	policy   uint32 // a verdict
}

// rule is one rule. Two rules are equal if their forms are.
type rule struct {
	form string
	wire []byte // the list of expressions as it is sent; nil in a rule that was read
	// feature names what the kernel must have for the rule, beyond what every nf_tables has; "" if nothing.
	feature string
}

// set is an interval set of addresses.
type set struct {
	name string
	spec setSpec
	// segments are the ranges that the set holds, sorted and disjoint.
	segments []segment
	// malformed says that what was read is not a list of ranges. Then segments is empty.
	malformed bool
}

// setSpec is what cannot be changed about a set once it is made.
type setSpec struct {
	keyType uint32 // of userspace; the kernel keeps it for nft
	keyLen  uint32 // bytes
	flags   uint32 // NFT_SET_…
	size    uint32 // most elements; 0 for no bound
	expr    string // the name of the expression that each element carries, or ""
}

// segment is a range of addresses in a set.
type segment struct {
	first, last netip.Addr
	pool        string // whose connections its counter counts; "" if none or not known
	count       uint64 // connections counted, as last read
}

func (s segment) sameRange(t segment) bool { return s.first == t.first && s.last == t.last }

// String renders the range as nft does, more or less: "10.0.0.0-10.0.0.255".
func (s segment) String() string {
	if s.first == s.last {
		return s.first.String()
	}
	return s.first.String() + "-" + s.last.String()
}

// chain finds a chain by name.
func (t *table) chain(name string) *chain {
	for i := range t.chains {
		if t.chains[i].name == name {
			return &t.chains[i]
		}
	}
	return nil
}

// set finds a set by name.
func (t *table) set(name string) *set {
	for i := range t.sets {
		if t.sets[i].name == name {
			return &t.sets[i]
		}
	}
	return nil
}

// elements counts the ranges in all sets.
func (t *table) elements() int {
	n := 0
	for i := range t.sets {
		n += len(t.sets[i].segments)
	}
	return n
}

// element is one element of an interval set, as the kernel has it: the first address of a range, or
// the one after its last. A range that ends with the family's last address has no end.
type element struct {
	key   netip.Addr
	end   bool
	any   bool // the element that matches what no other does ("*"); it has no key
	count uint64
}

// segmentsOf pairs elements, in any order, to sorted ranges. It reports false if they do not pair, or
// if there are others than ranges among them.
func segmentsOf(elements []element) ([]segment, bool) {
	// At one address, the end of a range comes before the start of the next.
	slices.SortFunc(elements, func(a, b element) int {
		if c := a.key.Compare(b.key); c != 0 {
			return c
		}
		return cmp.Compare(endRank(a), endRank(b))
	})
	if len(elements) > 0 && elements[0].end && elements[0].key.IsUnspecified() {
		// The nft command puts an end at address zero into each set that it adds to. It matches nothing.
		elements = elements[1:]
	}
	segments := make([]segment, 0, len(elements)/2)
	for i := 0; i < len(elements); i++ {
		e := elements[i]
		if e.any || e.end {
			return nil, false
		}
		s := segment{first: e.key, last: lastOf(e.key), count: e.count}
		if i+1 < len(elements) {
			end := elements[i+1]
			if !end.end || end.key == e.key {
				return nil, false
			}
			s.last = end.key.Prev()
			i++
		}
		segments = append(segments, s)
	}
	return segments, true
}

func endRank(e element) int {
	if e.end {
		return 0
	}
	return 1
}

// lastOf is the last address of a's family.
func lastOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	b := [16]byte{}
	for i := range b {
		b[i] = 255
	}
	return netip.AddrFrom16(b)
}
