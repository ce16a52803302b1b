package compile

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/sallyport/sallyport/internal/model"
)

// What VXLAN takes of a packet, in bytes: the outer IP header, UDP's, VXLAN's and the inner Ethernet header.
var vxlanTakes = [2]int{v4: 50, v6: 70}

// ground is all by which this node decides how it reaches blocks, but the blocks. It is never changed once made: where one
// block of ten thousand has changed, the next plan stands on the same.
type ground struct {
	name      string                  // of this node
	own       map[netip.Addr]struct{} // this node's addresses
	pools     map[string]*model.Pool
	nodes     []model.Node
	others    []other          // as nodes
	byName    map[string]int32 // of others that run a pod network of ours
	byAddr    [2][]int32       // of others, by family, in the order of their addresses
	tunnels   []tunnel         // of others, in the order of addresses
	near      bart.Lite        // this node's subnets
	settings  netSettings
	origins   []NetworkSetting
	uplinks   [2]standing
	tunnel    [2]netip.Addr               // this node's
	vxlan     [2]bool                     // some pool of the family has VXLAN
	lacks     []string                    // what this node lacks for its pools
	addresses []netip.Addr                // of all nodes, sorted
	speech    BGP                         // how it speaks BGP, but for what depends on blocks
	tagged    []model.PrefixAdvertisement // the communities that blocks get
}

// other is another node: by family, where it is, the address of its tunnel as it says, and whether it is in a subnet of this node.
type other struct {
	addr, tunnel [2]netip.Addr
	near         [2]bool
	mac          [6]byte
}

// tunnel is the address of a tunnel of another node.
type tunnel struct {
	addr netip.Addr
	node int32
}

// newGround takes in what is known of this node and the others.
func newGround(s *model.Snapshot, local *model.Local, own map[netip.Addr]struct{}) *ground {
	g := &ground{name: local.Name, own: own, pools: make(map[string]*model.Pool, len(s.Pools)), nodes: s.Nodes,
		others: make([]other, len(s.Nodes)), byName: make(map[string]int32, len(s.Nodes))}
	g.settings, g.origins = mergeNetwork(s, local.Name)
	for _, p := range s.Pools {
		g.pools[p.Name] = p
		if !p.LoadBalancerOnly() && encapsulates(p.VXLANMode) {
			g.vxlan[familyOf(p.CIDR.Addr())] = true
		}
	}
	for i := range local.Links {
		for _, p := range local.Links[i].Addresses {
			if !p.IsSingleIP() && !p.Addr().IsLoopback() {
				g.near.Insert(p.Masked())
			}
		}
	}
	var declared []netip.Addr
	for i := range s.Nodes {
		if s.Nodes[i].Name == local.Name {
			declared = s.Nodes[i].Addresses
		} else {
			g.meet(int32(i))
		}
	}
	for f, nodes := range g.byAddr {
		slices.SortFunc(nodes, func(a, b int32) int {
			return cmp.Or(g.others[a].addr[f].Compare(g.others[b].addr[f]), cmp.Compare(a, b))
		})
	}
	slices.SortFunc(g.tunnels, func(a, b tunnel) int { return a.addr.Compare(b.addr) })
	for f := range g.uplinks {
		g.uplinks[f] = uplink(family(f), local.Links, declared, g.settings.address)
	}
	for _, a := range local.Tunnels {
		g.tunnel[familyOf(a)] = a
	}
	g.lacks, g.addresses = g.lacking(s.Pools), g.allAddresses()
	g.speech, g.tagged = g.speak(s)
	return g
}

// meet takes in what another node announces.
func (g *ground) meet(i int32) {
	n, o := &g.nodes[i], &g.others[i]
	if len(n.NetworkAddresses) == 0 {
		return
	}
	g.byName[n.Name] = i
	o.mac = MAC(n.Name)
	for _, a := range n.NetworkAddresses {
		f := familyOf(a)
		o.addr[f], o.near[f] = a, g.near.Contains(a)
		g.byAddr[f] = append(g.byAddr[f], i)
	}
	for _, a := range n.Tunnels {
		o.tunnel[familyOf(a)] = a
		g.tunnels = append(g.tunnels, tunnel{a, i})
	}
}

// encapsulates says whether a mode does, at least sometimes.
func encapsulates(m model.Mode) bool { return m == model.ModeAlways || m == model.ModeCrossSubnet }

// MAC is the hardware address of a node's VXLAN devices: a hash of its name, locally administered, so that other nodes know it.
func MAC(node string) [6]byte {
	sum := sha256.Sum256([]byte(node))
	mac := [6]byte(sum[:])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// linkMTU is what the network between the nodes carries in a family, in bytes; 0: not known.
func (g *ground) linkMTU(f family) int {
	switch {
	case !g.uplinks[f].addr.IsValid():
		return 0
	case g.settings.mtu > 0:
		return g.settings.mtu
	}
	return g.uplinks[f].link.MTU
}

// mtu is that of workloads, in bytes; 0: not known.
func (g *ground) mtu() int {
	least := 0
	for f := range g.uplinks {
		mtu := g.linkMTU(family(f))
		if mtu > 0 && g.vxlan[f] {
			mtu -= vxlanTakes[f]
		}
		if mtu > 0 && (least == 0 || mtu < least) {
			least = mtu
		}
	}
	return least
}

// allAddresses are those of all nodes, sorted.
func (g *ground) allAddresses() []netip.Addr {
	all := make([]netip.Addr, 0, 2*len(g.nodes))
	for i := range g.nodes {
		n := &g.nodes[i]
		all = append(append(all, n.Addresses...), n.NetworkAddresses...)
	}
	for f := range g.uplinks {
		if a := g.uplinks[f].addr; a.IsValid() {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Clip(slices.Compact(all))
}

// minMTU6 is the least that IPv6 works with, in bytes (RFC 8200, section 5).
const minMTU6 = 1280

// lacking says what this node lacks for its pools.
func (g *ground) lacking(pools []*model.Pool) []string {
	var out []string
	var pods [2]bool
	for _, p := range pools {
		if p.AllowedUses&model.UseWorkload != 0 {
			pods[familyOf(p.CIDR.Addr())] = true
		}
	}
	others := slices.ContainsFunc(g.nodes, func(n model.Node) bool { return n.Name != g.name })
	for f, used := range pods {
		if used && (others || g.settings.address.decides(family(f))) && !g.uplinks[f].addr.IsValid() {
			out = append(out, fmt.Sprintf("this node has no %s address by which other nodes could reach it: the Node declares none that is on an "+
				"interface, and no interface with an address has the default route; set nodeAddress in a NodeNetworkConfiguration", family(f)))
			if set := g.settings.address; set.decides(family(f)) {
				out[len(out)-1] = fmt.Sprintf("this node has no %s address that fits nodeAddress (%s) of NodeNetworkConfiguration %q",
					family(f), set, g.origins[0].NodeNetworkConfiguration)
			}
		}
	}
	if mtu := g.mtu(); pods[v6] && mtu > 0 && mtu < minMTU6 {
		out = append(out, fmt.Sprintf("an MTU of %d bytes is left for pods, and IPv6 needs %d: raise that of the network between the nodes", mtu, minMTU6))
	}
	return out
}
