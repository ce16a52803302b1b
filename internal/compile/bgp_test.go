package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/internal/model"
)

// router is a BGPPeer with a router, for all nodes.
func router(name, address string, asn uint32) model.BGPPeer {
	return model.BGPPeer{Name: name, NodeSelector: "all()", Address: netip.MustParseAddr(address), ASN: asn, Restart: model.DefaultBGPRestart}
}

// peering is a BGPPeer between nodes.
func peering(name, nodes, peers string) model.BGPPeer {
	return model.BGPPeer{Name: name, NodeSelector: nodes, PeerSelector: peers, Restart: model.DefaultBGPRestart}
}

// sessions writes one line for each peer.
func sessions(b BGP) string {
	var out strings.Builder
	for i := range b.Peers {
		p := &b.Peers[i]
		fmt.Fprintf(&out, "%s:%d", p.Address, p.Port)
		if p.Node != "" {
			fmt.Fprintf(&out, " node %s", p.Node)
		}
		fmt.Fprintf(&out, " %d→%d by %q", p.LocalASN, p.ASN, p.Resource)
		if p.Source.IsValid() {
			fmt.Fprintf(&out, " from %s", p.Source)
		}
		for _, flag := range []struct {
			word string
			set  bool
		}{{"v4", p.V4}, {"v6", p.V6}, {"multihop", p.Multihop}, {"client", p.Reflect}, {"self", p.NextHopSelf}, {"bfd", p.BFD.Interval > 0}} {
			if flag.set {
				out.WriteString(" " + flag.word)
			}
		}
		out.WriteString("\n")
	}
	for _, p := range b.Problems {
		out.WriteString("problem: " + p + "\n")
	}
	for _, p := range b.Ignored {
		out.WriteString("ignored: " + p + "\n")
	}
	return out.String()
}

// TestSessions decides with whom node a speaks.
func TestSessions(t *testing.T) {
	t.Parallel()
	mesh := model.BGPConfiguration{Name: "default", MeshRestart: time.Minute}
	noMesh := model.BGPConfiguration{Name: "default", NoMesh: true}
	label := func(s *model.Snapshot, labels ...string) {
		for i, l := range labels {
			if s.Nodes[i].Labels = map[string]string{}; l != "" {
				s.Nodes[i].Labels[l] = ""
			}
		}
	}
	for _, test := range []struct {
		name   string
		change func(s *model.Snapshot, l *model.Local)
		want   string
	}{
		{"nothing is asked", func(*model.Snapshot, *model.Local) {}, ""},
		{"a configuration without a mesh", func(s *model.Snapshot, _ *model.Local) { s.BGPConfigurations = []model.BGPConfiguration{noMesh} }, ""},
		{"routers", func(s *model.Snapshot, _ *model.Local) {
			s.BGPPeers = []model.BGPPeer{router("far", "198.51.100.9", 65001), router("inside", "2001:db8:1::9", 64512), router("local", "fe80::1%eth0", 65001)}
		}, `198.51.100.9:179 64512→65001 by "far" from 192.0.2.1 v4 multihop
2001:db8:1::9:179 64512→64512 by "inside" from 2001:db8:1::1 v6
fe80::1%eth0:179 64512→65001 by "local" v4 v6
`},
		{"what fields say", func(s *model.Snapshot, _ *model.Local) {
			p := router("r", "192.0.2.9", 65001)
			p.Port, p.LocalASN, p.AnySource, p.NextHopSelf, p.TTLSecurity = 1179, 65009, true, true, 1
			p.Ignored = []string{"spec.reachableBy"}
			s.BGPPeers = []model.BGPPeer{p}
			s.NodeNetworkConfigurations = []model.NodeNetworkConfiguration{{Name: "n", NodeSelector: "all()", BFD: &model.BFD{Interval: time.Second, Multiplier: 3}}}
		}, `192.0.2.9:1179 65009→65001 by "r" v4 self bfd
ignored: BGPPeer "r": spec.reachableBy
`},
		{"which nodes", func(s *model.Snapshot, _ *model.Local) {
			one, other, some, none := router("one", "192.0.2.10", 1), router("other", "192.0.2.11", 1), router("some", "192.0.2.12", 1), router("none", "192.0.2.13", 1)
			one.Node, other.Node, some.NodeSelector, none.NodeSelector = "a", "b", "has(x)", "has(y)"
			label(s, "x")
			s.BGPPeers = []model.BGPPeer{none, one, other, some}
		}, `192.0.2.10:179 64512→1 by "one" from 192.0.2.1 v4 multihop
192.0.2.12:179 64512→1 by "some" from 192.0.2.1 v4 multihop
`},
		{"AS numbers and ports of nodes", func(s *model.Snapshot, _ *model.Local) {
			s.BGPPeers = []model.BGPPeer{peering("p", "all()", "all()")}
			s.BGPConfigurations = []model.BGPConfiguration{{Name: "default", ASN: 65000, Port: 1179, NoMesh: true}, {Name: "node.b", Port: 1180}}
			s.Nodes[0].ASN, s.Nodes[2].ASN = 65010, 65012
		}, `192.0.2.2:1180 node b 65010→65000 by "p" from 192.0.2.1 v4 multihop
198.51.100.3:1179 node c 65010→65012 by "p" from 192.0.2.1 v4 multihop
2001:db8:1::2:1180 node b 65010→65000 by "p" from 2001:db8:1::1 v6 multihop
2001:db8:2::3:1179 node c 65010→65012 by "p" from 2001:db8:1::1 v6 multihop
`},
		{"a router is a node", func(s *model.Snapshot, _ *model.Local) {
			s.BGPPeers = []model.BGPPeer{router("p", "192.0.2.2", 64512), router("q", "192.0.2.1", 64512)}
			s.NodeNetworkConfigurations = []model.NodeNetworkConfiguration{{Name: "n", NodeSelector: "all()", BFD: &model.BFD{Interval: time.Second, Multiplier: 3}}}
			s.BGPConfigurations = []model.BGPConfiguration{{Name: "node.b", Port: 1180}}
		}, `192.0.2.2:1180 node b 64512→64512 by "p" from 192.0.2.1 v4
`},
		{"the other end", func(s *model.Snapshot, _ *model.Local) {
			label(s, "x", "y", "y") // a is selected as a peer of those with y
			p := peering("p", "has(y)", "has(x)")
			p.LocalASN = 65020
			s.BGPPeers = []model.BGPPeer{p}
		}, `192.0.2.2:179 node b 64512→65020 by "p" from 192.0.2.1 v4 multihop
198.51.100.3:179 node c 64512→65020 by "p" from 192.0.2.1 v4 multihop
2001:db8:1::2:179 node b 64512→65020 by "p" from 2001:db8:1::1 v6 multihop
2001:db8:2::3:179 node c 64512→65020 by "p" from 2001:db8:1::1 v6 multihop
`},
		{"the other end is another's to ask for", func(s *model.Snapshot, _ *model.Local) {
			label(s, "x", "y", "y")
			p, q := peering("p", "has(y)", "has(x)"), peering("q", "all()", "has(x)")
			p.Manual, q.Manual = true, true
			s.BGPPeers = []model.BGPPeer{p, q}
		}, ""},
		{"both ends ask", func(s *model.Snapshot, _ *model.Local) {
			p := peering("p", "all()", "all()")
			p.LocalASN, p.Manual = 65020, true
			s.BGPPeers, s.Nodes = []model.BGPPeer{p}, s.Nodes[:2]
		}, `192.0.2.2:179 node b 65020→65020 by "p" from 192.0.2.1 v4
2001:db8:1::2:179 node b 65020→65020 by "p" from 2001:db8:1::1 v6
`},
		{"the mesh", func(s *model.Snapshot, _ *model.Local) {
			s.BGPConfigurations = []model.BGPConfiguration{mesh}
			s.Nodes[2].NetworkAddresses = addrs("198.51.100.3")
		}, `192.0.2.2:179 node b 64512→64512 by "" from 192.0.2.1 v4
198.51.100.3:179 node c 64512→64512 by "" from 192.0.2.1 v4
2001:db8:1::2:179 node b 64512→64512 by "" from 2001:db8:1::1 v6
`},
		{"a node that runs no agent is in no mesh", func(s *model.Snapshot, _ *model.Local) {
			s.BGPConfigurations, s.Nodes[1].NetworkAddresses = []model.BGPConfiguration{mesh}, nil
			s.Nodes = s.Nodes[:2]
		}, ""},
		{"a route reflector is in no mesh", func(s *model.Snapshot, _ *model.Local) {
			s.BGPConfigurations, s.Nodes[0].ClusterID = []model.BGPConfiguration{mesh}, netip.MustParseAddr("244.0.0.1")
		}, ""},
		{"nor with one", func(s *model.Snapshot, _ *model.Local) {
			s.BGPConfigurations, s.Nodes[1].ClusterID, s.Nodes[2].ClusterID = []model.BGPConfiguration{mesh}, netip.MustParseAddr("244.0.0.1"), netip.MustParseAddr("244.0.0.2")
		}, ""},
		{"clients of a reflector", func(s *model.Snapshot, _ *model.Local) {
			s.Nodes[0].ClusterID, s.Nodes[1].ClusterID = netip.MustParseAddr("244.0.0.1"), netip.MustParseAddr("244.0.0.1")
			s.BGPPeers = []model.BGPPeer{peering("p", "all()", "all()"), router("r", "192.0.2.9", 65001), router("s", "192.0.2.10", 64512)}
		}, `192.0.2.2:179 node b 64512→64512 by "p" from 192.0.2.1 v4
192.0.2.9:179 64512→65001 by "r" from 192.0.2.1 v4 multihop
192.0.2.10:179 64512→64512 by "s" from 192.0.2.1 v4 client
198.51.100.3:179 node c 64512→64512 by "p" from 192.0.2.1 v4 client
2001:db8:1::2:179 node b 64512→64512 by "p" from 2001:db8:1::1 v6
2001:db8:2::3:179 node c 64512→64512 by "p" from 2001:db8:1::1 v6 client
`},
		{"several ask for one session", func(s *model.Snapshot, _ *model.Local) {
			s.BGPConfigurations = []model.BGPConfiguration{mesh}
			all, some, one, again := router("a", "192.0.2.2", 1), router("b", "192.0.2.2", 2), router("c", "192.0.2.2", 3), peering("d", "all()", "all()")
			some.NodeSelector, one.Node, one.NodeSelector = "has(x)", "a", "all()"
			label(s, "x")
			s.BGPPeers = []model.BGPPeer{all, some, one, again}
			s.Nodes[1].NetworkAddresses, s.Nodes[2].NetworkAddresses = addrs("192.0.2.2"), nil
		}, `192.0.2.2:179 node b 64512→3 by "c" from 192.0.2.1 v4 multihop
problem: BGPPeer "b": BGPPeer "c" has a session with 192.0.2.2 already, which decides: take one of the two away, or have them select other nodes
problem: BGPPeer "a": BGPPeer "c" has a session with 192.0.2.2 already, which decides: take one of the two away, or have them select other nodes
problem: BGPPeer "d": BGPPeer "c" has a session with 192.0.2.2 already, which decides: take one of the two away, or have them select other nodes
`},
		{"a filter that is not there", func(s *model.Snapshot, _ *model.Local) {
			p := router("p", "192.0.2.9", 65001)
			p.Filters = []string{"f", "g"}
			s.BGPPeers, s.BGPFilters = []model.BGPPeer{p, router("q", "192.0.2.10", 65001)}, []model.BGPFilter{{Name: "f"}}
		}, `192.0.2.10:179 64512→65001 by "q" from 192.0.2.1 v4 multihop
problem: BGPPeer "p": spec.filters[1]: there is no BGPFilter "g" that can be used, and without it more routes would pass, so that no session is made: create it, or correct the list
`},
		{"what is ignored", func(s *model.Snapshot, _ *model.Local) {
			s.BGPConfigurations = []model.BGPConfiguration{{Name: "default", NoMesh: true, Ignored: []string{"spec.serviceClusterIPs"}}, {Name: "node.a", Ignored: []string{"spec.logSeverityScreen"}},
				{Name: "node.b", Ignored: []string{"spec.logSeverityScreen"}}, {Name: "mine"}}
			s.BGPPeers = []model.BGPPeer{{Name: "w", NodeSelector: "all()", Ignored: []string{"spec.localWorkloadSelector"}}}
		}, `ignored: BGPConfiguration "default": spec.serviceClusterIPs
ignored: BGPConfiguration "node.a": spec.logSeverityScreen
ignored: BGPConfiguration "mine": is neither default nor node.NAME, with the name of a node
ignored: BGPPeer "w": spec.localWorkloadSelector
`},
	} {
		s, l := cluster(networkPool("p4", "10.1.0.0/16", model.ModeNever, model.ModeNever), networkPool("p6", "fd00::/64", model.ModeNever, model.ModeNever))
		test.change(s, &l)
		b := Compile(s, l).BGP
		if diff := cmp.Diff(test.want, sessions(b)); diff != "" {
			t.Errorf("%s:\n%s", test.name, diff)
		}
		if b.Run != (len(b.Peers) > 0) || !b.Run && (len(b.Announcements) > 0 || b.RouterID.IsValid()) {
			t.Errorf("%s: run: %t, with %d peers", test.name, b.Run, len(b.Peers))
		}
	}
}

// TestSessionsOfBothEnds: whatever BGPPeers and annotations say, each end of a session between two nodes expects what the other is.
func TestSessionsOfBothEnds(t *testing.T) {
	t.Parallel()
	compile := func(s *model.Snapshot, self int) BGP {
		n := s.Nodes[self]
		l := model.Local{Name: n.Name, Network: true, Links: []model.Link{{Name: "eth0", Default4: true, Default6: true}}}
		for _, a := range n.NetworkAddresses {
			l.Interfaces = append(l.Interfaces, netip.PrefixFrom(a, 24))
		}
		l.Links[0].Addresses = l.Interfaces
		return Compile(s, l).BGP
	}
	for n := range 1 << 12 {
		bit := func(i int) bool { return n>>i&1 == 1 }
		s := &model.Snapshot{Nodes: []model.Node{{Name: "a", Labels: map[string]string{}, NetworkAddresses: addrs("192.0.2.1")}, {Name: "b", Labels: map[string]string{}, NetworkAddresses: addrs("192.0.2.2")}}}
		for i := range s.Nodes {
			for j, l := range []string{"x", "y"} {
				if bit(2*i + j) {
					s.Nodes[i].Labels[l] = ""
				}
			}
			if bit(4 + i) {
				s.Nodes[i].ASN = uint32(65000 + i)
			}
			if bit(6 + i) {
				s.BGPConfigurations = append(s.BGPConfigurations, model.BGPConfiguration{Name: "node." + s.Nodes[i].Name, Port: uint16(1000 + i)})
			}
		}
		p, q := peering("p", "has(x)", "has(y)"), peering("q", "has(y)", "all()")
		if bit(8) {
			p.LocalASN = 65020
		}
		p.Manual = bit(9)
		s.BGPPeers = []model.BGPPeer{p}
		if bit(10) && p.LocalASN == 0 { // two that ask for the same pair may differ
			s.BGPPeers = append(s.BGPPeers, q)
		}
		if bit(11) {
			s.BGPConfigurations = append(s.BGPConfigurations, model.BGPConfiguration{Name: "default", NoMesh: p.LocalASN != 0})
		}
		a, b := compile(s, 0), compile(s, 1)
		switch {
		case !p.Manual && len(a.Peers) != len(b.Peers):
			t.Fatalf("%+v:\n%s\n%s", s, sessions(a), sessions(b))
		case len(a.Peers) == 0 || len(b.Peers) == 0:
			continue
		}
		there, back := a.Peers[0], b.Peers[0]
		if there.ASN != back.LocalASN || back.ASN != there.LocalASN || there.Port != b.ListenPort || back.Port != a.ListenPort || there.Address != back.Source || back.Address != there.Source {
			t.Fatalf("%+v:\n%s\n%s", s, sessions(a), sessions(b))
		}
	}
}

// TestTimes: the hold time is no less than three keepalive times.
func TestTimes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ hold, keepalive, wantHold, wantKeepalive time.Duration }{
		{0, 0, 90 * time.Second, 30 * time.Second},
		{9 * time.Second, 0, 9 * time.Second, 3 * time.Second},
		{10 * time.Second, 0, 10 * time.Second, 3 * time.Second},
		{9 * time.Second, time.Second, 9 * time.Second, time.Second},
		{9 * time.Second, 20 * time.Second, 60 * time.Second, 20 * time.Second},
	} {
		s, l := cluster()
		p := router("p", "192.0.2.9", 1)
		p.Keepalive, p.Restart = test.keepalive, 7*time.Second
		s.BGPPeers = []model.BGPPeer{p}
		if test.hold > 0 {
			s.NodeNetworkConfigurations = []model.NodeNetworkConfiguration{{NodeSelector: "all()", Hold: &test.hold}}
		}
		got := Compile(s, l).BGP.Peers[0]
		if got.Hold != test.wantHold || got.Keepalive != test.wantKeepalive || got.Restart != 7*time.Second || got.MaxPrefixes != 10_000 {
			t.Errorf("%+v: %+v", test, got)
		}
	}
}

// TestAnnouncements: a node announces its own blocks, and says why it does not announce one.
func TestAnnouncements(t *testing.T) {
	t.Parallel()
	private := networkPool("private", "10.9.0.0/16", model.ModeNever, model.ModeNever)
	private.DisableBGPExport = true
	small := networkPool("small", "10.1.0.0/24", model.ModeNever, model.ModeNever)
	small.BlockSize = 27
	s, l := cluster(networkPool("p4", "10.1.0.0/16", model.ModeNever, model.ModeNever), networkPool("p6", "fd00::/64", model.ModeNever, model.ModeNever), private, small)
	s.Blocks = append(s.Blocks, []*model.Block{
		{CIDR: netip.MustParsePrefix("10.1.0.32/27"), Pool: "p4", Node: "a"}, {CIDR: netip.MustParsePrefix("10.1.0.0/27"), Pool: "small", Node: "a"}, {CIDR: netip.MustParsePrefix("10.1.1.0/26"), Pool: "p4", Node: "a"},
		{CIDR: netip.MustParsePrefix("10.9.0.0/26"), Pool: "private", Node: "a"}, {CIDR: netip.MustParsePrefix("10.9.0.64/26"), Pool: "gone", Node: "a"},
	}...)
	l.Links = append(l.Links, model.Link{Name: "eth2", Addresses: prefixes("10.1.3.9/24")})
	s.Blocks = append(s.Blocks, &model.Block{CIDR: netip.MustParsePrefix("10.1.3.0/26"), Pool: "p4", Node: "a"})
	slices.SortFunc(s.Blocks, func(a, b *model.Block) int { return a.CIDR.Compare(b.CIDR) })
	l.Blocks = []model.Block{{CIDR: netip.MustParsePrefix("10.1.2.0/26"), Pool: "p4", Node: "a"}} // claimed just now
	s.BGPPeers = []model.BGPPeer{router("r", "192.0.2.9", 65001)}
	lan, wan := model.Community{Admin: 65000, One: 1}, model.Community{Large: true, Admin: 65000, One: 1, Two: 2}
	s.BGPConfigurations = []model.BGPConfiguration{{Name: "default", NoMesh: true, Advertisements: []model.PrefixAdvertisement{
		{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Communities: []model.Community{wan, lan}}, {CIDR: netip.MustParsePrefix("10.1.1.0/24"), Communities: []model.Community{lan}},
		{CIDR: netip.MustParsePrefix("10.1.2.1/32"), Communities: []model.Community{{Admin: 1, One: 1}}}}}, {Name: "node.a", Port: 1179}}
	say := func(b BGP) string {
		var out strings.Builder
		for _, a := range b.Announcements {
			fmt.Fprintf(&out, "%s %v: %s\n", a.Prefix, a.Communities, a.Why)
		}
		for _, w := range b.Withheld {
			fmt.Fprintf(&out, "not %s: %s\n", w.Prefix, w.Why)
		}
		return out.String()
	}
	b := Compile(s, l).BGP
	if diff := cmp.Diff(`10.1.0.0/26 [65000:1 65000:1:2]: this node owns the block, of pool p4
10.1.1.0/26 [65000:1 65000:1:2]: this node owns the block, of pool p4
10.1.2.0/26 [65000:1 65000:1:2]: this node owns the block, of pool p4
fd00::1:0/112 []: this node owns the block, of pool p6
not 10.1.0.0/27: it overlaps 10.1.0.0/26 of node a
not 10.1.0.32/27: pool p4 has blockSize: 26
not 10.1.3.0/26: this node has an interface in a subnet that contains it, and reaches machines there: delete the pods of node a in it, and give pool p4 another range
not 10.9.0.0/26: pool private has disableBGPExport: true
not 10.9.0.64/26: pool "gone" does not exist
`, say(b)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(prefixes("10.1.0.0/26", "10.1.1.0/26", "10.1.2.0/26", "10.1.3.0/26", "10.9.0.0/26", "192.0.2.1/32", "2001:db8:1::1/128", "fd00::1:0/112"), b.Own, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if b.Reflected != nil {
		t.Errorf("reflects %v without being a reflector", b.Reflected)
	}
	s.BGPConfigurations[1].Advertisements = []model.PrefixAdvertisement{{CIDR: netip.MustParsePrefix("fd00::/8"), Communities: []model.Community{lan}}}
	s.Nodes[0].ClusterID = netip.MustParseAddr("244.0.0.1")
	s.BGPPeers[0].ASN = 64512
	b = Compile(s, l).BGP
	if got := b.Announcements; got[0].Communities != nil || len(got[3].Communities) != 1 {
		t.Errorf("with communities for the node: %v", got)
	}
	if !slices.Equal(b.Reflected, prefixes("10.1.0.0/16", "fd00::/64")) {
		t.Errorf("reflects %v", b.Reflected)
	}
}

// TestWhereItListens.
func TestWhereItListens(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		configs []model.BGPConfiguration
		change  func(*model.Local)
		want    string
		port    uint16
		problem string
	}{
		{nil, nil, "[0.0.0.0 ::]", 179, ""},
		{[]model.BGPConfiguration{{Name: "default", NoMesh: true, NodeIP: ptr(true), Port: 1179}}, nil, "[192.0.2.1 2001:db8:1::1]", 1179, ""},
		{[]model.BGPConfiguration{{Name: "default", NoMesh: true, NodeIP: ptr(true)}, {Name: "node.a", NodeIP: ptr(false), Port: 1180}}, nil, "[0.0.0.0 ::]", 1180, ""},
		{[]model.BGPConfiguration{{Name: "node.a", NodeIP: ptr(true)}}, func(l *model.Local) { l.Links = nil }, "[]", 179, `BGPConfiguration "node.a": spec.bindMode: is NodeIP, and this node has no address`},
	} {
		s, l := cluster()
		s.BGPPeers, s.BGPConfigurations = []model.BGPPeer{router("r", "192.0.2.9", 65001)}, test.configs
		if test.change != nil {
			test.change(&l)
		}
		b := Compile(s, l).BGP
		if fmt.Sprint(b.Listen) != test.want || b.ListenPort != test.port || (len(b.Problems) > 0) != (test.problem != "") || test.problem != "" && !strings.HasPrefix(b.Problems[0], test.problem) {
			t.Errorf("%+v: listens at %v, port %d: %v", test.configs, b.Listen, b.ListenPort, b.Problems)
		}
	}
}

// TestRouterID: it is the node's IPv4 address, else one made of its name, and two nodes with the same are reported.
func TestRouterID(t *testing.T) {
	t.Parallel()
	s, l := cluster()
	s.BGPPeers = []model.BGPPeer{router("r", "2001:db8:1::9", 65001)}
	if b := Compile(s, l).BGP; b.RouterID != netip.MustParseAddr("192.0.2.1") || len(b.Problems) > 0 {
		t.Errorf("%s, %v", b.RouterID, b.Problems)
	}
	l.Links[0].Addresses, l.Links[1].Addresses = prefixes("2001:db8:1::1/64"), nil
	made := Compile(s, l).BGP
	if id := made.RouterID; !id.Is4() || id.IsUnspecified() || len(made.Problems) > 0 {
		t.Errorf("%s, %v", id, made.Problems)
	}
	s.Nodes[1].NetworkAddresses[0] = made.RouterID
	if got := Compile(s, l).BGP.Problems; len(got) != 1 || !strings.Contains(got[0], `node "b" have the same router ID, `+made.RouterID.String()) {
		t.Errorf("%v", got)
	}
	s.Nodes[1].NetworkAddresses = nil // it runs no agent
	if got := Compile(s, l).BGP.Problems; len(got) != 0 {
		t.Errorf("%v", got)
	}
}
