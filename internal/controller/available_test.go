package controller

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
)

// TestAvailable: which nodes the controller says of that their network is available, from what it keeps of them.
func TestAvailable(t *testing.T) {
	t.Parallel()
	const announced = "192.0.2.1"
	ready, unready := testStatus("n", true, 1), testStatus("n", false, 1)
	for name, test := range map[string]struct {
		condition corev1.ConditionStatus
		addresses string
		said      []v1alpha1.SallyportNode
		called    bool
		clears    bool
	}{
		"a ready node":                        {corev1.ConditionTrue, announced, []v1alpha1.SallyportNode{ready}, false, true},
		"one of which that is unknown":        {corev1.ConditionUnknown, announced, []v1alpha1.SallyportNode{ready}, false, true},
		"one that is available":               {corev1.ConditionFalse, announced, []v1alpha1.SallyportNode{ready}, false, false},
		"one of which nothing is said":        {"", announced, []v1alpha1.SallyportNode{ready}, false, false},
		"one that is not ready":               {corev1.ConditionTrue, announced, []v1alpha1.SallyportNode{unready}, false, false},
		"one that is unknown":                 {corev1.ConditionTrue, announced, []v1alpha1.SallyportNode{unknown(ready)}, false, false},
		"one that is about to become unknown": {corev1.ConditionTrue, announced, []v1alpha1.SallyportNode{ready}, true, false},
		"one without agent":                   {corev1.ConditionTrue, announced, nil, false, false},
		"one with another network":            {corev1.ConditionTrue, "", []v1alpha1.SallyportNode{ready}, false, false},
	} {
		var api recorded
		w := &writer{log: slog.New(slog.DiscardHandler), wrote: map[types.UID]write{}, network: &network{api: &api}}
		node := testNode("n", true, time.Hour)
		node.UID, node.ResourceVersion, node.Annotations = "n", "1", map[string]string{"other": "x"}
		if test.condition != "" {
			node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: test.condition})
		}
		if test.addresses != "" {
			node.Annotations[datastore.AnnotationNetworkAddresses] = test.addresses
		}
		if _, err := trim(&node); err != nil || node.Annotations["other"] != "" {
			t.Errorf("%s: of a Node there is kept %+v: %v", name, node, err)
		}
		calls := map[string]call{}
		if test.called {
			calls["n"] = call{reason: v1alpha1.SallyportNodeReasonRebooted}
		}
		var want []string
		if test.clears {
			want = []string{"set NetworkUnavailable False n SallyportReady"}
		}
		for _, when := range []string{"", ", before that was heard of"} {
			api.calls = nil
			b := &batch{writer: w, now: now}
			for _, c := range w.chores(b, &world{nodes: []corev1.Node{node}, said: test.said}, calls) {
				if err := b.tidy(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
			if !slices.Equal(api.calls, want) {
				t.Errorf("%s%s: %q, want %q", name, when, api.calls, want)
			}
			want = nil
		}
	}
}
