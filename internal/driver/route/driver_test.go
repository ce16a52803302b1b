package route

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

func TestPodsReachEachOther(t *testing.T) {
	t.Parallel()
	for _, mode := range []model.Mode{model.ModeCrossSubnet, model.ModeAlways} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, mode)
			c.applyAll()
			c.mustReach()
			for i := range c.nodes {
				if drift := c.drift(i); drift != 0 {
					t.Errorf("node %d: %d things differ after Apply", i, drift)
				}
				labtest.Must(t, c.apply(i))
			}
			a := c.nodes[0]
			near := a.ip(t, "route", "get", podOf(1, false).String())
			if direct := strings.Contains(near, "via 192.0.2.2 dev eth0"); direct != (mode == model.ModeCrossSubnet) {
				t.Errorf("to the node in the same subnet: %s", near)
			}
			if far := a.ip(t, "-6", "route", "get", podOf(2, true).String()); !strings.Contains(far, "dev sallyport.v6") {
				t.Errorf("to the node in another subnet: %s", far)
			}
			// The overlay's device leaves room for what it adds, and a packet of that size arrives whole.
			if link := a.ip(t, "link", "show", "sallyport.v4"); !strings.Contains(link, "mtu 1450") {
				t.Error(link)
			}
			// What is free in a block goes nowhere, in particular not out.
			if _, err := c.reach(a.Host, c.nodes[2].pod, podOf(0, false).Next()); err == nil || !strings.Contains(err.Error(), "bind") {
				t.Errorf("a free address: %v", err)
			}
			if out := fmt.Sprint(a.Do(func() error { return run("ip", "route", "get", podOf(0, false).Next().String()) })); !strings.Contains(out, "No route to host") {
				t.Errorf("a free address: %s", out)
			}
		})
	}
}

func TestNeverLeavesTheWayToTheNetwork(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeNever)
	c.applyAll()
	for i := range c.nodes { // as the route table of a cloud has it
		for _, v6 := range []bool{false, true} {
			family, bits := 0, 26
			if v6 {
				family, bits = 1, 112
			}
			labtest.Must(t, c.router.AddRoute(lab.Route{To: netip.PrefixFrom(podOf(i, v6), bits), Via: c.nodes[i].local.Interfaces[family].Addr()}))
		}
	}
	c.mustReach()
	if links := c.nodes[0].ip(t, "-o", "link"); strings.Contains(links, "vxlan") || strings.Contains(links, "sallyport") {
		t.Errorf("there is a device: %s", links)
	}
}

func TestChangesOfNodesAreFollowed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeCrossSubnet)
	c.applyAll()
	c.mustReach()

	c.neverByDefault(0)
	t.Log("c gets other addresses, of its own and of its tunnel")
	far := c.nodes[2]
	labtest.Must(t, far.RemoveAddress("eth0", netip.MustParsePrefix("198.51.100.3/24")), far.AddAddress("eth0", netip.MustParsePrefix("198.51.100.7/24")),
		far.AddRoute(lab.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("198.51.100.254")}))
	far.local.Interfaces = prefixes("198.51.100.7/24", "2001:db8:2::3/64")
	far.local.Links[0].Addresses = far.local.Interfaces
	far.local.Tunnels = []netip.Addr{podOf(2, false).Next(), podOf(2, true).Next()}
	n := c.snapshot.Nodes[2]
	n.Addresses, n.NetworkAddresses, n.Tunnels = addrs("198.51.100.7", "2001:db8:2::3"), addrs("198.51.100.7", "2001:db8:2::3"), far.local.Tunnels
	c.snapshot = &model.Snapshot{Pools: c.snapshot.Pools, Blocks: c.snapshot.Blocks, Nodes: []model.Node{c.snapshot.Nodes[0], c.snapshot.Nodes[1], n}}
	mac, err := far.MAC("eth0")
	labtest.Must(t, err, c.router.AddNeighbour("far", netip.MustParseAddr("198.51.100.7"), mac))
	c.applyAll()
	c.mustReach()
	for i := range c.nodes {
		if drift := c.drift(i); drift != 0 {
			t.Errorf("node %d: %d things differ", i, drift)
		}
	}

	t.Log("b leaves, and keeps its blocks")
	left := *c.snapshot
	left.Nodes = []model.Node{c.snapshot.Nodes[0], n}
	c.snapshot = &left
	labtest.Must(t, c.apply(0))
	if _, err := c.reach(c.nodes[0].pod, c.nodes[1].pod, podOf(1, false)); err == nil {
		t.Error("the block of a node that left is reached")
	}
	if out := fmt.Sprint(c.nodes[0].Do(func() error { return run("ip", "route", "get", podOf(1, false).String()) })); !strings.Contains(out, "No route to host") {
		t.Errorf("the block of a node that left: %s", out)
	}

	t.Log("nothing is wanted any more")
	c.nodes[0].driver.conn.Wrap(func(s nfnetlink.Socket) nfnetlink.Socket { return s.(checked).Socket })
	labtest.Must(t, c.nodes[0].Do(func() error { return c.nodes[0].driver.Apply(t.Context(), compile.Routes{}) }))
	c.wantNothingOfOurs(0)
}

// wantNothingOfOurs checks that a node has nothing that the driver makes, and still what others have made.
func (c *cluster) wantNothingOfOurs(i int) {
	c.t.Helper()
	n := c.nodes[i]
	routes := n.ip(c.t, "route") + n.ip(c.t, "-6", "route")
	if strings.Contains(routes, "sallyport") || strings.Contains(routes, "unreachable") || strings.Count(routes, "proto 115") != 2 || strings.Count(routes, "default") != 2 {
		c.t.Errorf("the routes are\n%s", routes)
	}
	if links := n.ip(c.t, "-o", "link"); strings.Contains(links, "sallyport") {
		c.t.Errorf("the links are\n%s", links)
	}
}

// checked is a socket that looks at the kernel after each datagram.
type checked struct {
	nfnetlink.Socket
	look func()
}

func (s checked) Send(b []byte) error {
	defer s.look()
	return s.Socket.Send(b)
}

// neverByDefault checks, after each datagram of a node's driver, that no block goes by the default route.
func (c *cluster) neverByDefault(i int) {
	conn, err := rtnetlink.Dial(c.nodes[i].FD())
	labtest.Must(c.t, err)
	c.t.Cleanup(func() { _ = conn.Close() })
	look := func() {
		for j := range c.nodes {
			for _, v6 := range []bool{false, true} {
				free := podOf(j, v6).Next()
				var b rtnetlink.Batch
				b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: netip.PrefixFrom(free, free.BitLen()), Flags: unix.RTM_F_FIB_MATCH}.Encode())
				b.Addr(unix.RTA_DST, free)
				err := conn.Get(c.t.Context(), "asking for a route", &b, func(m nfnetlink.Message) error {
					if m.Body[1] == 0 && m.Body[7] == unix.RTN_UNICAST {
						c.t.Errorf("%s goes by the default route", free)
					}
					return nil
				})
				if err != nil && !errors.Is(err, unix.EHOSTUNREACH) {
					c.t.Error(err)
				}
			}
		}
	}
	c.nodes[i].driver.conn.Wrap(func(s nfnetlink.Socket) nfnetlink.Socket { return checked{s, look} })
}

func TestWhatOthersUndoIsRepaired(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeAlways)
	c.applyAll()
	a := c.nodes[0]
	for _, undo := range []string{
		"route del 10.1.0.128/26",
		"route del unreachable 10.1.0.0/26",
		"route replace 10.1.0.128/26 via 192.0.2.254 proto 115",
		"-6 route del fd00::3:0/112",
		"route add 10.9.0.0/16 via 192.0.2.254 proto 115",
		"-6 route add unreachable fd09::/64 proto 115",
		"link set sallyport.v4 mtu 1300",
		"link set sallyport.v4 address 02:00:00:00:00:99",
		"link set sallyport.v4 down",
		"link del sallyport.v6",
		"link set sallyport.v4 type vxlan id 4097 local 192.0.2.2",
		"addr del 10.1.0.4/32 dev sallyport.v4",
		"addr add 10.1.0.9/32 dev sallyport.v4",
		"neigh del 10.1.0.68 dev sallyport.v4",
		"neigh replace 10.1.0.68 lladdr 02:00:00:00:00:99 dev sallyport.v4 nud permanent",
		"neigh add 10.1.0.99 lladdr 02:00:00:00:00:99 dev sallyport.v4 nud permanent",
		"link set eth0 down",
	} {
		a.ip(t, strings.Fields(undo)...)
		if undo == "link set eth0 down" {
			a.ip(t, "link", "set", "eth0", "up")
			a.ip(t, "addr", "replace", "2001:db8:1::1/64", "dev", "eth0", "nodad") // the kernel drops those of IPv6
			a.ip(t, "route", "replace", "default", "via", "192.0.2.254")
			a.ip(t, "-6", "route", "replace", "default", "via", "2001:db8:1::fe")
		}
		drift := c.drift(0)
		if drift == 0 && undo != "link set eth0 down" {
			t.Errorf("after %q nothing differs", undo)
		}
		labtest.Must(t, c.apply(0))
		if drift := c.drift(0); drift != 0 {
			t.Errorf("%q is not repaired: %d things differ\n%s%s", undo, drift, a.ip(t, "route"), a.ip(t, "-d", "link", "show", "type", "vxlan"))
		}
	}
	bridge := func(args ...string) {
		labtest.Must(t, a.Do(func() error { return run("bridge", append([]string{"fdb"}, args...)...) }))
		if c.drift(0) == 0 {
			t.Errorf("after fdb %q nothing differs", args)
		}
		labtest.Must(t, c.apply(0))
	}
	mac := macText(compile.MAC("b"))
	bridge("del", mac, "dev", "sallyport.v4")
	bridge("replace", mac, "dev", "sallyport.v4", "dst", "192.0.2.9")
	bridge("add", "02:00:00:00:00:99", "dev", "sallyport.v4", "dst", "192.0.2.9")
	c.mustReach()
}

func macText(m [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func TestRoutesOfOthersStay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeCrossSubnet)
	a := c.nodes[0]
	a.ip(t, "route", "add", "10.1.0.128/26", "via", "192.0.2.254", "proto", "12")
	a.ip(t, "route", "add", "10.1.0.64/27", "via", "192.0.2.254", "proto", "12")
	a.ip(t, "-6", "route", "add", "fd00::3:0/112", "via", "2001:db8:1::fe", "proto", "12", "metric", "20")
	a.ip(t, "-6", "route", "add", "fd00::/64", "via", "2001:db8:1::fe", "proto", "12") // leads to the tunnel addresses, too
	before := a.ip(t, "route", "show", "proto", "12") + a.ip(t, "-6", "route", "show", "proto", "12")
	err := c.apply(0)
	if err == nil || !strings.Contains(err.Error(), "a route of another program (protocol 12) to 10.1.0.128/26 is there already, and stays") {
		t.Errorf("the error is %v", err)
	}
	if got := a.ip(t, "-6", "route", "get", podOf(2, true).String()); !strings.Contains(got, "sallyport.v6") {
		t.Errorf("a route of another program with a worse metric decides: %s", got)
	}
	if got := a.ip(t, "route", "get", podOf(1, false).String()); strings.Contains(got, "unreachable") {
		t.Errorf("what is not in the way suffers: %s", got)
	}
	if after := a.ip(t, "route", "show", "proto", "12") + a.ip(t, "-6", "route", "show", "proto", "12"); after != before {
		t.Errorf("the routes of others were\n%sand are\n%s", before, after)
	}
	a.ip(t, "route", "del", "10.1.0.128/26")
	a.ip(t, "route", "del", "10.1.0.64/27")
	labtest.Must(t, c.apply(0))
	labtest.Must(t, a.Do(func() error { return a.driver.Cleanup(t.Context()) }))
	a.ip(t, "-6", "route", "flush", "proto", "12")
	c.wantNothingOfOurs(0)
	labtest.Must(t, a.Do(func() error { return a.driver.Cleanup(t.Context()) }))
}

func TestWhatTheKernelRefusesIsUnreachable(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeCrossSubnet)
	a := c.nodes[0]
	a.local.Links[0].Addresses = prefixes("192.0.2.1/24", "198.51.100.9/24", "2001:db8:1::1/64") // the second has no interface
	for range 2 {
		err := c.apply(0)
		if err == nil || !strings.Contains(err.Error(), "putting the route to 10.1.0.128/26 via 198.51.100.3") {
			t.Fatalf("the error is %v", err)
		}
		if out := a.ip(t, "route", "show", "10.1.0.128/26"); !strings.Contains(out, "unreachable") {
			t.Errorf("the block has the routes %q", out)
		}
		if drift := c.drift(0); drift != 2 {
			t.Errorf("%d things differ; want the route that is missing, and the one in its place", drift)
		}
	}
	a.local.Links[0].Addresses = prefixes("192.0.2.1/24", "2001:db8:1::1/64")
	labtest.Must(t, c.apply(0))
	if drift := c.drift(0); drift != 0 {
		t.Errorf("%d things differ", drift)
	}
}

func TestOtherDevices(t *testing.T) {
	t.Parallel()
	t.Run("Calico's beside ours", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, model.ModeCrossSubnet)
		a := c.nodes[0]
		a.ip(t, "link", "add", "vxlan.calico", "type", "vxlan", "id", "4096", "dstport", "4789", "local", "192.0.2.1", "nolearning")
		a.ip(t, "link", "set", "vxlan.calico", "up")
		c.applyAll()
		c.mustReach()
	})
	for _, tc := range []struct{ name, id, option string }{{"the VNI", "4097", "nolearning"}, {"the port, otherwise", "4096", "gbp"}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, model.ModeCrossSubnet)
			a := c.nodes[0]
			a.ip(t, "link", "add", "other", "type", "vxlan", "id", tc.id, "dstport", "4789", "local", "192.0.2.1", tc.option)
			a.ip(t, "link", "set", "other", "up")
			err := c.apply(0)
			if err == nil || !strings.Contains(err.Error(), "is taken by the VXLAN device other (VNI "+tc.id+"): remove it, or set another") {
				t.Errorf("the error is %v", err)
			}
			if got := a.ip(t, "-6", "route", "get", podOf(2, true).String()); !strings.Contains(got, "sallyport.v6") {
				t.Errorf("the other family suffers: %s", got)
			}
			if out := a.ip(t, "route", "show", "10.1.0.128/26"); !strings.Contains(out, "unreachable") {
				t.Errorf("the block has the routes %q", out)
			}
			a.ip(t, "link", "del", "other")
			c.applyAll()
			c.mustReach()
		})
	}
	t.Run("a name that is taken", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, model.ModeCrossSubnet)
		a := c.nodes[0]
		a.ip(t, "link", "add", "sallyport.v4", "type", "bridge")
		if err := c.apply(0); err == nil || !strings.Contains(err.Error(), `an interface named sallyport.v4 of kind "bridge" is there`) {
			t.Errorf("the error is %v", err)
		}
		labtest.Must(t, a.Do(func() error { return a.driver.Cleanup(t.Context()) }))
		if out := a.ip(t, "-o", "link", "show", "sallyport.v4"); !strings.Contains(out, "sallyport.v4") {
			t.Errorf("it was removed: %s", out)
		}
	})
}

func TestDeviceIsReplacedWithoutALeak(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeCrossSubnet)
	c.applyAll()
	port := uint16(8472)
	changed := *c.snapshot
	changed.NodeNetworkConfigurations = []model.NodeNetworkConfiguration{{Name: "all", NodeSelector: "all()", VXLANPort: &port}}
	c.snapshot = &changed
	a := c.nodes[0]
	c.neverByDefault(0)
	c.applyAll()
	c.mustReach()
	if out := a.ip(t, "-d", "link", "show", "sallyport.v4"); !strings.Contains(out, "dstport 8472") {
		t.Error(out)
	}
	if drift := c.drift(0); drift != 0 {
		t.Errorf("%d things differ", drift)
	}
}
