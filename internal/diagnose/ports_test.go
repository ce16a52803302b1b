package diagnose

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// natFor is the plan of a node with one translated pool.
func natFor(ports string) *compile.Plan {
	c := model.NATConfiguration{Name: "a", NodeSelector: "all()"}
	if ports != "" {
		r := model.PortRange{}
		if _, err := fmt.Sscanf(ports, "%d-%d", &r.First, &r.Last); err != nil {
			panic(err)
		}
		c.PortRange = &r
	}
	s := &model.Snapshot{Pools: []*model.Pool{pool("pods", "10.244.0.0/16"), pool("pods6", "fd00::/16")}, NATConfigurations: []model.NATConfiguration{c}}
	return compile.Compile(s, model.Local{Name: "node"})
}

func addrPort(s string, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(s), uint16(port))
}

func TestPortCounter(t *testing.T) {
	t.Parallel()
	c := NewPortCounter(&natFor("1000-1099").NAT)
	pod, node := netip.MustParseAddr("10.244.0.1"), "192.0.2.10"
	for i := range 95 {
		c.Add(compile.TCP, pod, addrPort(node, 1000+i), addrPort("198.51.100.1", 443))
	}
	for i := range 10 {
		c.Add(compile.TCP, pod, addrPort(node, 1000+i), addrPort("198.51.100.2", 443)) // the same ports serve again
		c.Add(compile.UDP, netip.MustParseAddr("fd00::1"), addrPort("2001:db8::10", 1000+i), addrPort("2001:db8::53", 53))
	}
	for i := range 7 {
		c.Add(compile.ICMP, pod, addrPort(node, i), addrPort("198.51.100.3", 0))                              // no ports
		c.Add(compile.TCP, pod, addrPort(pod.String(), i), addrPort("198.51.100.3", 1))                       // not translated
		c.Add(compile.TCP, netip.MustParseAddr("172.17.0.2"), addrPort(node, i), addrPort("198.51.100.3", 1)) // not by us
		for k := range i {
			c.Add(compile.SCTP, pod, addrPort(node, k), addrPort("198.51.100.9", i))
		}
	}
	p := c.Result()
	if got, want := fmt.Sprint(p.Addresses), "[{192.0.2.10 tcp 105 95} {192.0.2.10 sctp 21 6} {2001:db8::10 udp 10 10}]"; got != want {
		t.Errorf("addresses %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(p.Destinations), "[{198.51.100.1:443 tcp 192.0.2.10 95 100} {198.51.100.2:443 tcp 192.0.2.10 10 100} "+
		"{[2001:db8::53]:53 udp 2001:db8::10 10 100} {198.51.100.9:6 sctp 192.0.2.10 6 100} {198.51.100.9:5 sctp 192.0.2.10 5 100}]"; got != want {
		t.Errorf("destinations %s, want %s", got, want)
	}
	found := usedUp(p)
	if len(found) != 1 || found[0].Object != "tcp connections from 192.0.2.10 to 198.51.100.1:443" {
		t.Errorf("found %v", found)
	}
}

// TestPortCounterBounded counts more destinations than there is room for: the busy ones remain, with counts
// that are too low by no more than is promised.
func TestPortCounterBounded(t *testing.T) {
	t.Parallel()
	c := NewPortCounter(&natFor("").NAT)
	const flows, busy = 200_000, 2_000
	pod := netip.MustParseAddr("10.244.0.1")
	for i := range flows {
		peer := addrPort(fmt.Sprintf("1.%d.%d.%d", i>>16, i>>8&255, i&255), 80)
		if i%(flows/busy) == 0 {
			peer = addrPort("198.51.100.1", 443)
		}
		c.Add(compile.TCP, pod, addrPort("192.0.2.10", 1024+i%60_000), peer)
		if len(c.destinations) > maxDestinations {
			t.Fatalf("%d destinations are held", len(c.destinations))
		}
	}
	first := c.Result().Destinations[0]
	if first.Destination != addrPort("198.51.100.1", 443) || first.Used > busy || first.Used < busy-flows/maxDestinations || first.Available != freePorts {
		t.Errorf("the busiest is %+v", first)
	}
	// So is the number of addresses.
	for i := range 10 * maxAddresses {
		c.Add(compile.TCP, pod, addrPort(fmt.Sprintf("192.0.%d.%d", i>>8, i&255), 1), addrPort("198.51.100.1", 443))
	}
	if n := len(c.Result().Addresses); n > maxAddresses {
		t.Errorf("%d addresses are told of", n)
	}
}
