package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/ipam"
)

// claimed is a block that this node has claimed, for the goroutine of Run.
type claimed struct {
	entry *entry
	done  chan struct{} // closed when a State with the block was published
}

// usage is what was said last of how much of the blocks of this node is in use.
type usage struct {
	mu   sync.Mutex
	said map[netip.Prefix]datastore.BlockUsage
}

func (u *usage) forget(cidr netip.Prefix) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.said, cidr)
}

// Claim makes this node the owner of a block of a pool, as datastore.Claims says. It creates the IPBlock, and then reads the
// pool as the API has it: a pool that was deleted, disabled or made again meanwhile gives out no address of the block. Once
// Claim returns nil, a State that has the block was published, though the watch of blocks may not have brought it yet; a
// Snapshot that lacks it later says that it is gone. It may be called while Run runs, which it needs, by many goroutines.
func (s *Store) Claim(ctx context.Context, cidr netip.Prefix, pool string) error {
	if err := s.Alone(); err != nil {
		return fmt.Errorf("claiming the block %s: %w", cidr, err)
	}
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	uid, err := s.serves(ctx, pool, "")
	if err != nil {
		return err
	}
	block, err := s.own(ctx, cidr, pool, uid)
	if err != nil {
		return err
	}
	if _, err := s.serves(ctx, pool, uid); err != nil {
		var refused *datastore.RefusedError
		if errors.As(err, &refused) {
			if back := s.giveBack(ctx, block); back != nil {
				s.log.Warn("a block of a pool that refuses it could not be given back", "block", cidr, "error", back)
			}
		}
		return err
	}
	s.usage.forget(cidr)
	c := claimed{slim(datastore.KindIPBlock, block, keeping{network: true}), make(chan struct{})}
	select {
	case s.claims <- c:
	case <-ctx.Done():
		return fmt.Errorf("taking up the block %s: %w", cidr, ctx.Err())
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("taking up the block %s: %w", cidr, ctx.Err())
	}
}

// needsController is the remedy where nothing is said of pools, or done about them, for long.
const needsController = `; "sallyport controller --network" does that: make sure that one runs (the chart with network.enabled=true runs it)`

// serves says which pool of a name there is now, by its UID, unless it gives out no address: then it fails with a
// *RefusedError. So it does where the pool is not the one with the UID given.
func (s *Store) serves(ctx context.Context, name, uid string) (string, error) {
	refuse := func(why string) (string, error) { return "", &datastore.RefusedError{Pool: name, Why: why} }
	u, err := s.api.dynamic.Resource(IPPools).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return refuse("it was deleted")
	}
	if err != nil {
		return "", asked("reading the pool "+name, err)
	}
	var pool apiv3.IPPool
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &pool); err != nil {
		return refuse("this version does not understand it: " + err.Error())
	}
	switch {
	case uid != "" && string(pool.UID) != uid:
		return refuse("it was deleted, and another one was created in its place")
	case pool.DeletionTimestamp != nil:
		return refuse("it is being deleted")
	case pool.Spec.Disabled:
		return refuse("it is disabled")
	case !slices.Contains(pool.Finalizers, v1alpha1.PoolFinalizer):
		return refuse("the controller has not put the finalizer " + v1alpha1.PoolFinalizer + " on it yet, without which it could vanish under its pods" + needsController)
	}
	return string(pool.UID), nil
}

// own makes this node the owner of a block, unless another one is. That it is already is no error: the answer to an earlier
// try may be lost.
func (s *Store) own(ctx context.Context, cidr netip.Prefix, pool, uid string) (*v1alpha1.IPBlock, error) {
	block := &v1alpha1.IPBlock{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.KindIPBlock},
		ObjectMeta: metav1.ObjectMeta{Name: ipam.Name(cidr), Finalizers: []string{v1alpha1.BlockFinalizer}},
		Spec:       v1alpha1.IPBlockSpec{CIDR: cidr.String(), Node: s.node, Pool: pool, PoolUID: uid},
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(block)
	if err != nil {
		return nil, fmt.Errorf("encoding the block %s: %w", cidr, err)
	}
	delete(object, "status")
	u, err := s.api.dynamic.Resource(IPBlocks).Create(ctx, &unstructured.Unstructured{Object: object}, metav1.CreateOptions{FieldManager: fieldOwner})
	switch {
	case err == nil:
		return blockOf(u)
	case !apierrors.IsAlreadyExists(err):
		return nil, asked("claiming the block "+cidr.String(), err)
	}
	u, err = s.api.dynamic.Resource(IPBlocks).Get(ctx, block.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &datastore.TakenError{CIDR: cidr, Why: "it was just given back; another try may succeed"}
	}
	if err != nil {
		return nil, asked("reading the block "+cidr.String(), err)
	}
	there, err := blockOf(u)
	switch {
	case err != nil:
		return nil, err
	case there.DeletionTimestamp != nil:
		return nil, &datastore.TakenError{CIDR: cidr, Node: there.Spec.Node, Why: fmt.Sprintf("the node %q is just giving it back", there.Spec.Node)}
	case there.Spec.Node != s.node:
		return nil, &datastore.TakenError{CIDR: cidr, Node: there.Spec.Node}
	case there.Spec.PoolUID != uid:
		return nil, &datastore.TakenError{CIDR: cidr, Node: s.node, Why: fmt.Sprintf("this node has it from an earlier pool, %q", there.Spec.Pool)}
	}
	return there, nil
}

func blockOf(u *unstructured.Unstructured) (*v1alpha1.IPBlock, error) {
	var out v1alpha1.IPBlock
	return &out, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &out)
}

// GiveBack ends that a block is this node's. It may be called by many goroutines.
func (s *Store) GiveBack(ctx context.Context, cidr netip.Prefix) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	s.usage.forget(cidr)
	u, err := s.api.dynamic.Resource(IPBlocks).Get(ctx, ipam.Name(cidr), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return asked("reading the block "+cidr.String(), err)
	}
	block, err := blockOf(u)
	if err != nil || block.Spec.Node != s.node {
		return err
	}
	return s.giveBack(ctx, block)
}

// giveBack deletes a block, so that all see that it is about to go, and then lets it go.
func (s *Store) giveBack(ctx context.Context, block *v1alpha1.IPBlock) error {
	blocks := s.api.dynamic.Resource(IPBlocks)
	doing := "giving back the block " + block.Spec.CIDR
	if block.DeletionTimestamp == nil {
		err := blocks.Delete(ctx, block.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &block.UID}})
		switch {
		case apierrors.IsNotFound(err), apierrors.IsConflict(err): // it is gone, or another one has its place
			return nil
		case err != nil:
			return asked(doing, err)
		}
	}
	patch, err := withoutFinalizer(block.UID, block.Finalizers, v1alpha1.BlockFinalizer)
	if patch == nil || err != nil {
		return err
	}
	if _, err = blocks.Patch(ctx, block.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldOwner}); err != nil && !apierrors.IsNotFound(err) {
		return asked(doing, err)
	}
	return nil
}

// withoutFinalizer is a JSON patch that takes a finalizer from the object with this UID, which has those given; nil where it
// has not that one.
func withoutFinalizer(uid types.UID, all []string, finalizer string) ([]byte, error) {
	at := slices.Index(all, finalizer)
	if at < 0 {
		return nil, nil
	}
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value,omitempty"`
	}
	path := fmt.Sprintf("/metadata/finalizers/%d", at)
	patch, err := json.Marshal([]op{{"test", "/metadata/uid", string(uid)}, {"test", path, finalizer}, {"remove", path, ""}})
	if err != nil {
		return nil, fmt.Errorf("encoding a patch: %w", err)
	}
	return patch, nil
}

// Usage says how much of this node's blocks is in use. What was said last is not said again. One goroutine at a time may
// call it.
func (s *Store) Usage(ctx context.Context, all []datastore.BlockUsage) error {
	var errs []error
	for _, u := range all {
		s.usage.mu.Lock()
		was, known := s.usage.said[u.CIDR]
		s.usage.mu.Unlock()
		if known && was == u {
			continue
		}
		if err := s.use(ctx, u); err != nil {
			errs = append(errs, err)
			if unreachable(err) {
				break // the others would wait as long
			}
			continue
		}
		s.usage.mu.Lock()
		s.usage.said[u.CIDR] = u
		s.usage.mu.Unlock()
	}
	return errors.Join(errs...)
}

// use writes how much of one block is in use.
func (s *Store) use(ctx context.Context, u datastore.BlockUsage) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	name := ipam.Name(u.CIDR)
	b, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion().String(), "kind": v1alpha1.KindIPBlock, "metadata": map[string]any{"name": name},
		"status": map[string]any{"allocated": u.Allocated, "cooling": u.Cooling, "observedTime": metav1.Time{Time: time.Now().Truncate(time.Second)}},
	})
	if err != nil {
		return fmt.Errorf("encoding the status of the block %s: %w", u.CIDR, err)
	}
	if err := s.api.ApplyStatus(ctx, IPBlocks, name, b, fieldOwner); err != nil && !apierrors.IsNotFound(err) {
		return asked("saying how much of the block "+u.CIDR.String()+" is in use", err)
	}
	return nil
}

// asked says what was being done when the API server did not answer, or refused.
func asked(doing string, err error) error {
	if unreachable(err) {
		return fmt.Errorf("%s: %w", doing, &datastore.UnreachableError{Err: err})
	}
	return fmt.Errorf("%s: %w%s", doing, err, remedy(err.Error()))
}

// unreachable says whether an error is that of a server that cannot be reached, or has no answer now.
func unreachable(err error) bool {
	var said apierrors.APIStatus
	if !errors.As(err, &said) {
		return err != nil
	}
	code := said.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}
