package workload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// node is a node of one test.
type node struct {
	testing.TB
	*lab.Host
	driver *Driver
	mu     sync.Mutex
	gone   []Held
}

var (
	node4 = netip.MustParseAddr("192.0.2.1")
	node6 = netip.MustParseAddr("2001:db8::1")
)

// plan is that of a node with both families and another node.
func plan() compile.Workloads {
	nodes := []netip.Addr{node4, netip.MustParseAddr("192.0.2.2"), node6, netip.MustParseAddr("2001:db8::2")}
	slices.SortFunc(nodes, netip.Addr.Compare)
	return compile.Workloads{Node4: node4, Node6: node6, Nodes: nodes, VXLANPort: 4789}
}

// newNode makes a node whose driver has applied a plan.
func newNode(t testing.TB, o Options) *node {
	t.Helper()
	n := &node{TB: t, Host: labtest.NewHost(t, "node")}
	labtest.Must(t, n.Forward(), n.Bridge("uplink", []netip.Prefix{netip.PrefixFrom(node4, 24), netip.PrefixFrom(node6, 64)}))
	n.start(o)
	n.apply(plan())
	return n
}

// start starts an agent's driver, in place of one that has ended.
func (n *node) start(o Options) {
	n.Helper()
	if n.driver != nil {
		labtest.Must(n, n.driver.Close())
	}
	n.driver = n.another(o)
}

// apply applies a plan. The tables of a driver that was closed a moment ago may be owned for a moment more: a program that
// another test starts has the socket too until it is executed.
func (n *node) apply(p compile.Workloads) {
	n.Helper()
	var owned *nftables.OwnedError
	err := n.driver.Apply(n.Context(), p)
	for end := time.Now().Add(5 * time.Second); errors.As(err, &owned) && time.Now().Before(end); err = n.driver.Apply(n.Context(), p) {
		time.Sleep(10 * time.Millisecond)
	}
	labtest.Must(n, err)
}

// another is one more driver.
func (n *node) another(o Options) *Driver {
	n.Helper()
	o.Log, o.NetNS = slog.New(slog.NewTextHandler(n.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), n.FD()
	o.Gone = func(h Held) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.gone = append(n.gone, h)
	}
	d, err := New(o)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = d.Close() })
	return d
}

// told is what Gone was told of.
func (n *node) told() []Held {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.gone)
}

// pod is a container of one test.
type pod struct {
	*lab.Host
	Workload
}

// newPod makes a container that has no link yet. Duplicate address detection is on, as it is by default.
func (n *node) newPod(i int, addresses ...string) *pod {
	n.Helper()
	p := &pod{Host: labtest.NewHost(n, fmt.Sprint("pod", i))}
	labtest.Must(n, p.Sysctl("ipv6/conf/default/accept_dad", "1"), p.Sysctl("ipv6/conf/all/accept_dad", "1"))
	p.Workload = Workload{Network: cni.NetworkHash("net"), ContainerID: fmt.Sprintf("%064x", i), Interface: "eth0",
		UID: fmt.Sprintf("00000000-0000-0000-0000-%012x", i)}
	if len(addresses) == 0 {
		addresses = []string{fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250), fmt.Sprintf("2001:db8:1::%x", i+1)}
	}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
	}
	return p
}

// files are what the plugin hands over.
func (p *pod) files() (ns, sock *os.File, err error) {
	err = p.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		sock = os.NewFile(uintptr(fd), "rtnetlink")
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, sock, err
}

// add makes the link of a pod.
func (n *node) add(p *pod) (Made, error) {
	ns, sock, err := p.files()
	if err != nil {
		return Made{}, err
	}
	defer ns.Close()
	defer sock.Close()
	return n.driver.Add(n.Context(), p.Workload, ns, sock, 1400)
}

// takes says whether a pod takes packets to an address for its own.
func (p *pod) takes(t testing.TB, a netip.Addr) bool {
	t.Helper()
	ns, sock, err := p.files()
	labtest.Must(t, err, ns.Close())
	c, err := rtnetlink.Adopt(sock)
	labtest.Must(t, err)
	defer c.Close()
	yes, err := (&maker{pod: c}).local(t.Context(), a)
	labtest.Must(t, err)
	return yes
}

// run makes a pod with a link.
func (n *node) run(i int, addresses ...string) *pod {
	n.Helper()
	p := n.newPod(i, addresses...)
	if _, err := n.add(p); err != nil {
		n.Fatal(err)
	}
	return p
}

// held is what the driver says that the kernel holds, as "name leaving".
func (n *node) held() (list []string) {
	n.Helper()
	all, err := n.driver.Held(n.Context())
	if err != nil {
		n.Fatal(err)
	}
	for _, h := range all {
		list = append(list, strings.TrimSpace(h.Link+map[bool]string{true: " leaving"}[h.Leaving]))
	}
	return list
}

// in runs a program in a host and returns what it prints.
func in(t testing.TB, h *lab.Host, name string, args ...string) string {
	t.Helper()
	out, err := try(t, h, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func try(t testing.TB, h *lab.Host, name string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := h.Command(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return strings.TrimSpace(out.String()), err
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// talk sends a word from one host to an address of another over TCP, and says from which address it came.
func talk(t testing.TB, from, to *lab.Host, address netip.Addr) netip.Addr {
	t.Helper()
	l, err := to.Listen("tcp", netip.AddrPortFrom(address, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	came := make(chan netip.Addr, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			came <- netip.Addr{}
			return
		}
		defer c.Close()
		came <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		_, _ = c.Write([]byte("word"))
	}()
	c, err := from.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Errorf("%s to %s: %v", from.Name(), address, err)
		_ = l.Close()
		return netip.Addr{}
	}
	defer c.Close()
	if word, err := io.ReadAll(c); err != nil || string(word) != "word" {
		t.Errorf("%s to %s: got %q, %v", from.Name(), address, word, err)
	}
	return <-came
}
