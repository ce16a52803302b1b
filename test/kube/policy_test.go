package kube

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestAgentConfined has kubectl write with the token of an agent's pod on n1: to n1's objects as far as an agent may, and
// not to those of n2. The controller writes no third party's Lease; of all else, others than agents are not asked.
func TestAgentConfined(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{})
	installChart(t, c, chart.Render(t, "--set", "startupTaint=true"))
	k := &kubectl{t: t, c: c}
	for _, name := range []string{"n1", "n2"} {
		k.run(t, "apiVersion: v1\nkind: Node\nmetadata: {name: "+name+"}\nspec: {taints: [{key: other, effect: NoSchedule}, {key: sallyport.dev/not-ready, effect: NoSchedule}]}\n", "apply", "-f", "-")
	}
	// The role alone would let an agent do more than this; what else it lacks is given here, so that the policies decide.
	k.run(t, rolesFor("more", []permission{
		{verb: "*", resource: "nodes"}, {verb: "*", group: "sallyport.dev", resource: "sallyportnodes"},
		{verb: "*", group: "sallyport.dev", resource: "sallyportnodes/status"}, {verb: "*", group: "coordination.k8s.io", resource: "leases"},
	}), "apply", "-f", "-")
	for _, account := range []string{agentAccount, controllerAccount} {
		k.run(t, "", "create", "clusterrolebinding", "more-"+account, "--clusterrole=more", "--serviceaccount="+chart.Namespace+":"+account)
	}
	as := func(account, node string) []string {
		return []string{"--kubeconfig=" + c.TokenKubeconfig(t, cluster.PodIdentity{Namespace: chart.Namespace, ServiceAccount: account, Pod: account + "-" + node, Node: node})}
	}
	agent := as(agentAccount, "n1")
	status := func(node string) string {
		return fmt.Sprintf("apiVersion: sallyport.dev/v1alpha1\nkind: SallyportNode\nmetadata: {name: %s, labels: {v: '1'}}\n", node)
	}
	take := func(node string) []string {
		return []string{"patch", "node", node, "--type=json", "-p", `[{"op": "test", "path": "/spec/taints/1/key", "value": "sallyport.dev/not-ready"}, {"op": "remove", "path": "/spec/taints/1"}]`}
	}
	merge := func(node, body string) []string { return []string{"patch", "node", node, "--type=merge", "-p", body} }
	apply := []string{"apply", "--server-side", "--validate=false", "-f", "-"}
	eventually(t, "the policies are in force", func() (bool, string) { // the API server reads them a moment after they are made
		_, err := c.Kubectl(t, "", append(agent, append(merge("n2", `{"metadata":{"labels":{"a":"b"}}}`), "--dry-run=server")...)...)
		_, other := c.Kubectl(t, status("n2"), append(agent, append(apply, "--dry-run=server")...)...)
		return err != nil && other != nil, fmt.Sprint(err, other)
	})
	const foreign = "may not write the SallyportNode n2, only that of its own node"
	const nothing = "may change nothing of the Node n1"
	const taint = "may take no taint but sallyport.dev/not-ready"
	for _, tt := range []struct {
		name, stdin string
		args        []string
		refused     string
	}{
		{"create its SallyportNode", status("n1"), apply, ""},
		{"change its SallyportNode", strings.ReplaceAll(status("n1"), "'1'", "'2'"), apply, ""},
		{"create another's SallyportNode", status("n2"), apply, foreign},
		{"take another's taint", "", take("n2"), "may not UPDATE the Node n2"},
		{"label another's Node", "", merge("n2", `{"metadata":{"labels":{"a":"b"}}}`), "may not UPDATE the Node n2"},
		{"delete another's Node", "", []string{"delete", "node", "n2", "--wait=false"}, "may not DELETE the Node n2"},
		{"delete its Node", "", []string{"delete", "node", "n1", "--wait=false"}, "may not DELETE the Node n1"},
		{"label its Node", "", merge("n1", `{"metadata":{"labels":{"a":"b"}}}`), nothing},
		{"annotate its Node", "", merge("n1", `{"metadata":{"annotations":{"a":"b"}}}`), nothing},
		{"cordon its Node", "", merge("n1", `{"spec":{"unschedulable":true}}`), nothing},
		{"take all taints", "", merge("n1", `{"spec":{"taints":null}}`), taint},
		{"set a taint", "", merge("n1", `{"spec":{"taints":[{"key":"other","effect":"NoSchedule"},{"key":"sallyport.dev/not-ready","effect":"NoSchedule"},{"key":"new","effect":"NoExecute"}]}}`), taint},
		{"take its taint", "", take("n1"), ""},
	} {
		out, err := c.Kubectl(t, tt.stdin, append(agent, tt.args...)...)
		switch {
		case tt.refused == "" && err != nil:
			t.Errorf("the agent of n1 cannot %s: %v", tt.name, err)
		case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
			t.Errorf("the agent of n1 may %s, or is told something else than %q: %s %v", tt.name, tt.refused, out, err)
		}
	}
	k.run(t, status("n2"), apply...)
	k.refused(t, "", foreign, append(agent, "patch", "sallyportnode", "n2", "--type=merge", "-p", `{"metadata":{"labels":{"a":"b"}}}`)...)
	k.refused(t, "", foreign, append(agent, "delete", "sallyportnode", "n2")...)
	k.refused(t, "", foreign, append(agent, "patch", "sallyportnode", "n2", "--subresource=status", "--type=merge", "-p", `{"status":{"version":"2"}}`)...)
	k.run(t, "", append(agent, "patch", "sallyportnode", "n1", "--subresource=status", "--type=merge", "-p", `{"status":{"version":"2"}}`)...)
	lease := func(name string) string {
		return "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: " + name + ", namespace: " + chart.Namespace + "}\n"
	}
	k.run(t, lease("sallyport-node-n1"), append(agent, apply...)...)
	for _, name := range []string{"sallyport-node-n2", "sallyport-controller"} {
		k.refused(t, lease(name), "may not write the Lease "+name+", only that of its own node", append(agent, apply...)...)
	}
	controls := append(as(controllerAccount, "n1"), apply...)
	k.run(t, lease("sallyport-controller"), controls...)
	k.refused(t, lease("third-party"), "the controller of Sallyport may not CREATE the Lease third-party", controls...)
	k.run(t, lease("third-party"), apply...)
	k.refused(t, strings.Replace(lease("third-party"), "{name", "{labels: {v: '1'}, name", 1), "the controller of Sallyport may not UPDATE the Lease third-party", controls...)
	// Others: the same requests with the account of the controller, and as an administrator.
	other := as(controllerAccount, "n1")
	k.run(t, "", append(other, merge("n2", `{"metadata":{"labels":{"a":"b"}}}`)...)...)
	k.run(t, "", append(other, "patch", "sallyportnode", "n2", "--type=merge", "-p", `{"metadata":{"labels":{"a":"b"}}}`)...)
	k.run(t, "", take("n2")...)
	if taints := k.run(t, "", "get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*].key}"); strings.Contains(taints, "sallyport.dev") || strings.Count(taints, "other") != 2 {
		t.Errorf("the taints at the end are %s", taints)
	}
}
