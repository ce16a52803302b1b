package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// fieldOwner is who owns what an agent writes.
const fieldOwner = "sallyport-agent"

// writePatience bounds one write.
const writePatience = 15 * time.Second

// Report writes the SallyportNode of this node, which the Node with this UID owns; without one, nobody does. It may be
// called while Run runs.
func (s *Store) Report(ctx context.Context, nodeUID string, status v1alpha1.SallyportNodeStatus) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	o := &v1alpha1.SallyportNode{ObjectMeta: metav1.ObjectMeta{Name: s.node}, Status: status}
	o.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.KindSallyportNode))
	if nodeUID != "" {
		o.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: s.node, UID: types.UID(nodeUID)}}
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return fmt.Errorf("encoding SallyportNode %q: %w", s.node, err)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding SallyportNode %q: %w", s.node, err)
	}
	_, err = s.api.dynamic.Resource(v1alpha1.GroupVersion().WithResource(pathStatuses)).
		Patch(ctx, s.node, types.ApplyPatchType, b, metav1.PatchOptions{FieldManager: fieldOwner, Force: ptr.To(true)})
	if err != nil {
		return fmt.Errorf("writing SallyportNode %q: %w%s", s.node, err, remedy(err.Error()))
	}
	return nil
}

// Nodes says about how many nodes there are.
func (s *Store) Nodes(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	list, err := s.api.dynamic.Resource(resourceNodes).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, fmt.Errorf("counting the nodes: %w", err)
	}
	n := len(list.Items)
	if more := list.GetRemainingItemCount(); more != nil {
		n += int(*more)
	}
	s.api.contact.nodes.Store(int64(n))
	return n, nil
}

// Untaint removes the start-up taint from this node; at says where it stands among the node's taints, the last one
// first. It fails where it does not stand there any more.
func (s *Store) Untaint(ctx context.Context, at []int) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value,omitempty"`
	}
	var patch []op
	for _, i := range at { // the last first, so that the others stay where they are
		path := fmt.Sprintf("/spec/taints/%d", i)
		patch = append(patch, op{"test", path + "/key", StartupTaint}, op{"remove", path, ""})
	}
	b, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encoding a patch: %w", err)
	}
	_, err = s.api.dynamic.Resource(resourceNodes).Patch(ctx, s.node, types.JSONPatchType, b, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing the taint %s of node %s: %w%s", StartupTaint, s.node, err, remedy(err.Error()))
	}
	return nil
}
