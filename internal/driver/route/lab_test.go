package route

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

func TestMain(m *testing.M) { labtest.Main(m) }

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// node is a node of a cluster, with one pod.
type node struct {
	*lab.Host
	pod    *lab.Host
	driver *Driver
	local  model.Local
}

// cluster is three nodes: a and b in one subnet, c in another, with a router in between.
type cluster struct {
	t        *testing.T
	nodes    []*node
	router   *lab.Host
	snapshot *model.Snapshot
}

// podOf is the address of the pod of a node.
func podOf(i int, v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("fd00::%d:5", i+1))
	}
	return netip.AddrFrom4([4]byte{10, 1, 0, byte(64*i + 5)})
}

// newCluster builds a cluster whose pools have a mode.
func newCluster(t *testing.T, mode model.Mode) *cluster {
	t.Helper()
	c := &cluster{t: t, router: labtest.NewHost(t, "router"), snapshot: &model.Snapshot{}}
	for _, p := range []struct {
		name, cidr string
		size       int
	}{{"p4", "10.1.0.0/16", 26}, {"p6", "fd00::/64", 112}} {
		c.snapshot.Pools = append(c.snapshot.Pools, &model.Pool{Name: p.name, CIDR: netip.MustParsePrefix(p.cidr), VXLANMode: mode,
			BlockSize: p.size, AllowedUses: model.UseWorkload | model.UseTunnel})
	}
	sw := labtest.NewHost(t, "switch")
	at := [][]string{{"192.0.2.1/24", "2001:db8:1::1/64"}, {"192.0.2.2/24", "2001:db8:1::2/64"}, {"198.51.100.3/24", "2001:db8:2::3/64"}}
	gateways := [][]string{{"192.0.2.254", "2001:db8:1::fe"}, {"192.0.2.254", "2001:db8:1::fe"}, {"198.51.100.254", "2001:db8:2::fe"}}
	labtest.Must(t, lab.Link(lab.Port{Host: c.router, Name: "near", Addresses: prefixes("192.0.2.254/24", "2001:db8:1::fe/64")}, lab.Port{Host: sw, Name: "router"}))
	ports := []string{"router"}
	for i, name := range []string{"a", "b", "c"} {
		n := &node{Host: labtest.NewHost(t, name), pod: labtest.NewHost(t, "pod-"+name)}
		c.nodes = append(c.nodes, n)
		uplink := lab.Port{Host: n.Host, Name: "eth0", Addresses: prefixes(at[i]...)}
		if i < 2 {
			labtest.Must(t, lab.Link(uplink, lab.Port{Host: sw, Name: name}))
			ports = append(ports, name)
		} else {
			labtest.Must(t, lab.Link(uplink, lab.Port{Host: c.router, Name: "far", Addresses: prefixes("198.51.100.254/24", "2001:db8:2::fe/64")}))
		}
		n.addPod(t, i)
		n.local = model.Local{Name: name, Network: true, Interfaces: prefixes(at[i]...), Tunnels: []netip.Addr{podOf(i, false).Prev(), podOf(i, true).Prev()},
			Links: []model.Link{{Name: "eth0", MTU: 1500, Addresses: prefixes(at[i]...), Default4: true, Default6: true}}}
		own := []netip.Addr{n.local.Interfaces[0].Addr(), n.local.Interfaces[1].Addr()}
		c.snapshot.Nodes = append(c.snapshot.Nodes, model.Node{Name: name, Addresses: own, NetworkAddresses: own, Tunnels: n.local.Tunnels})
		c.snapshot.Blocks = append(c.snapshot.Blocks, &model.Block{CIDR: netip.PrefixFrom(podOf(i, false), 26).Masked(), Pool: "p4", Node: name},
			&model.Block{CIDR: netip.PrefixFrom(podOf(i, true), 112).Masked(), Pool: "p6", Node: name})
		var err error
		n.driver, err = New(Options{NetNS: n.FD(), Log: slog.New(slog.DiscardHandler)})
		labtest.Must(t, err)
		t.Cleanup(func() { _ = n.driver.Close() })
	}
	slices.SortFunc(c.snapshot.Blocks, func(a, b *model.Block) int { return a.CIDR.Compare(b.CIDR) })
	labtest.Must(t, sw.Bridge("br0", nil, ports...), c.router.Forward())
	for i, n := range c.nodes {
		labtest.Must(t, n.AddRoute(lab.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(gateways[i][0])}),
			n.AddRoute(lab.Route{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr(gateways[i][1])}))
	}
	return c
}

// addPod joins a node and its pod, with routes as a workload's link has them.
func (n *node) addPod(t *testing.T, i int) {
	t.Helper()
	own := []netip.Prefix{netip.PrefixFrom(podOf(i, false), 32), netip.PrefixFrom(podOf(i, true), 128)}
	labtest.Must(t, lab.Link(lab.Port{Host: n.Host, Name: "sly0123456789ab"}, lab.Port{Host: n.pod, Name: "eth0", Addresses: own}))
	mac, err := n.MAC("sly0123456789ab")
	labtest.Must(t, err)
	for j, gateway := range addrs("169.254.1.1", "fe80::1") {
		every := []string{"0.0.0.0/0", "::/0"}[j]
		labtest.Must(t, n.pod.AddNeighbour("eth0", gateway, mac), n.pod.AddRoute(lab.Route{To: netip.MustParsePrefix(every), Via: gateway, Dev: "eth0"}),
			n.Do(func() error {
				return run("ip", "route", "replace", own[j].String(), "dev", "sly0123456789ab", "proto", "115")
			}))
	}
}

func run(name string, args ...string) error {
	out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// ip runs ip in a node.
func (n *node) ip(t *testing.T, args ...string) string {
	t.Helper()
	var out []byte
	labtest.Must(t, n.Do(func() (err error) {
		if out, err = exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			err = fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return err
	}))
	return string(out)
}

// apply applies the snapshot's plan on a node.
func (c *cluster) apply(i int) error {
	n := c.nodes[i]
	return n.Do(func() error { return n.driver.Apply(c.t.Context(), compile.Compile(c.snapshot, n.local).Routes) })
}

// applyAll applies the snapshot's plan on all nodes.
func (c *cluster) applyAll() {
	c.t.Helper()
	for i := range c.nodes {
		labtest.Must(c.t, c.apply(i))
	}
}

// drift is how much differs on a node.
func (c *cluster) drift(i int) int {
	c.t.Helper()
	drift := 0
	labtest.Must(c.t, c.nodes[i].Do(func() (err error) {
		drift, err = c.nodes[i].driver.Observe(c.t.Context())
		return err
	}))
	return drift
}

// reach has one host connect to an address of another, which says by which address it sees the first.
func (c *cluster) reach(from, to *lab.Host, at netip.Addr) (netip.Addr, error) {
	l, err := to.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, conn.RemoteAddr().String())
			_ = conn.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
	defer cancel()
	var conn net.Conn
	if conn, err = from.Dial(ctx, "tcp", l.Addr().String()); err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	seen, err := io.ReadAll(conn)
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddrPort(string(seen))
	return addr.Addr().Unmap(), err
}

// mustReach has every pod and node reach every other node's pod, and says whom the pod saw.
func (c *cluster) mustReach() {
	c.t.Helper()
	for i, from := range c.nodes {
		for j, to := range c.nodes {
			for _, v6 := range []bool{false, true} {
				if i == j {
					continue
				}
				if seen, err := c.reach(from.pod, to.pod, podOf(j, v6)); err != nil || seen != podOf(i, v6) {
					c.t.Errorf("from pod %s to %s: seen as %s, %v", from.Name(), podOf(j, v6), seen, err)
				}
				if _, err := c.reach(from.Host, to.pod, podOf(j, v6)); err != nil {
					c.t.Errorf("from node %s to %s: %v", from.Name(), podOf(j, v6), err)
				}
			}
		}
	}
}
