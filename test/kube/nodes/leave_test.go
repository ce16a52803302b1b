package nodes

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	control "github.com/sallyport/sallyport/internal/controller"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
)

// testDrain drains a node: its pods move to the others. The addresses that they had cool down meanwhile, until testUncordon.
func (r *rig) testDrain(t *testing.T) {
	n := r.c.Nodes[1]
	if has := r.blocksOf(t, n); len(has) < 3 {
		t.Errorf("%s has only the blocks %v", n.Name, has)
	}
	r.kubectl(t, "drain", n.Name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=150s")
	r.c.AwaitDeployment(t, podNamespace, "web")
	r.enter(t)
	r.expectSpread(t, 3, 0, 3)
	r.testMesh(t)
}

// testUncordon finds that a drained node has given back its blocks but one of each family, with the pool that was deleted, and
// lets pods start there again.
func (r *rig) testUncordon(t *testing.T) {
	n := r.c.Nodes[1]
	var gone, left []string
	for _, b := range r.blocksOf(t, n) {
		if strings.HasPrefix(b.pool, "pods-") {
			left = append(left, b.pool)
		} else {
			gone = append(gone, "ipblock/"+b.name)
		}
	}
	if len(gone) > 0 {
		r.c.shell(t, "kubectl wait --for=delete --timeout=290s "+strings.Join(gone, " "))
	}
	if !slices.Equal(left, []string{"pods-v4", "pods-v6"}) {
		t.Errorf("%s has blocks of the pools %v, want one of each family", n.Name, left)
	}
	r.kubectl(t, "wait", "ippool/team-a", "--for=delete", "--timeout=150s")
	r.kubectl(t, "uncordon", n.Name)
	r.createPublic(t, n)
	for _, on := range []*Node{r.c.Nodes[0], r.c.Nodes[2]} { // the deployment's next pods get a node with fewer
		r.kubectl(t, "delete", "pod", r.on(on).pod.Name)
	}
	r.c.AwaitDeployment(t, podNamespace, "web")
	r.enter(t)
	r.expectSpread(t, 2, 2, 2)
	r.testMesh(t)
}

// testReboot: after a power cut, a node's pods are there again.
func (r *rig) testReboot(t *testing.T) {
	n := r.c.Nodes[2]
	var before []*corev1.Pod
	for _, e := range slices.Concat(r.web, r.public) {
		if e.pod.Spec.NodeName == n.Name {
			before = append(before, e.pod)
		}
	}
	n.Kill(t)
	labtest.Must(t, n.Boot())
	for _, pod := range before {
		r.c.AwaitPodSince(t, pod)
	}
	r.enter(t)
	r.testMesh(t)
	r.testPaths(t)
}

// testNodeDeleted: a Node that is deleted while its machine runs on comes back, and nothing is given out twice.
func (r *rig) testNodeDeleted(t *testing.T) {
	n := r.c.Nodes[1]
	before := r.blocks(t)
	r.kubectl(t, "delete", "node", n.Name)
	n.End(t, "kubelet", os.Kill) // it registers as it starts
	n.End(t, "kube-proxy", os.Kill)
	labtest.Must(t, n.work())
	labtest.Must(t, r.c.awaitReady(n))
	if after := r.blocks(t); after != before {
		t.Errorf("before, the nodes had the blocks\n%s, and now\n%s", before, after)
	}
	r.c.AwaitDeployment(t, podNamespace, "web")
	r.enter(t)
	r.testMesh(t)
}

// absentAfter is how long the controller of testGone sees neither a Node nor a heartbeat before it gives back the node's blocks:
// less than the program does.
const absentAfter = 3 * time.Second

// testGone takes a machine away, and deletes its Node: the other nodes send nothing there any more, and
// nothing for its blocks by the default route. After some time the blocks are free.
func (r *rig) testGone(t *testing.T) {
	// From here on a controller in this process works, with the rights of the program's.
	r.kubectl(t, "-n", chart.Namespace, "scale", "deployment", "sallyport-controller", "--replicas=0")
	n, others := r.c.Nodes[1], r.rest()
	blocks := r.blocksOf(t, n)
	tunnel := strings.Split(r.kubectl(t, "get", "node", n.Name, "-o", `jsonpath={.metadata.annotations.sallyport\.dev/tunnel-addresses}`), ",")
	if len(blocks) < 2 || len(tunnel) != 2 {
		t.Fatalf("node %s has the blocks %v and the tunnel addresses %v", n.Name, blocks, tunnel)
	}
	ways := append(tunnel, n.Addresses[0].String(), n.Addresses[1].String())
	for _, other := range others {
		if len(waysTo(t, other, ways)) < 4 { // routes and known nodes, of each family
			t.Errorf("%s has no way to %s while it is there", other.Name, n.Name)
		}
	}
	n.Kill(t)
	r.kubectl(t, "delete", "node", n.Name)
	for _, other := range others {
		if err := other.await("no way to "+n.Name, func() bool { return len(waysTo(t, other, ways)) == 0 }); err != nil {
			t.Fatalf("%v, but %q", err, waysTo(t, other, ways))
		}
		for _, b := range blocks {
			if out := routeTo(t, other, b.cidr); !strings.HasPrefix(out, "unreachable ") {
				t.Errorf("%s reaches the block %s by %q, want an unreachable route", other.Name, b.cidr, out)
			}
		}
	}
	if now := r.blocksOf(t, n); !slices.Equal(now, blocks) {
		t.Errorf("%s had the blocks %v, and has at once %v", n.Name, blocks, now)
	}
	r.control(t)
	wait := "kubectl wait --for=delete --timeout=290s"
	for _, b := range blocks {
		wait += " ipblock/" + b.name
	}
	r.c.shell(t, wait)
	for _, other := range others {
		for _, b := range blocks {
			labtest.Must(t, other.await("no route to the block "+b.cidr, func() bool { return routeTo(t, other, b.cidr) == "" }))
		}
	}
	for family, a := range r.on(others[1]).addrs {
		expect(t, r.on(others[0]).host, netip.AddrPortFrom(a, netexecPort), r.on(others[0]).addrs[family])
	}
}

// ipBlock is a block of a node.
type ipBlock struct{ name, pool, cidr string }

// blocksOf are the blocks of a node, by their names.
func (r *rig) blocksOf(t *testing.T, n *Node) []ipBlock {
	t.Helper()
	var out []ipBlock
	for line := range strings.Lines(r.kubectl(t, "get", "ipblocks", "-o",
		`jsonpath={range .items[?(@.spec.node=="`+n.Name+`")]}{.metadata.name} {.spec.pool} {.spec.cidr}{"\n"}{end}`)) {
		f := strings.Fields(line)
		out = append(out, ipBlock{f[0], f[1], f[2]})
	}
	return out
}

// waysTo is each line of what a node says of its routes, tunnels and rules that has one of some addresses.
func waysTo(t *testing.T, n *Node, addresses []string) []string {
	t.Helper()
	var found []string
	for _, command := range []string{"ip route show proto 115", "ip -6 route show proto 115", "bridge fdb show", "ip neigh show nud permanent", "nft list ruleset"} {
		args := strings.Fields(command)
		out, err := n.Run(t, args[0], args[1:]...)
		labtest.Must(t, err)
		for line := range strings.Lines(out) {
			words := strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(" ,{}", c) })
			if slices.ContainsFunc(words, func(w string) bool { return slices.Contains(addresses, w) }) {
				found = append(found, command+": "+strings.TrimSpace(line))
			}
		}
	}
	return found
}

// routeTo is the node's route of ours to a block; empty: there is none.
func routeTo(t *testing.T, n *Node, block string) string {
	t.Helper()
	family := "-4"
	if strings.Contains(block, ":") {
		family = "-6"
	}
	out, err := n.Run(t, "ip", family, "route", "show", "proto", "115", "exact", block)
	labtest.Must(t, err)
	return out
}

// control runs a controller in this process until the whole test ends, with the rights of the chart's.
func (r *rig) control(t *testing.T) {
	t.Helper()
	cfg := r.c.Config()
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + chart.Namespace + ":sallyport-controller", Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- control.Run(ctx, control.Options{Config: cfg, LeaseNamespace: chart.Namespace, NodeSelector: labels.Everything(), Network: true,
			AbsentAfter: absentAfter, Version: "0.1.0-dev", Log: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() {
		stop()
		labtest.Must(t, <-ended)
	})
}
