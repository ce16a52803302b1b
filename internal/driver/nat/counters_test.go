package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// wire is a node with pod addresses of its own, and a host outside that tells what it sees.
type wire struct {
	node    *namespace
	outside net.PacketConn
}

// newWire connects two namespaces. The node has 192.0.2.1 and fd01::1; outside has 192.0.2.2, fd01::2,
// and the exempt 10.9.9.9 and fd00:9::9. The node sends from any address of 10.1.0.0/16 and fd00:1::/48.
func newWire(tb testing.TB) *wire {
	tb.Helper()
	node, outside := newNamespace(tb), newNamespace(tb)
	setUp := func(n *namespace, addresses, routes []string, via ...string) {
		if err := n.do(func() error { return setUpLink(addresses, routes, via) }); err != nil {
			tb.Fatal(err)
		}
	}
	for _, n := range []*namespace{node, outside} {
		// Without it, IPv6 waits for seconds whether somebody else has its addresses.
		if err := n.do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0) }); err != nil {
			tb.Fatal(err)
		}
	}
	if err := node.do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(outside.fd)}
		return netlink.LinkAdd(veth)
	}); err != nil {
		tb.Fatal(err)
	}
	setUp(outside, []string{"192.0.2.2/24", "fd01::2/64", "10.9.9.9/32", "fd00:9::9/128"}, nil)
	setUp(node, []string{"192.0.2.1/24", "fd01::1/64"}, []string{"10.9.9.9/32", "fd00:9::9/128"}, "192.0.2.2", "fd01::2")
	w := &wire{node: node}
	if err := outside.do(func() (err error) {
		w.outside, err = net.ListenPacket("udp", ":9")
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = w.outside.Close() })
	return w
}

func setUpLink(addresses, routes, via []string) error {
	// Package net asks once whether there is IPv6, by way of the loopback interface.
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, s := range addresses {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("address %s: %w", s, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for i, s := range routes {
		dst, err := netlink.ParseIPNet(s)
		if err != nil {
			return err
		}
		if err := addRoute(&netlink.Route{Dst: dst, Gw: net.ParseIP(via[i])}); err != nil {
			return fmt.Errorf("route %s: %w", s, err)
		}
	}
	return nil
}

// addRoute adds a route, waiting for its gateway's link to come up.
func addRoute(r *netlink.Route) error {
	err := netlink.RouteAdd(r)
	for range 500 {
		if !errors.Is(err, unix.EHOSTUNREACH) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		err = netlink.RouteAdd(r)
	}
	return err
}

// send opens one UDP connection and returns the source that the outside sees.
func (w *wire) send(tb testing.TB, from, to string) netip.AddrPort {
	tb.Helper()
	err := w.node.do(func() error {
		free := net.ListenConfig{Control: bindAnywhere}
		c, err := free.ListenPacket(context.Background(), "udp", net.JoinHostPort(from, "0"))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), 9)))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := w.outside.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	_, source, err := w.outside.ReadFrom(make([]byte, 16))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		tb.Fatalf("nothing from %s reached %s", from, to)
	}
	if err != nil {
		tb.Fatal(err)
	}
	seen := source.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port())
}

// countPlan gives one range of each family to each of three pools.
func countPlan(tb testing.TB) compile.NAT {
	tb.Helper()
	var n compile.NAT
	for _, f := range []string{"10.1.%d.0/24", "fd00:1:0:%d::/64"} {
		for i, pool := range []string{"a", "b", "c"} {
			n.Sources = append(n.Sources, sources(tb, pool, fmt.Sprintf(f, i))...)
		}
	}
	n.Exempt = ranges(tb, "10.0.0.0/8", "fd00::/16")
	n.Allocation, n.LeakGuard = model.PortsFullyRandom, true
	n.Ports, n.UDPPorts = model.PortRange{First: 20000, Last: 20099}, model.PortRange{First: 30000, Last: 30999}
	return n
}

// TestPackets checks with packets what is translated, to what, and that it is counted.
func TestPackets(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	d := w.node.driver()
	plan := countPlan(t)
	mustApply(t, d, plan)
	for _, f := range []struct{ pod, stranger, out, exempt, node string }{
		{"10.1.0.5", "10.2.0.5", "192.0.2.2", "10.9.9.9", "192.0.2.1"},
		{"fd00:1::5", "fd00:2::5", "fd01::2", "fd00:9::9", "fd01::1"},
	} {
		if got := w.send(t, f.pod, f.out); got.Addr().String() != f.node || got.Port() < 30000 || got.Port() > 30999 {
			t.Errorf("%s to %s was seen as %s; want %s with port 30000-30999", f.pod, f.out, got, f.node)
		}
		if got := w.send(t, f.pod, f.exempt); got.Addr().String() != f.pod {
			t.Errorf("%s to the exempt %s was seen as %s", f.pod, f.exempt, got)
		}
		if got := w.send(t, f.stranger, f.out); got.Addr().String() != f.stranger {
			t.Errorf("%s, in no pool, was seen as %s", f.stranger, got)
		}
	}
	mustCount(t, d, map[string]uint64{"a": 2})
	plan.To4, plan.To6 = netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("fd01::77")
	mustApply(t, d, plan)
	if got := w.send(t, "10.1.0.5", "192.0.2.2"); got.Addr() != plan.To4 || got.Port() < 30000 || got.Port() > 30999 {
		t.Errorf("with a fixed address the source was %s", got)
	}
	plan.OutInterfaces = []string{"wan*"}
	mustApply(t, d, plan)
	if got := w.send(t, "10.1.0.5", "192.0.2.2"); got.Addr().String() != "10.1.0.5" {
		t.Errorf("on an interface that is not covered the source was %s", got)
	}
	plan.OutInterfaces = []string{"wan*", "et*"}
	mustApply(t, d, plan)
	if got := w.send(t, "10.1.0.5", "192.0.2.2"); got.Addr() != plan.To4 {
		t.Errorf("on an interface that is covered the source was %s", got)
	}
	mustCount(t, d, map[string]uint64{"a": 4, "b": 0, "c": 0})
}

// TestCountersOutliveElements checks that a pool's counter never falls, whatever becomes of its elements.
func TestCountersOutliveElements(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	d := w.node.driver()
	plan := countPlan(t)
	mustApply(t, d, plan)
	a, b, c := 0, 0, 0
	send := func(pod string, total *int) {
		w.send(t, pod, "192.0.2.2")
		*total++
	}
	check := func(after string) {
		t.Helper()
		t.Log("after " + after)
		mustCount(t, d, map[string]uint64{"a": uint64(a), "b": uint64(b), "c": uint64(c)})
	}
	all := func() { send("10.1.0.5", &a); send("10.1.1.5", &b); send("10.1.2.5", &c) }

	all()
	all()
	check("two connections each")
	all() // unread when its element goes
	change := func(f func(s []compile.Source)) {
		plan.Sources = slices.Clone(plan.Sources)
		f(plan.Sources)
	}
	change(func(s []compile.Source) { s[0].Range = ranges(t, "10.1.0.0/28")[0] })
	mustApply(t, d, plan)
	all()
	check("a's range shrinks")
	if got := kernelCount(t, w.node, "10.1.1.0/24"); got != uint64(b) {
		t.Errorf("the neighbour's element has counted %d; want %d: it was not to be touched", got, b)
	}
	change(func(s []compile.Source) { s[1].Pool = "c" })
	mustApply(t, d, plan)
	w.send(t, "10.1.1.5", "192.0.2.2")
	c++
	check("b's range passes to c")
	change(func(s []compile.Source) { s[1].Pool = "b" })
	w.node.nft("delete table inet sallyport")
	mustApply(t, d, plan) // fails at first, since its ground is gone
	all()
	check("the table was deleted")
	w.node.nft("flush set inet sallyport source4")
	if _, err := d.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustApply(t, d, plan)
	check("the set was flushed")
	all()
	addMany(&plan)
	mustApply(t, d, plan)
	all()
	plan.Sources = nil
	mustApply(t, d, plan)
	check("more ranges go than are echoed")
	if err := d.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("cleanup")
	plan = countPlan(t)
	mustApply(t, d, plan)
	all()
	check("applying again")
}

// TestAdoptedCounters checks that a new driver goes on counting where the kernel stands.
func TestAdoptedCounters(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	plan := countPlan(t)
	mustApply(t, w.node.driver(), plan)
	w.send(t, "10.1.0.5", "192.0.2.2")
	w.send(t, "fd00:1:0:1::5", "fd01::2")
	d := w.node.driver()
	mustCount(t, d, map[string]uint64{})
	mustApply(t, d, plan)
	w.send(t, "10.1.0.5", "192.0.2.2")
	mustCount(t, d, map[string]uint64{"a": 2, "b": 1})
}

// many is more than the engine has echoed when they are deleted.
const many = 1001

// addMany appends more IPv4 sources than are echoed when they are deleted.
func addMany(n *compile.NAT) {
	var v6 []compile.Source
	for i, s := range n.Sources {
		if s.Range.From().Is6() {
			n.Sources, v6 = n.Sources[:i:i], n.Sources[i:]
			break
		}
	}
	for i := range uint32(many) {
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a020000+2*i)))
		n.Sources = append(n.Sources, compile.Source{Range: netipx.IPRangeFrom(a, a), Pool: "many"})
	}
	n.Sources = append(n.Sources, v6...)
}

// kernelCount is what the element of a range has counted.
func kernelCount(t *testing.T, ns *namespace, element string) uint64 {
	t.Helper()
	out := ns.nft("list", "set", "inet", TableName, "source4")
	_, rest, _ := strings.Cut(out, element+" counter packets ")
	var n uint64
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatalf("no count of %s in %s", element, out)
	}
	return n
}

// mustCount checks the counters; a pool that is not among the wanted must have counted nothing.
func mustCount(t *testing.T, d *Driver, want map[string]uint64) {
	t.Helper()
	counters, err := d.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for pool, c := range counters {
		if _, ok := want[pool]; ok || c.Connections > 0 {
			got[pool] = c.Connections
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("connections by pool (-want +got):\n%s", d)
	}
}

// bindAnywhere lets a socket send from an address that no interface has, as a pod's would be.
func bindAnywhere(_, _ string, c syscall.RawConn) error {
	var err4, err6 error
	err := c.Control(func(fd uintptr) {
		err4 = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		err6 = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	})
	if err4 != nil && err6 != nil {
		return errors.Join(err, err4, err6)
	}
	return err
}
