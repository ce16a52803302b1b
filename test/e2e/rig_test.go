package e2e

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// rig is a node with taps on both sides, so that it can be sent packets with any address:
//
//	pod0 tap ── pod0        eth0 ── eth0 tap
//	                 node
//	pod1 tap ── pod1        eth1 ── eth1 tap
//
// What comes in by pod0 leaves by eth0, what comes in by pod1 leaves by eth1, and what comes in by
// either eth leaves by pod0, whatever its destination, unless that is the node itself.
type rig struct {
	node  *lab.Host
	local model.Local
	nat   *nat.Driver
	pod   [2]*tap
	out   [2]*tap
}

// wires are the rig's interfaces with the node's addresses and those of the other end, IPv4 and IPv6.
var wires = []struct {
	name       string
	node, peer [2]netip.Prefix
	inTable    int // the routing table for what comes in
}{
	{"pod0", prefixes("198.18.0.1/30", "2001:db8:f2::1/64"), prefixes("198.18.0.2/30", "2001:db8:f2::2/64"), 100},
	{"pod1", prefixes("198.18.1.1/30", "2001:db8:f3::1/64"), prefixes("198.18.1.2/30", "2001:db8:f3::2/64"), 101},
	{"eth0", prefixes("192.0.2.1/24", "2001:db8:f0::1/64"), prefixes("192.0.2.254/24", "2001:db8:f0::fe/64"), 200},
	{"eth1", prefixes("198.51.100.1/24", "2001:db8:f1::1/64"), prefixes("198.51.100.254/24", "2001:db8:f1::fe/64"), 200},
}

func prefixes(ipv4, ipv6 string) [2]netip.Prefix {
	return [2]netip.Prefix{netip.MustParsePrefix(ipv4), netip.MustParsePrefix(ipv6)}
}

// everything are the default routes' destinations.
var everything = prefixes("0.0.0.0/0", "::/0")

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{node: labtest.NewHost(t, "node")}
	pods, outside := labtest.NewHost(t, "pods"), labtest.NewHost(t, "outside")
	r.local.Name = "node"
	labtest.Must(t, r.node.Forward())
	var taps []*tap
	for i, w := range wires {
		other := pods
		if i >= 2 {
			other = outside
		}
		labtest.Must(t,
			lab.Link(lab.Port{Host: r.node, Name: w.name, Addresses: w.node[:]}, lab.Port{Host: other, Name: w.name, Addresses: w.peer[:]}),
			r.node.AddRule(w.name, w.inTable, 100),
		)
		r.local.Interfaces = append(r.local.Interfaces, w.node[:]...)
		taps = append(taps, newTap(t, other, w.name, r.node, w.name))
	}
	r.pod, r.out = [2]*tap(taps[:2]), [2]*tap(taps[2:])
	for family, to := range everything {
		labtest.Must(t,
			r.node.AddRoute(lab.Route{To: to, Table: 100, Via: wires[2].peer[family].Addr(), Dev: "eth0"}),
			r.node.AddRoute(lab.Route{To: to, Table: 101, Via: wires[3].peer[family].Addr(), Dev: "eth1"}),
			r.node.AddRoute(lab.Route{To: to, Table: 200, Via: wires[0].peer[family].Addr(), Dev: "pod0"}),
		)
	}
	nat, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: r.node.FD()})
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, nat.Close()) })
	r.nat = nat
	return r
}

// program compiles a snapshot and puts the result into the node's kernel.
func (r *rig) program(t *testing.T, s *model.Snapshot) *compile.Plan {
	t.Helper()
	plan := compile.Compile(s, r.local)
	if err := r.nat.Apply(t.Context(), plan.NAT); err != nil {
		t.Fatalf("programming: %v", err)
	}
	return plan
}

func (r *rig) taps() []*tap { return []*tap{r.pod[0], r.pod[1], r.out[0], r.out[1]} }

// nodeAddress is the node's address on an interface, of the family of another address.
func nodeAddress(name string, like netip.Addr) netip.Addr {
	for _, w := range wires {
		if w.name == name && like.Is4() {
			return w.node[0].Addr()
		}
		if w.name == name {
			return w.node[1].Addr()
		}
	}
	return netip.Addr{}
}
