package compile

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/sallyport/sallyport/internal/model"
)

// What VXLAN takes of a packet, in bytes: the outer IP header, UDP's, VXLAN's and the inner Ethernet header.
var vxlanTakes = [2]int{v4: 50, v6: 70}

// between decides how this node reaches the blocks of others.
type between struct {
	snapshot *model.Snapshot
	local    *model.Local
	own      map[netip.Addr]struct{} // this node's addresses
	pools    map[string]*model.Pool
	others   []other        // as Snapshot.Nodes
	byName   map[string]int // of others that run a pod network of ours
	blocks   blocks
	near     bart.Lite // this node's subnets
	settings netSettings
	origins  []NetworkSetting
	uplinks  [2]standing
	tunnels  [2]netip.Addr // this node's
	vxlan    [2]bool       // some pool of the family has VXLAN
}

// other is another node: by family, where it is, its tunnel's address, whether it is in a subnet of this node, and whether a
// route goes by the overlay to it.
type other struct {
	addr, tunnel [2]netip.Addr
	near, peer   [2]bool
}

// newBetween takes in what is known of this node and the others.
func newBetween(s *model.Snapshot, local *model.Local, own map[netip.Addr]struct{}) *between {
	b := &between{snapshot: s, local: local, own: own, pools: make(map[string]*model.Pool, len(s.Pools)),
		others: make([]other, len(s.Nodes)), byName: make(map[string]int, len(s.Nodes))}
	b.settings, b.origins = mergeNetwork(s, local.Name)
	for _, p := range s.Pools {
		b.pools[p.Name] = p
		if !p.LoadBalancerOnly() && encapsulates(p.VXLANMode) {
			b.vxlan[familyOf(p.CIDR.Addr())] = true
		}
	}
	b.blocks = sift(s.Blocks, local.Blocks, b.pools)
	for i := range local.Links {
		for _, p := range local.Links[i].Addresses {
			if !p.IsSingleIP() && !p.Addr().IsLoopback() {
				b.near.Insert(p.Masked())
			}
		}
	}
	var declared []netip.Addr
	for i := range s.Nodes {
		if s.Nodes[i].Name == local.Name {
			declared = s.Nodes[i].Addresses
		} else {
			b.meet(i)
		}
	}
	for f := range b.uplinks {
		b.uplinks[f] = uplink(family(f), local.Links, declared, b.settings.address)
	}
	for _, a := range local.Tunnels {
		b.tunnels[familyOf(a)] = a
	}
	return b
}

// meet takes in what another node announces.
func (b *between) meet(i int) {
	n, o := &b.snapshot.Nodes[i], &b.others[i]
	if len(n.NetworkAddresses) == 0 {
		return
	}
	b.byName[n.Name] = i
	for _, a := range n.NetworkAddresses {
		f := familyOf(a)
		o.addr[f], o.near[f] = a, b.near.Contains(a)
	}
	for _, a := range n.Tunnels {
		// An address of another node's block would take what is for that node: an agent may write its own annotations, and
		// only blocks of its own.
		if b.holder(a) == n.Name {
			o.tunnel[familyOf(a)] = a
		}
	}
}

// holder is the node of the block that an address lies in.
func (b *between) holder(a netip.Addr) string {
	if block := b.blocks.holding(a); block != nil {
		return block.Node
	}
	return ""
}

// encapsulates says whether a mode does, at least sometimes.
func encapsulates(m model.Mode) bool { return m == model.ModeAlways || m == model.ModeCrossSubnet }

// route decides about one block. Of those that are Elsewhere, no route is made.
func (b *between) route(block *model.Block) Route {
	r := Route{CIDR: block.CIDR, Node: block.Node, Pool: block.Pool}
	if block.Node == b.local.Name {
		return r // Here
	}
	f := familyOf(block.CIDR.Addr())
	i, known := b.byName[block.Node]
	if !known {
		r.Way = NoNode
		return r
	}
	to := &b.others[i]
	if r.Way = b.way(to, f, b.pools[block.Pool]); r.Way == Direct {
		r.Via = to.addr[f]
	}
	if r.Way == Overlay {
		r.Via, r.Device, r.Source = to.tunnel[f], deviceNames[f], b.tunnels[f]
	}
	return r
}

// way is how addresses of a pool are reached that another node has.
func (b *between) way(to *other, f family, pool *model.Pool) Way {
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
	case !b.tunnels[f].IsValid():
		return NoTunnelHere
	case !to.tunnel[f].IsValid():
		return NoTunnel
	}
	return Overlay
}

var deviceNames = [2]string{v4: Device4, v6: Device6}

// compile decides about every block, and what the overlay and the workloads need.
func (b *between) compile() (Workloads, Routes, Network) {
	routes := Routes{Routes: make([]Route, 0, len(b.blocks.good))}
	unreached := [NoIPIP + 1]int{}
	var examples [NoIPIP + 1]Route
	for _, block := range b.blocks.good {
		r := b.route(block)
		if r.Way >= NoNode {
			if unreached[r.Way]++; unreached[r.Way] == 1 {
				examples[r.Way] = r
			}
		}
		if r.Way == Overlay {
			b.others[b.byName[r.Node]].peer[familyOf(r.Via)] = true
		}
		if r.Way != Elsewhere {
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
		if wanted && b.uplinks[f].addr.IsValid() && b.tunnels[f].IsValid() {
			routes.Devices = append(routes.Devices, b.device(family(f)))
		}
	}
	network.WantsTunnel4 = b.vxlan[v4] && b.uplinks[v4].addr.IsValid()
	network.WantsTunnel6 = b.vxlan[v6] && b.uplinks[v6].addr.IsValid()
	network.Problems = append(network.Problems, b.lacks()...)
	return Workloads{MTU: b.mtu(), Node4: b.uplinks[v4].addr, Node6: b.uplinks[v6].addr, Nodes: b.nodes(), VXLANPort: b.settings.port,
		VXLAN: len(routes.Devices) > 0}, routes, network
}

// device is the VXLAN device of a family, with the nodes that routes go to.
func (b *between) device(f family) VXLAN {
	d := VXLAN{Name: deviceNames[f], V6: f == v6, VNI: b.settings.vni, Port: b.settings.port, Local: b.uplinks[f].addr,
		Address: b.tunnels[f], MAC: MAC(b.local.Name)}
	if mtu := b.linkMTU(f); mtu > 0 {
		d.MTU = mtu - vxlanTakes[f]
	}
	peers := 0
	for i := range b.others {
		if b.others[i].peer[f] {
			peers++
		}
	}
	d.Peers = make([]Peer, 0, peers)
	for i := range b.others {
		if o := &b.others[i]; o.peer[f] {
			d.Peers = append(d.Peers, Peer{o.addr[f], o.tunnel[f], MAC(b.snapshot.Nodes[i].Name)})
		}
	}
	slices.SortFunc(d.Peers, func(a, b Peer) int { return a.Node.Compare(b.Node) })
	return d
}

// MAC is the hardware address of a node's VXLAN devices: a hash of its name, locally administered, so that other nodes know it.
func MAC(node string) [6]byte {
	sum := sha256.Sum256([]byte(node))
	mac := [6]byte(sum[:])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// linkMTU is what the network between the nodes carries in a family, in bytes; 0: not known.
func (b *between) linkMTU(f family) int {
	switch {
	case !b.uplinks[f].addr.IsValid():
		return 0
	case b.settings.mtu > 0:
		return b.settings.mtu
	}
	return b.uplinks[f].link.MTU
}

// mtu is that of workloads, in bytes; 0: not known.
func (b *between) mtu() int {
	least := 0
	for f := range b.uplinks {
		mtu := b.linkMTU(family(f))
		if mtu > 0 && b.vxlan[f] {
			mtu -= vxlanTakes[f]
		}
		if mtu > 0 && (least == 0 || mtu < least) {
			least = mtu
		}
	}
	return least
}

// nodes are the addresses of all nodes.
func (b *between) nodes() []netip.Addr {
	all := make([]netip.Addr, 0, 2*len(b.snapshot.Nodes))
	for i := range b.snapshot.Nodes {
		n := &b.snapshot.Nodes[i]
		all = append(append(all, n.Addresses...), n.NetworkAddresses...)
	}
	for f := range b.uplinks {
		if a := b.uplinks[f].addr; a.IsValid() {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Clip(slices.Compact(all))
}

// minMTU6 is the least that IPv6 works with, in bytes (RFC 8200, section 5).
const minMTU6 = 1280

// lacks says what this node lacks for its pools.
func (b *between) lacks() []string {
	var out []string
	var pods [2]bool
	for _, p := range b.snapshot.Pools {
		if p.AllowedUses&model.UseWorkload != 0 {
			pods[familyOf(p.CIDR.Addr())] = true
		}
	}
	others := slices.ContainsFunc(b.snapshot.Nodes, func(n model.Node) bool { return n.Name != b.local.Name })
	for f, used := range pods {
		if used && (others || b.settings.address.decides(family(f))) && !b.uplinks[f].addr.IsValid() {
			out = append(out, fmt.Sprintf("this node has no %s address by which other nodes could reach it: the Node declares none that is on an "+
				"interface, and no interface with an address has the default route; set nodeAddress in a NodeNetworkConfiguration", family(f)))
			if set := b.settings.address; set.decides(family(f)) {
				out[len(out)-1] = fmt.Sprintf("this node has no %s address that fits nodeAddress (%s) of NodeNetworkConfiguration %q",
					family(f), set, b.origins[0].NodeNetworkConfiguration)
			}
		}
	}
	if mtu := b.mtu(); pods[v6] && mtu > 0 && mtu < minMTU6 {
		out = append(out, fmt.Sprintf("an MTU of %d bytes is left for pods, and IPv6 needs %d: raise that of the network between the nodes", mtu, minMTU6))
	}
	return out
}

// ForPodNetwork says whether the plan is that of an agent that is the pod network.
func (p *Plan) ForPodNetwork() bool { return p.between != nil }

// RouteOf says how an address of a block is reached, and why; not ok where no block holds it, or the agent is not the pod network.
func (p *Plan) RouteOf(a netip.Addr) (Route, bool) {
	if p.between == nil {
		return Route{}, false
	}
	block := p.between.blocks.holding(a)
	if block == nil {
		return Route{}, false
	}
	return p.between.route(block), true
}
