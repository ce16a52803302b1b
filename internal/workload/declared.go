package workload

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/model"
)

// declared is what the datastore says, as far as addresses depend on it. It is never changed once made.
type declared struct {
	version  uint64
	fresh    bool // all was heard of the API since the agent started, or there is none
	pools    []ipam.Pool
	labels   map[string]string // of this node
	reserved *netipx.IPSet     // by reservations, and for the sake of kept
	kept     []ipam.Kept       // what machines have in the ranges of pools
	linked   bool              // the node's interfaces are known, so that kept is whole
	blocks   []*model.Block    // of all nodes, sorted by CIDR; there may be thousands, and each change of one makes a new declared

	from *model.Snapshot // of which it was made
	near []ipam.Kept     // and of these interfaces
}

// pending is what became of a block, as long as the API may not have told so yet.
type pending struct {
	fate  fate
	since time.Time
	// unheard says of a block that was given back that the API has not even told of its claim: it may do so yet.
	unheard bool
}

type fate int

const (
	claimed   fate = iota // by this node
	givenBack             // by this node, or it tries to: until the API shows so, the block must not be used
	taken                 // another node has it
)

// refusal is why no block could be claimed from a pool, when the API last said so, and since when it does.
type refusal struct {
	why         string
	last, since time.Time
}

// refusedFor is how long a pool is not asked for a block again after the API refused one: the request goes on with other pools,
// and the next one asks again.
const refusedFor = 200 * time.Millisecond

// forgetAfter is how long a claim, or that another node was faster, is believed where the API does not show it.
const forgetAfter = time.Minute

// forgetUnheard is how long it is borne in mind that a block was given back of whose claim the API has not told. A watch lasts no longer.
const forgetUnheard = 10 * time.Minute

// SetState takes what the datastore says now. It does not wait.
func (m *Manager) SetState(s datastore.State) {
	if s.Snapshot == nil {
		return
	}
	m.news.Lock()
	defer m.news.Unlock()
	m.state = s
	m.declare()
}

// SetLinks takes the interfaces of the node, without those of Sallyport. No address is given out before it was called. It does not wait.
func (m *Manager) SetLinks(links []model.Link) {
	near := []ipam.Kept{} // not nil: they are known
	for i := range links {
		l := &links[i]
		for _, p := range l.Addresses {
			near = append(near, ipam.Kept{CIDR: p.Masked(), Link: l.Name})
		}
	}
	m.news.Lock()
	defer m.news.Unlock()
	if m.near != nil && slices.Equal(near, m.near) {
		return
	}
	m.near = near
	if m.state.Snapshot != nil {
		m.declare()
	}
}

// declare makes what addresses are chosen from. news is held.
func (m *Manager) declare() {
	s := &m.state
	d := &declared{linked: m.near != nil, version: s.Version, fresh: s.Fresh || m.standalone(), blocks: s.Snapshot.Blocks, from: s.Snapshot, near: m.near}
	for _, p := range s.Snapshot.Pools {
		why := ""
		if c := s.Conditions[p.Name]; !c.Allocatable {
			why = c.Message
			if why == "" {
				why = "it is not known yet whether the pool may give out addresses"
			}
		}
		d.pools = append(d.pools, ipam.Pool{Pool: p, Why: why})
	}
	m.mu.Lock()
	was := m.declared
	m.mu.Unlock()
	if was != nil && d.sameButBlocks(was) {
		d.labels, d.kept, d.reserved = was.labels, was.kept, was.reserved
	} else {
		m.reserve(d)
	}
	m.mu.Lock()
	m.declared = d
	m.own(time.Now())
	m.restore()
	m.tell()
	m.notify()
	m.mu.Unlock()
}

// sameButBlocks says whether that what two were made of differs in blocks alone, and in conditions of pools: that is most often.
func (d *declared) sameButBlocks(was *declared) bool {
	return model.Same(was.from.Pools, d.from.Pools) && model.Same(was.from.Nodes, d.from.Nodes) && model.Same(was.from.Reservations, d.from.Reservations) && model.Same(was.near, d.near)
}

// reserve finds the labels of this node, and what is not given out. news is held.
func (m *Manager) reserve(d *declared) {
	for i := range d.from.Nodes {
		if n := &d.from.Nodes[i]; n.Name == m.opts.Node {
			d.labels = n.Labels
		}
	}
	var reserved netipx.IPSetBuilder
	d.kept = ipam.Keep(&reserved, d.pools, m.machines(d.from.Nodes))
	for _, r := range d.from.Reservations {
		for _, c := range r.CIDRs {
			reserved.AddPrefix(c)
		}
	}
	d.reserved, _ = reserved.IPSet() // its prefixes are valid
}

// machines are the ranges of this node's interfaces, and the addresses of all nodes. news is held, also while they are looked through.
func (m *Manager) machines(nodes []model.Node) iter.Seq[ipam.Kept] {
	return func(yield func(ipam.Kept) bool) {
		for _, k := range m.near {
			if !yield(k) {
				return
			}
		}
		for i := range nodes {
			other := nodes[i].Name
			if other == m.opts.Node {
				other = ""
			}
			for _, a := range nodes[i].Addresses {
				if !yield(ipam.Kept{CIDR: netip.PrefixFrom(a, a.BitLen()), Node: other}) {
					return
				}
			}
		}
	}
}

// standalone says whether the node has its pools for itself: blocks are kept by no API.
func (m *Manager) standalone() bool { return m.opts.Claims == nil }

// own makes the blocks of the space those that the node owns. mu is held.
func (m *Manager) own(now time.Time) {
	if m.standalone() {
		return
	}
	mine := m.reconsider(now)
	var owned []ipam.Block
	for _, b := range m.declared.blocks {
		if b.Node != m.opts.Node || b.Terminating {
			continue
		}
		if _, undone := m.pending[b.CIDR]; !undone {
			mine[b.CIDR] = true
			owned = append(owned, ipam.Block{CIDR: b.CIDR, Pool: b.Pool})
		}
	}
	// What goes, goes first: a block that takes the place of another must find what is in use there.
	for _, u := range m.space.Usage(now) {
		if mine[u.CIDR] {
			continue
		}
		m.space.Disown(u.CIDR)
		if b, there := m.declared.block(u.CIDR); u.Used > 0 && (!there || b.Node != m.opts.Node) {
			m.opts.Log.Error("a block with workloads of this node is not this node's any more: no further address of it is given out",
				"block", u.CIDR, "owner", b.Node, "workloads", u.Used)
		}
	}
	for _, b := range owned {
		m.space.Own(b)
	}
}

// reconsider forgets what became of blocks where the API has told of it, or has not for too long. It returns those that this node has
// claimed, and of which the API has not told. mu is held.
func (m *Manager) reconsider(now time.Time) map[netip.Prefix]bool {
	mine := map[netip.Prefix]bool{}
	for cidr, p := range m.pending {
		b, there := m.declared.block(cidr)
		told := there
		if p.fate == givenBack {
			told = !there && (!p.unheard || now.Sub(p.since) > forgetUnheard) || there && b.Node != m.opts.Node
			p.unheard = p.unheard && !there
			m.pending[cidr] = p
		}
		if told || p.fate != givenBack && now.Sub(p.since) > forgetAfter {
			delete(m.pending, cidr)
		} else if p.fate == claimed {
			mine[cidr] = true
		}
	}
	return mine
}

// restore makes a node that is alone own the blocks of the addresses that are in use, and disown those whose pool is gone. mu
// is held.
func (m *Manager) restore() {
	if !m.standalone() || !m.began || m.declared == nil {
		return
	}
	for _, u := range m.space.Usage(time.Now()) {
		if b, ok := m.declared.blockOf(u.CIDR.Addr()); !ok || b != u.Block {
			m.space.Disown(u.CIDR)
		}
	}
	for _, h := range m.held {
		for _, a := range h.Addresses {
			if b, ok := m.declared.blockOf(a); ok {
				m.space.Own(b)
			}
		}
	}
}

// blockOf is the block in which an address is, of the pool that may give it out.
func (d *declared) blockOf(a netip.Addr) (ipam.Block, bool) {
	var of *model.Pool
	for _, p := range d.pools {
		if p.CIDR.Contains(a) && p.AllowedUses&(model.UseWorkload|model.UseTunnel) != 0 && (of == nil || p.Why == "") {
			of = p.Pool
		}
	}
	if of == nil {
		return ipam.Block{}, false
	}
	return ipam.Block{CIDR: netip.PrefixFrom(a, of.BlockSize).Masked(), Pool: of.Name}, true
}

// block is the block of a CIDR.
func (d *declared) block(cidr netip.Prefix) (model.Block, bool) {
	i, there := slices.BinarySearchFunc(d.blocks, cidr, func(b *model.Block, cidr netip.Prefix) int { return b.CIDR.Compare(cidr) })
	if !there {
		return model.Block{}, false
	}
	return *d.blocks[i], true
}

// owners are the blocks of all nodes, each once, with those of which the API has not told yet. mu is held, also while they are
// looked through.
func (m *Manager) owners(now time.Time) iter.Seq2[netip.Prefix, string] {
	return func(yield func(netip.Prefix, string) bool) {
		for _, b := range m.declared.blocks {
			if !yield(b.CIDR, b.Node) {
				return
			}
		}
		for cidr, p := range m.pending {
			owner := m.opts.Node
			if p.fate == taken {
				owner = "" // whose it is, the API has not told yet
			}
			if _, there := m.declared.block(cidr); !there && p.fate != givenBack && !yield(cidr, owner) {
				return
			}
		}
		if !m.standalone() {
			return
		}
		for _, u := range m.space.Usage(now) {
			if !yield(u.CIDR, m.opts.Node) {
				return
			}
		}
	}
}

// cluster is what addresses are chosen from now. mu is held.
func (m *Manager) cluster(now time.Time) *ipam.Cluster {
	d := m.declared
	c := &ipam.Cluster{Pools: d.pools, Reserved: d.reserved, Kept: d.kept, Owners: m.owners(now)}
	if len(m.refused) == 0 {
		return c
	}
	c.Pools = nil
	for _, p := range d.pools {
		if r, ok := m.refused[p.Name]; ok && p.Why == "" {
			if now.Sub(r.last) < refusedFor {
				p.Why = r.why
			}
		}
		c.Pools = append(c.Pools, p)
	}
	return c
}
