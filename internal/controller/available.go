package controller

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/internal/datastore"
)

// What the controller says in the condition NetworkUnavailable of a Node.
const (
	availableReason  = "SallyportReady"
	availableMessage = "the agent of Sallyport on this node has the pod network ready"
)

// available are the chores that clear the condition NetworkUnavailable of nodes whose pod network is ready. Clouds set that
// condition on new Nodes, and Kubernetes keeps pods from them by the taint that follows from it, until a network clears it. The
// controller sets it on none: where an agent is not ready, its CNI plugin keeps pods from starting.
func (w *writer) available(b *batch, there *world, calls map[string]call) []chore {
	ready := make(map[string]bool, len(there.said))
	for i := range there.said {
		n := &there.said[i]
		c := readiness(n)
		_, called := calls[n.Name]
		ready[n.Name] = c != nil && c.Status == metav1.ConditionTrue && !called
	}
	var out []chore
	for i := range there.nodes {
		n := &there.nodes[i]
		blocked := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeNetworkUnavailable && c.Status != corev1.ConditionFalse
		})
		// A ready agent that announces no address runs without --network: another network has to say so.
		if blocked && ready[n.Name] && n.Annotations[datastore.AnnotationNetworkAddresses] != "" {
			out = append(out, chore{"clearing the condition NetworkUnavailable of the Node " + n.Name, &n.ObjectMeta, func(ctx context.Context) error { return w.clear(ctx, b, n) }})
		}
	}
	return out
}

// clear says of a node that its network is available.
func (w *writer) clear(ctx context.Context, b *batch, n *corev1.Node) error {
	err := w.network.api.SetNodeCondition(ctx, &n.ObjectMeta, corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse,
		Reason: availableReason, Message: availableMessage, LastHeartbeatTime: b.stamp(), LastTransitionTime: b.stamp()}, fieldOwner)
	if err == nil {
		w.log.Info("the pod network of a node is ready: its condition NetworkUnavailable was cleared", "node", n.Name)
	}
	return err
}
