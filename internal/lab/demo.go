package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Machine is a host of the demo with its address in either family and a server at each.
type Machine struct {
	*Host
	IPv4, IPv6 netip.Addr
}

// Demo is the network of the demo, with the addresses that documentation may use (RFC 5737, RFC 3849)
// for what would be public:
//
//	private pod 10.244.1.10 ──┐                              ┌── internet  198.51.100.10
//	                          ├─ node ── 192.0.2.0/24 ── router
//	public pod 203.0.113.10 ──┘  .10                         └── corporate 10.20.0.10
//
// The internet knows the way back to the node's network and to the public pods, and none to the private
// ones; the corporate host knows the way back to both. So a request that leaves with the wrong source
// address gets no answer, as in life. Every machine answers HTTP on port 80 with the address that it saw
// the request come from.
type Demo struct {
	Node            *Machine
	Private, Public *Machine // pods
	Internet        *Machine
	Corporate       *Machine

	router  *Host
	servers []*http.Server
}

// The pools that the demo's addresses are made for.
var (
	DemoPrivatePool   = [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}
	DemoPublicPool    = [2]netip.Prefix{netip.MustParsePrefix("203.0.113.0/26"), netip.MustParsePrefix("2001:db8:113::/64")}
	DemoCorporatePool = [2]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/16")}
)

// NewDemo builds the network. The caller closes it.
func NewDemo() (*Demo, error) {
	d := &Demo{}
	if err := errors.Join(d.makeHosts()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	for _, step := range []func() error{d.wire, d.route, d.serve} {
		if err := step(); err != nil {
			return nil, errors.Join(fmt.Errorf("building the demo: %w", err), d.Close())
		}
	}
	return d, nil
}

// makeHosts makes the namespaces.
func (d *Demo) makeHosts() error {
	for _, m := range []struct {
		machine    **Machine
		name       string
		ipv4, ipv6 string
	}{
		{&d.Node, "node", "192.0.2.10", "2001:db8:2::10"},
		{&d.Private, "private pod", "10.244.1.10", "fd00:10:244:1::10"},
		{&d.Public, "public pod", "203.0.113.10", "2001:db8:113::10"},
		{&d.Internet, "internet", "198.51.100.10", "2001:db8:100::10"},
		{&d.Corporate, "corporate", "10.20.0.10", "fd00:10:20::10"},
	} {
		h, err := NewHost(m.name)
		if err != nil {
			return err
		}
		*m.machine = &Machine{h, netip.MustParseAddr(m.ipv4), netip.MustParseAddr(m.ipv6)}
	}
	router, err := NewHost("router")
	d.router = router
	return err
}

// wire joins the hosts.
func (d *Demo) wire() error {
	eth0 := func(m *Machine, bits4, bits6 int) Port {
		return Port{Host: m.Host, Name: "eth0", Addresses: []netip.Prefix{
			netip.PrefixFrom(m.IPv4, bits4), netip.PrefixFrom(m.IPv6, bits6),
		}}
	}
	return errors.Join(
		Link(eth0(d.Private, 32, 128), d.podPort("pod-private")),
		Link(eth0(d.Public, 32, 128), d.podPort("pod-public")),
		Link(eth0(d.Node, 24, 64), d.routerPort("node", "192.0.2.1/24", "2001:db8:2::1/64")),
		Link(eth0(d.Internet, 24, 64), d.routerPort("internet", "198.51.100.1/24", "2001:db8:100::1/64")),
		Link(eth0(d.Corporate, 24, 64), d.routerPort("corporate", "10.20.0.1/24", "fd00:10:20::1/64")),
		d.Node.Forward(),
		d.router.Forward(),
	)
}

// podGateway are the addresses by which pods know their node. They are the same on every pod's link and
// never leave it.
var podGateway = []netip.Prefix{netip.MustParsePrefix("169.254.1.1/32"), netip.MustParsePrefix("fe80::1/64")}

func (d *Demo) podPort(name string) Port {
	return Port{Host: d.Node.Host, Name: name, Addresses: podGateway}
}

func (d *Demo) routerPort(name string, addresses ...string) Port {
	p := Port{Host: d.router, Name: name}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParsePrefix(a))
	}
	return p
}

// route tells each host the ways.
func (d *Demo) route() error {
	var failed []error
	add := func(h *Host, to netip.Prefix, via, dev string) {
		r := Route{To: to, Dev: dev}
		if via != "" {
			r.Via = netip.MustParseAddr(via)
		}
		failed = append(failed, h.AddRoute(r))
	}
	everything := [2]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, pod := range []*Machine{d.Private, d.Public} {
		add(pod.Host, everything[0], "169.254.1.1", "eth0")
		add(pod.Host, everything[1], "fe80::1", "eth0")
	}
	add(d.Node.Host, netip.PrefixFrom(d.Private.IPv4, 32), "", "pod-private")
	add(d.Node.Host, netip.PrefixFrom(d.Private.IPv6, 128), "", "pod-private")
	add(d.Node.Host, netip.PrefixFrom(d.Public.IPv4, 32), "", "pod-public")
	add(d.Node.Host, netip.PrefixFrom(d.Public.IPv6, 128), "", "pod-public")
	for family := range everything {
		node := []string{"192.0.2.10", "2001:db8:2::10"}[family]
		add(d.Node.Host, everything[family], []string{"192.0.2.1", "2001:db8:2::1"}[family], "eth0")
		add(d.router, DemoPrivatePool[family], node, "node")
		add(d.router, DemoPublicPool[family], node, "node")

		internet := []string{"198.51.100.1", "2001:db8:100::1"}[family]
		add(d.Internet.Host, []netip.Prefix{
			netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:2::/64"),
		}[family], internet, "eth0")
		add(d.Internet.Host, DemoPublicPool[family], internet, "eth0")
		add(d.Corporate.Host, everything[family], []string{"10.20.0.1", "fd00:10:20::1"}[family], "eth0")
	}
	return errors.Join(failed...)
}

// serve starts the servers.
func (d *Demo) serve() error {
	for _, m := range []*Machine{d.Private, d.Public, d.Internet, d.Corporate} {
		for _, address := range []netip.Addr{m.IPv4, m.IPv6} {
			l, err := m.Listen("tcp", netip.AddrPortFrom(address, 80).String())
			if err != nil {
				return fmt.Errorf("serving on host %s: %w", m.Name(), err)
			}
			s := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: time.Minute}
			d.servers = append(d.servers, s)
			go func() { _ = s.Serve(l) }() // ends with Close
		}
	}
	return nil
}

// answer tells a client which address it was seen with.
func answer(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, host) // a client that has gone needs no answer
}

// Ask makes one HTTP request from a machine to an address, on a connection of its own, and returns the
// source address that the server saw.
func (d *Demo) Ask(ctx context.Context, from *Machine, to netip.Addr) (netip.Addr, error) {
	url := "http://" + netip.AddrPortFrom(to, 80).String() + "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	resp, err := from.HTTPClient().Do(req)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("asking from host %s: %w", from.Name(), err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 128))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return netip.Addr{}, fmt.Errorf("reading the answer of %s: %w", to, err)
	}
	return netip.ParseAddr(string(body))
}

// Close stops the servers and lets go of the namespaces. The processes in them are the caller's to end.
func (d *Demo) Close() error {
	var failed []error
	for _, s := range d.servers {
		failed = append(failed, s.Close())
	}
	for _, m := range []*Machine{d.Private, d.Public, d.Internet, d.Corporate, d.Node} {
		if m != nil {
			failed = append(failed, m.Host.Close())
		}
	}
	if d.router != nil {
		failed = append(failed, d.router.Close())
	}
	return errors.Join(failed...)
}
