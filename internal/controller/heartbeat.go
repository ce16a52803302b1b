package controller

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore/kube"
)

// UnknownAfter is how long the controller sees no heartbeat of an agent before it calls its node unknown, and looksPerBound how
// often it looks at the heartbeats in that time.
const (
	UnknownAfter  = 2 * time.Minute
	looksPerBound = 6
)

// heartbeats remember, by the controller's own clock, for how long the Lease of each node was seen to be the same. The
// clocks of nodes are never read. Time in which the controller could not look counts no more than the time between two
// looks: agents may not have reached the API server either. A controller that begins knows no silence; what an earlier
// one called unknown stays so by the condition in the API.
type heartbeats struct {
	bound  time.Duration
	looked time.Time                 // zero: not yet
	of     map[string]beat           // by node
	leases map[string]kube.Heartbeat // by name, as they were then
	boots  map[string]boot           // by node
}

// boot is what was last seen of in which boot a node is. The kubelet may learn of a boot after the agent has reported from
// it: the two are compared by the order in which the controller saw them.
type boot struct {
	reported string // by the agent
	node     string // by the kubelet
	unknown  bool   // the condition Ready of the agent's report had been taken over
	past     string // what the kubelet said before the agent's last report: of that boot, or of an earlier one
}

// see takes what the agent and the kubelet of one node say now.
func (b *boot) see(n *v1alpha1.SallyportNode, node string) {
	c := readiness(n)
	unknown := c != nil && c.Status == metav1.ConditionUnknown
	if b.reported != n.Status.BootID || b.unknown && !unknown { // the agent has reported
		b.past = b.node
	}
	b.reported, b.node, b.unknown = n.Status.BootID, node, unknown
}

// rebooted says whether the node has booted since its agent reported. Some kubelets name no boot.
func (b *boot) rebooted() bool { return b.node != "" && b.node != b.reported && b.node != b.past }

// beat is what was last seen of one node.
type beat struct {
	kube.Heartbeat
	silent time.Duration
}

// every is the time between two looks.
func (h *heartbeats) every() time.Duration { return h.bound / looksPerBound }

// due says for how long nothing need be looked at.
func (h *heartbeats) due(now time.Time) time.Duration {
	if h.looked.IsZero() {
		return 0
	}
	return max(0, h.looked.Add(h.every()).Sub(now))
}

// look takes the Leases as they are now, by their names, of the nodes that have a SallyportNode.
func (h *heartbeats) look(now time.Time, nodes []v1alpha1.SallyportNode, leases map[string]kube.Heartbeat) {
	passed := min(now.Sub(h.looked), h.every())
	next := make(map[string]beat, len(nodes))
	for i := range nodes {
		name := nodes[i].Name
		b := beat{Heartbeat: leases[kube.LeaseOf(name)]} // one that is not there stays the same too
		if was, known := h.of[name]; known && was.Renewed == b.Renewed {
			b.silent = was.silent + passed
		}
		next[name] = b
	}
	h.looked, h.of, h.leases = now, next, leases
}

// call is what the controller says of a node in the place of its agent. The zero value says nothing.
type call struct{ reason, message string }

// calls are those of all nodes of which there is something to say.
func (h *heartbeats) calls(nodes []corev1.Node, said []v1alpha1.SallyportNode) map[string]call {
	ids := make(map[string]string, len(nodes))
	for i := range nodes {
		ids[nodes[i].Name] = nodes[i].Status.NodeInfo.BootID
	}
	boots := make(map[string]boot, len(said))
	out := map[string]call{}
	for i := range said {
		n := &said[i]
		b := h.boots[n.Name]
		b.see(n, ids[n.Name])
		boots[n.Name] = b
		switch {
		case b.rebooted():
			out[n.Name] = call{v1alpha1.SallyportNodeReasonRebooted, fmt.Sprintf("the node has booted, and no agent has reported since (its boot id is %s)", b.node)}
		case h.of[n.Name].silent >= h.bound:
			out[n.Name] = call{v1alpha1.SallyportNodeReasonHeartbeatMissing, fmt.Sprintf("the agent has not renewed the Lease %s for %s or longer", kube.LeaseOf(n.Name), h.bound)}
		}
	}
	h.boots = boots
	return out
}

// unknown is the condition that says so of a node, and whether that is news.
func (c call) unknown(n *v1alpha1.SallyportNode, now metav1.Time) (out metav1.Condition, differs bool) {
	out = metav1.Condition{Type: v1alpha1.SallyportNodeConditionReady, Status: metav1.ConditionUnknown, Reason: c.reason, Message: c.message, LastTransitionTime: now}
	was := readiness(n)
	if was != nil && was.Status == out.Status {
		out.LastTransitionTime = was.LastTransitionTime
	}
	return out, was == nil || was.Status != out.Status || was.Reason != out.Reason
}

// readiness is the condition Ready of a node, or nil.
func readiness(n *v1alpha1.SallyportNode) *metav1.Condition {
	return meta.FindStatusCondition(n.Status.Conditions, v1alpha1.SallyportNodeConditionReady)
}

// mark is what the Lease of a node should say so that its agent, if it lives, writes again how the node stands: since
// when the controller has called it unknown. Empty: nothing, or it does already, or there is no Lease.
func (h *heartbeats) mark(n *v1alpha1.SallyportNode) string {
	c := readiness(n)
	if c == nil || c.Status != metav1.ConditionUnknown {
		return ""
	}
	since := c.LastTransitionTime.UTC().Format(time.RFC3339)
	if b := h.of[n.Name]; b.Renewed == "" || b.UnknownSince == since {
		return ""
	}
	return since
}
