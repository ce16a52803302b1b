package workload

import (
	"log/slog"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nftables"
)

// fate is what the rules do with a frame.
type fate int

const (
	passes fate = iota
	spoofed
	injected
	silent // it is dropped and does not count
)

func (f fate) String() string { return []string{"passes", "spoofed", "injected", "silent"}[f] }

// watchFrames counts, behind our rules, the frames of tests that come by a device.
func (n *node) watchFrames(device string) *nftables.Engine {
	n.Helper()
	e, err := nftables.New("probe", nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: n.FD(), Family: nftables.FamilyNetdev})
	labtest.Must(n, err)
	n.Cleanup(func() { _ = e.Close() })
	ofTests := is(&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6, DestRegister: nftables.Reg1}, probeMAC[:])
	labtest.Must(n, e.Apply(n.Context(), &nftables.Table{Chains: []nftables.Chain{{Name: "passed", Tally: true,
		Hook:  nftables.Hook{Kind: nftables.KindFilter, Number: unix.NF_NETDEV_INGRESS, Device: device},
		Rules: []nftables.Rule{nftables.NewRule(ofTests, nftables.Count())}}}}))
	return e
}

// fates is how many frames have met each fate so far.
func (n *node) fates(probe *nftables.Engine) (f [3]uint64) {
	n.Helper()
	drops, err := n.driver.Drops(n.Context())
	passed, probeErr := probe.Tallies(n.Context())
	labtest.Must(n, err, probeErr)
	return [3]uint64{passes: passed["passed"], spoofed: drops.Spoofed, injected: drops.Injected}
}

const (
	own4, own6         = "10.1.0.2", "2001:db8:1::2"
	foreign4, foreign6 = "10.1.0.3", "2001:db8:1::3"
	peer4, peer6       = "192.0.2.2", "2001:db8::2" // another node
	out4, out6         = "198.51.100.1", "2001:db8:ff::1"
	more               = 0x2000 // of IPv4: more fragments follow
)

func frames() []struct {
	name  string
	want  fate
	frame []byte
} {
	const p4, p6, pARP = unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP
	vxlan, dns := udp(4789, make([]byte, 32)), udp(53, make([]byte, 32))
	local := "fe80::1234"
	return []struct {
		name  string
		want  fate
		frame []byte
	}{
		{"own IPv4", passes, ethernet(p4, ip4(own4, out4, 17, 0, dns))},
		{"own IPv4 TCP to a node", passes, ethernet(p4, ip4(own4, peer4, 6, 0, make([]byte, 20)))},
		{"own IPv4 to a node", passes, ethernet(p4, ip4(own4, peer4, 17, 0, dns))},
		{"own ICMP to a node", passes, ethernet(p4, ip4(own4, peer4, 1, 0, make([]byte, 8)))},
		{"own IPv4 to all", passes, ethernet(p4, ip4(own4, "255.255.255.255", 17, 0, dns))},
		{"another's IPv4", spoofed, ethernet(p4, ip4(foreign4, out4, 17, 0, dns))},
		{"a node's IPv4", spoofed, ethernet(p4, ip4(peer4, out4, 17, 0, dns))},
		{"no IPv4", spoofed, ethernet(p4, ip4("0.0.0.0", "255.255.255.255", 17, 0, udp(67, nil)))},
		{"loopback IPv4", spoofed, ethernet(p4, ip4("127.0.0.1", own4, 17, 0, dns))},
		{"another's fragment", spoofed, ethernet(p4, ip4(foreign4, out4, 17, 4, make([]byte, 16)))},

		{"own IPv6", passes, ethernet(p6, ip6(own6, out6, 17, 64, dns))},
		{"own IPv6 TCP to a node", passes, ethernet(p6, ip6(own6, peer6, 6, 64, make([]byte, 20)))},
		{"own IPv6 to a node", passes, ethernet(p6, ip6(own6, peer6, 17, 64, dns))},
		{"another's IPv6", spoofed, ethernet(p6, ip6(foreign6, out6, 17, 64, dns))},
		{"a node's IPv6", spoofed, ethernet(p6, ip6(peer6, out6, 17, 64, dns))},
		{"link-local to discover", passes, ethernet(p6, ip6(local, "ff02::1:ff00:1", 58, 255, icmp6(135)))},
		{"link-local to advertise", passes, ethernet(p6, ip6(local, "fe80::1", 58, 255, icmp6(136)))},
		{"link-local to solicit routers, which would make the node keep a neighbour", silent, ethernet(p6, ip6(local, "ff02::2", 58, 255, icmp6(133)))},
		{"unspecified to detect duplicates", passes, ethernet(p6, ip6("::", "ff02::1:ff00:1", 58, 255, icmp6(135)))},
		{"link-local to discover, forwarded", spoofed, ethernet(p6, ip6(local, out6, 58, 254, icmp6(135)))},
		{"link-local router", spoofed, ethernet(p6, ip6(local, "ff02::1", 58, 255, icmp6(134)))},
		{"link-local redirect", spoofed, ethernet(p6, ip6(local, "fe80::1", 58, 255, icmp6(137)))},
		{"link-local echo", spoofed, ethernet(p6, ip6(local, out6, 58, 64, icmp6(128)))},
		{"link-local UDP", spoofed, ethernet(p6, ip6(local, out6, 17, 64, dns))},
		{"link-local UDP to all", spoofed, ethernet(p6, ip6(local, "ff02::1", 17, 255, dns))},
		{"link-local listener", silent, ethernet(p6, ip6(local, "ff02::16", 0, 1, options(58, icmp6(143))))},
		{"the gateway's IPv6", spoofed, ethernet(p6, ip6("fe80::1", out6, 17, 64, dns))},
		{"the gateway's IPv6 to advertise", passes, ethernet(p6, ip6("fe80::1", "ff02::1", 58, 255, icmp6(136)))},

		{"own ARP", passes, ethernet(pARP, arp(1, own4, "169.254.1.1"))},
		{"own ARP announcement", passes, ethernet(pARP, arp(2, own4, own4))},
		{"another's ARP", spoofed, ethernet(pARP, arp(1, foreign4, "169.254.1.1"))},
		{"the gateway's ARP", spoofed, ethernet(pARP, arp(2, "169.254.1.1", own4))},
		{"a node's ARP", spoofed, ethernet(pARP, arp(2, node4.String(), own4))},
		{"ARP of something else", spoofed, ethernet(pARP, append([]byte{0, 6}, arp(1, own4, own4)[2:]...))},
		{"short ARP", spoofed, ethernet(pARP, arp(1, own4, own4)[:15])},

		{"VLAN with own IPv4", spoofed, ethernet(unix.ETH_P_8021Q, vlan(5, p4, ip4(own4, out4, 17, 0, dns)))},
		{"VLAN 0 with own IPv4", spoofed, ethernet(unix.ETH_P_8021Q, vlan(0, p4, ip4(own4, out4, 17, 0, dns)))},
		{"VLAN 0 with another's IPv4", spoofed, ethernet(unix.ETH_P_8021Q, vlan(0, p4, ip4(foreign4, out4, 17, 0, dns)))},
		{"VLAN with own IPv6", spoofed, ethernet(unix.ETH_P_8021Q, vlan(5, p6, ip6(own6, out6, 17, 64, dns)))},
		{"two VLANs", spoofed, ethernet(unix.ETH_P_8021AD, vlan(5, unix.ETH_P_8021Q, vlan(6, p4, ip4(own4, out4, 17, 0, dns))))},
		{"VLAN with own ARP", spoofed, ethernet(unix.ETH_P_8021Q, vlan(0, pARP, arp(1, own4, "169.254.1.1")))},
		{"802.3", spoofed, ethernet(100, make([]byte, 100))},
		{"EAPOL", spoofed, ethernet(0x888e, make([]byte, 20))},
		{"PPPoE", spoofed, ethernet(0x8864, make([]byte, 40))},
		{"MPLS", spoofed, ethernet(0x8847, make([]byte, 40))},

		{"VXLAN to a node", injected, ethernet(p4, ip4(own4, peer4, 17, 0, vxlan))},
		{"VXLAN to the own node", injected, ethernet(p4, ip4(own4, node4.String(), 17, 0, vxlan))},
		{"VXLAN to another host", passes, ethernet(p4, ip4(own4, out4, 17, 0, vxlan))},
		{"VXLAN to a node, with options", injected, ethernet(p4, withOptions(ip4(own4, peer4, 17, 0, vxlan)))},
		{"VXLAN in a first fragment", injected, ethernet(p4, ip4(own4, peer4, 17, more, vxlan[:8]))},
		{"the rest of it", passes, ethernet(p4, ip4(own4, peer4, 17, 1, vxlan[8:]))},
		{"IP in IP to a node", injected, ethernet(p4, ip4(own4, peer4, 4, 0, ip4(foreign4, out4, 17, 0, dns)))},
		{"IP in IP in a later fragment", injected, ethernet(p4, ip4(own4, peer4, 4, 3, make([]byte, 16)))},
		{"IPv6 in IP to a node", injected, ethernet(p4, ip4(own4, peer4, 41, 0, ip6(foreign6, out6, 17, 64, dns)))},
		{"IP in IP to another host", passes, ethernet(p4, ip4(own4, out4, 4, 0, ip4(foreign4, out4, 17, 0, dns)))},

		{"VXLAN6 to a node", injected, ethernet(p6, ip6(own6, peer6, 17, 64, vxlan))},
		{"VXLAN6 to the own node", injected, ethernet(p6, ip6(own6, node6.String(), 17, 64, vxlan))},
		{"VXLAN6 to another host", passes, ethernet(p6, ip6(own6, out6, 17, 64, vxlan))},
		{"VXLAN6 behind hop-by-hop options", injected, ethernet(p6, ip6(own6, peer6, 0, 64, options(17, vxlan)))},
		{"VXLAN6 behind two headers", injected, ethernet(p6, ip6(own6, peer6, 60, 64, options(43, options(17, vxlan))))},
		{"TCP behind options", passes, ethernet(p6, ip6(own6, peer6, 60, 64, options(6, make([]byte, 20))))},
		{"VXLAN6 in a first fragment", injected, ethernet(p6, ip6(own6, peer6, 44, 64, fragment6(17, 0, true, vxlan[:8])))},
		{"VXLAN6 in an only fragment", injected, ethernet(p6, ip6(own6, peer6, 44, 64, fragment6(17, 0, false, vxlan)))},
		{"VXLAN6 in two fragments, of which the first has no port", passes, ethernet(p6, ip6(own6, peer6, 44, 64, fragment6(60, 0, true, options(17, nil))))},
		{"the rest of it, without which nothing is put together", injected, ethernet(p6, ip6(own6, peer6, 44, 64, fragment6(60, 1, false, vxlan)))},
		{"a header that is cut off", injected, ethernet(p6, ip6(own6, peer6, 60, 64, []byte{17}))},
		{"IPv6 in IPv6 to a node", injected, ethernet(p6, ip6(own6, peer6, 41, 64, ip6(foreign6, out6, 17, 64, dns)))},
		{"IPv6 in IPv6 behind options", injected, ethernet(p6, ip6(own6, peer6, 60, 64, options(41, ip6(foreign6, out6, 17, 64, dns))))},
		{"IP in IPv6 to a node", injected, ethernet(p6, ip6(own6, peer6, 4, 64, ip4(foreign4, out4, 17, 0, dns)))},
		{"IPv6 in IPv6 in a later fragment", injected, ethernet(p6, ip6(own6, peer6, 44, 64, fragment6(41, 5, false, make([]byte, 16))))},
	}
}

// withOptions gives an IPv4 packet four bytes of options.
func withOptions(p []byte) []byte {
	b := append(append(append([]byte(nil), p[:20]...), 1, 1, 1, 0), p[20:]...)
	b[0], b[3], b[10], b[11] = 0x46, b[3]+4, 0, 0
	return b
}

// TestSpoof sends what a workload must not send, and what it may.
func TestSpoof(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	p := n.run(1, own4, own6)
	n.run(2, foreign4, foreign6)
	probe := n.watchFrames(p.Device())
	before := n.fates(probe)
	for _, f := range frames() {
		p.send(t, f.frame, ethernet(unix.ETH_P_ARP, arp(1, own4, own4))) // the second tells that the first was seen
		want := before
		want[passes]++
		if f.want != silent {
			want[f.want]++
		}
		var now [3]uint64
		eventually(t, f.name+" is seen", func() bool {
			now = n.fates(probe)
			return now[passes] > before[passes] && now[passes]+now[spoofed]+now[injected] >= want[passes]+want[spoofed]+want[injected]
		})
		if now != want {
			t.Errorf("%s: it should be %s, but passed, spoofed and injected are %v, from %v", f.name, f.want, now, before)
		}
		before = now
	}
}
