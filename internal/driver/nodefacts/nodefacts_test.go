package nodefacts

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

func TestMain(m *testing.M) { labtest.Main(m) }

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// network is a node between a pod and an outside host.
type network struct{ pod, node, outside *lab.Host }

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{pod: labtest.NewHost(t, "pod"), node: labtest.NewHost(t, "node"), outside: labtest.NewHost(t, "outside")}
	labtest.Must(t,
		lab.Link(lab.Port{Host: n.node, Name: "pod0", Addresses: prefixes("10.244.1.1/24", "fd00:1::1/64")},
			lab.Port{Host: n.pod, Name: "eth0", Addresses: prefixes("10.244.1.2/24", "fd00:1::2/64")}),
		lab.Link(lab.Port{Host: n.node, Name: "eth0.5", Addresses: prefixes("192.0.2.1/24", "2001:db8::1/64")},
			lab.Port{Host: n.outside, Name: "eth0", Addresses: prefixes("192.0.2.2/24", "2001:db8::2/64")}),
		n.node.AddRoute(lab.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.2")}),
		n.node.AddRoute(lab.Route{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("2001:db8::2")}),
		n.pod.AddRoute(lab.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.244.1.1")}),
	)
	return n
}

// read reads the facts of the node.
func (n *network) read(t *testing.T, addresses ...netip.Addr) (out *diagnose.Node) {
	t.Helper()
	labtest.Must(t, n.node.Do(func() (err error) {
		out, err = Node(addresses...)
		return err
	}))
	return out
}

func (n *network) readConntrack(t *testing.T) (out *diagnose.Conntrack) {
	t.Helper()
	labtest.Must(t, n.node.Do(func() (err error) {
		out, err = Conntrack(t.Context())
		return err
	}))
	return out
}

func named(t *testing.T, n *diagnose.Node, name string) diagnose.Interface {
	t.Helper()
	i := slices.IndexFunc(n.Interfaces, func(i diagnose.Interface) bool { return i.Name == name })
	if i < 0 {
		t.Fatalf("interface %s was not read: %+v", name, n.Interfaces)
	}
	return n.Interfaces[i]
}

func TestInterfaces(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	labtest.Must(t, n.node.AddRoute(lab.Route{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.1")})) // by its own address
	got := n.read(t)
	for _, want := range []diagnose.Interface{
		{Name: "lo", Loopback: true, Physical: true, Addresses: prefixes("127.0.0.1/8", "::1/128")},
		{Name: "pod0", Addresses: prefixes("10.244.1.1/24", "fd00:1::1/64"), Routes: prefixes("10.244.1.0/24", "fd00:1::/64"), OnLink: prefixes("10.244.1.0/24", "fd00:1::/64")},
		{Name: "eth0.5", Addresses: prefixes("192.0.2.1/24", "2001:db8::1/64"), Routes: prefixes("0.0.0.0/0", "192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64", "::/0"),
			OnLink: prefixes("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64")},
	} {
		i := named(t, got, want.Name)
		for _, list := range [][]netip.Prefix{i.Routes, want.Routes, i.OnLink, want.OnLink} {
			slices.SortFunc(list, netip.Prefix.Compare)
		}
		if a, b := fmt.Sprint(i), fmt.Sprint(want); a != b {
			t.Errorf("read %s, want %s", a, b)
		}
	}
	labtest.Must(t, n.node.SetDown("pod0"))
	if got := n.read(t); slices.ContainsFunc(got.Interfaces, func(i diagnose.Interface) bool { return i.Name == "pod0" }) {
		t.Errorf("an interface that is down was read: %+v", got.Interfaces)
	}
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	if got := n.read(t); got.ForwardIPv4 || got.ForwardIPv6 || named(t, got, "eth0.5").ForwardIPv4 {
		t.Errorf("read that a host forwards that does not: %+v", got)
	}
	labtest.Must(t, n.node.Forward())
	got := n.read(t)
	if !got.ForwardIPv4 || got.ForwardIPv6 == got.NoIPv6 || !named(t, got, "eth0.5").ForwardIPv4 || !named(t, got, "pod0").ForwardIPv4 {
		t.Errorf("read that a host does not forward that does: %+v", got)
	}
	labtest.Must(t, n.node.Sysctl("ipv4/conf/eth0.5/forwarding", "0"))
	if got := n.read(t); !got.ForwardIPv4 || named(t, got, "eth0.5").ForwardIPv4 || !named(t, got, "pod0").ForwardIPv4 {
		t.Errorf("read something else than that eth0.5 alone does not forward: %+v", got)
	}
	if _, err := os.Stat("/proc/sys/net/ipv6/conf/lo/force_forwarding"); err != nil {
		t.Skipf("needs kernel 6.17 for the rest: %v", err)
	}
	labtest.Must(t, n.node.Sysctl("ipv6/conf/all/forwarding", "0"), n.node.Sysctl("ipv6/conf/pod0/force_forwarding", "1"))
	if got := n.read(t); got.ForwardIPv6 || named(t, got, "eth0.5").ForwardIPv6 || !named(t, got, "pod0").ForwardIPv6 {
		t.Errorf("read something else than that pod0 alone forwards IPv6: %+v", got)
	}
}

func TestLocal(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	on, routed, away, nowhere := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("203.0.113.8")
	labtest.Must(t, n.node.Do(func() error {
		out, err := exec.Command("ip", "route", "add", "local", "203.0.113.7/32", "dev", "lo").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	got := n.read(t, on, routed, away, nowhere, netip.Addr{}).Local
	if want := map[netip.Addr]bool{on: true, routed: true, away: false, nowhere: false}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("local: %v, want %v", got, want)
	}
}

// TestConntrack lets connections fail for want of ports, and counts them.
func TestConntrack(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	labtest.Must(t, n.node.Forward(), n.node.Do(func() error {
		const rules = "table ip t { chain c { type nat hook postrouting priority srcnat; ip protocol udp masquerade to :4000-4003; }; }"
		out, err := exec.Command("nft", rules).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	before := n.readConntrack(t)
	const opened, ports = 20, 4
	for range opened {
		c, err := n.pod.Dial(t.Context(), "udp", "192.0.2.2:9")
		labtest.Must(t, err)
		_, err = c.Write([]byte("x"))
		labtest.Must(t, err)
		defer func(c net.Conn) { labtest.Must(t, c.Close()) }(c)
	}
	got := n.readConntrack(t)
	if got.Entries != before.Entries+ports || got.InsertFailed != before.InsertFailed+opened-ports || got.Dropped < before.Dropped+opened-ports || got.Limit == 0 {
		t.Errorf("before %+v, after %d connections over %d ports %+v", *before, opened, ports, *got)
	}
}

func FuzzParseStats(f *testing.F) {
	for _, kind := range []uint16{statsEntries, statsLimit, statsInsertFailed, statsDrop} {
		f.Add(nfnetlink.AppendUint32([]byte{0, 0, 0, 0}, kind, 7))
	}
	f.Add([]byte{0, 0, 0, 0, 5, 0, 9, 0, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		var c diagnose.Conntrack
		m := nfnetlink.Message{Kind: unix.NFNL_SUBSYS_CTNETLINK << 8, Body: body}
		if parseStats(&c, m) != nil || parseStatsCPU(&c, m) != nil {
			return
		}
		if max(c.Entries, c.Limit) >= 1<<32 {
			t.Errorf("%+v", c)
		}
	})
}

// TestChanges reads while interfaces come and go: that is no reason to fail.
func TestChanges(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32)
			if err := n.node.AddAddress("pod0", p); err != nil {
				done <- err
				return
			}
			if err := n.node.RemoveAddress("pod0", p); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 200 {
		if got := n.read(t); len(got.Interfaces) != 3 {
			t.Errorf("read %+v", got.Interfaces)
		}
	}
	close(stop)
	labtest.Must(t, <-done)
}
