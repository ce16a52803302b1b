package cluster

import (
	"net/netip"
	"strconv"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// link is the control plane's end of a link to a host.
type link struct {
	name string       // of the interface
	to   netip.Prefix // the host's address
}

// mostLinks is how many hosts may be connected: they have the addresses after the API server's.
const mostLinks = 250

// Connect links a host to the control plane, by an interface named control, and returns the host's address on that
// link. Other hosts that are linked cannot be reached by it.
func (c *Cluster) Connect(t labtest.TB, host *lab.Host) netip.Addr {
	t.Helper()
	n := len(c.links) + 1
	if n > mostLinks {
		t.Fatalf("%d hosts are connected, and there is no address for more", mostLinks)
	}
	own := address
	for range n {
		own = own.Next()
	}
	l := link{name: "node" + strconv.Itoa(n), to: netip.PrefixFrom(own, 32)}
	labtest.Must(t, lab.Link(
		lab.Port{Host: host, Name: "control", Addresses: []netip.Prefix{l.to}},
		lab.Port{Host: c.host, Name: l.name, Addresses: []netip.Prefix{netip.PrefixFrom(address, 32)}},
	))
	labtest.Must(t,
		host.AddRoute(lab.Route{To: netip.PrefixFrom(address, 32), Dev: "control"}),
		c.host.AddRoute(lab.Route{To: l.to, Dev: l.name}),
	)
	c.links[host] = l
	return own
}

// Route leads what the control plane sends to a prefix over a connected host, such as a router that nodes are behind.
func (c *Cluster) Route(t labtest.TB, over *lab.Host, to netip.Prefix) {
	t.Helper()
	l := c.links[over]
	labtest.Must(t, c.host.AddRoute(lab.Route{To: to, Via: l.to.Addr(), Dev: l.name}))
}

// Disconnect cuts a connected host off: what it sends is lost without a word, as where a cable is pulled.
func (c *Cluster) Disconnect(t labtest.TB, host *lab.Host) {
	t.Helper()
	labtest.Must(t, c.host.SetDown(c.links[host].name))
}

// Reconnect mends what Disconnect has cut.
func (c *Cluster) Reconnect(t labtest.TB, host *lab.Host) {
	t.Helper()
	l := c.links[host]
	labtest.Must(t, c.host.SetUp(l.name))
	labtest.Must(t, c.host.AddRoute(lab.Route{To: l.to, Dev: l.name})) // the kernel took it away
}
