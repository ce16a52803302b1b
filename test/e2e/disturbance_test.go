package e2e

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// routes makes the node's routes to the outside anew, which it loses with the interface or its address.
func (p *path) routes(t *testing.T, dev string) {
	t.Helper()
	labtest.Must(t, p.node.Do(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		for family, to := range everything {
			net := netlink.NewIPNet(to.Addr().AsSlice())
			net.Mask = make([]byte, len(net.Mask))
			route := &netlink.Route{Dst: net, Gw: pathNode[family].Next().AsSlice(), LinkIndex: link.Attrs().Index, Flags: int(netlink.FLAG_ONLINK)}
			if err := netlink.RouteReplace(route); err != nil {
				return err
			}
		}
		return nil
	}))
}

// rename renames an interface of the node, which must be down for that.
func (p *path) rename(t *testing.T, from, to string) {
	t.Helper()
	labtest.Must(t, p.node.Do(func() error {
		link, err := netlink.LinkByName(from)
		if err != nil {
			return err
		}
		for _, do := range []func() error{
			func() error { return netlink.LinkSetDown(link) }, func() error { return netlink.LinkSetName(link, to) }, func() error { return netlink.LinkSetUp(link) },
		} {
			if err := do(); err != nil {
				return err
			}
		}
		return nil
	}))
	p.addresses(t, to) // IPv6 addresses go when an interface does
	p.routes(t, to)
}

// addresses gives the node its own on an interface, where it has them not.
func (p *path) addresses(t *testing.T, dev string) {
	t.Helper()
	labtest.Must(t, p.node.Do(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		for i, address := range pathNode {
			net := netlink.NewIPNet(address.AsSlice())
			net.Mask = []([]byte){{255, 255, 255, 0}, {255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0}}[i]
			if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: net, Flags: 2}); err != nil { // IFA_F_NODAD
				return err
			}
		}
		return nil
	}))
}

// forget deletes all that the node tracks, in the middle of everything.
func (p *path) forget(t *testing.T) {
	t.Helper()
	labtest.Must(t, p.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
}

// TestDisturbances disturbs the node under traffic of every kind. Whatever is lost by that, nothing may leave
// with the pod's address, and traffic must go on afterwards.
func TestDisturbances(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	p.program(t, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat"), pool("lan 192.0.2.0/24 nat"), pool("lan6 2001:db8:f0::/64 nat"))
	p.routes(t, "eth0")
	for family := range 2 {
		echo(t, p.wide, netip.AddrPortFrom(pathWide[family], 7))
	}
	seen := watchSources(t, newTap(t, p.wide, "eth0", p.router, "wide"), pathWide)
	pause := func() { time.Sleep(100 * time.Millisecond) }
	for _, d := range []struct {
		name string
		do   func()
	}{
		{"flows forgotten", func() {
			for range 5 {
				p.forget(t)
				time.Sleep(20 * time.Millisecond)
			}
		}},
		{"address removed", func() {
			for family, bits := range []int{24, 64} {
				labtest.Must(t, p.node.RemoveAddress("eth0", netip.PrefixFrom(pathNode[family], bits)))
			}
			p.routes(t, "eth0")
			pause()
			p.addresses(t, "eth0")
			p.routes(t, "eth0")
		}},
		{"link down", func() {
			labtest.Must(t, p.node.SetDown("eth0"))
			pause()
			labtest.Must(t, p.node.SetUp("eth0"))
			p.addresses(t, "eth0")
			p.routes(t, "eth0")
		}},
		{"interface renamed", func() {
			p.rename(t, "eth0", "wan9")
			pause()
			p.rename(t, "wan9", "eth0")
		}},
		{"interface made anew", func() {
			labtest.Must(t, p.node.Do(func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			}))
			pause()
			uplink := func(h *lab.Host, name string, a [2]netip.Addr) lab.Port {
				return lab.Port{Host: h, Name: name, Addresses: []netip.Prefix{netip.PrefixFrom(a[0], 24), netip.PrefixFrom(a[1], 64)}}
			}
			labtest.Must(t, lab.Link(uplink(p.node, "eth0", pathNode), uplink(p.router, "node", [2]netip.Addr{pathNode[0].Next(), pathNode[1].Next()})))
			p.routes(t, "eth0")
		}},
	} {
		var tr traffic
		for family, server := range pathWide {
			tr.begin(context.Background(), p.pod, pathPod[family], netip.AddrPortFrom(server, 7), udpStream, newUDPFlows, tcpStream, newTCPConnections)
		}
		pause()
		d.do()
		pause()
		for _, st := range tr.streams {
			if strings.HasSuffix(st.name, newUDPFlows.name) {
				goesOn(t, d.name, st)
			}
		}
		tr.end()
		for address, n := range seen.take() {
			if address == pathPod[0] || address == pathPod[1] {
				t.Errorf("%s: outside saw %d packets from %s", d.name, n, address)
			}
		}
		for _, st := range tr.streams {
			t.Logf("%s: %v", d.name, st)
		}
	}
}

// goesOn makes sure that payloads still come back.
func goesOn(t *testing.T, when string, st *flowStream) {
	t.Helper()
	for before, end := st.since.Load(), time.Now().Add(patience); st.since.Load() == before; time.Sleep(5 * time.Millisecond) {
		if why := st.broken.Load(); why != nil || time.Now().After(end) {
			t.Errorf("%s: nothing comes back any more: %v", when, st)
			return
		}
	}
}

// TestUncoveredInterface renames an interface that is covered by its name, and back. Under the other name what is
// opened keeps the pod's address, as the plan says; under its own name none of that may go on.
func TestUncoveredInterface(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	nat := p.nat(t)
	settings := model.NATConfiguration{OutInterfaces: []string{"eth0"}}
	plan := compile.Compile(snapshot(&settings, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")), model.Local{Name: "node"})
	labtest.Must(t, nat.Apply(t.Context(), plan.NAT))
	for family := range 2 {
		echo(t, p.wide, netip.AddrPortFrom(pathWide[family], 7))
		for _, h := range []*lab.Host{p.router} { // the way back to the pod itself
			labtest.Must(t, h.AddRoute(lab.Route{To: netip.PrefixFrom(pathPod[family], pathPod[family].BitLen()), Via: pathNode[family]}))
		}
	}
	seen := watchSources(t, newTap(t, p.wide, "eth0", p.router, "wide"), pathWide)
	p.rename(t, "eth0", "wan9")
	var tr traffic
	for family, server := range pathWide {
		tr.begin(context.Background(), p.pod, pathPod[family], netip.AddrPortFrom(server, 7), udpStream)
	}
	all := map[netip.Addr]uint64{}
	for end := time.Now().Add(patience); all[pathPod[0]] == 0 || all[pathPod[1]] == 0; time.Sleep(5 * time.Millisecond) {
		for from, n := range seen.take() {
			all[from] += n
		}
		if time.Now().After(end) {
			t.Fatalf("by an interface that is not covered, outside saw %v", all)
		}
	}
	p.rename(t, "wan9", "eth0")
	seen.catchUp(t, p)
	seen.take()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		d, err := nat.Dropped(t.Context())
		labtest.Must(t, err)
		if d.Out >= 4 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("dropped %+v; want the packets of both families", d)
		}
	}
	tr.end()
	seen.catchUp(t, p)
	if n := seen.take(); n[pathPod[0]] != 0 || n[pathPod[1]] != 0 {
		t.Errorf("by an interface that is covered again, outside saw %v", n)
	}
}
