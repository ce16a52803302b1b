package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// everywhere are the destinations of default routes.
var everywhere = [2]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// subnet is a link of the router's, where hosts have addresses of both families. Its first address is the router's.
type subnet struct {
	bridge   string
	prefixes [2]netip.Prefix
}

var (
	near    = subnet{"near", [2]netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("2001:db8:a::/64")}}
	far     = subnet{"far", [2]netip.Prefix{netip.MustParsePrefix("192.0.2.128/25"), netip.MustParsePrefix("2001:db8:b::/64")}}
	outside = subnet{"outside", [2]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:c::/64")}}
)

// gateway is the router's address in the subnet.
func (s subnet) gateway(family int) netip.Prefix {
	return netip.PrefixFrom(s.prefixes[family].Addr().Next(), s.prefixes[family].Bits())
}

// addresses are those of the host with a number, from 2.
func (s subnet) addresses(number int) [2]netip.Addr {
	var of [2]netip.Addr
	for family, p := range s.prefixes {
		of[family] = p.Addr()
		for range number {
			of[family] = of[family].Next()
		}
	}
	return of
}

// places are the nodes that a cluster begins with.
var places = []struct {
	name   string
	subnet subnet
	proxy  string
}{
	{"n1", near, "nftables"},
	{"n2", near, "iptables"},
	{"n3", far, "nftables"},
}

// firstNode is the number of the first node in its subnet.
const firstNode = 11

// Options says what a cluster of nodes is to have beside the nodes.
type Options struct {
	cluster.Options
	// PodRanges are where pods have their addresses, for kube-proxy: one of each family, as CIDRs.
	PodRanges []string
	// Images are further ones that all nodes have.
	Images []Image
	// Before is called once the control plane serves, before there are nodes.
	Before func(*Cluster)
	// Network gives a node that is being booted its pod network, before kubelet starts: plugins in /opt/cni/bin, their
	// configuration in /etc/cni/net.d, and what has to run. It is called for several nodes at once. Nil where pods do that.
	Network func(*Node) error
}

// Cluster is a control plane with nodes.
type Cluster struct {
	*cluster.Cluster
	// Router is between the subnets of the nodes, the control plane and Outside; it knows no pods.
	Router *lab.Host
	// Outside is a host that is no part of the cluster, with the addresses OutsideAddresses.
	Outside          *lab.Host
	OutsideAddresses [2]netip.Addr
	Nodes            []*Node
	// Client talks to the API server as one who may do everything.
	Client kubernetes.Interface

	t         labtest.TB
	dir       string // in memory: the nodes' file systems, what all of them read, and the logs
	cgroups   *cgroups
	network   func(*Node) error
	podRanges []string
}

// New starts a control plane and three nodes, which the end of the test ends. They are ready when New returns, which
// takes about 20 seconds. Where the test has failed, its log has what the programs of the nodes said.
func New(t labtest.TB, o Options) *Cluster {
	t.Helper()
	labtest.Need(t)
	c := &Cluster{t: t, cgroups: newCgroups(t), network: o.Network, podRanges: o.PodRanges}
	o.ControllerManager, o.Scheduler = true, true
	o.APIServerArgs = append([]string{"--service-cluster-ip-range=" + serviceRange, "--endpoint-reconciler-type=lease"}, o.APIServerArgs...)
	c.makeFiles(append(ownImages(cluster.Programs()), o.Images...))
	c.makeNetwork()
	t.Cleanup(c.end)
	for i, place := range places {
		n := &Node{Name: place.name, Addresses: place.subnet.addresses(firstNode + i), subnet: place.subnet, proxy: place.proxy, cluster: c, Root: c.file(place.name)}
		c.Nodes = append(c.Nodes, n)
		labtest.Must(t, n.prepare())
	}
	on := make(chan error, 1)
	go func() { on <- c.each((*Node).power) }() // meanwhile
	c.Cluster = cluster.New(t, o.Options)
	labtest.Must(t, <-on)
	c.connect()
	if o.Before != nil {
		o.Before(c)
	}
	for _, n := range c.Nodes {
		labtest.Must(t, n.configure())
	}
	labtest.Must(t, c.each((*Node).work))
	labtest.Must(t, c.awaitReady(c.Nodes...))
	return c
}

// connect links the router, and what is behind it, to the control plane.
func (c *Cluster) connect() {
	t := c.t
	t.Helper()
	var err error
	c.Client, err = kubernetes.NewForConfig(c.Config())
	labtest.Must(t, err)
	c.Connect(t, c.Router)
	c.Route(t, c.Router, near.prefixes[0])
	c.Route(t, c.Router, far.prefixes[0])
}

// Shared is the path of a file that all nodes see as /shared/NAME.
func (c *Cluster) Shared(name string) string { return c.file(filepath.Join("shared", name)) }

func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }

// makeFiles makes the directory of the cluster, in memory, and what all nodes read in it.
func (c *Cluster) makeFiles(images []Image) {
	t := c.t
	t.Helper()
	c.dir = t.TempDir()
	labtest.Must(t, unix.Mount("tmpfs", c.dir, "tmpfs", unix.MS_NODEV, "mode=0755"))
	t.Cleanup(func() {
		if err := unix.Unmount(c.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	labtest.Must(t,
		os.Symlink(cluster.Programs(), c.file("programs")),
		os.Mkdir(c.file("shared"), 0o755),
		os.WriteFile(c.file("init.sh"), []byte(initScript), 0o600),
		os.WriteFile(c.file("enter.sh"), []byte(enterScript), 0o600),
		writeImages(c.file("images.tar"), images),
	)
}

// makeNetwork makes the router, and what is linked to it beside the nodes.
func (c *Cluster) makeNetwork() {
	t := c.t
	t.Helper()
	c.Router, c.Outside, c.OutsideAddresses = labtest.NewHost(t, "router"), labtest.NewHost(t, "outside"), outside.addresses(10)
	labtest.Must(t, c.Router.Forward())
	for _, s := range []subnet{near, far, outside} {
		labtest.Must(t, c.Router.Bridge(s.bridge, []netip.Prefix{s.gateway(0), s.gateway(1)}))
	}
	var own []netip.Prefix
	for family, a := range c.OutsideAddresses {
		own = append(own, netip.PrefixFrom(a, outside.prefixes[family].Bits()))
	}
	labtest.Must(t,
		lab.Link(lab.Port{Host: c.Outside, Name: "eth0", Addresses: own}, lab.Port{Host: c.Router, Name: "server"}),
		c.Router.AddToBridge(outside.bridge, "server"),
	)
	for family, to := range everywhere {
		labtest.Must(t, c.Outside.AddRoute(lab.Route{To: to, Via: outside.gateway(family).Addr(), Dev: "eth0"}))
	}
}

// node is the one with a name.
func (c *Cluster) node(name string) *Node {
	return c.Nodes[slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.Name == name })]
}

// each does something to all nodes at once.
func (c *Cluster) each(do func(*Node) error) error {
	failed := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i, n := range c.Nodes {
		all.Go(func() { failed[i] = do(n) })
	}
	all.Wait()
	return errors.Join(failed...)
}

// end ends the nodes, and shows what their programs said if the test has failed.
func (c *Cluster) end() {
	if err := c.each((*Node).kill); err != nil {
		c.t.Error(err)
	}
	if !c.t.Failed() {
		return
	}
	for _, logs := range []string{"*.log", "*/var/log/pods/*/*/*.log"} { // of nodes and of pods
		found, err := filepath.Glob(c.file(logs))
		if err != nil {
			c.t.Error(err)
		}
		for _, log := range found {
			said, err := os.ReadFile(log)
			c.t.Logf("%s (%v):\n%s", strings.TrimPrefix(log, c.dir), err, said[max(0, len(said)-logTail):])
		}
	}
}

// awaitReady waits until kubelets have said that their nodes are ready, since these were booted last.
func (c *Cluster) awaitReady(nodes ...*Node) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), startAtMost)
	defer cancel()
	for _, n := range nodes {
		for instead := ""; ; {
			node, err := c.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
			if err == nil && node.Status.NodeInfo.BootID == n.bootID && ready(node) {
				break
			}
			if err == nil {
				instead = fmt.Sprintf("boot %s, want %s, and %+v", node.Status.NodeInfo.BootID, n.bootID, node.Status.Conditions)
			} else if ctx.Err() == nil {
				instead = err.Error()
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("node %s is not ready after %s: %s", n.Name, startAtMost, instead)
			case <-time.After(5 * pollInterval):
			}
		}
	}
	return nil
}

func ready(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
