package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// fieldOwner is who owns what an agent writes.
const fieldOwner = "sallyport-agent"

// writePatience bounds one write.
const writePatience = 15 * time.Second

// reported is what the API has of this node, as far as Report knows.
type reported struct {
	mu    sync.Mutex
	known *v1alpha1.SallyportNode // nil: it is to be read first
	since string                  // when the controller called the node unknown last, as Renew has heard
}

// hear takes when the controller called the node unknown last, and says whether that is news: then it has written in the
// place of the agent.
func (r *reported) hear(since string) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if news = since != r.since; news {
		r.since, r.known = since, nil
	}
	return news
}

func (r *reported) get() *v1alpha1.SallyportNode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known
}

func (r *reported) set(n *v1alpha1.SallyportNode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = n
}

// Report writes the SallyportNode of this node, which the Node with this UID owns; without one, nobody does. The times of
// transition of the conditions are filled in. It may be called while Run runs, by one goroutine at a time.
func (s *Store) Report(ctx context.Context, nodeUID string, status v1alpha1.SallyportNodeStatus) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	err := s.write(ctx, nodeUID, status)
	if apierrors.IsNotFound(err) { // it was deleted since it was heard of
		s.reported.set(nil)
		err = s.write(ctx, nodeUID, status)
	}
	if err != nil {
		s.reported.set(nil)
		return fmt.Errorf("writing SallyportNode %q: %w%s", s.node, err, remedy(err.Error()))
	}
	return nil
}

// write writes a status, after what it needs to stand on.
func (s *Store) write(ctx context.Context, nodeUID string, status v1alpha1.SallyportNodeStatus) error {
	now, err := s.standing(ctx, nodeUID)
	if err != nil {
		return err
	}
	status.Conditions = slices.Clone(status.Conditions)
	for i := range status.Conditions {
		c := &status.Conditions[i]
		c.LastTransitionTime = metav1.Time{Time: time.Now().Truncate(time.Second)}
		if was := meta.FindStatusCondition(now.Status.Conditions, c.Type); was != nil && was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
	}
	now, err = s.patch(ctx, &v1alpha1.SallyportNode{ObjectMeta: metav1.ObjectMeta{Name: s.node}, Status: status}, "status")
	if err != nil {
		return err
	}
	s.reported.set(now)
	return nil
}

// standing is what the API has of this node: what is known, or else is read, or made.
func (s *Store) standing(ctx context.Context, nodeUID string) (*v1alpha1.SallyportNode, error) {
	now := s.reported.get()
	if now == nil {
		u, err := s.api.dynamic.Resource(SallyportNodes).Get(ctx, s.node, metav1.GetOptions{})
		if err == nil {
			now, err = nodeOf(u)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	owners := owned(s.node, nodeUID)
	if now != nil && (owners == nil || slices.ContainsFunc(now.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == owners[0].UID })) {
		return now, nil
	}
	return s.patch(ctx, &v1alpha1.SallyportNode{ObjectMeta: metav1.ObjectMeta{Name: s.node, OwnerReferences: owners}})
}

// patch applies this node's object, or a part of it, and returns what it became.
func (s *Store) patch(ctx context.Context, o *v1alpha1.SallyportNode, subresources ...string) (*v1alpha1.SallyportNode, error) {
	o.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.KindSallyportNode))
	b, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	u, err := s.api.dynamic.Resource(SallyportNodes).
		Patch(ctx, s.node, types.ApplyPatchType, b, metav1.PatchOptions{FieldManager: fieldOwner, Force: ptr.To(true)}, subresources...)
	if err != nil {
		return nil, err
	}
	return nodeOf(u)
}

func nodeOf(u *unstructured.Unstructured) (*v1alpha1.SallyportNode, error) {
	var out v1alpha1.SallyportNode
	return &out, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &out)
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
