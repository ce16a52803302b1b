package ipam

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

// CoolDown is how long an address stays unused after it was given back, where others are free.
const CoolDown = time.Minute

// Random gives random numbers, of its own for each node.
type Random func() uint64

// Space is the addresses of one node. It is for one goroutine at a time.
type Space struct {
	rnd       Random
	blocks    map[netip.Prefix]*block
	outside   map[netip.Addr]string // in use, in no block of this node
	shortened uint64
}

// NewSpace is a space without blocks.
func NewSpace(rnd Random) *Space {
	return &Space{rnd: rnd, blocks: map[netip.Prefix]*block{}, outside: map[netip.Addr]string{}}
}

// Own adds a block that the node owns. It has no effect if the node has it already.
func (s *Space) Own(b Block) {
	if s.blocks[b.CIDR] != nil {
		return
	}
	n := &block{Block: b, used: map[netip.Addr]string{}}
	for a, by := range s.outside {
		if b.CIDR.Contains(a) {
			n.used[a] = by
			delete(s.outside, a)
		}
	}
	s.blocks[b.CIDR] = n
}

// Disown removes a block. Workloads that have addresses of it keep them, and no workload gets another one.
func (s *Space) Disown(cidr netip.Prefix) {
	b := s.blocks[cidr]
	if b == nil {
		return
	}
	maps.Copy(s.outside, b.used)
	delete(s.blocks, cidr)
}

// holding is the block that holds an address, or nil. A node has some ten blocks.
func (s *Space) holding(a netip.Addr) *block {
	for _, b := range s.blocks {
		if b.CIDR.Contains(a) {
			return b
		}
	}
	return nil
}

// Use notes that a workload has an address, as the kernel says. It returns the other workload that has the same, or "":
// the first one stays noted.
func (s *Space) Use(a netip.Addr, workload string) (other string) {
	if by := s.User(a); by != "" && by != workload {
		return by
	}
	if b := s.holding(a); b != nil {
		b.take(a, workload)
	} else {
		s.outside[a] = workload
	}
	return ""
}

// Release gives an address back that a workload has, which cools down from then on.
func (s *Space) Release(a netip.Addr, workload, pod string, now time.Time) {
	b := s.holding(a)
	if b == nil {
		if s.outside[a] == workload {
			delete(s.outside, a)
		}
		return
	}
	if b.used[a] != workload {
		return
	}
	delete(b.used, a)
	b.cooling = append(b.cooling, cooled{a, now, pod})
}

// Free says whether an address is in a block of this node, and nothing has it.
func (s *Space) Free(a netip.Addr) bool {
	b := s.holding(a)
	return b != nil && b.used[a] == ""
}

// User is the workload that has an address, or "".
func (s *Space) User(a netip.Addr) string {
	if b := s.holding(a); b != nil {
		return b.used[a]
	}
	return s.outside[a]
}

// UsedIn says whether an address of a block is in use, be it this node's or not.
func (s *Space) UsedIn(cidr netip.Prefix) bool {
	if b := s.blocks[cidr]; b != nil {
		return len(b.used) > 0
	}
	for a := range s.outside {
		if cidr.Contains(a) {
			return true
		}
	}
	return false
}

// Usage is how many addresses of a block are in use, and cool down.
type Usage struct {
	Block
	Used, Cooling int
}

// Size is how many addresses the block has in all; at most 2^20.
func (u Usage) Size() uint64 { return size(u.CIDR) }

// Usage is that of every block, sorted.
func (s *Space) Usage(now time.Time) []Usage {
	var out []Usage
	for _, b := range s.blocks {
		b.warm(now)
		out = append(out, Usage{b.Block, len(b.used), len(b.cooling)})
	}
	slices.SortFunc(out, func(a, b Usage) int { return a.CIDR.Compare(b.CIDR) })
	return out
}

// Shortened counts the addresses that were given out before they had cooled down.
func (s *Space) Shortened() uint64 { return s.shortened }

// warm forgets what has cooled down.
func (b *block) warm(now time.Time) {
	b.cooling = slices.DeleteFunc(b.cooling, func(c cooled) bool { return now.Sub(c.at) >= CoolDown })
}

// Request asks for an address of each family that it names, or for those very Addresses: all are given or none.
type Request struct {
	Workload string // the name of what gets the addresses; each has one
	Pod      string // whose it is: an address of its own need not cool down
	Wish     Wish
	V4, V6   bool
	// Addresses are wanted, and no others: at most one of each family.
	Addresses []netip.Addr
}

// Cluster is what is declared, and who owns which block.
type Cluster struct {
	Pools    []Pool
	Owners   iter.Seq2[netip.Prefix, string] // each block of all nodes, and its node; empty: it is not known
	Reserved *netipx.IPSet                   // never given out
	Kept     []Kept                          // why much of Reserved is, for messages
}

// Answer is addresses, or a block that must be claimed first.
type Answer struct {
	Addresses []netip.Addr // the families in the order v4, v6
	// Claim is a block that no node owns, and without which the request cannot be served. Once the node owns it, the same
	// request finds an address in it. Its CIDR is not valid where Addresses are given.
	Claim Block
}

// Assign serves a request. The addresses are in use from then on. The error is a *ExhaustedError or a *UnavailableError.
func (s *Space) Assign(now time.Time, r *Request, c *Cluster) (Answer, error) {
	for _, b := range s.blocks {
		b.warm(now)
	}
	var found []pick
	for _, v6 := range []bool{false, true} {
		if wanted := r.V4 && !v6 || r.V6 && v6; len(r.Addresses) == 0 && wanted {
			p, err := s.find(v6, r, c)
			if err != nil || p.claim.CIDR.IsValid() {
				return Answer{Claim: p.claim}, err
			}
			found = append(found, p)
		}
	}
	for _, a := range slices.SortedFunc(slices.Values(r.Addresses), netip.Addr.Compare) {
		p, err := s.findVery(a, r, c)
		if err != nil || p.claim.CIDR.IsValid() {
			return Answer{Claim: p.claim}, err
		}
		found = append(found, p)
	}
	var out Answer
	for _, p := range found {
		p.from.take(p.addr, r.Workload)
		if p.early {
			s.shortened++
		}
		if len(r.Addresses) == 0 {
			p.from.last = p.addr
		}
		out.Addresses = append(out.Addresses, p.addr)
	}
	return out, nil
}

// pick is an address in a block of this node, or a block to be claimed.
type pick struct {
	addr  netip.Addr
	from  *block
	early bool // it has not cooled down
	claim Block
}

// find looks for any address of a family. Of the pools that come first it takes a free one, or a block that no node owns, and
// goes on to others where they have neither; then it takes what has cooled down for longest.
func (s *Space) find(v6 bool, r *Request, c *Cluster) (pick, error) {
	pools, refused := Choose(c.Pools, v6, &r.Wish)
	var owned *netipx.IPSet
	for rest := pools; len(rest) > 0; {
		var first []*model.Pool
		first, rest = r.Wish.split(rest)
		if out, ok := s.free(first, c.Reserved); ok {
			return out, nil
		}
		if owned == nil {
			owned = c.owned()
		}
		for _, p := range first {
			if cidr, ok := freeBlock(p, owned, c.Reserved, s.rnd); ok {
				return pick{claim: Block{cidr, p.Name}}, nil
			}
		}
	}
	var oldest pick
	var since time.Time
	for _, p := range pools {
		for _, b := range s.of(p) {
			if old, ok := b.oldest(c.Reserved); ok && (oldest.from == nil || old.at.Before(since)) {
				oldest, since = pick{addr: old.addr, from: b, early: true}, old.at
			}
		}
		refused = append(refused, Refusal{p.Name, s.full(p, c)})
	}
	if oldest.from != nil {
		return oldest, nil
	}
	return pick{}, &ExhaustedError{V6: v6, Tried: refused}
}

// free is a free address in this node's blocks of some pools.
func (s *Space) free(pools []*model.Pool, reserved *netipx.IPSet) (pick, bool) {
	for _, p := range pools {
		for _, b := range s.of(p) {
			if !b.last.IsValid() {
				b.last = b.first(s.rnd)
			}
			if a, ok := b.free(reserved); ok {
				return pick{addr: a, from: b}, true
			}
		}
	}
	return pick{}, false
}

// of is the node's blocks of a pool, in order.
func (s *Space) of(p *model.Pool) []*block {
	var out []*block
	for _, b := range s.blocks {
		if b.Pool == p.Name && p.CIDR.Contains(b.CIDR.Addr()) && b.CIDR.Bits() >= p.CIDR.Bits() {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *block) int { return a.CIDR.Compare(b.CIDR) })
	return out
}

// full says why a pool that may serve has no address.
func (s *Space) full(p *model.Pool, c *Cluster) string {
	mine, others := len(s.of(p)), 0
	for cidr := range c.Owners {
		if p.CIDR.Contains(cidr.Addr()) {
			others++
		}
	}
	others = max(others-mine, 0)
	why := fmt.Sprintf("all addresses of this node's blocks (%d) are in use or reserved, and no block is free (other nodes own %d)", mine, others)
	if i := slices.IndexFunc(c.Kept, func(k Kept) bool { return k.CIDR.Overlaps(p.CIDR) }); i >= 0 {
		why += fmt.Sprintf("; its range overlaps %s, and what machines have is not given out: give the pool another range", c.Kept[i])
	}
	return why
}

// owned is what is in some block.
func (c *Cluster) owned() *netipx.IPSet {
	var b netipx.IPSetBuilder
	for cidr := range c.Owners {
		b.AddPrefix(cidr)
	}
	set, err := b.IPSet()
	if err != nil {
		return &netipx.IPSet{} // no prefix here is invalid
	}
	return set
}

// findVery looks for one very address.
func (s *Space) findVery(a netip.Addr, r *Request, c *Cluster) (pick, error) {
	refuse := func(why string) error { return &UnavailableError{Addr: a, Why: why} }
	w := r.Wish
	w.Named = true
	pools, refused := Choose(c.Pools, a.Is6(), &w)
	i := slices.IndexFunc(pools, func(p *model.Pool) bool { return p.CIDR.Contains(a) })
	if i < 0 {
		for _, f := range refused {
			if j := slices.IndexFunc(c.Pools, func(p Pool) bool { return p.Name == f.Pool }); j >= 0 && c.Pools[j].CIDR.Contains(a) {
				return pick{}, refuse(f.String())
			}
		}
		return pick{}, refuse("no pool holds it")
	}
	p := pools[i]
	if i := slices.IndexFunc(c.Kept, func(k Kept) bool { return k.around(p.BlockSize).Contains(a) }); i >= 0 {
		return pick{}, refuse(fmt.Sprintf("its block overlaps %s", c.Kept[i]))
	}
	if c.Reserved.Contains(a) {
		return pick{}, refuse("an IPReservation holds it")
	}
	if by := s.User(a); by != "" {
		return pick{}, refuse("workload " + by + " has it")
	}
	if b := s.holding(a); b != nil && b.Pool == p.Name {
		if at := b.cools(a); at >= 0 {
			return pick{addr: a, from: b, early: b.cooling[at].pod != r.Pod}, nil
		}
		return pick{addr: a, from: b}, nil
	}
	cidr := netip.PrefixFrom(a, p.BlockSize).Masked()
	for other, node := range c.Owners {
		if other.Overlaps(cidr) {
			return pick{}, refuse(fmt.Sprintf("block %s belongs to node %s", other, cmp.Or(node, "(unknown)")))
		}
	}
	return pick{claim: Block{cidr, p.Name}}, nil
}

// Spare is the blocks that go back: those in which nothing is in use and nothing cools down, but for one of each family,
// the first, if its pool still serves. Keeps says whether a pool does.
func (s *Space) Spare(now time.Time, serves func(pool string) bool) []Block {
	var out []Block
	kept := map[bool]bool{}
	for _, u := range s.Usage(now) {
		v6 := u.CIDR.Addr().Is6()
		switch {
		case u.Used > 0:
			kept[v6] = kept[v6] || serves(u.Pool)
		case u.Cooling > 0:
		default:
			out = append(out, u.Block)
		}
	}
	return slices.DeleteFunc(out, func(b Block) bool {
		v6 := b.CIDR.Addr().Is6()
		if kept[v6] || !serves(b.Pool) {
			return false
		}
		kept[v6] = true
		return true
	})
}
