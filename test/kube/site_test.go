package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// patience is how long anything may take that should take a moment.
const patience = 30 * time.Second

// everywhere are the destinations of default routes.
var everywhere = [2]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// site is a cluster whose nodes each have one pod, and a server outside that notices who sends:
//
//	pod ── n1 ──┐
//	pod ── n2 ──┼── outside
//	pod ── n3 ──┘
//
// Each node is linked to the control plane as well. The way back to a pod leads over its node.
type site struct {
	t       *testing.T // or a part of it, while that runs
	whole   *testing.T
	c       *cluster.Cluster
	outside *lab.Host
	nodes   []*node
	servers [2]net.PacketConn // of outside
}

// node is one machine of a site, on which the real program runs.
type node struct {
	site       *site
	name       string
	host, pod  *lab.Host
	own, inner [2]netip.Addr // the addresses of the node towards outside, and of the pod
	state      string        // directory
	socket     string
	kubeconfig string
	env        []string // of the program, beside the test's own
	agent      *exec.Cmd
	log        *os.File
}

// The addresses of node number i, from 1.
func nodeAddr(i int) [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8:f0::%x", i))}
}

func podAddr(i int) [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i), 2}), netip.MustParseAddr(fmt.Sprintf("fd00:0:0:%x::2", i))}
}

func newSite(t *testing.T, c *cluster.Cluster, size int) *site {
	t.Helper()
	s := &site{t: t, whole: t, c: c, outside: labtest.NewHost(t, "outside")}
	labtest.Must(t, s.outside.AddAddress("lo", netip.MustParsePrefix("198.51.100.1/32")), s.outside.AddAddress("lo", netip.MustParsePrefix("2001:db8:f1::1/128")))
	for family, a := range []string{"198.51.100.1:9", "[2001:db8:f1::1]:9"} {
		var err error
		s.servers[family], err = s.outside.ListenPacket("udp", a)
		labtest.Must(t, err)
		t.Cleanup(func() { labtest.Must(t, s.servers[family].Close()) })
	}
	for i := 1; i <= size; i++ {
		s.nodes = append(s.nodes, s.newNode(i))
	}
	return s
}

// newNode makes a node with its pod, and a Node in the API.
func (s *site) newNode(i int) *node {
	s.t.Helper()
	name := fmt.Sprintf("n%d", i)
	n := &node{site: s, name: name, host: labtest.NewHost(s.t, name), pod: labtest.NewHost(s.t, "pod of "+name), own: nodeAddr(i), inner: podAddr(i),
		state: filepath.Join(s.t.TempDir(), "state"), socket: filepath.Join(s.t.TempDir(), "agent.sock")}
	port := func(h *lab.Host, name string, a [2]netip.Addr, bits int) lab.Port {
		return lab.Port{Host: h, Name: name, Addresses: []netip.Prefix{netip.PrefixFrom(a[0], bits), netip.PrefixFrom(a[1], 64+bits-24)}}
	}
	gateway := [2]netip.Addr{n.inner[0].Prev(), n.inner[1].Prev()}
	far := [2]netip.Addr{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("2001:db8:f0::fe")}
	labtest.Must(s.t,
		lab.Link(port(n.pod, "eth0", n.inner, 24), port(n.host, "pod", gateway, 24)),
		lab.Link(port(n.host, "eth0", n.own, 32), port(s.outside, name, far, 32)),
		n.host.Forward(),
	)
	for family, to := range everywhere {
		labtest.Must(s.t,
			n.pod.AddRoute(lab.Route{To: to, Via: gateway[family]}),
			n.host.AddRoute(lab.Route{To: netip.PrefixFrom(far[family], far[family].BitLen()), Dev: "eth0"}),
			n.host.AddRoute(lab.Route{To: to, Via: far[family], Dev: "eth0"}),
			s.outside.AddRoute(lab.Route{To: netip.PrefixFrom(n.own[family], n.own[family].BitLen()), Dev: name}),
			s.outside.AddRoute(lab.Route{To: netip.PrefixFrom(n.inner[family], 24+40*family).Masked(), Via: n.own[family], Dev: name}),
		)
	}
	s.c.Connect(s.t, n.host)
	n.kubeconfig = s.c.Kubeconfig(s.t, "admin", "system:masters")
	var err error
	n.log, err = os.Create(filepath.Join(s.t.TempDir(), "log"))
	labtest.Must(s.t, err)
	s.t.Cleanup(func() {
		if n.agent != nil {
			n.end(syscall.SIGKILL)
		}
		said, err := os.ReadFile(n.log.Name())
		if strings.Contains(string(said), "DATA RACE") {
			s.t.Errorf("there is a race in the agent of %s", name)
		}
		if s.t.Failed() || err != nil {
			s.t.Logf("the agent of %s said (%v):\n%s", name, err, said)
		}
		labtest.Must(s.t, n.log.Close())
	})
	s.declare(n)
	return n
}

// declare makes the Node of a node, ready and with its addresses.
func (s *site) declare(n *node) {
	s.t.Helper()
	s.apply(fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata:\n  name: %s\n  labels: {kubernetes.io/hostname: %s, kubernetes.io/os: linux}\n", n.name, n.name))
	s.ready(n.name, n.own[0].String(), n.own[1].String())
}

// ready says of a Node that it is ready, and which addresses it has.
func (s *site) ready(node, v4, v6 string) {
	s.t.Helper()
	s.kubectl("", "patch", "node", node, "--subresource=status", "--type=merge", "-p", fmt.Sprintf(
		`{"status":{"addresses":[{"type":"InternalIP","address":%q},{"type":"InternalIP","address":%q}],"conditions":[{"type":"Ready","status":"True","reason":"Test","message":"","lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, v4, v6))
}

// kubectl runs kubectl and returns what it prints.
func (s *site) kubectl(stdin string, args ...string) string {
	s.t.Helper()
	out, err := s.c.Kubectl(s.t, stdin, args...)
	labtest.Must(s.t, err)
	return out
}

func (s *site) apply(manifest string) {
	s.t.Helper()
	s.kubectl(manifest, "apply", "-f", "-")
}

// pools are two pools, one of each family, that hold all pods.
func pools(natOutgoing bool) string {
	spec := fmt.Sprintf("natOutgoing: %t}", natOutgoing)
	return pool("pods-v4", "{cidr: 10.0.0.0/16, "+spec) + "---\n" + pool("pods-v6", "{cidr: 'fd00::/48', "+spec)
}

// command is the program with arguments, to be run on the node.
func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := n.host.Command(ctx, "/proc/self/exe", append([]string{"--socket", n.socket}, args...)...)
	cmd.Env = append(append(os.Environ(), programEnv+"=1", "POD_NAMESPACE=default"), n.env...)
	return cmd
}

// launch runs the agent.
func (n *node) launch(args ...string) {
	n.site.t.Helper()
	n.agent = n.command(context.Background(), append([]string{"run", "--datastore", "kubernetes", "--kubeconfig", n.kubeconfig, "--state-dir", n.state,
		"--node-name", n.name, "--metrics-address", "127.0.0.1:9470"}, args...)...)
	n.agent.Stderr = n.log
	labtest.Must(n.site.t, n.host.Start(n.agent))
}

// start runs the agent and waits until it is ready.
func (n *node) start() {
	n.site.t.Helper()
	n.launch()
	if out, err := n.sallyport("status", "--wait", "20s"); err != nil {
		n.site.t.Fatalf("the agent of %s is not ready: %v\n%s", n.name, err, out)
	}
}

// end sends the agent a signal and waits until it is gone.
func (n *node) end(by os.Signal) {
	n.site.t.Helper()
	labtest.Must(n.site.t, n.agent.Process.Signal(by))
	err := n.agent.Wait()
	if by == syscall.SIGTERM && err != nil {
		n.site.t.Errorf("after SIGTERM the agent of %s ended with: %v", n.name, err)
	}
	n.agent = nil
}

// sallyport runs a command on the node and returns what it prints on both outputs.
func (n *node) sallyport(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := n.command(ctx, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.host.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// seen opens a new connection from the node's pod and says who the server outside saw.
func (n *node) seen(family int) netip.Addr {
	n.site.t.Helper()
	return n.site.sender(n.pod, n.site.servers[family])
}

// sender opens a new connection from a host to a server and says who the server saw.
func (s *site) sender(from *lab.Host, server net.PacketConn) netip.Addr {
	s.t.Helper()
	for start := time.Now(); ; {
		conn, err := from.Dial(context.Background(), "udp", server.LocalAddr().String())
		labtest.Must(s.t, err)
		_, err = conn.Write([]byte("who am I?"))
		labtest.Must(s.t, err, server.SetReadDeadline(time.Now().Add(patience/60)))
		_, sender, err := server.ReadFrom(make([]byte, 100))
		labtest.Must(s.t, conn.Close())
		if err == nil {
			return netip.MustParseAddrPort(sender.String()).Addr()
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > patience {
			s.t.Fatalf("%s to %s: %v", from.Name(), server.LocalAddr(), err)
		}
	}
}

// expect makes sure that new connections of both families are seen as coming from the given addresses.
func (n *node) expect(when string, want [2]netip.Addr) {
	n.site.t.Helper()
	for family := range want {
		if got := n.seen(family); got != want[family] {
			n.site.t.Errorf("%s: of %s the server saw %s, want %s", when, n.name, got, want[family])
		}
	}
}

// expectSoon waits until new connections are seen as coming from the given addresses.
func (n *node) expectSoon(when string, want [2]netip.Addr) {
	n.site.t.Helper()
	eventually(n.site.t, fmt.Sprintf("%s: the server sees %v", when, want), func() (bool, string) {
		got := [2]netip.Addr{n.seen(0), n.seen(1)}
		return got == want, fmt.Sprint(got)
	})
}

// eventually waits until something is so, for the time of patience.
func eventually(t *testing.T, what string, is func() (ok bool, instead string)) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		ok, instead := is()
		if ok {
			return
		}
		if time.Since(start) > patience {
			t.Fatalf("after %s it is not so that %s: %s", patience, what, instead)
		}
	}
}
