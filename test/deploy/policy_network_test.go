package deploy

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// networkPolicies are the policies of the chart where Sallyport is the pod network.
func networkPolicies(t *testing.T) map[string]*policy {
	t.Helper()
	return policies(t, "network", "sallyport-agent-sallyportnodes", "sallyport-agent-leases", "sallyport-controller-leases", "sallyport-agent-nodes",
		"sallyport-agent-ipblocks", "sallyport-controller-finalizers", "sallyport-controller-nodes")
}

// TestAgentWritesOwnBlocks has the policy judge what an agent may do to IPBlocks.
func TestAgentWritesOwnBlocks(t *testing.T) {
	t.Parallel()
	const block = "apiVersion: sallyport.dev/v1alpha1\nkind: IPBlock\nmetadata: {name: 4-10-0-0-0-26, finalizers: [sallyport.dev/block]}\nspec: {cidr: 10.0.0.0/26, node: a, pool: p, poolUID: u}\n"
	loose, moved := strings.Replace(block, ", finalizers: [sallyport.dev/block]", "", 1), strings.Replace(block, "node: a", "node: b", 1)
	const only = " the IPBlock 4-10-0-0-0-26 of node a, only those of its own node"
	p := networkPolicies(t)["sallyport-agent-ipblocks"]
	for _, tt := range []struct {
		name string
		request
		says string
	}{
		{"claims one", request{account: agentAccount, node: "a", object: block}, ""},
		{"lets its own go", request{account: agentAccount, node: "a", object: loose, oldValue: block}, ""},
		{"deletes its own", request{account: agentAccount, node: "a", oldValue: block}, ""},
		{"claims one for another", request{account: agentAccount, node: "b", object: block}, "the agent of node b may not CREATE" + only},
		{"lets another's go", request{account: agentAccount, node: "b", object: loose, oldValue: block}, "the agent of node b may not UPDATE" + only},
		{"takes another's", request{account: agentAccount, node: "b", object: moved, oldValue: block}, "the agent of node b may not UPDATE" + only},
		{"gives its own away", request{account: agentAccount, node: "a", object: moved, oldValue: block}, "the agent of node a may not UPDATE" + only},
		{"deletes another's", request{account: agentAccount, node: "b", oldValue: block}, "the agent of node b may not DELETE" + only},
		{"has a token of no node", request{account: agentAccount, object: block}, "the agent of no node (its token names none) may not CREATE" + only},
		{"is the controller", request{account: controllerAccount, oldValue: block}, ""},
	} {
		tt.resource = schema.GroupVersionResource{Group: "sallyport.dev", Version: "v1alpha1", Resource: "ipblocks"}
		p.judges(t, tt.name, tt.request, tt.says)
	}
}

// TestControllerWritesFinalizers has the policy judge what the controller may do to pools and blocks.
func TestControllerWritesFinalizers(t *testing.T) {
	t.Parallel()
	const pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p, resourceVersion: '1', labels: {a: b}, finalizers: [other]}\nspec: {cidr: 10.0.0.0/16}\n"
	with := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(pool) }
	const only = " the IPPool p: of pools and blocks it changes nothing but the finalizers sallyport.dev/blocks and sallyport.dev/block"
	p := networkPolicies(t)["sallyport-controller-finalizers"]
	for _, tt := range []struct {
		name string
		request
		says string
	}{
		{"keeps a pool", request{object: with("[other]", "[other, sallyport.dev/blocks]", "'1'", "'2'"), oldValue: pool}, ""},
		{"lets a pool go", request{object: pool, oldValue: with("[other]", "[sallyport.dev/blocks, other]")}, ""},
		{"lets the last finalizer go", request{object: with(", finalizers: [other]", ""), oldValue: with("other", "sallyport.dev/blocks")}, ""},
		{"takes another's finalizer", request{object: with(", finalizers: [other]", ""), oldValue: pool}, "the controller of Sallyport may not UPDATE" + only},
		{"changes a pool", request{object: with("10.0", "10.1"), oldValue: pool}, "the controller of Sallyport may not UPDATE" + only},
		{"labels a pool", request{object: with("a: b", "a: c"), oldValue: pool}, "the controller of Sallyport may not UPDATE" + only},
		{"creates a pool", request{object: pool}, "the controller of Sallyport may not CREATE" + only},
		{"deletes a pool", request{oldValue: pool}, "the controller of Sallyport may not DELETE" + only},
		{"is a person", request{account: "admin", object: with("10.0", "10.1"), oldValue: pool}, ""},
	} {
		if tt.account == "" {
			tt.account = controllerAccount
		}
		tt.resource = schema.GroupVersionResource{Group: "projectcalico.org", Version: "v3", Resource: "ippools"}
		p.judges(t, tt.name, tt.request, tt.says)
	}
}

// TestControllerClearsNetworkUnavailable has the policy judge what the controller may do to Nodes.
func TestControllerClearsNetworkUnavailable(t *testing.T) {
	t.Parallel()
	const node = "apiVersion: v1\nkind: Node\nmetadata: {name: a, resourceVersion: '1', labels: {zone: one}}\nspec: {podCIDR: 10.244.1.0/24}\n" +
		"status: {capacity: {cpu: '2'}, conditions: [{type: Ready, status: 'True'}, {type: NetworkUnavailable, status: 'True', reason: NoRouteCreated}]}\n"
	with := func(pairs ...string) string {
		return strings.NewReplacer(append(pairs, "'True', reason: NoRouteCreated", "'False', reason: SallyportReady", "'1'", "'2'")...).Replace(node)
	}
	absent := strings.Replace(node, ", {type: NetworkUnavailable, status: 'True', reason: NoRouteCreated}", "", 1)
	const only = " the Node a: it changes nothing of a Node but the condition NetworkUnavailable, to False"
	const change = "the controller of Sallyport may not UPDATE" + only
	p := networkPolicies(t)["sallyport-controller-nodes"]
	for _, tt := range []struct {
		name string
		request
		says string
	}{
		{"clears it", request{object: with(), oldValue: node}, ""},
		{"says so where nothing was said", request{object: with(), oldValue: absent}, ""},
		{"sets it", request{object: node, oldValue: with()}, change},
		{"takes it away", request{object: absent, oldValue: node}, change},
		{"says that the node is not ready", request{object: with("Ready, status: 'True'", "Ready, status: 'False'"), oldValue: node}, change},
		{"takes another condition away", request{object: with("{type: Ready, status: 'True'}, ", ""), oldValue: node}, change},
		{"changes the capacity", request{object: with("cpu: '2'", "cpu: '9'"), oldValue: node}, change},
		{"adds to the status", request{object: with("capacity", "allocatable: {cpu: '2'}, capacity"), oldValue: node}, change},
		{"takes from the status", request{object: with("capacity: {cpu: '2'}, ", ""), oldValue: node}, change},
		{"labels", request{object: with("zone: one", "zone: two"), oldValue: node}, change},
		{"takes a label", request{object: with(", labels: {zone: one}", ""), oldValue: node}, change},
		{"changes the podCIDR", request{object: with("10.244.1", "10.244.2"), oldValue: node}, change},
		{"creates a Node", request{object: with()}, "the controller of Sallyport may not CREATE" + only},
		{"deletes a Node", request{oldValue: node}, "the controller of Sallyport may not DELETE" + only},
		{"is the kubelet", request{account: "system:node:a", object: node, oldValue: with()}, ""},
	} {
		if tt.account == "" {
			tt.account = controllerAccount
		}
		tt.resource = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
		p.judges(t, tt.name, tt.request, tt.says)
	}
}

// TestAgentAnnouncesItself has the policy judge what an agent of the pod network may do to Nodes.
func TestAgentAnnouncesItself(t *testing.T) {
	t.Parallel()
	const node = "apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {zone: one}, annotations: {n: x}}\nspec: {podCIDR: 10.244.1.0/24}\n"
	with := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(node) }
	const addresses = "n: x, sallyport.dev/network-addresses: 192.0.2.1"
	said := with("n: x", addresses+", sallyport.dev/tunnel-addresses: 10.0.0.1")
	const change = "the agent of node a may change nothing of the Node a but announce its addresses"
	p := networkPolicies(t)["sallyport-agent-nodes"]
	for _, tt := range []struct {
		name string
		request
		says string
	}{
		{"announces its addresses", request{node: "a", oldValue: node, object: said}, ""},
		{"announces others", request{node: "a", oldValue: said, object: with("n: x", addresses)}, ""},
		{"announces nothing any more", request{node: "a", oldValue: said, object: node}, ""},
		{"announces the first annotation", request{node: "a", oldValue: with(", annotations: {n: x}", ""), object: with("n: x", "sallyport.dev/network-addresses: 192.0.2.1")}, ""},
		{"announces another's", request{node: "b", oldValue: node, object: said}, "the agent of node b may not UPDATE the Node a, only announce the addresses of its own"},
		{"annotates otherwise", request{node: "a", oldValue: node, object: with("n: x", "n: y")}, change},
		{"takes an annotation", request{node: "a", oldValue: node, object: with("n: x", "sallyport.dev/network-addresses: 192.0.2.1")}, change},
		{"labels", request{node: "a", oldValue: node, object: with("zone: one", "zone: two")}, change},
		{"changes the podCIDR", request{node: "a", oldValue: node, object: with("10.244.1", "10.244.2")}, change},
	} {
		tt.account, tt.resource = agentAccount, schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
		p.judges(t, tt.name, tt.request, tt.says)
	}
}
