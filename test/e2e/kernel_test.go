package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/hostaddr"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// kinds are the cases of the rule that the test by hand must meet, in both families.
var kinds = []string{
	"translate to the node's address", "translate to a configured address", "translate with a port range",
	"translate to a load balancer address", "keep inbound", "keep towards a pool", "keep towards a disabled pool",
	"keep for the destination or interface", "keep without natOutgoing", "keep from a load balancer address",
	"keep outside all pools",
}

// TestKernelByHand holds the kernel against the plan for each of the snapshots that were made by hand,
// one after the other in one kernel.
func TestKernelByHand(t *testing.T) {
	t.Parallel()
	r, rnd := newRig(t), newRand(t)
	c := newCoverage()
	snapshots := madeByHand()
	// Flows are drawn at random, so that a rare kind may be missed by one round. One that five rounds miss
	// does not occur.
	for round := 0; round < 5 && (round == 0 || len(c.lacks(kinds)) > 0); round++ {
		for _, name := range slices.Sorted(maps.Keys(snapshots)) {
			c.compare(t, r, rnd, name, snapshots[name])
		}
	}
	c.check(t, kinds)
}

// TestKernelByChance does the same for random snapshots.
func TestKernelByChance(t *testing.T) {
	t.Parallel()
	r, rnd := newRig(t), newRand(t)
	c := newCoverage()
	for range 40 {
		c.compare(t, r, rnd, "random", randomSnapshot(rnd))
	}
	c.check(t, nil)
}

// coverage counts what a test has met.
type coverage struct {
	probes
	kinds map[string]int // by kind and family
	// transports are the protocols that every flow may have, beside ICMP of its own family.
	transports []compile.Protocol
	flows      int
	since      time.Time
}

func newCoverage() *coverage { return &coverage{kinds: map[string]int{}, since: time.Now()} }

// compare programs a snapshot and tries flows between the addresses at its edges, far from them and in
// between.
func (c *coverage) compare(t *testing.T, r *rig, rnd *rand.Rand, name string, s *model.Snapshot) {
	t.Helper()
	c.try(t, r, rnd, name, s, r.program(t, s))
}

// try does so with a plan that the kernel holds already.
func (c *coverage) try(t *testing.T, r *rig, rnd *rand.Rand, name string, s *model.Snapshot, plan *compile.Plan) {
	t.Helper()
	c.transports = r.transports(t)
	var list []probe
	for _, is := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
		near := slices.DeleteFunc(edges(rnd, s), func(a netip.Addr) bool { return !is(a) || !routable(r, a) })
		far := slices.DeleteFunc(slices.Clone(outsiders), func(a netip.Addr) bool { return !is(a) })
		pods := append(natted(r, rnd, s, is), near...)
		for _, a := range near {
			list = append(list, c.probe(r, rnd, a, pick(rnd, far)), c.probe(r, rnd, pick(rnd, near), a))
			for range 4 {
				list = append(list, c.probe(r, rnd, pick(rnd, pods), a))
			}
		}
	}
	list = slices.DeleteFunc(list, func(p probe) bool { return !c.fresh(p) })
	for _, p := range list {
		family := " (IPv4)"
		if p.Source.Is6() {
			family = " (IPv6)"
		}
		c.kinds[kind(s, p, plan.Decide(p.Flow))+family]++
		c.kinds[protocolName(p.Protocol)+" "+string(plan.Decide(p.Flow).Action)]++
	}
	c.flows += len(list)
	defer func() {
		if t.Failed() {
			t.Logf("snapshot %s: pools %+v\nsettings %+v\nplan %+v", name, s.Pools, s.NATConfigurations, plan.NAT)
		}
	}()
	r.try(t, &c.probes, plan, list)
}

// probe is a connection of a random protocol: mostly from a pod, by either interface, now and then from
// outside.
func (c *coverage) probe(r *rig, rnd *rand.Rand, src, dst netip.Addr) probe {
	p := probe{Flow: compile.Flow{Source: src, Destination: dst, OutInterface: "eth0"}, in: r.pod[0]}
	p.sport = uint16(1 + rnd.IntN(65535))
	p.Protocol = compile.ICMP
	if src.Is6() {
		p.Protocol = compile.ICMPv6
	}
	if n := rnd.IntN(len(c.transports) + 1); n < len(c.transports) {
		p.Protocol = c.transports[n]
		p.DestinationPort = uint16(1 + rnd.IntN(65535))
	}
	switch rnd.IntN(6) {
	case 0, 1:
		p.in, p.OutInterface = r.pod[1], "eth1"
	case 2:
		p.in, p.OutInterface = r.out[0], "pod0"
		p.Source, p.Destination = dst, src
	}
	return p
}

// How many flows of a kind a family must have had, and how many of each verdict a protocol.
const (
	enough         = 5
	enoughVerdicts = 20
)

// lacks says which kinds, and which verdicts of which protocol, too few flows have met.
func (c *coverage) lacks(kinds []string) []string {
	var out []string
	need := func(kind string, n int) {
		if c.kinds[kind] < n {
			out = append(out, fmt.Sprintf("%q: %d of %d", kind, c.kinds[kind], n))
		}
	}
	for _, k := range kinds {
		need(k+" (IPv4)", enough)
		need(k+" (IPv6)", enough)
	}
	for _, p := range append(slices.Clone(c.transports), compile.ICMP, compile.ICMPv6) {
		need(protocolName(p)+" translate", enoughVerdicts)
		need(protocolName(p)+" keep", enoughVerdicts)
	}
	return out
}

// check makes sure that the test has met the given kinds and either verdict for every protocol.
func (c *coverage) check(t *testing.T, kinds []string) {
	t.Helper()
	for _, lack := range c.lacks(kinds) {
		t.Errorf("too few flows of %s", lack)
	}
	t.Logf("%d connections, both ways, in %v", c.flows, time.Since(c.since).Round(time.Millisecond))
	for _, k := range slices.Sorted(maps.Keys(c.kinds)) {
		t.Logf("%6d %s", c.kinds[k], k)
	}
}

// outsiders are addresses that few pools hold, among them another node's and link-local ones.
var outsiders = []netip.Addr{
	netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("192.0.2.77"),
	netip.MustParseAddr("198.51.100.99"), netip.MustParseAddr("223.255.255.255"), netip.MustParseAddr("169.254.99.1"),
	netip.MustParseAddr("2606:4700::1111"), netip.MustParseAddr("2001:4860::8888"), netip.MustParseAddr("2001:db8:f0::77"),
	netip.MustParseAddr("2a00::1"), netip.MustParseAddr("2001:db8:f1::99"),
}

// edges are, for every pool, its first and last address, their outside neighbours and some in between.
func edges(rnd *rand.Rand, s *model.Snapshot) []netip.Addr {
	out := slices.Clone(outsiders)
	for _, p := range s.Pools {
		first, last := p.CIDR.Addr(), lastOf(p.CIDR)
		out = append(out, first, last, first.Prev(), last.Next(), first.Next(), last.Prev(), randomIn(rnd, p.CIDR))
	}
	return out
}

// natted are addresses of one family in pools with natOutgoing.
func natted(r *rig, rnd *rand.Rand, s *model.Snapshot, is func(netip.Addr) bool) []netip.Addr {
	var out []netip.Addr
	for _, p := range s.Pools {
		for range 20 {
			if a := randomIn(rnd, p.CIDR); p.NATOutgoing && is(a) && routable(r, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// unroutable are addresses that a router neither takes as a source nor sends anything to.
var unroutable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// routable says whether the rig's node forwards from and to an address.
func routable(r *rig, a netip.Addr) bool {
	if !a.IsValid() || slices.ContainsFunc(unroutable, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return false
	}
	return !slices.ContainsFunc(r.local.Interfaces, func(p netip.Prefix) bool {
		return p.Addr() == a || a.Is4() && (a == lastOf(p) || a == p.Masked().Addr()) || a.Is6() && a == p.Masked().Addr()
	})
}

func pick[E any](rnd *rand.Rand, list []E) E { return list[rnd.IntN(len(list))] }

// TestToNode makes sure that what pods say to their node's own addresses, link-local ones too, keeps the pod's
// address, and that the plan of a node with these addresses says so.
func TestToNode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.program(t, snapshot(nil, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")))
	// NodeLocal DNSCache listens on such an address, on an interface of its own.
	labtest.Must(t, r.node.AddAddress("eth1", netip.MustParsePrefix("169.254.20.10/32")))
	var listed []netip.Prefix
	labtest.Must(t, r.node.Do(func() (err error) { listed, err = hostaddr.List(); return err }))
	plan := compile.Compile(snapshot(nil, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")), model.Local{Name: "node", Interfaces: listed})
	for _, flow := range [][2]string{{"10.0.0.5", "192.0.2.1"}, {"10.0.0.6", "169.254.20.10"}, {"fd00::5", "2001:db8:f0::1"}} {
		src, dst := netip.MustParseAddr(flow[0]), netip.MustParseAddr(flow[1])
		if v := plan.Decide(compile.Flow{Source: src, Destination: dst, Protocol: compile.UDP}); v.Action != compile.Keep {
			t.Errorf("%s to %s: the plan says %s: %s", src, dst, v.Action, v.Reason)
		}
		conn, err := r.node.ListenPacket("udp", netip.AddrPortFrom(dst, 5353).String())
		labtest.Must(t, err)
		send(t, r.pod[0], packet{src: src, dst: dst, proto: compile.UDP, sport: 1234, dport: 5353, id: 1})
		labtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
		_, from, err := conn.ReadFrom(make([]byte, 100))
		labtest.Must(t, err, conn.Close())
		if want := netip.AddrPortFrom(src, 1234).String(); from.String() != want {
			t.Errorf("the node saw %s, want %s", from, want)
		}
	}
}
