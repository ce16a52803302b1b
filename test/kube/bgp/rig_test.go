package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/cniexec"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// racks is the network of docs/public-addresses.md, with a second router in rack 2, and switches between nodes and routers:
//
//	outside ── border ─┬─ tor1 (BIRD) ── switch1 ─┬─ n1: peer tor1
//	                   │       rs (gobgpd) ─┘     └─ n2: peer rs
//	                   ├─ tor2 (FRR) ──── switch2 ── n3: peer tor2
//	                   └─ tor2b (BIRD) ────┘
type racks struct {
	t                *testing.T
	c                *cluster.Cluster
	outside, border  *lab.Host
	switch1, switch2 *lab.Host
	ports            map[string]*lab.Host // the switch that has a port, by its name
	nodes            []*node
	provider, edge   *bird
	tor1, tor2b      *bird
	tor2             *frr
	rs               *gobgpd
	upgraded         string // another binary of the program
}

// node is a node, on which the real program runs.
type node struct {
	r          *racks
	name       string
	peer       string // the kind of router that it has its sessions with
	host       *lab.Host
	own        [2]netip.Addr
	home       string
	kubeconfig string
	program    string
	agent      *exec.Cmd
	log        *os.File
	runtime    *libcni.CNIConfig
	routes     *netlink.Handle
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// outsideAt are the addresses of the host outside.
var outsideAt = [2]netip.Addr{netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("2001:db8:100::9")}

func newRacks(t *testing.T) *racks {
	t.Helper()
	built := make(chan error, 1)
	plugins := t.TempDir()
	go func() { built <- build(plugins) }()
	r := &racks{t: t, c: cluster.New(t, cluster.Options{CRDs: true})}
	r.build()
	r.declare()
	labtest.Must(t, <-built)
	r.programs(plugins)
	return r
}

// machine is a host whose interfaces have the link-local addresses that they are given alone.
func (r *racks) machine(name string, forward bool) *lab.Host {
	r.t.Helper()
	h := labtest.NewHost(r.t, name)
	labtest.Must(r.t, h.Sysctl("ipv6/conf/default/addr_gen_mode", "1"))
	if forward {
		labtest.Must(r.t, h.Forward())
	}
	return h
}

// build makes hosts and links.
func (r *racks) build() {
	t := r.t
	t.Helper()
	r.outside, r.border = r.machine("outside", false), r.machine("border", true)
	r.switch1, r.switch2 = r.machine("switch1", false), r.machine("switch2", false)
	tor1, rs, tor2, tor2b := r.machine("tor1", true), r.machine("rs", false), r.machine("tor2", true), r.machine("tor2b", true)
	link := func(a *lab.Host, aName string, aAt []netip.Prefix, b *lab.Host, bName string, bAt []netip.Prefix) {
		t.Helper()
		labtest.Must(t, lab.Link(lab.Port{Host: a, Name: aName, Addresses: aAt}, lab.Port{Host: b, Name: bName, Addresses: bAt}))
	}
	link(r.outside, "eth0", prefixes("198.51.100.9/24", "2001:db8:100::9/64", "fe80::9/64"), r.border, "out", prefixes("198.51.100.1/24", "2001:db8:100::1/64", "fe80::1/64"))
	for i, tor := range []*lab.Host{tor1, tor2, tor2b} {
		link(r.border, tor.Name(), prefixes(fmt.Sprintf("10.255.%d.1/24", i+1), fmt.Sprintf("2001:db8:ff:%d::1/64", i+1), "fe80::1/64"),
			tor, "up", prefixes(fmt.Sprintf("10.255.%d.2/24", i+1), fmt.Sprintf("2001:db8:ff:%d::2/64", i+1), "fe80::2/64"))
	}
	r.ports = map[string]*lab.Host{"tor2": r.switch2, "tor2b": r.switch2, "n1": r.switch1, "n2": r.switch1, "n3": r.switch2}
	link(r.switch1, "tor1", nil, tor1, "rack", prefixes("192.0.2.126/25", "2001:db8:1::fe/64", "fe80::fe/64"))
	link(r.switch1, "rs", nil, rs, "rack", prefixes("192.0.2.125/25", "2001:db8:1::fd/64", "fe80::fd/64"))
	link(r.switch2, "tor2", nil, tor2, "rack", prefixes("192.0.2.254/25", "2001:db8:2::fe/64", "fe80::fe/64"))
	link(r.switch2, "tor2b", nil, tor2b, "rack", prefixes("192.0.2.253/25", "2001:db8:2::fd/64", "fe80::fd/64"))
	for i, n := range []struct {
		peer, v4, v6, at string
		on               *lab.Host
	}{{"BIRD", "192.0.2.1/25", "2001:db8:1::1/64", "tor1", r.switch1}, {"gobgpd", "192.0.2.2/25", "2001:db8:1::2/64", "rs", r.switch1}, {"FRR", "192.0.2.131/25", "2001:db8:2::3/64", "tor2", r.switch2}} {
		name := fmt.Sprintf("n%d", i+1)
		host := r.machine(name, true)
		link(n.on, name, nil, host, "eth0", prefixes(n.v4, n.v6, fmt.Sprintf("fe80::%d/64", i+1)))
		r.nodes = append(r.nodes, r.newNode(host, n.peer, n.at, [2]netip.Addr{netip.MustParsePrefix(n.v4).Addr(), netip.MustParsePrefix(n.v6).Addr()}))
	}
	labtest.Must(t, r.switch1.Bridge("br0", nil, "tor1", "rs", "n1", "n2"), r.switch2.Bridge("br0", nil, "tor2", "tor2b", "n3"))
	for i, to := range prefixes("192.0.2.0/24", "2001:db8::/46") { // to the nodes; the pools by BGP
		labtest.Must(t, r.outside.AddRoute(lab.Route{To: to, Via: []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:100::1")}[i]}))
	}
	r.route(tor1, tor2, tor2b, rs)
}

// route begins the routers, each with its file.
func (r *racks) route(tor1, tor2, tor2b, rs *lab.Host) {
	t := r.t
	t.Helper()
	p := readPage(t)
	r.provider = newBird(t, r.outside, providerConf)
	r.edge = newBird(t, r.border, edgeConf+p.block(t, "bird", "protocol static"))
	r.tor1 = newBird(t, tor1, p.block(t, "bird", "protocol bgp n1_v4"))
	r.tor2b = newBird(t, tor2b, tor2bConf)
	r.tor2 = newFRR(t, tor2, p.block(t, "text", "router bgp 65002"))
	r.rs = newGobgpd(t, rs, p.block(t, "toml", "route-server"))
}

// declare makes the resources of the page, and has a controller look after them.
func (r *racks) declare() {
	r.t.Helper()
	p := readPage(r.t)
	r.kubectl("", "annotate", "crd", "--all", "sallyport.dev/version=0.1.0-dev") // they are Sallyport's, and so is the status of pools
	r.control()
	r.apply(p.block(r.t, "yaml", "kind: IPPool"))
	r.apply(p.block(r.t, "yaml", "kind: BGPPeer"))
	r.kubectl("", "wait", "--for=condition=Allocatable", "ippool", "--all", "--timeout=30s")
}

// control runs the controller beside the API server.
func (r *racks) control() {
	r.t.Helper()
	host := r.machine("controller", false)
	r.c.Connect(r.t, host)
	cmd := host.Command(context.Background(), "/proc/self/exe", "controller", "--network", "--kubeconfig", r.c.Kubeconfig(r.t, "admin", "system:masters"), "--lease-namespace", "default", "--metrics-address", "")
	cmd.Env = append(os.Environ(), programEnv+"=1")
	log, err := os.Create(filepath.Join(r.t.TempDir(), "log"))
	labtest.Must(r.t, err)
	cmd.Stdout, cmd.Stderr = log, log
	labtest.Must(r.t, host.Start(cmd))
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if said, err := os.ReadFile(log.Name()); r.t.Failed() || err != nil {
			r.t.Logf("the controller said (%v):\n%s", err, said[max(0, len(said)-5_000):])
		}
		labtest.Must(r.t, log.Close())
	})
}

// build builds the plugin into a directory.
func build(dir string) error {
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", "github.com/sallyport/sallyport/cmd/sallyport-cni").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building the plugin: %w\n%s", err, out)
	}
	return nil
}

// programs hands runtimes the directory of the plugin, and copies the program.
func (r *racks) programs(plugins string) {
	r.t.Helper()
	for _, n := range r.nodes {
		n.runtime = libcni.NewCNIConfigWithCacheDir([]string{plugins}, filepath.Join(n.home, "cache"), &cniexec.Exec{Node: n.host})
	}
	b, err := os.ReadFile("/proc/self/exe")
	labtest.Must(r.t, err)
	r.upgraded = filepath.Join(r.t.TempDir(), "sallyport")
	labtest.Must(r.t, os.WriteFile(r.upgraded, b, 0o700))
}

func (r *racks) newNode(host *lab.Host, peer, router string, own [2]netip.Addr) *node {
	r.t.Helper()
	n := &node{r: r, name: host.Name(), peer: peer, host: host, own: own, home: r.t.TempDir(), program: "/proc/self/exe"}
	r.c.Connect(r.t, host)
	n.kubeconfig = r.c.Kubeconfig(r.t, "admin", "system:masters")
	labtest.Must(r.t, host.Do(func() (err error) {
		n.routes, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}))
	r.t.Cleanup(n.routes.Close)
	var err error
	n.log, err = os.Create(filepath.Join(n.home, "log"))
	labtest.Must(r.t, err)
	r.t.Cleanup(func() {
		if n.agent != nil {
			n.end(syscall.SIGKILL)
		}
		said, err := os.ReadFile(n.log.Name())
		if hasRace(string(said)) {
			r.t.Errorf("there is a race in the agent of %s", n.name)
		}
		if r.t.Failed() || err != nil {
			r.t.Logf("the agent of %s said (%v):\n%s", n.name, err, said[max(0, len(said)-20_000):])
		}
		labtest.Must(r.t, n.log.Close())
	})
	r.apply(fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata:\n  name: %s\n  labels: {router: %s, kubernetes.io/os: linux}\n", n.name, router))
	if router == "tor2" {
		r.kubectl("", "annotate", "node", n.name, "projectcalico.org/ASNumber=64513")
	}
	r.kubectl("", "patch", "node", n.name, "--subresource=status", "--type=merge", "-p",
		fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q},{"type":"InternalIP","address":%q}]}}`, own[0], own[1]))
	return n
}

// hasRace says whether the race detector has reported something. Two races are within gobgp, and harmless: it marks a route as stale
// while another goroutine reads the mark, and a second server, that of BFD, sets what all share to the values that it has.
func hasRace(said string) bool {
	reports := strings.Split(said, "WARNING: DATA RACE")
	return slices.ContainsFunc(reports[1:], func(report string) bool {
		head, _, _ := strings.Cut(report, "Goroutine ") // the two stacks, before where the goroutines come from
		return !strings.Contains(head, "gobgp/v4/internal/pkg/table.(*Path).MarkStale") && !strings.Contains(head, "gobgp/v4/pkg/server.(*BgpServer).StartBgp.func1")
	})
}

func (r *racks) kubectl(stdin string, args ...string) {
	r.t.Helper()
	_, err := r.c.Kubectl(r.t, stdin, args...)
	labtest.Must(r.t, err)
}

func (r *racks) apply(manifest string) {
	r.t.Helper()
	r.kubectl(manifest, "apply", "-f", "-")
}

// each does something on all nodes at once.
func (r *racks) each(do func(n *node)) {
	done := make(chan struct{}, len(r.nodes))
	for _, n := range r.nodes {
		go func() {
			defer func() { done <- struct{}{} }()
			do(n)
		}()
	}
	for range r.nodes {
		<-done
	}
}

func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := n.host.Command(ctx, n.program, append([]string{"--socket", filepath.Join(n.home, "agent.sock")}, args...)...)
	cmd.Env = append(os.Environ(), programEnv+"=1")
	return cmd
}

// launch begins the agent.
func (n *node) launch() {
	n.r.t.Helper()
	n.agent = n.command(context.Background(), "run", "--datastore", "kubernetes", "--kubeconfig", n.kubeconfig, "--lease-namespace", "default",
		"--state-dir", filepath.Join(n.home, "state"), "--node-name", n.name, "--metrics-address", "", "--network", "--cni-socket", filepath.Join(n.home, "cni.sock"))
	n.agent.Stderr = n.log
	labtest.Must(n.r.t, n.host.Start(n.agent))
}

// ready waits until the agent is ready.
func (n *node) ready() {
	n.r.t.Helper()
	if out, err := n.sallyport("status", "--wait", "30s"); err != nil {
		n.r.t.Errorf("the agent of %s is not ready: %v\n%s", n.name, err, out)
	}
}

func (n *node) end(by os.Signal) {
	n.r.t.Helper()
	labtest.Must(n.r.t, n.agent.Process.Signal(by))
	_ = n.agent.Wait() // what it says of a signal does not matter
	n.agent = nil
}

// sallyport runs a command on the node, and returns what it prints on both outputs.
func (n *node) sallyport(args ...string) (string, error) {
	cmd := n.command(n.r.t.Context(), args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.host.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// dump logs the routes of all, where the test has failed.
func (r *racks) dump() {
	if !r.t.Failed() {
		return
	}
	hosts := []*lab.Host{r.outside, r.border, r.tor1.host, r.tor2.host}
	for _, n := range r.nodes {
		hosts = append(hosts, n.host)
	}
	for _, h := range hosts {
		for _, family := range []string{"-4", "-6"} {
			cmd := h.Command(context.Background(), "ip", family, "route")
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := h.Start(cmd); err == nil {
				_ = cmd.Wait()
			}
			r.t.Logf("%s has the routes\n%s", h.Name(), &out)
		}
	}
	r.t.Logf("border: %s\ntor1: %s\ntor2: %s\nrs: %s", r.edge.ask("show", "protocols"), r.tor1.ask("show", "protocols"), r.tor2.ask("show bgp summary"), r.rs.ask("neighbor"))
}
