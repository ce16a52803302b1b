package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/internal/model"
)

// between decides how this node reaches the blocks of others.
type between struct {
	*ground
	blocks blocks
	said   []said    // as ground.nodes
	peers  [2][]Peer // by family, sorted by Node
}

// said is what blocks say of another node, by family: that the address of its tunnel lies in a block of its own, and that a
// route goes by the overlay to it.
type said struct{ tunnel, peer [2]bool }

// decided is a block that counts, and how it is reached. It is never changed once its plan is made. Of its route, what is the
// block's own is known from the beginning: blocks are many, and to look at each takes time.
type decided struct {
	block *model.Block
	node  int32 // of ground.nodes; -1: none that others reach
	route Route
}

// newBetween decides about blocks. What was decided before on the same ground about the same blocks is not decided again, but
// comes out the same; before may be nil.
func newBetween(g *ground, all []*model.Block, own []model.Block, before *between) *between {
	b := &between{ground: g, blocks: g.sift(all, own, before), said: make([]said, len(g.nodes))}
	b.recognise()
	for i, d := range b.blocks.good {
		f := familyOf(d.route.CIDR.Addr())
		switch {
		case d.route.Way == undecided:
			d.route = b.route(d)
		case d.node >= 0 && b.said[d.node].tunnel[f] != before.said[d.node].tunnel[f]:
			d = &decided{block: d.block, node: d.node, route: d.route}
			d.route, b.blocks.good[i] = b.route(d), d
		}
		if d.route.Way == Overlay {
			b.said[d.node].peer[f] = true
		}
	}
	if before != nil && slices.Equal(b.said, before.said) {
		b.peers = before.peers
		return b
	}
	for f := range b.peers {
		b.peers[f] = b.peersOf(family(f))
	}
	return b
}

// recognise finds the tunnels that can be used: an address of another node's block would take what is for that node. An agent may
// write its own annotations, and only blocks of its own.
func (b *between) recognise() {
	good := b.blocks.good
	i := 0 // the first block behind a tunnel's address
	for _, t := range b.tunnels {
		for i < len(good) && good[i].route.CIDR.Addr().Compare(t.addr) <= 0 {
			i++
		}
		if i > 0 && good[i-1].node == t.node && good[i-1].route.CIDR.Contains(t.addr) {
			b.said[t.node].tunnel[familyOf(t.addr)] = true
		}
	}
}

// route decides about one block. Of those that are Elsewhere or InSubnet, no route is made.
func (b *between) route(d *decided) Route {
	r := Route{CIDR: d.route.CIDR, Node: d.route.Node, Pool: d.route.Pool}
	// The kernel would take the route to a block before that to the subnet: the node would lose its neighbours there, its router too.
	if b.near.LookupPrefix(r.CIDR) {
		r.Way = InSubnet
		return r
	}
	if r.Node == b.name {
		return r // Here
	}
	if d.node < 0 {
		r.Way = NoNode
		return r
	}
	f := familyOf(r.CIDR.Addr())
	to := &b.others[d.node]
	if r.Way = b.way(to, f, b.pools[r.Pool], b.said[d.node].tunnel[f]); r.Way == Direct {
		r.Via = to.addr[f]
	}
	if r.Way == Overlay {
		r.Via, r.Device, r.Source = to.tunnel[f], deviceNames[f], b.tunnel[f]
	}
	return r
}

// way is how addresses of a pool are reached that another node has. Tunnel says whether that of the node can be used.
func (b *between) way(to *other, f family, pool *model.Pool, tunnel bool) Way {
	_, ours := b.own[to.addr[f]]
	switch {
	case !to.addr[f].IsValid():
		return NoAddress
	case ours:
		return OurAddress
	case pool.IPIPMode == model.ModeAlways, pool.IPIPMode == model.ModeCrossSubnet && !to.near[f]:
		return NoIPIP
	case to.near[f] && pool.VXLANMode != model.ModeAlways:
		return Direct
	case !encapsulates(pool.VXLANMode):
		return Elsewhere
	case !b.uplinks[f].addr.IsValid():
		return NoAddressHere
	case !b.tunnel[f].IsValid():
		return NoTunnelHere
	case !tunnel:
		return NoTunnel
	}
	return Overlay
}

var deviceNames = [2]string{v4: Device4, v6: Device6}

// compile makes the parts of a plan of what was decided.
func (b *between) compile() (Workloads, Routes, Network) {
	routes := Routes{Routes: make([]*Route, 0, len(b.blocks.good))}
	unreached := [InSubnet + 1]int{}
	var examples [InSubnet + 1]*Route
	for _, d := range b.blocks.good {
		r := &d.route
		if r.Way >= NoNode {
			if unreached[r.Way]++; unreached[r.Way] == 1 {
				examples[r.Way] = r
			}
		}
		if r.Way != Elsewhere && r.Way != InSubnet {
			routes.Routes = append(routes.Routes, r)
		}
	}
	network := Network{Settings: b.origins, Problems: b.blocks.problems()}
	for way, n := range unreached {
		if n > 0 {
			network.Problems = append(network.Problems, fmt.Sprintf("unreachable blocks: %d, such as %s: %s", n, examples[way].CIDR, examples[way].Reason()))
		}
	}
	for f, wanted := range b.vxlan {
		if wanted && b.uplinks[f].addr.IsValid() && b.tunnel[f].IsValid() {
			routes.Devices = append(routes.Devices, b.device(family(f)))
		}
	}
	network.WantsTunnel4 = b.vxlan[v4] && b.uplinks[v4].addr.IsValid()
	network.WantsTunnel6 = b.vxlan[v6] && b.uplinks[v6].addr.IsValid()
	network.Problems = append(network.Problems, b.lacks...)
	return Workloads{MTU: b.mtu(), Node4: b.uplinks[v4].addr, Node6: b.uplinks[v6].addr, Nodes: b.addresses, VXLANPort: b.settings.port,
		VXLAN: len(routes.Devices) > 0}, routes, network
}

// device is the VXLAN device of a family, with the nodes that routes go to.
func (b *between) device(f family) VXLAN {
	d := VXLAN{Name: deviceNames[f], V6: f == v6, VNI: b.settings.vni, Port: b.settings.port, Local: b.uplinks[f].addr,
		Address: b.tunnel[f], MAC: MAC(b.name), Peers: b.peers[f]}
	if mtu := b.linkMTU(f); mtu > 0 {
		d.MTU = mtu - vxlanTakes[f]
	}
	return d
}

// peersOf are the nodes of a family to which routes go by the overlay.
func (b *between) peersOf(f family) []Peer {
	n := 0
	for i := range b.said {
		if b.said[i].peer[f] {
			n++
		}
	}
	peers := make([]Peer, 0, n)
	for _, i := range b.byAddr[f] {
		if o := &b.others[i]; b.said[i].peer[f] {
			peers = append(peers, Peer{o.addr[f], o.tunnel[f], o.mac})
		}
	}
	return peers
}

// ForPodNetwork says whether the plan is that of an agent that is the pod network.
func (p *Plan) ForPodNetwork() bool { return p.between != nil }

// RouteOf says how an address of a block is reached, and why; not ok where no block holds it, or the agent is not the pod network.
func (p *Plan) RouteOf(a netip.Addr) (Route, bool) {
	if p.between == nil {
		return Route{}, false
	}
	d := p.between.blocks.holding(a)
	if d == nil {
		return Route{}, false
	}
	return d.route, true
}
