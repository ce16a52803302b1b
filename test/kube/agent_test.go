package kube

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestAgent does with a pool what people do, and looks at packets.
func TestAgent(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{CRDs: true})
	s := newSite(t, c, 1)
	n := s.nodes[0]
	n.start()
	n.expect("without pools", n.inner)
	s.apply(pools(true))
	n.expectSoon("with pools", n.own)
	s.kubectl("", "patch", "ippool", "pods-v4", "pods-v6", "--type=merge", "-p", `{"spec":{"natOutgoing":false}}`)
	n.expectSoon("without natOutgoing", n.inner)
	s.kubectl(pools(true), "apply", "--server-side", "--force-conflicts", "-f", "-")
	n.expectSoon("applied by the server", n.own)
	out, err := n.sallyport("explain", "--datastore", "kubernetes", "--kubeconfig", n.kubeconfig, n.inner[0].String(), "198.51.100.1")
	if err != nil || !strings.Contains(out, "The kernel of this node holds the same") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	out, err = n.sallyport("get", "pools", "--datastore", "kubernetes", "--kubeconfig", n.kubeconfig)
	if err != nil || !strings.Contains(out, "pods-v4") {
		t.Errorf("get: %v\n%s", err, out)
	}
	eventually(t, "the node's status is written", func() (bool, string) {
		out := s.kubectl("", "get", "nodestatus", "n1", "-o", "yaml")
		return strings.Contains(out, "ready: true") && strings.Contains(out, "ipPools:"), out
	})
	s.kubectl("", "delete", "ippool", "pods-v4", "pods-v6")
	n.expectSoon("after pools were deleted", n.inner)
}
