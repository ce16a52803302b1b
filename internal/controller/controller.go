package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore/kube"
)

// LeaseName is that of the Lease of the controller that writes.
const LeaseName = "sallyport-controller"

// fieldOwner is who owns the conditions.
const fieldOwner = "sallyport-controller"

// How fast it works.
const (
	requests = 50 // to the API, a second, on average
	writers  = 8  // at once
	// pause is the least time between two looks at everything, and pauseShare that in proportion to how long one took.
	pause      = 100 * time.Millisecond
	pauseShare = 4
	// What could not be written is tried again after retryMin, which doubles up to retryMax.
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
	// askEvery is the time between two looks at whose the definition of IPPools is.
	askEvery = time.Minute
)

// errNotOurs says that the definition of IPPools has become somebody else's.
var errNotOurs = errors.New("the CustomResourceDefinition of IPPools is not Sallyport's any more: beginning anew")

// Options say how a controller works. All but MetricsAddress are required.
type Options struct {
	Config         *rest.Config
	LeaseNamespace string
	// MetricsAddress is where /healthz, /readyz and /metrics are served, as host:port; empty: nowhere.
	MetricsAddress string
	// NodeSelector says which nodes have an agent, beside that they run Linux.
	NodeSelector labels.Selector
	Version      string
	Log          *slog.Logger
}

// owner says whether the definition of IPPools is Sallyport's.
type owner func(context.Context) (bool, error)

// Run runs a controller until the context ends. Where the definition of IPPools is not Sallyport's, it waits until
// it is, and writes nothing.
func Run(ctx context.Context, o Options) error {
	cfg := rest.CopyConfig(o.Config)
	cfg.QPS, cfg.Burst = requests, 2*requests
	api, err := kube.Connect(cfg, "sallyport-controller/"+o.Version)
	if err != nil {
		return err
	}
	l, err := api.Lease(o.LeaseNamespace, LeaseName)
	if err != nil {
		return err
	}
	id, err := identity()
	if err != nil {
		return err
	}
	m := newMetrics()
	owned := func(ctx context.Context) (bool, error) { return api.Owned(ctx, o.Version) }
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(o.Log.Handler())) // for the library
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, o.MetricsAddress, m.registry) })
	g.Go(func() error {
		if !await(ctx, owned, o.Log) {
			return nil
		}
		e := &elector{lease: l, id: id, log: o.Log}
		return e.run(ctx, func(ctx context.Context) error { return lead(ctx, newWriter(api, id, m, &o), owned) })
	})
	return g.Wait()
}

// await waits until the definition of IPPools is ours, and says whether it is; the context may have ended before.
func await(ctx context.Context, owned owner, log *slog.Logger) bool {
	said := ""
	for {
		ours, err := owned(ctx)
		if err == nil && ours {
			return true
		}
		say := "the definition of IPPools is somebody else's: nothing is written about pools"
		if err != nil {
			say = err.Error()
		}
		if say != said && ctx.Err() == nil {
			said = say
			log.Info("waiting", "reason", say)
		}
		if !sleep(ctx, askEvery/6) {
			return false
		}
	}
}

// lead writes until the context ends, or the definition of IPPools is not ours any more.
func lead(ctx context.Context, w *writer, owned owner) error {
	err := errors.Join( // each kind that the conditions depend on
		follow(w, &w.pools, kube.IPPools, w.hear),
		follow(w, &w.nodes, kube.Nodes, nil),
		follow(w, &w.statuses, kube.SallyportNodes, nil),
	)
	if err != nil {
		return err
	}
	w.metrics.leader.Set(1)
	defer w.metrics.leader.Set(0)
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range append(w.follow, w.events.run, w.run) {
		g.Go(func() error { run(ctx); return nil })
	}
	g.Go(func() error { return guard(ctx, owned) })
	return g.Wait()
}

// follow has a writer know the objects of a resource, and look at everything when there is news of one.
func follow[T any, K interface {
	*T
	kube.Named
	runtime.Object
}](w *writer, to **kube.Mirror[K], resource schema.GroupVersionResource, heard func(K)) error {
	m, err := kube.NewMirror(w.api, resource, trim, heard, w.signal)
	if err != nil {
		return err
	}
	*to, w.follow = m, append(w.follow, m.Run)
	return nil
}

// guard ends the leader when the definition of IPPools is not ours any more.
func guard(ctx context.Context, owned owner) error {
	for sleep(ctx, askEvery) {
		if ours, err := owned(ctx); err == nil && !ours {
			return errNotOurs
		}
	}
	return nil
}

// sleep waits, and says whether the context goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// trim forgets what the conditions do not depend on.
func trim(o any) (any, error) {
	m, ok := o.(metav1.Object)
	if !ok {
		return o, nil
	}
	m.SetManagedFields(nil)
	m.SetAnnotations(nil)
	if n, ok := o.(*corev1.Node); ok {
		n.Spec = corev1.NodeSpec{}
		var ready []corev1.NodeCondition
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				c.LastHeartbeatTime, c.Message, c.Reason = metav1.Time{}, "", ""
				ready = append(ready, c)
			}
		}
		n.Status = corev1.NodeStatus{Conditions: ready}
	}
	return o, nil
}

// writer brings the conditions of all pools up to date.
type writer struct {
	selector labels.Selector // of the nodes that have an agent
	api      *kube.API
	events   *teller
	metrics  *metrics
	log      *slog.Logger

	pools    *kube.Mirror[*apiv3.IPPool]
	nodes    *kube.Mirror[*corev1.Node]
	statuses *kube.Mirror[*v1alpha1.SallyportNode]
	follow   []func(context.Context) // what keeps those up to date
	wake     chan struct{}

	seenMu sync.Mutex
	seen   seen

	mu    sync.Mutex
	wrote map[types.UID]string // the resourceVersion from which the conditions of a pool were written last
}

func newWriter(api *kube.API, id string, m *metrics, o *Options) *writer {
	return &writer{selector: o.NodeSelector, api: api, events: newTeller(api, id, o.Log), metrics: m, log: o.Log,
		wake: make(chan struct{}, 1), seen: seen{}, wrote: map[types.UID]string{}}
}

// hear notes what is heard of a pool.
func (w *writer) hear(p *apiv3.IPPool) {
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	w.seen.hear(time.Now(), p)
}

// signal asks for a look at everything.
func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default: // a token waits already
	}
}

// run looks at everything whenever there is news, until the context ends.
func (w *writer) run(ctx context.Context) {
	retry := retryMin
	for {
		recheck, err := w.look(ctx)
		if err == nil {
			retry = retryMin
		} else if ctx.Err() == nil {
			w.metrics.failures.Inc()
			w.log.Error("not all conditions could be written; it will be tried again", "error", err)
			recheck, retry = sooner(recheck, retry), min(2*retry, retryMax)
		}
		t := time.NewTimer(recheck)
		if recheck == 0 {
			t.Stop()
		}
		select {
		case <-ctx.Done():
		case <-w.wake:
		case <-t.C:
		}
		t.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// look looks at everything and writes what differs. It says when something changes without news; 0: never.
func (w *writer) look(ctx context.Context) (recheck time.Duration, err error) {
	began := time.Now()
	pools, allPools := values(w.pools)
	nodes, allNodes := values(w.nodes)
	statuses, allStatuses := values(w.statuses)
	if !allPools || !allNodes || !allStatuses {
		return 0, nil // the rest is news
	}
	stand, recheck := standings(began, nodes, w.selector, statuses)
	wants, left := w.judge(began, pools, stand)
	recheck = sooner(recheck, left)
	var g errgroup.Group // what cannot be written of one pool holds up no other
	g.SetLimit(writers)
	for i, want := range wants {
		p := &pools[i]
		next, differs := merge(p, want, metav1.Time{Time: began.Truncate(time.Second)})
		if !differs || w.waits(p) {
			continue
		}
		g.Go(func() error { return w.write(ctx, p, next) })
	}
	looked := time.Since(began)
	err = g.Wait()
	sleep(ctx, max(pause, pauseShare*looked))
	return recheck, err
}

// values are the objects of a mirror; ok says whether those are all.
func values[T any, K interface {
	*T
	kube.Named
}](m *kube.Mirror[K]) (all []T, ok bool) {
	objects, ok := m.Objects()
	all = make([]T, len(objects))
	for i, o := range objects {
		all[i] = *o
	}
	return all, ok
}

// judge says what the conditions of each pool should be, and how soon that is to be looked at again.
func (w *writer) judge(now time.Time, pools []apiv3.IPPool, stand []standing) (wants [][]metav1.Condition, recheck time.Duration) {
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	w.seen.note(now, pools)
	w.forget()
	wants = judge(pools, w.seen, stand)
	for i := range pools {
		p, want := &pools[i], wants[i]
		if left := w.seen.settles(now, p, len(stand)); left > 0 && pending(want) {
			wants[i] = hold(p, want)
			recheck = sooner(recheck, left)
		}
	}
	return wants, recheck
}

// sooner is the shorter of two times to wait, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// waits says whether a pool was written already from the version that the cache still has: what was written is about
// to be heard of, and nothing is to be said of it twice.
func (w *writer) waits(p *apiv3.IPPool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrote[p.UID] == p.ResourceVersion
}

// forget forgets what was written of pools that are gone.
func (w *writer) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.wrote, func(uid types.UID, _ string) bool { _, there := w.seen[uid]; return !there })
}

// write writes the conditions of one pool, and says what an operator should hear of.
func (w *writer) write(ctx context.Context, p *apiv3.IPPool, conditions []metav1.Condition) error {
	b, err := json.Marshal(map[string]any{
		"apiVersion": apiv3.GroupVersion().String(), "kind": apiv3.KindIPPool,
		"metadata": map[string]any{"name": p.Name, "uid": p.UID},
		"status":   map[string]any{"conditions": conditions},
	})
	if err != nil {
		return fmt.Errorf("encoding the conditions of IPPool %q: %w", p.Name, err)
	}
	err = w.api.ApplyStatus(ctx, kube.IPPools, p.Name, b, fieldOwner)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it was deleted, or made anew: its watch says so
	}
	if err != nil {
		return fmt.Errorf("writing the conditions of IPPool %q: %w", p.Name, err)
	}
	w.mu.Lock()
	w.wrote[p.UID] = p.ResourceVersion
	w.mu.Unlock()
	for _, c := range conditions {
		w.say(p, c)
	}
	return nil
}

// say makes an event of a condition that has become worse in a way that an operator should see.
func (w *writer) say(p *apiv3.IPPool, c metav1.Condition) {
	was := find(p, c.Type)
	if was != nil && was.Status == c.Status && was.Reason == c.Reason {
		return
	}
	w.log.Info("condition changed", "pool", p.Name, "condition", c.Type, "status", c.Status, "reason", c.Reason, "message", c.Message)
	switch c.Reason {
	case apiv3.IPPoolReasonCIDROverlap, apiv3.IPPoolReasonInvalidSelector, apiv3.IPPoolReasonNodesNotReady:
		w.events.tell(kube.Event{APIVersion: apiv3.GroupVersion().String(), Kind: apiv3.KindIPPool, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion,
			Reason: c.Reason, Action: "Judge", Note: c.Message})
	}
}
