package kube

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestAgent does with pools what people do, and looks at packets: once a pool is Programmed, they obey it.
func TestAgent(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{CRDs: true})
	s := newSite(t, c, 1)
	n := s.nodes[0]
	n.start()
	s.own()
	n.control(t)
	programmed := func(when string) {
		t.Helper()
		if out := s.kubectl("", "wait", "ippool/pods-v4", "ippool/pods-v6", "--for=condition=Programmed", "--timeout=30s"); strings.Count(out, "condition met") != 2 {
			t.Errorf("%s: wait says %s", when, out)
		}
	}
	n.expect("without pools", n.inner)

	s.kubectl(pools(true), "apply", "-f", "-")
	programmed("applied")
	n.expect("applied", n.own)
	if row := strings.Fields(s.kubectl("", "get", "ippool", "pods-v4", "--no-headers")); len(row) != 6 || strings.Join(row[:5], " ") != "pods-v4 10.0.0.0/16 true True True" {
		t.Errorf("get prints %v", row)
	}
	if out := s.kubectl("", "explain", "ippool.spec.natOutgoing"); !strings.Contains(out, "natOutgoing <boolean>") {
		t.Errorf("explain prints %s", out)
	}
	s.kubectl("", "patch", "ippool", "pods-v4", "pods-v6", "--type=merge", "-p", `{"spec":{"natOutgoing":false}}`)
	programmed("patched")
	n.expect("patched", n.inner)
	s.kubectl(pools(true), "apply", "--server-side", "--force-conflicts", "-f", "-")
	programmed("applied by the server")
	n.expect("applied by the server", n.own)
	s.kubectl("", "patch", "ippool", "pods-v4", "--type=json", "-p", `[{"op":"replace","path":"/spec/natOutgoing","value":false}]`)
	programmed("one patched")
	n.expect("one patched", [2]netip.Addr{n.inner[0], n.own[1]})
	s.kubectl("", "patch", "ippool", "pods-v4", "--type=json", "-p", `[{"op":"replace","path":"/spec/natOutgoing","value":true}]`)
	programmed("and back")

	n.says("explain", "The kernel of this node holds the same", n.inner[0].String(), "198.51.100.1")
	for _, words := range []string{"PROGRAMMED", "pods-v4   10.0.0.0/16   true          false      OK            Programmed"} {
		n.says("get", words, "pools")
	}
	n.says("get", "observedGeneration: ", "pool", "pods-v4", "-o", "yaml") // the status is the API's
	eventually(t, "the node's status is written", func() (bool, string) {
		out := s.kubectl("", "get", "sallyportnode", "n1", "-o", "yaml")
		return strings.Contains(out, "type: Ready") && strings.Contains(out, "ipPools:"), out
	})
	s.kubectl("", "delete", "ippool", "pods-v4", "pods-v6")
	n.expectSoon("after pools were deleted", n.inner)
}

// says runs a command that asks the API, which must print some words.
func (n *node) says(command, words string, args ...string) {
	n.site.t.Helper()
	out, err := n.sallyport(append([]string{command, "--datastore", "kubernetes", "--kubeconfig", n.kubeconfig}, args...)...)
	if err != nil || !strings.Contains(out, words) {
		n.site.t.Errorf("%s: %v\n%s", command, err, out)
	}
}
