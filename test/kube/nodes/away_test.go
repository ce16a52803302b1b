package nodes

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// testAway takes the API server away. Pods go on; one whose sandbox dies gets a new one, with addresses of its node's blocks; one
// that its node's agent has not heard of does not start before the API server is back. Nothing is lost then.
func (r *rig) testAway(t *testing.T) {
	n := r.c.Nodes[0]
	known, before := r.on(n), r.inUse(t)
	others := slices.DeleteFunc(slices.Clone(r.web), func(e *entered) bool { return e == known })
	pod := Agnhost("static", nil, "netexec") // the kubelet starts it by itself
	pod.APIVersion, pod.Kind = "v1", "Pod"
	manifest, err := json.Marshal(pod)
	labtest.Must(t, err)
	r.c.StopServer(t)
	labtest.Must(t, n.WriteFile(staticFile, string(manifest), 0o600))
	old := sandboxes(t, n, string(known.pod.UID))
	if len(old) != 1 {
		t.Fatalf("pod %s has the sandboxes %v", known.pod.Name, old)
	}
	_, err = n.Run(t, "ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", old[0])
	labtest.Must(t, err)
	var now []string
	labtest.Must(t, n.await("a new sandbox of "+known.pod.Name, func() bool {
		now = slices.DeleteFunc(sandboxes(t, n, string(known.pod.UID)), func(id string) bool { return id == old[0] })
		return len(now) == 1 && r.c.connected(t, known.pod, now[0])
	}))
	host := r.c.enterContainer(t, known.pod, now[0])
	var addrs [2]netip.Addr // of the new sandbox
	for family, server := range others[0].addrs {
		addrs[family], err = Ask(t.Context(), host, server)
		labtest.Must(t, err)
		for _, e := range slices.Concat(others, r.public) {
			if e.addrs[family] == addrs[family] {
				t.Errorf("the new sandbox of %s has the address %s of %s", known.pod.Name, addrs[family], e.pod.Name)
			}
		}
	}
	labtest.Must(t, n.await("the pod that the agent has not heard of refused", func() bool {
		said, err := os.ReadFile(n.logFile("kubelet"))
		labtest.Must(t, err)
		return strings.Contains(string(said), refusal)
	}))
	r.web = others
	r.testMesh(t)
	labtest.Must(t, n.await("an answer of the new sandbox", func() bool {
		seen, err := Ask(t.Context(), others[0].host, addrs[0])
		return err == nil && seen == others[0].addrs[0]
	}))

	r.c.StartServer(t)
	static := r.enterPod(t, podNamespace, "static-"+n.Name)
	r.c.AwaitPodSince(t, known.pod)
	r.enter(t)
	if i := slices.IndexFunc(r.web, func(e *entered) bool { return e.pod.UID == known.pod.UID }); i < 0 || r.web[i].addrs != addrs {
		t.Errorf("pod %s, whose new sandbox has the addresses %v, is not among %v with these", known.pod.Name, addrs, r.web)
	}
	r.web = append(r.web, static)
	r.testMesh(t)
	if after := r.inUse(t); !slices.Equal(after, before) {
		t.Errorf("before, the nodes had the blocks %v, and now %v", before, after)
	}
	labtest.Must(t, os.Remove(filepath.Join(n.Root, staticFile)), r.c.awaitReady(r.c.Nodes...))
}

// inUse is the blocks of the nodes that have pods now.
func (r *rig) inUse(t *testing.T) []ipBlock {
	t.Helper()
	all := append(r.blocksOf(t, r.c.Nodes[0]), r.blocksOf(t, r.c.Nodes[2])...)
	return slices.DeleteFunc(all, func(b ipBlock) bool { return b.pool == "team-a" })
}

// staticFile is where kubelet finds the static pod.
const staticFile = "etc/kubernetes/manifests/static.json"

// refusal is what the kubelet says of a pod that its node's agent has not heard of.
const refusal = "reading pod " + podNamespace + "/static"

// sandboxes are the ids of a pod's sandboxes.
func sandboxes(t *testing.T, n *Node, uid string) []string {
	t.Helper()
	out, err := n.Run(t, "ctr", "--namespace=k8s.io", "containers", "list", "--quiet",
		`labels."io.kubernetes.pod.uid"==`+uid+`,labels."io.cri-containerd.kind"==sandbox`)
	labtest.Must(t, err)
	return strings.Fields(out)
}
