package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore/kube"
)

// messageEvery is the least time between two writes of an object of which the second changes nothing but what is said of a
// condition that is not True.
const messageEvery = 30 * time.Second

// maxWrites is how many objects one look writes, which takes about a second: what has passed by then is never written, and
// what comes meanwhile need not wait. A node that dies is news about each pool.
const maxWrites = requests

// object is an object whose conditions are written.
type object struct {
	resource schema.GroupVersionResource
	kind     string
	meta     *metav1.ObjectMeta
	was      []metav1.Condition
	pinned   bool // it is written as it was seen, or not at all: another writes the same condition
}

func poolObject(p *apiv3.IPPool) object {
	return object{resource: kube.IPPools, kind: apiv3.KindIPPool, meta: &p.ObjectMeta, was: conditions(p)}
}

func configObject(c *v1alpha1.NATConfiguration) object {
	return object{resource: kube.NATConfigurations, kind: v1alpha1.KindNATConfiguration, meta: &c.ObjectMeta, was: c.Status.Conditions}
}

// batch is what one look writes. What cannot be written of one object holds up no other.
type batch struct {
	*writer
	now     time.Time
	group   errgroup.Group
	due     []due
	chores  []chore
	recheck time.Duration // when something changes without news; 0: never
}

// due is one write that is due.
type due struct {
	object
	next []metav1.Condition
	news news
}

// stamp is the time of what is written.
func (b *batch) stamp() metav1.Time { return metav1.Time{Time: b.now.Truncate(time.Second)} }

// bring has the conditions of an object be what they should.
func (b *batch) bring(o object, want []metav1.Condition) {
	next, differs := merge(o.was, want, b.stamp())
	if differs == none || b.waits(o.meta) || differs == message && !b.follows(o.meta) {
		return
	}
	b.due = append(b.due, due{o, next, differs})
}

// follows says whether what is said of an object may follow now.
func (b *batch) follows(o *metav1.ObjectMeta) bool {
	b.mu.Lock()
	left := messageEvery - b.now.Sub(b.wrote[o.UID].at)
	b.mu.Unlock()
	if left > 0 {
		b.recheck = sooner(b.recheck, left)
	}
	return left <= 0
}

// call says of a node, in the place of its agent, that nobody knows how it stands. If the agent has written since it was
// seen, that stands.
func (b *batch) call(n *v1alpha1.SallyportNode, c call) {
	next, differs := c.unknown(n, b.stamp())
	if !differs || b.waits(&n.ObjectMeta) {
		return
	}
	o := object{resource: kube.SallyportNodes, kind: v1alpha1.KindSallyportNode, meta: &n.ObjectMeta, was: n.Status.Conditions, pinned: true}
	b.due = append(b.due, due{o, []metav1.Condition{next}, verdict})
}

// start begins to write what is due, as much as one look writes: what concerns one object alone before what nodes mean to
// all of them, that before mere messages, and what has failed last.
func (b *batch) start(ctx context.Context) {
	b.mu.Lock()
	for i := range b.due {
		if d := &b.due[i]; b.wrote[d.meta.UID].failed {
			d.news = none
		}
	}
	b.mu.Unlock()
	slices.SortStableFunc(b.due, func(x, y due) int { return cmp.Compare(y.news, x.news) })
	marks := b.marks[:min(len(b.marks), maxWrites/2)] // after an outage, one for each node
	b.marks = b.marks[len(marks):]
	if most := maxWrites - len(marks); len(b.due) > most {
		b.due, b.recheck = b.due[:most], sooner(b.recheck, pause)
	}
	if len(b.chores) > maxChores {
		b.chores, b.recheck = b.chores[:maxChores], sooner(b.recheck, pause)
	}
	for _, c := range b.chores {
		b.group.Go(func() error { return b.tidy(ctx, c) })
	}
	if len(b.marks) > 0 {
		b.recheck = sooner(b.recheck, pause)
	}
	for _, d := range b.due {
		b.group.Go(func() error { return b.write(ctx, d.object, d.next) })
	}
	for _, m := range marks {
		b.group.Go(func() error { return b.api.MarkUnknown(ctx, b.namespace, m.node, m.since) })
	}
}

// mark is what the Lease of a node is to say: since when the node was called unknown, so that an agent that lives hears of it.
type mark struct{ node, since string }

// listen looks at the heartbeats when that is due.
func (w *writer) listen(ctx context.Context, b *batch, said []v1alpha1.SallyportNode) error {
	if w.beats.due(b.now) > 0 {
		return nil
	}
	leases, err := w.api.Heartbeats(ctx, w.namespace)
	if err != nil {
		return err
	}
	w.beats.look(time.Now(), said, leases)
	w.marks = nil
	for i := range said {
		if since := w.beats.mark(&said[i]); since != "" {
			w.marks = append(w.marks, mark{said[i].Name, since})
		}
	}
	return nil
}

// write writes the conditions of one object, and says what an operator should hear of.
func (w *writer) write(ctx context.Context, o object, conditions []metav1.Condition) error {
	meta := map[string]any{"name": o.meta.Name, "uid": o.meta.UID}
	if o.pinned {
		meta["resourceVersion"] = o.meta.ResourceVersion
	}
	b, err := json.Marshal(map[string]any{
		"apiVersion": o.resource.GroupVersion().String(), "kind": o.kind, "metadata": meta,
		"status": map[string]any{"conditions": conditions},
	})
	if err != nil {
		return fmt.Errorf("encoding the conditions of %s %q: %w", o.kind, o.meta.Name, err)
	}
	err = w.api.ApplyStatus(ctx, o.resource, o.meta.Name, b, fieldOwner)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it was deleted, made anew, or written by its agent: its watch says so
	}
	w.mu.Lock()
	if err == nil {
		w.wrote[o.meta.UID] = write{from: o.meta.ResourceVersion, at: time.Now()}
	} else {
		w.wrote[o.meta.UID] = write{at: time.Now(), failed: true}
	}
	w.mu.Unlock()
	if err != nil {
		return fmt.Errorf("writing the conditions of %s %q: %w", o.kind, o.meta.Name, err)
	}
	for _, c := range conditions {
		w.say(&o, c)
	}
	return nil
}

// loud are the reasons of which an operator should hear.
var loud = []string{
	apiv3.IPPoolReasonCIDROverlap, apiv3.IPPoolReasonInvalidSelector, apiv3.IPPoolReasonNodesNotReady, apiv3.IPPoolReasonNotComparable,
	v1alpha1.NATConfigurationReasonInvalid, v1alpha1.NATConfigurationReasonOverridden, v1alpha1.NATConfigurationReasonNoNodes,
	v1alpha1.SallyportNodeReasonHeartbeatMissing, v1alpha1.SallyportNodeReasonRebooted,
}

// say makes an event of a condition that has become worse in a way that an operator should see.
func (w *writer) say(o *object, c metav1.Condition) {
	was := find(o.was, c.Type)
	if was != nil && was.Status == c.Status && was.Reason == c.Reason {
		return
	}
	w.log.Info("condition changed", "kind", o.kind, "name", o.meta.Name, "condition", c.Type, "status", c.Status, "reason", c.Reason, "message", c.Message)
	if slices.Contains(loud, c.Reason) {
		w.events.tell(kube.Event{APIVersion: o.resource.GroupVersion().String(), Kind: o.kind, Name: o.meta.Name, UID: o.meta.UID, ResourceVersion: o.meta.ResourceVersion,
			Reason: c.Reason, Action: "Judge", Note: c.Message})
	}
}
