package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/model"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// networkPool is a pool for pods with the modes of VXLAN and IPIP.
func networkPool(name, cidr string, vxlan, ipip model.Mode) *model.Pool {
	p := &model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), VXLANMode: vxlan, IPIPMode: ipip, AllowedUses: model.UseWorkload | model.UseTunnel, BlockSize: 26}
	if p.CIDR.Addr().Is6() {
		p.BlockSize = 112
	}
	return p
}

// cluster is three nodes: a, which the plans are for, b in its subnet, and c elsewhere.
func cluster(pools ...*model.Pool) (*model.Snapshot, model.Local) {
	s := &model.Snapshot{Pools: pools, Nodes: []model.Node{
		{Name: "a", Addresses: addrs("192.0.2.1", "2001:db8:1::1"), NetworkAddresses: addrs("192.0.2.1", "2001:db8:1::1"), Tunnels: addrs("10.1.0.1", "fd00::1:1")},
		{Name: "b", Addresses: addrs("192.0.2.2"), NetworkAddresses: addrs("192.0.2.2", "2001:db8:1::2"), Tunnels: addrs("10.1.0.65", "fd00::2:1")},
		{Name: "c", Addresses: addrs("198.51.100.3"), NetworkAddresses: addrs("198.51.100.3", "2001:db8:2::3"), Tunnels: addrs("10.1.0.129", "fd00::3:1")},
	}}
	for i, node := range []string{"a", "b", "c"} {
		s.Blocks = append(s.Blocks, &model.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(64 * i)}), 26), Pool: "p4", Node: node})
	}
	for i, node := range []string{"a", "b", "c"} {
		s.Blocks = append(s.Blocks, &model.Block{CIDR: netip.MustParsePrefix(fmt.Sprintf("fd00::%d:0/112", i+1)), Pool: "p6", Node: node})
	}
	return s, model.Local{Name: "a", Network: true, Tunnels: addrs("10.1.0.1", "fd00::1:1"), Interfaces: prefixes("192.0.2.1/24", "2001:db8:1::1/64"), Links: []model.Link{
		{Name: "eth0", MTU: 1500, Addresses: prefixes("192.0.2.1/24", "2001:db8:1::1/64"), Default4: true, Default6: true},
		{Name: "eth1", MTU: 9000, Addresses: prefixes("203.0.113.1/24", "203.0.113.9/32")},
	}}
}

// render writes what matters of a plan on lines.
func render(p *Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mtu %d from %s %s port %d\n", p.Workloads.MTU, p.Workloads.Node4, p.Workloads.Node6, p.Workloads.VXLANPort)
	if p.Workloads.VXLAN != (len(p.Routes.Devices) > 0) {
		fmt.Fprintf(&b, "packets of the overlay are taken from anybody\n")
	}
	for _, d := range p.Routes.Devices {
		fmt.Fprintf(&b, "%s vni %d port %d local %s address %s mtu %d to", d.Name, d.VNI, d.Port, d.Local, d.Address, d.MTU)
		for _, peer := range d.Peers {
			fmt.Fprintf(&b, " %s %s", peer.Node, peer.Tunnel)
		}
		b.WriteString("\n")
	}
	for _, r := range p.Routes.Routes {
		fmt.Fprintf(&b, "%s", r.CIDR)
		if r.Via.IsValid() {
			fmt.Fprintf(&b, " via %s", r.Via)
		} else {
			b.WriteString(" unreachable")
		}
		if r.Device != "" {
			fmt.Fprintf(&b, " dev %s src %s", r.Device, r.Source)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestRoutesBetweenNodes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		vxlan  model.Mode
		ipip   model.Mode
		change func(*model.Snapshot, *model.Local)
		want   string
		says   string // the problems, in parts
	}{
		{name: "CrossSubnet", vxlan: model.ModeCrossSubnet, want: `mtu 1430 from 192.0.2.1 2001:db8:1::1 port 4789
sallyport.v4 vni 4097 port 4789 local 192.0.2.1 address 10.1.0.1 mtu 1450 to 198.51.100.3 10.1.0.129
sallyport.v6 vni 4097 port 4789 local 2001:db8:1::1 address fd00::1:1 mtu 1430 to 2001:db8:2::3 fd00::3:1
10.1.0.0/26 unreachable
10.1.0.64/26 via 192.0.2.2
10.1.0.128/26 via 10.1.0.129 dev sallyport.v4 src 10.1.0.1
fd00::1:0/112 unreachable
fd00::2:0/112 via 2001:db8:1::2
fd00::3:0/112 via fd00::3:1 dev sallyport.v6 src fd00::1:1
`},
		{name: "Always", vxlan: model.ModeAlways, change: func(s *model.Snapshot, _ *model.Local) { s.Blocks = s.Blocks[:3] }, want: `mtu 1430 from 192.0.2.1 2001:db8:1::1 port 4789
sallyport.v4 vni 4097 port 4789 local 192.0.2.1 address 10.1.0.1 mtu 1450 to 192.0.2.2 10.1.0.65 198.51.100.3 10.1.0.129
sallyport.v6 vni 4097 port 4789 local 2001:db8:1::1 address fd00::1:1 mtu 1430 to
10.1.0.0/26 unreachable
10.1.0.64/26 via 10.1.0.65 dev sallyport.v4 src 10.1.0.1
10.1.0.128/26 via 10.1.0.129 dev sallyport.v4 src 10.1.0.1
`},
		{name: "Never: no route of ours beyond the subnet, and the whole MTU", vxlan: model.ModeNever, want: `mtu 1500 from 192.0.2.1 2001:db8:1::1 port 4789
10.1.0.0/26 unreachable
10.1.0.64/26 via 192.0.2.2
fd00::1:0/112 unreachable
fd00::2:0/112 via 2001:db8:1::2
`},
		{name: "IPIP is not VXLAN in silence", vxlan: model.ModeNever, ipip: model.ModeAlways, change: func(s *model.Snapshot, _ *model.Local) { s.Blocks = s.Blocks[:3] }, want: `mtu 1500 from 192.0.2.1 2001:db8:1::1 port 4789
10.1.0.0/26 unreachable
10.1.0.64/26 unreachable
10.1.0.128/26 unreachable
`, says: "unreachable blocks: 2, such as 10.1.0.64/26: pool p4 asks for ipipMode, which Sallyport does not have: set vxlanMode instead"},
		{name: "IPIP across subnets alone", vxlan: model.ModeNever, ipip: model.ModeCrossSubnet, change: func(s *model.Snapshot, _ *model.Local) { s.Blocks = s.Blocks[:3] }, want: `mtu 1500 from 192.0.2.1 2001:db8:1::1 port 4789
10.1.0.0/26 unreachable
10.1.0.64/26 via 192.0.2.2
10.1.0.128/26 unreachable
`, says: "unreachable blocks: 1, such as 10.1.0.128/26: pool p4 asks for ipipMode"},
		{name: "no way is known: never the default route", vxlan: model.ModeCrossSubnet, change: func(s *model.Snapshot, l *model.Local) {
			s.Nodes[1].NetworkAddresses, s.Nodes[1].Tunnels = nil, nil
			s.Nodes[2].NetworkAddresses = addrs("198.51.100.3")
			s.Nodes[2].Tunnels = addrs("10.1.0.1", "fd00::3:1") // the first is one of a's
		}, want: `mtu 1430 from 192.0.2.1 2001:db8:1::1 port 4789
sallyport.v4 vni 4097 port 4789 local 192.0.2.1 address 10.1.0.1 mtu 1450 to
sallyport.v6 vni 4097 port 4789 local 2001:db8:1::1 address fd00::1:1 mtu 1430 to
10.1.0.0/26 unreachable
10.1.0.64/26 unreachable
10.1.0.128/26 unreachable
fd00::1:0/112 unreachable
fd00::2:0/112 unreachable
fd00::3:0/112 unreachable
`, says: "unreachable blocks: 2, such as 10.1.0.64/26: node b does not exist, or its agent has not announced addresses: start the agent there, or release the block" +
			"|unreachable blocks: 1, such as fd00::3:0/112: node c announces no IPv6 address" +
			"|unreachable blocks: 1, such as 10.1.0.128/26: node c announces no IPv4 tunnel address that lies in a block of its own"},
		{name: "no tunnel address yet", vxlan: model.ModeCrossSubnet, change: func(s *model.Snapshot, l *model.Local) {
			s.Blocks, l.Tunnels = s.Blocks[:3], nil
		}, want: `mtu 1430 from 192.0.2.1 2001:db8:1::1 port 4789
10.1.0.0/26 unreachable
10.1.0.64/26 via 192.0.2.2
10.1.0.128/26 unreachable
`, says: "unreachable blocks: 1, such as 10.1.0.128/26: this node has no IPv4 tunnel address yet"},
		{name: "no address in a family", vxlan: model.ModeAlways, change: func(s *model.Snapshot, l *model.Local) {
			s.Blocks = s.Blocks[3:]
			l.Links[0].Addresses = l.Links[0].Addresses[:1]
		}, want: `mtu 1450 from 192.0.2.1 invalid IP port 4789
sallyport.v4 vni 4097 port 4789 local 192.0.2.1 address 10.1.0.1 mtu 1450 to
fd00::1:0/112 unreachable
fd00::2:0/112 unreachable
fd00::3:0/112 unreachable
`, says: "unreachable blocks: 2, such as fd00::2:0/112: this node has no IPv6 address by which other nodes reach it|this node has no IPv6 address by which other nodes could reach it: the Node declares"},
		{name: "no address in a family, and no other node", vxlan: model.ModeNever, change: func(s *model.Snapshot, l *model.Local) {
			s.Blocks, s.Nodes = s.Blocks[:1], nil
			l.Links[0].Addresses = l.Links[0].Addresses[:1]
		}, want: `mtu 1500 from 192.0.2.1 invalid IP port 4789
10.1.0.0/26 unreachable
`},
		{name: "a pool that is not there, an address that is ours", vxlan: model.ModeCrossSubnet, change: func(s *model.Snapshot, l *model.Local) {
			s.Blocks = s.Blocks[:3]
			s.Blocks[1].Pool, s.Nodes[2].NetworkAddresses = "gone", addrs("192.0.2.1")
		}, want: `mtu 1430 from 192.0.2.1 2001:db8:1::1 port 4789
sallyport.v4 vni 4097 port 4789 local 192.0.2.1 address 10.1.0.1 mtu 1450 to
sallyport.v6 vni 4097 port 4789 local 2001:db8:1::1 address fd00::1:1 mtu 1430 to
10.1.0.0/26 unreachable
10.1.0.128/26 unreachable
`, says: "unreachable blocks: 1, such as 10.1.0.128/26: node c announces an IPv4 address that this node has: give one of them another address|: 1, such as 10.1.0.64/26 of node \"b\": pool \"gone\" does not exist"},
		{name: "blocks that this node alone knows of", vxlan: model.ModeCrossSubnet, change: func(s *model.Snapshot, l *model.Local) {
			s.Blocks = s.Blocks[1:3]
			for i := range 3 {
				l.Blocks = append(l.Blocks, model.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 26), Pool: "p4", Node: "a"})
			}
			l.Blocks = slices.Insert(l.Blocks, 1, model.Block{CIDR: s.Blocks[1].CIDR, Pool: "p4", Node: "a"}) // lost to c
		}, want: `mtu 1430 from 192.0.2.1 2001:db8:1::1 port 4789
sallyport.v4 vni 4097 port 4789 local 192.0.2.1 address 10.1.0.1 mtu 1450 to 198.51.100.3 10.1.0.129
sallyport.v6 vni 4097 port 4789 local 2001:db8:1::1 address fd00::1:1 mtu 1430 to
10.1.0.0/26 unreachable
10.1.0.64/26 via 192.0.2.2
10.1.0.128/26 via 10.1.0.129 dev sallyport.v4 src 10.1.0.1
10.1.1.0/26 unreachable
10.1.2.0/26 unreachable
`},
		{name: "blocks in a subnet of this node, and one that contains another subnet", vxlan: model.ModeCrossSubnet, change: func(s *model.Snapshot, l *model.Local) {
			s.Blocks = append(s.Blocks[:3], &model.Block{CIDR: netip.MustParsePrefix("10.1.1.0/26"), Pool: "p4", Node: "a"})
			l.Links[1].Addresses = prefixes("10.1.0.90/28", "10.1.0.129/26", "10.1.1.1/24", "10.1.0.1/32")
		}, want: `mtu 1430 from 192.0.2.1 2001:db8:1::1 port 4789
sallyport.v4 vni 4097 port 4789 local 192.0.2.1 address 10.1.0.1 mtu 1450 to
sallyport.v6 vni 4097 port 4789 local 2001:db8:1::1 address fd00::1:1 mtu 1430 to
10.1.0.0/26 unreachable
10.1.0.64/26 via 192.0.2.2
`, says: "unreachable blocks: 2, such as 10.1.0.128/26: this node has an interface in a subnet that contains it, and reaches machines there: delete the pods of node c in it, and give pool p4 another range"},
		{name: "configured", vxlan: model.ModeAlways, change: func(s *model.Snapshot, l *model.Local) {
			s.Blocks = s.Blocks[:1]
			s.NodeNetworkConfigurations = []model.NodeNetworkConfiguration{
				{Name: "all", NodeSelector: "all()", MTU: ptr(1400), VXLANPort: ptr(uint16(8472)), VXLANVNI: ptr(uint32(7)), Interface: ptr("eth*")},
				{Name: "some", NodeSelector: "has(zone)", Priority: 1, MTU: ptr(8000), VXLANPort: ptr(uint16(1)), CIDRs: prefixes("203.0.113.0/24")},
			}
			s.Nodes[0].Labels = map[string]string{"zone": "x"}
		}, want: `mtu 7930 from 203.0.113.1 2001:db8:1::1 port 8472
sallyport.v4 vni 7 port 8472 local 203.0.113.1 address 10.1.0.1 mtu 7950 to
sallyport.v6 vni 7 port 8472 local 2001:db8:1::1 address fd00::1:1 mtu 7930 to
10.1.0.0/26 unreachable
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, l := cluster(networkPool("p4", "10.1.0.0/16", tc.vxlan, tc.ipip), networkPool("p6", "fd00::/64", tc.vxlan, tc.ipip))
			if tc.change != nil {
				tc.change(s, &l)
			}
			p := Compile(s, l)
			if diff := cmp.Diff(tc.want, render(p)); diff != "" {
				t.Error(diff)
			}
			for _, part := range strings.Split(tc.says, "|") {
				if !strings.Contains(strings.Join(p.Network.Problems, "\n"), part) {
					t.Errorf("the problems do not say %q:\n%s", part, strings.Join(p.Network.Problems, "\n"))
				}
			}
			if tc.says == "" && len(p.Network.Problems) > 0 {
				t.Errorf("problems: %s", p.Network.Problems)
			}
		})
	}
}

func TestNothingOfTheNetworkWithoutIt(t *testing.T) {
	t.Parallel()
	s, l := cluster(networkPool("p4", "10.1.0.0/16", model.ModeAlways, model.ModeNever))
	l.Network = false
	p := Compile(s, l)
	if _, ok := p.RouteOf(netip.MustParseAddr("10.1.0.65")); ok || len(p.Routes.Routes) > 0 || p.Network.WantsTunnel4 || p.Workloads.Nodes != nil {
		t.Errorf("%+v %+v", p.Routes, p.Network)
	}
}

func TestUplink(t *testing.T) {
	t.Parallel()
	links := []model.Link{
		{Name: "bond0", Addresses: prefixes("10.0.0.5/24", "10.0.0.1/32", "fd00::5/64")},
		{Name: "eth0", Addresses: prefixes("169.254.7.7/16", "198.51.100.9/24", "198.51.100.200/24"), Default4: true},
		{Name: "lo", Addresses: prefixes("127.0.0.1/8", "10.9.9.9/32")},
	}
	for _, tc := range []struct {
		name     string
		declared []netip.Addr
		set      nodeAddress
		f        family
		want     string
	}{
		{name: "the default route's", want: "198.51.100.9"},
		{name: "no default route", f: v6, want: "invalid IP"},
		{name: "the first declared one that stands", declared: addrs("192.0.2.1", "10.0.0.5", "198.51.100.9"), want: "10.0.0.5"},
		{name: "declared on the loopback, as routing to the host does it", declared: addrs("10.9.9.9"), want: "10.9.9.9"},
		{name: "declared, but on no link", declared: addrs("192.0.2.1"), want: "198.51.100.9"},
		{name: "by interface", set: nodeAddress{link: "bond0"}, want: "10.0.0.5"},
		{name: "by interface, in a family that it lacks", set: nodeAddress{link: "eth0"}, f: v6, want: "invalid IP"},
		{name: "by range, the first that holds one", set: nodeAddress{cidrs: prefixes("192.0.2.0/24", "10.0.0.0/8", "198.51.100.0/24")}, want: "10.0.0.5"},
		{name: "by range of the other family", set: nodeAddress{cidrs: prefixes("fd00::/8")}, want: "198.51.100.9"},
		{name: "by both", set: nodeAddress{link: "l*", cidrs: prefixes("10.0.0.0/8")}, want: "10.9.9.9"},
		{name: "of two in a range, the declared one", declared: addrs("198.51.100.200"), set: nodeAddress{link: "eth*"}, want: "198.51.100.200"},
	} {
		if got := uplink(tc.f, links, tc.declared, tc.set).addr.String(); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// drawNetwork is a random cluster of few nodes and blocks, so that every way is drawn often.
func drawNetwork(t *rapid.T) (*model.Snapshot, model.Local) {
	modes := []model.Mode{model.ModeNever, model.ModeAlways, model.ModeCrossSubnet}
	s := &model.Snapshot{}
	for _, name := range []string{"p", "q"} {
		p := networkPool(name, "10.1.0.0/16", rapid.SampledFrom(modes).Draw(t, "vxlan"), model.ModeNever)
		p.BlockSize = 28
		if p.VXLANMode == model.ModeNever {
			p.IPIPMode = rapid.SampledFrom([]model.Mode{model.ModeNever, model.ModeNever, model.ModeAlways, model.ModeCrossSubnet}).Draw(t, "ipip")
		}
		s.Pools = append(s.Pools, p)
	}
	for i := range 4 {
		n := model.Node{Name: fmt.Sprintf("n%d", i)}
		if rapid.IntRange(0, 4).Draw(t, "announces") > 0 {
			n.NetworkAddresses = append(n.NetworkAddresses, rapid.SampledFrom(addrs("192.0.2.2", "192.0.2.3", "198.51.100.3", "198.51.100.4", "192.0.2.1")).Draw(t, "address"))
		}
		if rapid.IntRange(0, 4).Draw(t, "tunnel") > 0 {
			n.Tunnels = append(n.Tunnels, netip.AddrFrom4([4]byte{10, 1, 0, rapid.Byte().Draw(t, "tunnel")}))
		}
		s.Nodes = append(s.Nodes, n)
	}
	for i := range 16 {
		if b := (&model.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(16 * i)}), 28)}); rapid.IntRange(0, 5).Draw(t, "block") > 0 {
			b.Pool = rapid.SampledFrom([]string{"p", "p", "q", "q", "gone"}).Draw(t, "pool")
			b.Node = rapid.SampledFrom([]string{"n0", "n1", "n2", "n3", "n4"}).Draw(t, "node")
			s.Blocks = append(s.Blocks, b)
		}
	}
	l := model.Local{Name: "n0", Network: true, Interfaces: prefixes("192.0.2.1/24")}
	if rapid.IntRange(0, 4).Draw(t, "link") > 0 {
		l.Links = []model.Link{{Name: "eth0", MTU: 1500, Addresses: prefixes("192.0.2.1/24"), Default4: true}}
	}
	if rapid.IntRange(0, 4).Draw(t, "another link") == 0 {
		l.Links = append(l.Links, model.Link{Name: "eth1", MTU: 1500, Addresses: prefixes(fmt.Sprintf("10.1.0.66/%d", rapid.IntRange(24, 32).Draw(t, "bits")))})
	}
	if rapid.IntRange(0, 4).Draw(t, "own tunnel") > 0 {
		l.Tunnels = addrs("10.1.0.1")
	}
	return s, l
}

// slowRoute says by plain search where a packet to an address goes.
func slowRoute(s *model.Snapshot, l model.Local, to netip.Addr) string {
	var block *model.Block
	for _, b := range s.Blocks {
		if b.CIDR.Contains(to) {
			block = b
		}
	}
	if block == nil || block.Pool == "gone" {
		return "not ours"
	}
	for _, link := range l.Links {
		for _, a := range link.Addresses {
			if a.Bits() < 32 && a.Bits() <= block.CIDR.Bits() && a.Masked().Contains(block.CIDR.Addr()) {
				return "not ours"
			}
		}
	}
	var node model.Node
	for _, n := range s.Nodes {
		if n.Name == block.Node {
			node = n
		}
	}
	var mode, ipip model.Mode
	for _, p := range s.Pools {
		if p.Name == block.Pool {
			mode, ipip = p.VXLANMode, p.IPIPMode
		}
	}
	if block.Node == l.Name || len(node.NetworkAddresses) == 0 || mode == "" || node.NetworkAddresses[0] == l.Interfaces[0].Addr() {
		return "unreachable"
	}
	uplink := len(l.Links) > 0 && l.Links[0].Name == "eth0"
	near := uplink && l.Links[0].Addresses[0].Masked().Contains(node.NetworkAddresses[0])
	if ipip != model.ModeNever && (ipip == model.ModeAlways || !near) {
		return "unreachable"
	}
	if near && mode != model.ModeAlways {
		return "direct to " + node.NetworkAddresses[0].String()
	}
	if mode == model.ModeNever {
		return "not ours"
	}
	inOwn := len(node.Tunnels) > 0 && slices.ContainsFunc(s.Blocks, func(b *model.Block) bool {
		return b.Node == node.Name && b.Pool != "gone" && b.CIDR.Contains(node.Tunnels[0])
	})
	if !uplink || len(l.Tunnels) == 0 || !inOwn {
		return "unreachable"
	}
	return "overlay to " + node.NetworkAddresses[0].String()
}

// fastRoute says by a plan what the kernel would do.
func fastRoute(p *Plan, to netip.Addr) string {
	for _, r := range p.Routes.Routes {
		switch {
		case !r.CIDR.Contains(to):
		case !r.Via.IsValid():
			return "unreachable"
		case r.Device == "":
			return "direct to " + r.Via.String()
		default:
			for _, d := range p.Routes.Devices {
				for _, peer := range d.Peers {
					if d.Name == r.Device && peer.Tunnel == r.Via {
						return "overlay to " + peer.Node.String()
					}
				}
			}
			return "a device or peer that is not there"
		}
	}
	return "not ours"
}

func TestRoutesEqualASlowModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, l := drawNetwork(t)
		p := Compile(s, l)
		for i := range 16 {
			to := netip.AddrFrom4([4]byte{10, 1, 0, byte(16*i + 5)})
			want, got := slowRoute(s, l, to), fastRoute(p, to)
			if got != want {
				t.Fatalf("%s: %s, want %s", to, got, want)
			}
			r, ok := p.RouteOf(to)
			reached := ok && r.Way != Elsewhere && r.Way != InSubnet
			if reached != (want != "not ours") || reached && r.Via.IsValid() != (want != "unreachable") || ok && r.Reason() == "unknown" {
				t.Fatalf("%s: RouteOf says %+v, want %s", to, r, want)
			}
		}
	})
}

// manyBlocks is a cluster of 5,000 nodes, each with a block of each of two pools.
func manyBlocks() (*model.Snapshot, model.Local) {
	s := &model.Snapshot{Pools: []*model.Pool{networkPool("p", "10.0.0.0/8", model.ModeCrossSubnet, model.ModeNever), networkPool("q", "172.16.0.0/12", model.ModeNever, model.ModeNever)}}
	at := func(first, second byte, n int) netip.Addr {
		return netip.AddrFrom4([4]byte{first, second + byte(n>>16), byte(n >> 8), byte(n)})
	}
	for i := range 5000 {
		name := fmt.Sprintf("node-%04d", i)
		a := at(192, 168, i/250*256+i%250+1)
		s.Nodes = append(s.Nodes, model.Node{Name: name, Addresses: []netip.Addr{a}, NetworkAddresses: []netip.Addr{a}, Tunnels: []netip.Addr{at(10, 0, i*64+1)}})
		s.Blocks = append(s.Blocks, &model.Block{CIDR: netip.PrefixFrom(at(10, 0, i*64), 26), Pool: "p", Node: name})
	}
	for i := range 5000 {
		s.Blocks = append(s.Blocks, &model.Block{CIDR: netip.PrefixFrom(at(172, 16, i*64), 26), Pool: "q", Node: s.Nodes[i].Name})
	}
	return s, model.Local{Name: "node-0000", Network: true, Interfaces: prefixes("192.168.0.1/24"), Tunnels: addrs("10.0.0.1"),
		Links: []model.Link{{Name: "eth0", MTU: 1500, Addresses: prefixes("192.168.0.1/24"), Default4: true}}}
}

func BenchmarkCompileBlocks(b *testing.B) {
	s, l := manyBlocks()
	b.ReportAllocs()
	for b.Loop() {
		if p := Compile(s, l); len(p.Routes.Routes) != 5000+250 {
			b.Fatalf("%d routes", len(p.Routes.Routes))
		}
	}
}
