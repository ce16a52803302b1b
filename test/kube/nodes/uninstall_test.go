package nodes

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
)

// rest is the nodes that testGone has left.
func (r *rig) rest() []*Node { return []*Node{r.c.Nodes[0], r.c.Nodes[2]} }

// testUninstall does what the documentation says, by its own commands: nothing of Sallyport is left then but what it names.
func (r *rig) testUninstall(t *testing.T) {
	commands := chart.Section(t, "docs/kubernetes.md")("Uninstall").Shell
	if len(commands) != 6 {
		t.Fatalf("the section has %d blocks of commands", len(commands))
	}
	r.c.shell(t, commands[0]) // each node is clean when it returns
	for _, n := range r.rest() {
		n.expectClean(t)
	}
	for _, i := range []int{2, 4, 5} { // the others are for kubectl
		r.c.shell(t, commands[i])
	}
	r.expectNothing(t)
	r.testNext(t)
}

// testNext has another network take over the pods that Sallyport has left.
func (r *rig) testNext(t *testing.T) {
	t.Helper()
	for _, n := range r.rest() {
		labtest.Must(t, referenceNetwork(n))
		r.kubectl(t, "delete", "pods", "--field-selector=spec.nodeName="+n.Name)
	}
	r.c.AwaitDeployment(t, podNamespace, "web")
	r.enter(t)
	for _, n := range r.rest() {
		one := r.on(n)
		for _, other := range r.web {
			if other.pod.Spec.NodeName == n.Name { // this network ends there
				expect(t, one.host, netip.AddrPortFrom(other.addrs[0], netexecPort), one.addrs[0])
			}
		}
	}
}

// expectNothing makes sure that nothing of Sallyport is left in the API.
func (r *rig) expectNothing(t *testing.T) {
	t.Helper()
	kinds := strings.Fields(r.kubectl(t, "api-resources", "--verbs=list", "-o", "name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool { return strings.HasPrefix(kind, "events") }) // they go by themselves
	out := r.kubectl(t, "get", strings.Join(kinds, ","), "-A", "-o", `jsonpath={range .items[*]}{.kind} {.metadata.namespace} {.metadata.name} {.metadata.annotations} {.metadata.finalizers} {.spec.taints}{"\n"}{end}`)
	for line := range strings.Lines(out) {
		if strings.Contains(line, "sallyport") || strings.HasPrefix(line, "CustomResourceDefinition ") {
			t.Errorf("in the API there is still %s", line)
		}
	}
}

// expectClean makes sure that nothing of Sallyport is left on a node but what the documentation names, and the logs and images of
// the pods that were there.
func (n *Node) expectClean(t *testing.T) {
	t.Helper()
	for command, has := range map[string]func(line string) bool{
		"nft list tables": func(line string) bool { return strings.Contains(line, "sallyport") },
		"ip -o link": func(line string) bool {
			return strings.Contains(line, ": sly") || strings.Contains(line, ": sallyport")
		},
		"ip -4 route show table all proto 115": func(string) bool { return true },
		"ip -6 route show table all proto 115": func(string) bool { return true },
		"ip -4 neigh show nud permanent":       func(line string) bool { return strings.Contains(line, " dev sly") },
		"find / -xdev -name *sallyport* -not -path /proc/* -not -path /programs/*": func(line string) bool {
			return !slices.ContainsFunc([]string{"/var/lib/sallyport", "/run/sallyport", "/var/lib/cni/results/", "/var/lib/containerd/", "/var/log/"},
				func(known string) bool { return strings.HasPrefix(line, known) })
		},
	} {
		args := strings.Fields(command)
		out, err := n.Run(t, args[0], args[1:]...)
		labtest.Must(t, err)
		for line := range strings.Lines(out) {
			if has(line) {
				t.Errorf("on node %s there is still, by %q: %s", n.Name, command, line)
			}
		}
	}
}
