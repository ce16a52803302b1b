package nodes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestMain(m *testing.M) { Main(m) }

// referencePlugins is where Debian keeps the reference plugins of the Container Network Interface.
const referencePlugins = "/usr/lib/cni"

// referenceNetwork gives a node a network of the reference plugins, which ends at the node.
func referenceNetwork(n *Node) error {
	number := strings.TrimPrefix(n.Name, "n")
	conflist := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local",
    "ranges": [[{"subnet": "10.244.%[1]s.0/24"}], [{"subnet": "fd00:10:244:%[1]s::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`, number)
	if err := n.copyPlugins("loopback", "ptp", "host-local", "portmap"); err != nil {
		return err
	}
	return n.WriteFile("etc/cni/net.d/10-pods.conflist", conflist, 0o644)
}

// copyPlugins gives a node some of the reference plugins.
func (n *Node) copyPlugins(names ...string) error {
	for _, name := range names {
		plugin, err := os.ReadFile(filepath.Join(referencePlugins, name))
		if err != nil {
			return fmt.Errorf("%w: run hack/install-deps host-local", err)
		}
		if err := n.WriteFile("opt/cni/bin/"+name, string(plugin), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// TestReferencePlugins shows that the nodes work as such, with a network that is not ours.
func TestReferencePlugins(t *testing.T) {
	start := time.Now()
	c := New(t, Options{PodRanges: []string{"10.244.0.0/16", "fd00:10:244::/56"}, Network: referenceNetwork})
	t.Logf("the cluster is ready after %s", time.Since(start))
	start = time.Now()
	for _, n := range c.Nodes {
		c.Create(t, Agnhost("server-"+n.Name, n, "netexec"), Agnhost("client-"+n.Name, n, "pause"))
	}
	for _, n := range c.Nodes {
		server, client := c.AwaitPod(t, "server-"+n.Name), c.AwaitPod(t, "client-"+n.Name)
		if len(server.Status.PodIPs) != 2 {
			t.Fatalf("%s has the addresses %v", server.Name, server.Status.PodIPs)
		}
		inside := c.Enter(t, client)
		for family, address := range Addresses(server) {
			seen, err := Ask(t.Context(), inside, address)
			if want := Addresses(client)[family]; err != nil || seen != want {
				t.Errorf("%s asks %s, which sees %s, want %s (%v)", client.Name, address, seen, want, err)
			}
		}
		if _, err := c.Kubectl(t, "", "exec", client.Name, "--", "/agnhost", "connect", server.Status.PodIP+":8080", "--timeout=5s"); err != nil {
			t.Error(err)
		}
		if out, err := c.Kubectl(t, "", "logs", server.Name); err != nil || !strings.Contains(out, "clientip") {
			t.Errorf("the log of %s is %q (%v)", server.Name, out, err)
		}
	}
	t.Logf("all pods have answered after %s", time.Since(start))

	// A reboot: the node's files and pods are there again, and its network as well.
	n := c.Nodes[2]
	server, client := c.AwaitPod(t, "server-"+n.Name), c.AwaitPod(t, "client-"+n.Name)
	n.Kill(t)
	start = time.Now()
	labtest.Must(t, n.Boot())
	t.Logf("%s is ready again after %s", n.Name, time.Since(start))
	server, client = c.AwaitPodSince(t, server), c.AwaitPodSince(t, client)
	if _, err := Ask(t.Context(), c.Enter(t, client), Addresses(server)[0]); err != nil {
		t.Error(err)
	}
	t.Logf("its pods answer after %s", time.Since(start))
}
