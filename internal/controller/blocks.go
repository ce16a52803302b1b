package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/model"
)

// AbsentAfter is how long the controller sees neither a Node nor a heartbeat until it gives back the blocks that the node owns.
const AbsentAfter = 15 * time.Minute

// absenceLooks is how often it looks at absent nodes in that time.
const absenceLooks = 30

// maxChores is how many chores one look does: each takes up to three requests.
const maxChores = 10

// upkeep is what a writer asks of the API where Sallyport is the pod network; kube.API says what its methods promise.
type upkeep interface {
	Finalize(ctx context.Context, resource schema.GroupVersionResource, o *metav1.ObjectMeta, finalizer, owner string) error
	LetGo(ctx context.Context, resource schema.GroupVersionResource, o *metav1.ObjectMeta, finalizer, owner string) error
	Delete(ctx context.Context, resource schema.GroupVersionResource, o *metav1.ObjectMeta) error
	HasNode(ctx context.Context, name string) (bool, error)
	HasBlocks(ctx context.Context, pool types.UID) (bool, error)
	SetNodeCondition(ctx context.Context, o *metav1.ObjectMeta, c corev1.NodeCondition, owner string) error
}

// network is what a controller knows of blocks, where Sallyport is the pod network.
type network struct {
	blocks *kube.Mirror[*v1alpha1.IPBlock]
	api    upkeep
	absent absences // of the goroutine of run
}

// absences remember, by the controller's own clock, for how long it has seen neither the Nodes of nodes that own blocks nor a
// heartbeat of their agents: where a Node was deleted by mistake, the agent and the pods of its node live on. Time in which it
// did not look counts no more than the time between two looks: a Node may have come and gone meanwhile.
type absences struct {
	bound  time.Duration
	looked time.Time // zero: not yet
	of     map[string]absence
}

// absence is what was last seen of a node that has no Node.
type absence struct {
	renewed string // its Lease; empty: never
	silent  time.Duration
}

// every is the time between two looks while a node is absent.
func (a *absences) every() time.Duration { return a.bound / absenceLooks }

// look takes the Nodes there are now, which nodes own blocks, and the Leases by their names. It says which of these nodes have
// been absent for too long, and when to look again; 0: when there is news.
func (a *absences) look(now time.Time, nodes []corev1.Node, blocks []*v1alpha1.IPBlock, leases map[string]kube.Heartbeat) (gone map[string]bool, recheck time.Duration) {
	there := make(map[string]bool, len(nodes))
	for i := range nodes {
		there[nodes[i].Name] = true
	}
	passed := min(now.Sub(a.looked), a.every())
	next := map[string]absence{}
	for _, b := range blocks {
		node := b.Spec.Node
		if _, done := next[node]; done || there[node] {
			continue
		}
		is := absence{renewed: leases[kube.LeaseOf(node)].Renewed} // one that is not there stays the same too
		if was, known := a.of[node]; known && was.renewed == is.renewed {
			is.silent = was.silent + passed
		}
		next[node] = is
		if is.silent < a.bound {
			recheck = a.every()
			continue
		}
		if gone == nil {
			gone = map[string]bool{}
		}
		gone[node] = true
	}
	a.looked, a.of = now, next
	return gone, recheck
}

// chore is something to be done about one object, beside its conditions that the controller judges.
type chore struct {
	what string
	meta *metav1.ObjectMeta
	do   func(ctx context.Context) error
}

// chores are those that are due: pools that nodes may claim blocks of are kept until their last block is back, the blocks of
// nodes that have gone for good are given back, and what keeps pods from nodes whose network is ready is cleared.
func (w *writer) chores(b *batch, there *world, calls map[string]call) []chore {
	var out []chore
	used := map[string]bool{}
	for _, block := range there.blocks {
		used[block.Spec.PoolUID] = true
	}
	for i := range there.pools {
		p := &there.pools[i]
		switch kept := slices.Contains(p.Finalizers, v1alpha1.PoolFinalizer); {
		case !kept && p.DeletionTimestamp == nil:
			out = append(out, chore{"keeping the pool " + p.Name, &p.ObjectMeta, func(ctx context.Context) error {
				return w.network.api.Finalize(ctx, kube.IPPools, &p.ObjectMeta, v1alpha1.PoolFinalizer, fieldOwner)
			}})
		case kept && p.DeletionTimestamp != nil && !used[string(p.UID)]:
			out = append(out, chore{"letting go of the pool " + p.Name, &p.ObjectMeta, func(ctx context.Context) error { return w.release(ctx, p) }})
		}
	}
	gone, recheck := w.network.absent.look(b.now, there.nodes, there.blocks, w.beats.leases)
	b.recheck = sooner(b.recheck, recheck)
	for _, block := range there.blocks {
		if gone[block.Spec.Node] {
			out = append(out, chore{"giving back the block " + block.Spec.CIDR, &block.ObjectMeta, func(ctx context.Context) error { return w.giveBack(ctx, block) }})
		}
	}
	out = append(out, w.available(b, there, calls)...)
	return slices.DeleteFunc(out, func(c chore) bool { return w.waits(c.meta) })
}

// release lets a pool go, unless a node has claimed a block that was not heard of yet. Such a node reads the pool after its
// claim: either it finds that the pool is being deleted, or its block is found here.
func (w *writer) release(ctx context.Context, p *apiv3.IPPool) error {
	used, err := w.network.api.HasBlocks(ctx, p.UID)
	if err != nil || used {
		return err
	}
	if err := w.network.api.LetGo(ctx, kube.IPPools, &p.ObjectMeta, v1alpha1.PoolFinalizer, fieldOwner); err != nil {
		return err
	}
	w.log.Info("no node owns a block of the pool any more: its deletion goes on", "pool", p.Name)
	return nil
}

// giveBack deletes the block of a node that has gone.
func (w *writer) giveBack(ctx context.Context, b *v1alpha1.IPBlock) error {
	there, err := w.network.api.HasNode(ctx, b.Spec.Node)
	if err != nil || there {
		return err
	}
	if b.DeletionTimestamp == nil {
		if err := w.network.api.Delete(ctx, kube.IPBlocks, &b.ObjectMeta); err != nil {
			return err
		}
	}
	if err := w.network.api.LetGo(ctx, kube.IPBlocks, &b.ObjectMeta, v1alpha1.BlockFinalizer, fieldOwner); err != nil {
		return err
	}
	w.log.Warn("a node has no Node any more, and its agent is silent: a block that it owned is free", "node", b.Spec.Node, "block", b.Spec.CIDR, "absent-for", w.network.absent.bound)
	return nil
}

// tidy does a chore.
func (b *batch) tidy(ctx context.Context, c chore) error {
	err := c.do(ctx)
	if apierrors.IsConflict(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
		return nil // it has changed since: its watch says so
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.wrote[c.meta.UID] = write{at: time.Now(), failed: true}
		return fmt.Errorf("%s: %w", c.what, err)
	}
	b.wrote[c.meta.UID] = write{from: c.meta.ResourceVersion, at: time.Now()}
	return nil
}

// yield has a pool give out no address while nodes own blocks in its range that are another pool's: of one that was deleted, is
// disabled, or was made again.
func yield(conditions map[string]compile.Condition, pools []apiv3.IPPool, blocks []*v1alpha1.IPBlock) {
	if len(blocks) == 0 {
		return
	}
	var byRange bart.Table[*model.Pool] // those that are allocatable are disjoint
	uids := make(map[string]types.UID, len(pools))
	for i := range pools {
		uids[pools[i].Name] = pools[i].UID
	}
	for _, p := range models(pools) {
		if conditions[p.Name].Allocatable {
			byRange.Insert(p.CIDR, p)
		}
	}
	type rival struct {
		cidr  netip.Prefix
		block *v1alpha1.IPBlock
	}
	first := map[string]rival{} // of each pool, the lowest: what is said is to be the same each time
	for _, block := range blocks {
		b, err := datastore.Block(block)
		if err != nil {
			continue // the definition lets none pass
		}
		note := func(p *model.Pool) {
			was, known := first[p.Name]
			if string(uids[p.Name]) != block.Spec.PoolUID && (!known || b.CIDR.Compare(was.cidr) < 0) {
				first[p.Name] = rival{b.CIDR, block}
			}
		}
		if p, ok := byRange.LookupPrefix(b.CIDR); ok {
			note(p)
			continue
		}
		for _, p := range byRange.Subnets(b.CIDR) {
			note(p)
		}
	}
	for name, r := range first {
		conditions[name] = compile.Condition{Reason: compile.ReasonCIDROverlap, Message: fmt.Sprintf(
			"the pool overlaps the block %s, which node %s has from the pool %s: it gives out no address until that is back", r.cidr, r.block.Spec.Node, ofPool(r.block, uids))}
	}
}

// ofPool names the pool that a block was claimed from.
func ofPool(b *v1alpha1.IPBlock, uids map[string]types.UID) string {
	if uid, there := uids[b.Spec.Pool]; there && string(uid) != b.Spec.PoolUID {
		return b.Spec.Pool + " of before"
	}
	return b.Spec.Pool
}

// trimBlock forgets what a controller does not need of a block.
func trimBlock(o any) (any, error) {
	b, ok := o.(*v1alpha1.IPBlock)
	if !ok {
		return o, errors.New("no IPBlock")
	}
	b.ObjectMeta = metav1.ObjectMeta{Name: b.Name, UID: b.UID, ResourceVersion: b.ResourceVersion, Finalizers: b.Finalizers, DeletionTimestamp: b.DeletionTimestamp}
	b.Status = v1alpha1.IPBlockStatus{}
	return b, nil
}
