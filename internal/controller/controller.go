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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

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
	cfg.UserAgent = "sallyport-controller/" + o.Version
	cfg.QPS, cfg.Burst = requests, 2*requests
	ctrl.SetLogger(logr.FromSlogHandler(o.Log.Handler())) // the library has one for all
	owned, err := kube.Owned(cfg, o.Version)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, o.MetricsAddress) })
	g.Go(func() error {
		if !await(ctx, owned, o.Log) {
			return nil
		}
		return lead(ctx, cfg, owned, &o)
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

// lead takes part in electing a leader, and writes while it is the one.
func lead(ctx context.Context, cfg *rest.Config, owned owner, o *Options) error {
	scheme, err := kube.Scheme()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, MapperProvider: kube.MapperProvider, Metrics: server.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: LeaseName, LeaderElectionNamespace: o.LeaseNamespace, LeaderElectionReleaseOnCancel: true,
		Cache:                   cache.Options{DefaultTransform: trim, DefaultUnsafeDisableDeepCopy: ptr.To(true)},
		GracefulShutdownTimeout: ptr.To(5 * time.Second),
	})
	if err != nil {
		return fmt.Errorf("preparing the controller: %w", err)
	}
	w := &writer{nodes: o.NodeSelector, client: mgr.GetClient(), events: mgr.GetEventRecorder(fieldOwner), log: o.Log, seen: seen{}, wrote: map[types.UID]string{}}
	c, err := controller.New("conditions", mgr, controller.Options{Reconciler: w, MaxConcurrentReconciles: 1, SkipNameValidation: ptr.To(true)})
	if err != nil {
		return fmt.Errorf("preparing the controller: %w", err)
	}
	all := handler.EnqueueRequestsFromMapFunc(w.hear)
	for _, kind := range []client.Object{&apiv3.IPPool{}, &v1alpha1.SallyportNode{}, &corev1.Node{}} {
		if err := c.Watch(source.Kind(mgr.GetCache(), kind, all)); err != nil {
			return fmt.Errorf("watching %T: %w", kind, err)
		}
	}
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { return guard(ctx, owned) })); err != nil {
		return fmt.Errorf("preparing the controller: %w", err)
	}
	return mgr.Start(ctx)
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
	nodes  labels.Selector // those that have an agent
	client client.Client
	events events.EventRecorder
	log    *slog.Logger

	seenMu sync.Mutex
	seen   seen

	mu    sync.Mutex
	wrote map[types.UID]string // the resourceVersion from which the conditions of a pool were written last
}

// hear notes what is heard of an object, and asks for a look at everything.
func (w *writer) hear(_ context.Context, o client.Object) []reconcile.Request {
	if p, ok := o.(*apiv3.IPPool); ok {
		w.seenMu.Lock()
		defer w.seenMu.Unlock()
		w.seen.hear(time.Now(), p)
	}
	return []reconcile.Request{{}}
}

// Reconcile looks at everything and writes what differs. It is for one goroutine at a time.
func (w *writer) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	began := time.Now()
	var pools apiv3.IPPoolList
	var nodes corev1.NodeList
	var statuses v1alpha1.SallyportNodeList
	if err := errors.Join(w.client.List(ctx, &pools), w.client.List(ctx, &nodes), w.client.List(ctx, &statuses)); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing: %w", err)
	}
	stand, recheck := standings(began, nodes.Items, w.nodes, statuses.Items)
	wants, left := w.judge(began, pools.Items, stand)
	recheck = sooner(recheck, left)
	var g errgroup.Group // what cannot be written of one pool holds up no other
	g.SetLimit(writers)
	for i, want := range wants {
		p := &pools.Items[i]
		next, differs := merge(p, want, metav1.Time{Time: began.Truncate(time.Second)})
		if !differs || w.waits(p) {
			continue
		}
		g.Go(func() error { return w.write(ctx, p, next) })
	}
	looked := time.Since(began)
	err := g.Wait()
	sleep(ctx, max(pause, pauseShare*looked))
	return reconcile.Result{RequeueAfter: recheck}, err
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
	target := &apiv3.IPPool{ObjectMeta: metav1.ObjectMeta{Name: p.Name}}
	err = w.client.Status().Patch(ctx, target, client.RawPatch(types.ApplyPatchType, b), client.FieldOwner(fieldOwner), client.ForceOwnership)
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
		w.events.Eventf(p, nil, corev1.EventTypeWarning, c.Reason, "Judge", "%s", c.Message)
	}
}
