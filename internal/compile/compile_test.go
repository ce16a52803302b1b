package compile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/model"
)

func pool(name, cidr string, nat bool) *model.Pool {
	return &model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), NATOutgoing: nat,
		VXLANMode: model.ModeNever, AllowedUses: model.UseWorkload | model.UseTunnel}
}

func TestSourcesAreDisjointAndNamed(t *testing.T) {
	t.Parallel()
	older := pool("twin-b", "10.0.0.0/24", true)
	younger := pool("twin-a", "10.0.0.0/24", true)
	younger.Rank = 1
	for _, tc := range []struct {
		name  string
		pools []*model.Pool
		want  string
	}{
		{"none", nil, ""},
		{"off", []*model.Pool{pool("a", "10.0.0.0/8", false)}, ""},
		{"one", []*model.Pool{pool("a", "10.0.0.0/8", true)}, "a 10.0.0.0-10.255.255.255"},
		{"adjacent stay apart", []*model.Pool{pool("a", "10.0.0.0/25", true), pool("b", "10.0.0.128/25", true)},
			"a 10.0.0.0-10.0.0.127, b 10.0.0.128-10.0.0.255"},
		{"nested", []*model.Pool{pool("in", "10.0.1.0/24", true), pool("out", "10.0.0.0/16", true)},
			"out 10.0.0.0-10.0.0.255, in 10.0.1.0-10.0.1.255, out 10.0.2.0-10.0.255.255"},
		{"nested at both ends", []*model.Pool{pool("first", "10.0.0.0/24", true), pool("last", "10.0.255.0/24", true), pool("out", "10.0.0.0/16", true)},
			"first 10.0.0.0-10.0.0.255, out 10.0.1.0-10.0.254.255, last 10.0.255.0-10.0.255.255"},
		{"false within true is still translated", []*model.Pool{pool("in", "10.0.1.0/24", false), pool("out", "10.0.0.0/16", true)},
			"out 10.0.0.0-10.0.255.255"},
		{"the older of twins decides", []*model.Pool{younger, older}, "twin-b 10.0.0.0-10.0.0.255"},
		{"the whole of a family and its last address", []*model.Pool{pool("all", "0.0.0.0/0", true), pool("end", "255.255.255.255/32", true), pool("six", "::/0", true)},
			"all 0.0.0.0-255.255.255.254, end 255.255.255.255-255.255.255.255, six ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, s := range sources(byCIDR(tc.pools)) {
				got = append(got, fmt.Sprintf("%s %s", s.Pool, s.Range))
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, ", ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUDPPortsLeaveTheVXLANPort(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		set   model.PortRange
		vxlan bool
		want  string
	}{
		{model.PortRange{}, false, ""},
		{model.PortRange{}, true, "4790-65535"},
		{model.PortRange{First: 4000, Last: 5000}, false, "4000-5000"},
		{model.PortRange{First: 4000, Last: 5000}, true, "4000-4788"},
		{model.PortRange{First: 4700, Last: 5000}, true, "4790-5000"},
		{model.PortRange{First: 4788, Last: 4789}, true, "4788-4788"},
		{model.PortRange{First: 4789, Last: 4790}, true, "4790-4790"},
		{model.PortRange{First: 4790, Last: 4800}, true, "4790-4800"},
		{model.PortRange{First: 1, Last: 4788}, true, "1-4788"},
	} {
		if got := udpPorts(tc.set, tc.vxlan, model.VXLANPort).String(); got != tc.want {
			t.Errorf("set %q, VXLAN in use %v: got %q, want %q", tc.set, tc.vxlan, got, tc.want)
		}
	}
	if got := udpPorts(model.PortRange{First: 4000, Last: 5000}, true, 4900).String(); got != "4000-4899" {
		t.Errorf("with VXLAN on another port: got %q", got)
	}
}

func TestBroadcast(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.10/24": "192.0.2.255", "192.0.2.9/30": "192.0.2.11", "10.1.2.3/8": "10.255.255.255",
		"192.0.2.8/31": "", "192.0.2.8/32": "", "127.0.0.1/8": "", "192.0.2.1/0": "", "2001:db8::1/64": "",
	} {
		got, ok := broadcast(netip.MustParsePrefix(address))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v %t, want %q", address, got, ok, want)
		}
	}
}

func TestLeakGuardIsOnUnlessTurnedOff(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		set  *model.LeakGuard
		want bool
	}{{nil, true}, {ptr(model.LeakGuardEnabled), true}, {ptr(model.LeakGuardDisabled), false}} {
		s := &model.Snapshot{NATConfigurations: []model.NATConfiguration{{Name: "c", NodeSelector: "all()", LeakGuard: tc.set}}}
		if got := Compile(s, model.Local{Name: "n"}).NAT.LeakGuard; got != tc.want {
			t.Errorf("set to %v: %t", tc.set, got)
		}
	}
}

func TestReasonsNameThePool(t *testing.T) {
	t.Parallel()
	lb := pool("services", "192.0.2.0/24", false)
	lb.AllowedUses = model.UseLoadBalancer
	corporate := pool("corporate", "10.0.0.0/8", false)
	corporate.Disabled = true
	younger, older := pool("twin-a", "100.64.0.0/16", false), pool("twin-b", "100.64.0.0/16", false)
	younger.Rank, older.Rank = 2, 1
	s := &model.Snapshot{
		Pools: []*model.Pool{corporate, pool("pods", "10.244.0.0/16", true), pool("public", "203.0.113.0/24", false), lb, younger, older},
		NATConfigurations: []model.NATConfiguration{{Name: "c", NodeSelector: "all()",
			Exclusions: ptr(model.ExcludeIPPoolsAndHostIPs), OutInterfaces: []string{"eth*"}}},
		Nodes: []model.Node{{Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("172.16.0.2")}}},
	}
	p := Compile(s, model.Local{Name: "n1", Interfaces: []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32"), netip.MustParsePrefix("172.16.0.1/24")}})
	for _, tc := range []struct{ src, dst, out, want string }{
		{"10.244.0.1", "198.51.100.1", "", "pool pods has natOutgoing: true and no pool holds 198.51.100.1, nor is it a node's address"},
		{"10.244.0.1", "198.51.100.1", "wg0", "it leaves by wg0, and outInterfaces covers only eth*"},
		{"10.244.0.1", "192.0.2.1", "", "pool pods has natOutgoing: true, and pool services, which holds 192.0.2.1, is for load balancers alone and exempts nothing"},
		{"10.244.0.1", "10.1.1.1", "", "10.1.1.1 lies in pool corporate, disabled: it only exempts its range"},
		{"10.244.0.1", "203.0.113.1", "", "203.0.113.1 lies in pool public, and nothing is translated between pools"},
		{"10.244.0.1", "172.16.0.1", "", "172.16.0.1 is this node's own address: what a pod says to its node never passes the translation"},
		{"10.244.0.1", "172.16.0.2", "", "172.16.0.2 is an address of node n2, and exclusions is IPPoolsAndHostIPs"},
		{"10.244.0.1", "172.16.0.255", "", "172.16.0.255 is the broadcast address of a subnet of this node"},
		{"10.244.0.1", "169.254.169.254", "", "pool pods has natOutgoing: true and no pool holds 169.254.169.254, nor is it a node's address"},
		{"10.244.0.1", "169.254.20.10", "", "169.254.20.10 is this node's own address: what a pod says to its node never passes the translation"},
		{"203.0.113.1", "198.51.100.1", "", "pool public has natOutgoing: false, and no other pool that holds 203.0.113.1 says true"},
		{"192.0.2.1", "198.51.100.1", "", "pool services, which holds 192.0.2.1, is for load balancers alone and holds no pod"},
		{"198.51.100.2", "198.51.100.1", "", "no pool holds 198.51.100.2"},
		{"100.64.0.1", "198.51.100.1", "", "pool twin-b has natOutgoing: false, and no other pool that holds 100.64.0.1 says true"},
	} {
		v := p.Decide(Flow{Source: netip.MustParseAddr(tc.src), Destination: netip.MustParseAddr(tc.dst), Protocol: TCP, OutInterface: tc.out})
		if v.Reason != tc.want {
			t.Errorf("%s to %s by %q:\n got %s\nwant %s", tc.src, tc.dst, tc.out, v.Reason, tc.want)
		}
	}
}

// TestDecideOfTheOverlay: what would look like a packet of the overlay keeps its source.
func TestDecideOfTheOverlay(t *testing.T) {
	t.Parallel()
	p := Compile(&model.Snapshot{Pools: []*model.Pool{pool("pods", "10.0.0.0/8", true)}}, model.Local{Name: "n"})
	p.Workloads.VXLANPort = 4789
	for _, tc := range []struct {
		protocol Protocol
		port     uint16
		want     Action
	}{{UDP, 4789, Keep}, {UDP, 4790, Translate}, {TCP, 4789, Translate}} {
		v := p.Decide(Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("198.51.100.1"), Protocol: tc.protocol, DestinationPort: tc.port})
		if v.Action != tc.want || tc.want == Keep && !strings.Contains(v.Reason, "the leak guard drops") {
			t.Errorf("protocol %d, port %d: %s, %s", tc.protocol, tc.port, v.Action, v.Reason)
		}
	}
}

// TestLinkLocal follows the setting through its merge: Keep exempts 169.254.0.0/16 to its bounds, and a higher
// priority sets it back.
func TestLinkLocal(t *testing.T) {
	t.Parallel()
	keep := model.NATConfiguration{Name: "keep", NodeSelector: "all()", LinkLocal: ptr(model.LinkLocalKeep)}
	translate := model.NATConfiguration{Name: "translate", NodeSelector: "all()", Priority: 1, LinkLocal: ptr(model.LinkLocalTranslate)}
	for name, tc := range map[string]struct {
		set  []model.NATConfiguration
		kept string
	}{
		"not set":  {nil, ""},
		"Keep":     {[]model.NATConfiguration{keep}, "169.254.0.0-169.254.255.255"},
		"set back": {[]model.NATConfiguration{keep, translate}, ""},
	} {
		p := Compile(&model.Snapshot{Pools: []*model.Pool{pool("pods", "10.0.0.0/8", true)}, NATConfigurations: tc.set}, model.Local{Name: "n"})
		for _, dst := range []string{"169.253.255.255", "169.254.0.0", "169.254.169.254", "169.254.255.255", "169.255.0.0"} {
			v := p.Decide(Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr(dst)})
			want := Translate
			if tc.kept != "" && v.Destination.Address.IsLinkLocalUnicast() {
				want = Keep
			}
			if v.Action != want || want == Keep && v.Reason != dst+" is a link-local address, and linkLocal is Keep" {
				t.Errorf("%s: %s: %s, %s; want %s", name, dst, v.Action, v.Reason, want)
			}
		}
		if got := fmt.Sprint(p.NAT.Exempt); strings.Contains(got, "169.254") != (tc.kept != "") || !strings.Contains(got, tc.kept) {
			t.Errorf("%s: exempt are %s", name, got)
		}
	}
}

// tenThousandPools is a snapshot such as a very large cluster has.
func tenThousandPools() *model.Snapshot {
	s := &model.Snapshot{}
	for i := range 10_000 {
		s.Pools = append(s.Pools, pool(fmt.Sprintf("p%05d", i), fmt.Sprintf("10.%d.%d.0/25", i/250, i%250), i%2 == 0))
	}
	return s
}

func BenchmarkCompile10000Pools(b *testing.B) {
	s := tenThousandPools()
	for b.Loop() {
		Compile(s, model.Local{Name: "n"})
	}
}

func BenchmarkAllocatable10000Pools(b *testing.B) {
	s := tenThousandPools()
	for b.Loop() {
		Allocatable(s.Pools)
	}
}

// The package knows no Kubernetes types, so that it says the reasons itself.
func TestReasonsAreThoseOfTheAPI(t *testing.T) {
	t.Parallel()
	for ours, api := range map[string]string{
		ReasonOK: apiv3.IPPoolReasonOK, ReasonPoolDisabled: apiv3.IPPoolReasonPoolDisabled, ReasonCIDROverlap: apiv3.IPPoolReasonCIDROverlap,
	} {
		if ours != api {
			t.Errorf("%q is %q in the API", ours, api)
		}
	}
}
