package podlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/model"
)

// Machine is a host of the demo with its address in either family and, but for nodes, a server at each.
type Machine struct {
	*lab.Host
	IPv4, IPv6 netip.Addr
}

// addresses are those of its interface eth0, with their subnets.
func (m *Machine) addresses(bits4, bits6 int) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(m.IPv4, bits4), netip.PrefixFrom(m.IPv6, bits6)}
}

// Demo is the network of the demo, with the addresses that documentation may use (RFC 5737, RFC 3849)
// for what would be public:
//
//	private pod 10.244.1.10  ──┐
//	                           ├─ node-1 192.0.2.10 ────┐          ┌── internet  198.51.100.10
//	public pod  203.0.113.10 ──┘                        ├─ router ─┤
//	                                                    │          └── corporate 10.20.0.10
//	second pod  10.244.2.10  ──── node-2 192.0.2.130 ───┘
//
// The nodes are in two subnets. The internet knows the way back to the nodes and to the public pods, and none to the private
// ones; the corporate host knows the way back to all. So a request that leaves with the wrong source
// address gets no answer, as in life. Every machine but the nodes answers HTTP on port 80 with the address that it saw
// the request come from.
type Demo struct {
	Nodes                   [2]*Machine
	Private, Public, Second *Machine // pods; the last is on the second node
	Internet                *Machine
	Corporate               *Machine

	router  *lab.Host
	nodes   [2]*Node
	plans   [2]*compile.Plan
	servers []*http.Server
}

// The pools that the demo's addresses are made for.
var (
	DemoPrivatePool   = [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}
	DemoPublicPool    = [2]netip.Prefix{netip.MustParsePrefix("203.0.113.0/26"), netip.MustParsePrefix("2001:db8:113::/64")}
	DemoCorporatePool = [2]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/16")}
)

// demoBlockBits are the prefix lengths of the pools' blocks, by family.
var demoBlockBits = [2]int{26, 122}

// NewDemo builds the network. Nothing translates in it yet. The caller closes it.
func NewDemo(ctx context.Context) (*Demo, error) {
	d := &Demo{}
	if err := d.makeHosts(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	for _, step := range []func() error{d.wire, d.route, func() error { return d.connect(ctx) }, d.serve} {
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
		{&d.Nodes[0], "node-1", "192.0.2.10", "2001:db8:2:1::10"},
		{&d.Nodes[1], "node-2", "192.0.2.130", "2001:db8:2:2::10"},
		{&d.Private, "private pod", "10.244.1.10", "fd00:10:244:1::10"},
		{&d.Public, "public pod", "203.0.113.10", "2001:db8:113::10"},
		{&d.Second, "second pod", "10.244.2.10", "fd00:10:244:2::10"},
		{&d.Internet, "internet", "198.51.100.10", "2001:db8:100::10"},
		{&d.Corporate, "corporate", "10.20.0.10", "fd00:10:20::10"},
	} {
		h, err := lab.NewHost(m.name)
		if err != nil {
			return err
		}
		*m.machine = &Machine{h, netip.MustParseAddr(m.ipv4), netip.MustParseAddr(m.ipv6)}
	}
	router, err := lab.NewHost("router")
	d.router = router
	return err
}

// wire joins all that are not pods with the router.
func (d *Demo) wire() error {
	join := func(m *Machine, bits4 int, gateways ...string) error {
		port := lab.Port{Host: d.router, Name: m.Name()}
		for i, bits := range []int{bits4, 64} {
			port.Addresses = append(port.Addresses, netip.PrefixFrom(netip.MustParseAddr(gateways[i]), bits))
		}
		return lab.Link(lab.Port{Host: m.Host, Name: Uplink, Addresses: m.addresses(bits4, 64)}, port)
	}
	return errors.Join(
		join(d.Nodes[0], 25, "192.0.2.1", "2001:db8:2:1::1"),
		join(d.Nodes[1], 25, "192.0.2.129", "2001:db8:2:2::1"),
		join(d.Internet, 24, "198.51.100.1", "2001:db8:100::1"),
		join(d.Corporate, 24, "10.20.0.1", "fd00:10:20::1"),
		d.router.Forward(),
	)
}

// route tells the nodes, the router and the hosts outside the ways.
func (d *Demo) route() error {
	var failed []error
	add := func(h *lab.Host, via string, to ...string) {
		for _, t := range to {
			failed = append(failed, h.AddRoute(lab.Route{To: netip.MustParsePrefix(t), Via: netip.MustParseAddr(via)}))
		}
	}
	for i, v4 := range []string{"192.0.2.1", "192.0.2.129"} {
		add(d.Nodes[i].Host, v4, "0.0.0.0/0")
		add(d.Nodes[i].Host, fmt.Sprintf("2001:db8:2:%d::1", i+1), "::/0")
	}
	add(d.router, "192.0.2.10", "10.244.1.0/24", DemoPublicPool[0].String())
	add(d.router, "2001:db8:2:1::10", "fd00:10:244:1::/64", DemoPublicPool[1].String())
	add(d.router, "192.0.2.130", "10.244.2.0/24")
	add(d.router, "2001:db8:2:2::10", "fd00:10:244:2::/64")
	add(d.Internet.Host, "198.51.100.1", "192.0.2.0/24", DemoPublicPool[0].String())
	add(d.Internet.Host, "2001:db8:100::1", "2001:db8:2::/48", DemoPublicPool[1].String())
	add(d.Corporate.Host, "10.20.0.1", "0.0.0.0/0")
	add(d.Corporate.Host, "fd00:10:20::1", "::/0")
	return errors.Join(failed...)
}

// connect gives the pods their links, and makes the routes between the nodes.
func (d *Demo) connect(ctx context.Context) (err error) {
	pods := [2][]*Machine{{d.Private, d.Public}, {d.Second}}
	s := &model.Snapshot{}
	for i, m := range d.Nodes {
		first := pods[i][0] // of the pool that spans both nodes
		tunnels := []netip.Addr{Block(first.IPv4).Addr().Next(), Block(first.IPv6).Addr().Next()}
		if d.nodes[i], err = NewNode(m.Host, m.addresses(25, 64), tunnels...); err != nil {
			return err
		}
		s.Nodes = append(s.Nodes, d.nodes[i].Declared())
	}
	for f, bits := range demoBlockBits {
		pool := func(name string, cidr netip.Prefix) string {
			name = fmt.Sprintf("%s-ipv%d", name, 4+2*f)
			s.Pools = append(s.Pools, &model.Pool{Name: name, CIDR: cidr, VXLANMode: model.ModeCrossSubnet, BlockSize: bits, AllowedUses: model.UseWorkload | model.UseTunnel})
			return name
		}
		private, public := pool("private", DemoPrivatePool[f]), pool("public", DemoPublicPool[f])
		for _, b := range []struct {
			pod        *Machine
			pool, node string
		}{{d.Private, private, "node-1"}, {d.Second, private, "node-2"}, {d.Public, public, "node-1"}} {
			a := []netip.Addr{b.pod.IPv4, b.pod.IPv6}[f]
			s.Blocks = append(s.Blocks, &model.Block{CIDR: Block(a), Pool: b.pool, Node: b.node})
		}
	}
	slices.SortFunc(s.Blocks, func(a, b *model.Block) int { return a.CIDR.Compare(b.CIDR) })
	for i, n := range d.nodes {
		if d.plans[i], err = n.Apply(ctx, s); err != nil {
			return err
		}
		for _, pod := range pods[i] {
			if err := n.Add(ctx, pod.Host, pod.IPv4, pod.IPv6); err != nil {
				return err
			}
		}
	}
	return nil
}

// serve starts the servers.
func (d *Demo) serve() error {
	for _, m := range []*Machine{d.Private, d.Public, d.Second, d.Internet, d.Corporate} {
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

// NodeOf is which of the nodes a pod is on.
func (d *Demo) NodeOf(pod *Machine) int {
	if pod == d.Second {
		return 1
	}
	return 0
}

// RouteFrom is how a node reaches a pod of the other one.
func (d *Demo) RouteFrom(node int, pod netip.Addr) (compile.Route, bool) {
	return d.plans[node].RouteOf(pod)
}

// Block is the block that has a pod's address.
func Block(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, demoBlockBits[a.BitLen()/128]).Masked()
}

// Close stops the servers and closes the hosts. The caller ends the processes that it started in them.
func (d *Demo) Close() error {
	var failed []error
	for _, s := range d.servers {
		failed = append(failed, s.Close())
	}
	for _, n := range d.nodes {
		if n != nil {
			failed = append(failed, n.Close())
		}
	}
	for _, m := range []*Machine{d.Private, d.Public, d.Second, d.Internet, d.Corporate, d.Nodes[0], d.Nodes[1]} {
		if m != nil {
			failed = append(failed, m.Host.Close())
		}
	}
	if d.router != nil {
		failed = append(failed, d.router.Close())
	}
	return errors.Join(failed...)
}
