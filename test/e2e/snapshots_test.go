package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
)

// pool reads "NAME CIDR WORD…", the words being: nat, disabled, lb (load balancers alone), vxlan.
func pool(s string) *model.Pool {
	words := strings.Fields(s)
	p := &model.Pool{
		Name: words[0], CIDR: netip.MustParsePrefix(words[1]), NodeSelector: "all()",
		VXLANMode: model.ModeNever, IPIPMode: model.ModeNever, AllowedUses: model.UseWorkload | model.UseTunnel,
	}
	for _, w := range words[2:] {
		switch w {
		case "nat":
			p.NATOutgoing = true
		case "disabled":
			p.Disabled = true
		case "lb":
			p.AllowedUses = model.UseLoadBalancer
		case "vxlan":
			p.VXLANMode = model.ModeAlways
		default:
			panic("unknown word " + w)
		}
	}
	return p
}

// snapshot sorts pools into one, with at most one configuration.
func snapshot(cfg *model.NATConfiguration, pools ...*model.Pool) *model.Snapshot {
	s := &model.Snapshot{Pools: pools}
	slices.SortFunc(s.Pools, func(a, b *model.Pool) int { return strings.Compare(a.Name, b.Name) })
	if cfg != nil {
		cfg.Name, cfg.NodeSelector = "default", "all()"
		s.NATConfigurations = []model.NATConfiguration{*cfg}
	}
	return s
}

// hostNode is a node other than the one under test.
var hostNode = model.Node{Name: "other", Addresses: []netip.Addr{
	netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8:f0::77"),
}}

// madeByHand are snapshots that each show one thing.
func madeByHand() map[string]*model.Snapshot {
	random, preserve := model.PortsRandom, model.PortsPreserve
	hosts, keep := model.ExcludeIPPoolsAndHostIPs, model.LinkLocalKeep
	list := map[string]*model.Snapshot{
		"nothing": snapshot(nil),
		"one of each": snapshot(nil, pool("a 10.244.0.0/16 nat"), pool("b fd00:10:244::/48 nat"),
			pool("c 203.0.113.0/26"), pool("d 2001:db8:113::/64"), pool("e 10.0.0.0/8 disabled"), pool("f fd00::/16 disabled")),
		"nested":       snapshot(nil, pool("wide 10.0.0.0/8"), pool("mid 10.1.0.0/16 nat"), pool("deep 10.1.2.0/24"), pool("one 10.1.2.3/32 nat")),
		"nested in v6": snapshot(nil, pool("wide fd00::/8"), pool("mid fd00:1::/32 nat"), pool("deep fd00:1:2::/48"), pool("one fd00:1:2::3/128 nat")),
		"adjacent": snapshot(nil, pool("a 10.0.0.0/24 nat"), pool("b 10.0.1.0/24"), pool("c 10.0.2.0/24 nat"), pool("d 10.0.3.0/24 nat"),
			pool("e fd00::/64 nat"), pool("f fd00:0:0:1::/64")),
		"load balancers": snapshot(nil, pool("a 10.0.0.0/16 nat"), pool("lb 10.0.5.0/24 lb"), pool("lb2 203.0.113.0/24 nat lb"),
			pool("b fd00::/64 nat"), pool("lb3 2001:db8:113::/64 nat lb")),
		"disabled translates":       snapshot(nil, pool("a 10.0.0.0/16 nat disabled"), pool("b fd00::/64 nat disabled")),
		"ends of the address space": snapshot(nil, pool("a 128.0.0.0/1 nat"), pool("b 8000::/1 nat"), pool("c 1.0.0.0/32")),
		"one address":               snapshot(nil, pool("a 10.0.0.1/32 nat"), pool("b fd00::1/128 nat")),
		"host IPs":                  snapshot(&model.NATConfiguration{Exclusions: &hosts}, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")),
		"link-local kept":           snapshot(&model.NATConfiguration{LinkLocal: &keep}, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")),
		"outInterfaces": snapshot(&model.NATConfiguration{OutInterfaces: []string{"eth1"}},
			pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")),
		"outInterfaces by pattern": snapshot(&model.NATConfiguration{OutInterfaces: []string{"wg0", "et*"}},
			pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")),
		"configured addresses": snapshot(&model.NATConfiguration{Addresses: []netip.Addr{
			netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("2001:db8:f0::200")}},
			pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")),
		"one configured address, ports, Preserve": snapshot(&model.NATConfiguration{
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.200")}, PortRange: &model.PortRange{First: 40000, Last: 49999},
			PortAllocation: &preserve}, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")),
		"ports, FullyRandom": snapshot(&model.NATConfiguration{PortRange: &model.PortRange{First: 32768, Last: 65535}},
			pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")),
		"ports, Random, VXLAN": snapshot(&model.NATConfiguration{PortRange: &model.PortRange{First: 4000, Last: 5000}, PortAllocation: &random},
			pool("a 10.0.0.0/16 nat vxlan"), pool("b fd00::/64 nat")),
		"VXLAN without ports": snapshot(nil, pool("a 10.0.0.0/16 nat vxlan"), pool("b fd00::/64 nat")),
	}
	list["host IPs"].Nodes = []model.Node{hostNode}
	return list
}

// bases are where random pools come from: few and partly nested, so that pools often meet.
var bases = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("192.0.0.0/16"),
	netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("fd00:10:244::/48"), netip.MustParsePrefix("2001:db8::/32"),
}

// randomSnapshot makes up to 24 pools that nest, adjoin and overlap, and sometimes a configuration.
func randomSnapshot(r *rand.Rand) *model.Snapshot {
	var pools []*model.Pool
	for i := range 1 + r.IntN(24) {
		near := bases[r.IntN(len(bases))]
		if i > 0 && r.IntN(2) == 0 {
			near = pools[r.IntN(i)].CIDR
		}
		cidr := netip.PrefixFrom(randomIn(r, near), near.Bits()+r.IntN(min(17, near.Addr().BitLen()-near.Bits()+1))).Masked()
		if next := lastOf(near).Next(); r.IntN(4) == 0 && next.IsValid() {
			cidr = netip.PrefixFrom(next, near.Bits()).Masked() // adjoins
		}
		p := pool(fmt.Sprintf("p%d %s", i, cidr))
		p.NATOutgoing, p.Disabled = r.IntN(2) == 0, r.IntN(5) == 0
		if r.IntN(6) == 0 {
			p.AllowedUses = model.UseLoadBalancer
		} else if r.IntN(16) == 0 {
			p.VXLANMode = model.ModeCrossSubnet
		}
		pools = append(pools, p)
	}
	var cfg *model.NATConfiguration
	if r.IntN(2) == 0 {
		cfg = randomConfiguration(r)
	}
	s := snapshot(cfg, pools...)
	s.Nodes = []model.Node{hostNode}
	return s
}

func randomConfiguration(r *rand.Rand) *model.NATConfiguration {
	cfg := &model.NATConfiguration{}
	if r.IntN(2) == 0 {
		e := model.ExcludeIPPoolsAndHostIPs
		cfg.Exclusions = &e
	}
	for _, a := range []string{"192.0.2.200", "2001:db8:f0::200"} {
		if r.IntN(3) == 0 {
			cfg.Addresses = append(cfg.Addresses, netip.MustParseAddr(a))
		}
	}
	if r.IntN(2) == 0 {
		first := 1024 + r.IntN(50000)
		cfg.PortRange = &model.PortRange{First: uint16(first), Last: uint16(first + 500 + r.IntN(65536-first-500))}
	}
	if r.IntN(2) == 0 {
		a := []model.PortAllocation{model.PortsFullyRandom, model.PortsRandom, model.PortsPreserve}[r.IntN(3)]
		cfg.PortAllocation = &a
	}
	if r.IntN(2) == 0 {
		l := []model.LinkLocal{model.LinkLocalTranslate, model.LinkLocalKeep}[r.IntN(2)]
		cfg.LinkLocal = &l
	}
	if r.IntN(3) == 0 {
		cfg.OutInterfaces = [][]string{{"eth1"}, {"eth*"}, {"eth0", "wlan*"}}[r.IntN(3)]
	}
	return cfg
}

// randomIn is an address in a prefix: its first, its last or any.
func randomIn(r *rand.Rand, p netip.Prefix) netip.Addr {
	switch r.IntN(4) {
	case 0:
		return p.Masked().Addr()
	case 1:
		return lastOf(p)
	}
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < p.Addr().BitLen(); bit++ {
		b[bit/8] |= byte(r.IntN(2)) << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < p.Addr().BitLen(); bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
