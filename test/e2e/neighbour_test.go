package e2e

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// neighbourDiscovery is a neighbour solicitation or advertisement (RFC 4861) from one address to another, about
// that of the other or its own.
func neighbourDiscovery(kind byte, src, dst, about netip.Addr, hopLimit byte) []byte {
	b := make([]byte, 24)
	b[0] = kind
	copy(b[8:], about.AsSlice())
	check := packet{src: src, dst: dst, proto: compile.ICMPv6}.checksum(b)
	b[2], b[3] = byte(check>>8), byte(check)
	ip := ipPacket(src, dst, compile.ICMPv6, b)
	ip[7] = hopLimit
	return ip
}

// TestNeighboursThroughABridge bridges a pod of a translated pool to the network, with a kernel that shows bridged
// packets to netfilter. Neighbour discovery from the pod's address, which nobody tracks, must come through; a
// packet that only looks like it, having been forwarded, must not, and neither must any other ICMPv6.
func TestNeighboursThroughABridge(t *testing.T) {
	t.Parallel()
	pod, node, outside := labtest.NewHost(t, "pod"), labtest.NewHost(t, "node"), labtest.NewHost(t, "outside")
	labtest.Must(t,
		lab.Link(lab.Port{Host: node, Name: "pod"}, lab.Port{Host: pod, Name: "eth0"}),
		lab.Link(lab.Port{Host: node, Name: "eth0"}, lab.Port{Host: outside, Name: "eth0"}),
		node.Bridge("br0", nil, "pod", "eth0"),
	)
	err := node.Sysctl("bridge/bridge-nf-call-ip6tables", "1")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("needs kernel feature br_netfilter")
	}
	labtest.Must(t, err)
	nat, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: node.FD()})
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, nat.Close()) })
	plan := compile.Compile(snapshot(nil, pool("a fd00:1::/64 nat")), model.Local{Name: "node"})
	labtest.Must(t, nat.Apply(t.Context(), plan.NAT))

	src, dst := guardedPod[1], netip.MustParseAddr("2001:db8:f0::fe")
	from, to := newTap(t, pod, "eth0", outside, "eth0"), newTap(t, outside, "eth0", pod, "eth0")
	unknown := packet{src: src, dst: dst, proto: compile.ICMPv6, id: 1, answers: 2, sport: 3}.marshal() // an answer that nobody asked for
	unknown[7] = 255
	for name, c := range map[string]struct {
		ip    []byte
		comes bool
	}{
		"solicitation":                        {neighbourDiscovery(135, src, dst, dst, 255), true},
		"advertisement":                       {neighbourDiscovery(136, src, dst, src, 255), true},
		"solicitation to a group":             {neighbourDiscovery(135, src, netip.MustParseAddr("ff02::1:ff00:fe"), dst, 255), true},
		"solicitation that was forwarded":     {neighbourDiscovery(135, src, dst, dst, 254), false},
		"an answer that nobody has asked for": {unknown, false},
	} {
		before, err := nat.Dropped(t.Context())
		labtest.Must(t, err, from.send(c.ip))
		last := packet{src: netip.MustParseAddr("fd00:2::2"), dst: dst, proto: compile.UDP, sport: 7, dport: 9, id: 77}
		labtest.Must(t, from.send(last.marshal()))
		came, ended := false, false
		labtest.Must(t, watch([]*tap{to}, patience, func(_ *tap, ip []byte) (bool, error) {
			if s, _ := addressesOf(ip); s == src && ip[6] == unix.IPPROTO_ICMPV6 {
				came = true
			}
			p, err := parse(ip)
			ended = err == nil && p.id == last.id
			return ended, nil
		}))
		after, err := nat.Dropped(t.Context())
		labtest.Must(t, err)
		if !ended || came != c.comes || (after.Out > before.Out) == c.comes {
			t.Errorf("%s: came through: %t, dropped %d; the last packet came: %t", name, came, after.Out-before.Out, ended)
		}
	}
}
