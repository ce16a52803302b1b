package compile

import (
	"iter"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

// never are the destinations that no node translates, whatever the pools say: multicast, the limited broadcast
// address, and the link-local addresses of IPv6, which no router forwards (RFC 5771, RFC 919, RFC 4291).
var never = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
}

// linkLocal are the link-local addresses of IPv4 (RFC 3927): clouds route some of them, so that a setting decides.
var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// Compile decides what the kernel of one node should hold. It reads s and local and keeps references to
// them, so they must not be changed afterwards.
func Compile(s *model.Snapshot, local model.Local) *Plan {
	cfg, origins := merge(selecting(s, local.Name, s.NATConfigurations, natSelector))
	p := &Plan{Settings: origins, from: s, local: local, own: make(map[netip.Addr]struct{}, len(local.Interfaces)), pools: s.Pools,
		keepLinkLocal: cfg.linkLocal == model.LinkLocalKeep}
	for _, i := range local.Interfaces {
		p.own[i.Addr()] = struct{}{}
	}
	if cfg.exclusions == model.ExcludeIPPoolsAndHostIPs {
		p.hosts = collectHosts(s.Nodes, local)
	}
	vxlanPort := uint16(model.VXLANPort)
	if local.Network {
		p.take(newBetween(newGround(s, &p.local, p.own), s.Blocks, local.Blocks, nil))
		vxlanPort = p.Workloads.VXLANPort
	}
	ordered := byCIDR(s.Pools)
	p.NAT = NAT{
		Sources:       sources(ordered),
		Exempt:        exempt(ordered, local, p.hosts, p.keepLinkLocal),
		OutInterfaces: cfg.outInterfaces,
		To4:           cfg.to4,
		To6:           cfg.to6,
		Ports:         cfg.ports,
		UDPPorts:      udpPorts(cfg.ports, usesVXLAN(s.Pools), vxlanPort),
		Allocation:    cfg.allocation,
		LeakGuard:     cfg.leakGuard != model.LeakGuardDisabled,
		ExistingFlows: cfg.existingFlows,
	}
	return p
}

// Next is Compile(s, local), made of what the plan p has of it already: where nothing but blocks differs from what p was made of,
// that costs little, and each route that has not changed is the same. Without a plan before, p is nil.
func (p *Plan) Next(s *model.Snapshot, local model.Local) *Plan {
	if p == nil || p.between == nil || !sameButBlocks(p.from, s) || !localSameButBlocks(&p.local, &local) {
		return Compile(s, local)
	}
	next := *p
	next.from, next.local = s, local
	next.take(newBetween(p.between.ground, s.Blocks, local.Blocks, p.between))
	return &next
}

// take makes all parts of the plan that depend on blocks.
func (p *Plan) take(b *between) {
	p.between = b
	p.Workloads, p.Routes, p.Network = b.compile()
	p.BGP = b.bgp()
}

// sameButBlocks says whether two snapshots differ in blocks alone, and in what no plan depends on.
func sameButBlocks(a, b *model.Snapshot) bool {
	return model.Same(a.Pools, b.Pools) && model.Same(a.NATConfigurations, b.NATConfigurations) && model.Same(a.Nodes, b.Nodes) &&
		model.Same(a.NodeNetworkConfigurations, b.NodeNetworkConfigurations) &&
		model.Same(a.BGPPeers, b.BGPPeers) && model.Same(a.BGPConfigurations, b.BGPConfigurations) && model.Same(a.BGPFilters, b.BGPFilters)
}

func localSameButBlocks(a, b *model.Local) bool {
	return a.Name == b.Name && a.Network == b.Network && slices.Equal(a.Interfaces, b.Interfaces) && model.Same(a.Links, b.Links) && slices.Equal(a.Tunnels, b.Tunnels)
}

// byCIDR are the pools for pods by family, first address, then the wider first, and of those with the same CIDR the
// older.
func byCIDR(pools []*model.Pool) []*model.Pool {
	out := make([]*model.Pool, 0, len(pools))
	for _, p := range pools {
		if !p.LoadBalancerOnly() {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *model.Pool) int {
		if c := a.CIDR.Compare(b.CIDR); c != 0 {
			return c
		}
		if a.Older(b) {
			return -1
		}
		return 1
	})
	return out
}

// sources cuts the translated pools into disjoint ranges, each with the most specific pool that says
// natOutgoing: true. Of pools with the same CIDR the older decides. They come as byCIDR has them.
func sources(ordered []*model.Pool) []Source {
	c := cutter{out: make([]Source, 0, len(ordered))}
	var before netip.Prefix
	for _, p := range ordered {
		if p.NATOutgoing && p.CIDR != before {
			c.open(p)
			before = p.CIDR
		}
	}
	c.closeBefore(netip.Addr{})
	return c.out
}

// cutter sweeps over nested prefixes in the order of their first addresses. The innermost open prefix
// owns the addresses from next on.
type cutter struct {
	out   []Source
	stack []openPool
	next  netip.Addr // first address that has no owner yet; the zero Addr after a family's last one
}

type openPool struct {
	name string
	last netip.Addr
}

func (c *cutter) open(p *model.Pool) {
	r := netipx.RangeOfPrefix(p.CIDR)
	c.closeBefore(r.From())
	if n := len(c.stack); n > 0 && c.next.Less(r.From()) {
		c.emit(c.stack[n-1].name, r.From().Prev())
	}
	c.stack = append(c.stack, openPool{p.Name, r.To()})
	c.next = r.From()
}

// closeBefore ends every open prefix that does not reach start; the zero Addr ends them all.
func (c *cutter) closeBefore(start netip.Addr) {
	for n := len(c.stack); n > 0; n = len(c.stack) {
		top := c.stack[n-1]
		if start.IsValid() && start.BitLen() == top.last.BitLen() && !top.last.Less(start) {
			return
		}
		if c.next.IsValid() && !top.last.Less(c.next) {
			c.emit(top.name, top.last)
		}
		c.stack = c.stack[:n-1]
	}
}

func (c *cutter) emit(pool string, last netip.Addr) {
	c.out = append(c.out, Source{netipx.IPRangeFrom(c.next, last), pool})
	c.next = last.Next()
}

// exempt merges every destination that is not translated into the fewest ranges. The pools come as byCIDR has them.
func exempt(ordered []*model.Pool, local model.Local, hosts hostAddresses, keepLinkLocal bool) []netipx.IPRange {
	others := make([]netip.Prefix, 0, len(never)+1+len(local.Interfaces)+len(hosts))
	if keepLinkLocal {
		others = append(others, linkLocal)
	}
	for _, n := range never {
		others = append(others, n.prefix)
	}
	for _, p := range local.Interfaces {
		if a, ok := broadcast(p); ok {
			others = append(others, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for a := range hosts {
		others = append(others, netip.PrefixFrom(a, a.BitLen()))
	}
	slices.SortFunc(others, netip.Prefix.Compare)
	all := merged(ordered, others)
	n := 0 // what grows by appending leaves five times its size behind, with every change
	for range all {
		n++
	}
	return slices.AppendSeq(make([]netipx.IPRange, 0, n), all)
}

// merged are the ranges that pools and other prefixes, both sorted, come to: neither overlapping nor adjacent.
func merged(pools []*model.Pool, others []netip.Prefix) iter.Seq[netipx.IPRange] {
	return func(yield func(netipx.IPRange) bool) {
		var open netipx.IPRange
		for i, j := 0, 0; i < len(pools) || j < len(others); {
			var p netip.Prefix
			if j == len(others) || i < len(pools) && pools[i].CIDR.Compare(others[j]) <= 0 {
				p = pools[i].CIDR
				i++
			} else {
				p = others[j]
				j++
			}
			next := netipx.RangeOfPrefix(p)
			switch {
			case !open.IsValid():
			case open.Contains(next.From()) || open.To().Next() == next.From():
				if next = open; open.To().Less(netipx.PrefixLastIP(p)) {
					next = netipx.IPRangeFrom(open.From(), netipx.PrefixLastIP(p))
				}
			default:
				if !yield(open) {
					return
				}
			}
			open = next
		}
		if open.IsValid() {
			yield(open)
		}
	}
}

// broadcast is the directed broadcast address of an interface's subnet, where it has one (RFC 919; not
// with 31 or 32 bits, RFC 3021, nor on the loopback).
func broadcast(p netip.Prefix) (netip.Addr, bool) {
	if !p.Addr().Is4() || p.Addr().IsLoopback() || p.Bits() > 30 || p.Bits() == 0 {
		return netip.Addr{}, false
	}
	return netipx.RangeOfPrefix(p.Masked()).To(), true
}

func usesVXLAN(pools []*model.Pool) bool {
	return slices.ContainsFunc(pools, func(p *model.Pool) bool {
		return p.VXLANMode == model.ModeAlways || p.VXLANMode == model.ModeCrossSubnet
	})
}

// udpPorts is the range for UDP. While VXLAN is in use, no translated connection may have its port as
// the source: the kernel would hand the node's own tunnel packets to that connection. What is left is
// the larger part of the range beside that port.
func udpPorts(r model.PortRange, vxlan bool, port uint16) model.PortRange {
	if !vxlan {
		return r
	}
	if r.IsZero() {
		r = model.PortRange{First: 1024, Last: 65535}
	}
	if r.First > port || r.Last < port {
		return r
	}
	below := model.PortRange{First: r.First, Last: port - 1}
	above := model.PortRange{First: port + 1, Last: r.Last}
	if port-r.First > r.Last-port {
		return below
	}
	return above
}
