package controller

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/waiting"
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

// errMoved says that the definition of IPPools has become ours, or another's.
var errMoved = errors.New("whose the CustomResourceDefinition of IPPools is has changed: beginning again")

// Options say how a controller works. All but MetricsAddress, UnknownAfter, Network and AbsentAfter are required.
type Options struct {
	Config         *rest.Config
	LeaseNamespace string
	// MetricsAddress is where /healthz, /readyz and /metrics are served, as host:port; empty: nowhere.
	MetricsAddress string
	// NodeSelector says which nodes have an agent, beside that they run Linux.
	NodeSelector labels.Selector
	// UnknownAfter is for how long no heartbeat of an agent is seen before its node is called unknown; 0: 2 minutes.
	UnknownAfter time.Duration
	// Network says that Sallyport is the pod network: the controller keeps pools whose blocks are in use, gives back the
	// blocks of nodes that have gone, and clears NetworkUnavailable of nodes whose network is ready. It need not be set.
	Network bool
	// AbsentAfter is for how long there is neither a Node nor a heartbeat before the blocks of the node are given back; 0: 15
	// minutes. Heartbeats are looked at six times in UnknownAfter, which must not be longer.
	AbsentAfter time.Duration
	Version     string
	Log         *slog.Logger
}

// owner says whether the definition of IPPools is Sallyport's.
type owner func(context.Context) (bool, error)

// Run runs a controller until the context ends. Where the definition of IPPools is not Sallyport's, it writes nothing about
// pools.
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
		e := &elector{lease: l, id: id, log: o.Log}
		return e.run(ctx, func(ctx context.Context) error {
			return lead(ctx, api, owned, o.Log, func() *writer { return newWriter(api, id, m, &o) })
		})
	})
	return g.Wait()
}

// lead writes until the context ends.
func lead(ctx context.Context, from *kube.API, owned owner, log *slog.Logger, begin func() *writer) error {
	for ctx.Err() == nil {
		ours, asked := owned(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case asked != nil:
			log.Warn("nothing is written about pools, since it is not known whose they are", "error", asked)
		case !ours:
			log.Info("the definition of IPPools is a third party's: nothing is written about pools")
		}
		if err := leadWith(ctx, begin(), from, owned, asked == nil && ours); !errors.Is(err, errMoved) {
			return err
		}
		log.Info("whose the definition of IPPools is has changed: beginning again")
	}
	return nil
}

// leadWith writes until the context ends, or until whose the definition of IPPools is has changed.
func leadWith(ctx context.Context, w *writer, from *kube.API, owned owner, ours bool) error {
	err := errors.Join( // each kind that the conditions depend on
		follow(w, from, &w.configs, kube.NATConfigurations, w.hearSettings),
		follow(w, from, &w.nodes, kube.Nodes, nil),
		follow(w, from, &w.statuses, kube.SallyportNodes, nil),
	)
	if ours {
		err = errors.Join(err, follow(w, from, &w.pools, kube.IPPools, w.hear))
		if w.network != nil {
			err = errors.Join(err, w.followBlocks(from))
		}
	}
	if err != nil {
		return err
	}
	w.metrics.leader.Set(1)
	defer w.metrics.leader.Set(0)
	defer w.metrics.nodes.Reset()
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range append(w.follow, w.events.run, w.run) {
		g.Go(func() error { run(ctx); return nil })
	}
	g.Go(func() error { return guard(ctx, owned, ours) })
	return g.Wait()
}

// follow has a writer know the objects of a resource, and look at everything when there is news of one.
func follow[T any, K interface {
	*T
	kube.Named
	runtime.Object
}](w *writer, from *kube.API, to **kube.Mirror[K], resource schema.GroupVersionResource, heard func(K)) error {
	m, err := kube.NewMirror(from, resource, trim, heard, w.signal)
	if err != nil {
		return err
	}
	*to, w.follow = m, append(w.follow, m.Run)
	return nil
}

// guard ends with errMoved when the definition of IPPools is ours and was not, or the other way.
func guard(ctx context.Context, owned owner, ours bool) error {
	every := askEvery
	if !ours {
		every = askEvery / 6 // somebody waits for conditions
	}
	for waiting.Sleep(ctx, nil, every) {
		if now, err := owned(ctx); err == nil && now != ours {
			return errMoved
		}
	}
	return nil
}

// trim forgets what the conditions do not depend on.
func trim(o any) (any, error) {
	m, ok := o.(metav1.Object)
	if !ok {
		return o, nil
	}
	var kept map[string]string
	if n, ok := o.(*corev1.Node); ok {
		n.Spec = corev1.NodeSpec{}
		var conditions []corev1.NodeCondition
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady || c.Type == corev1.NodeNetworkUnavailable {
				c.LastHeartbeatTime, c.Message, c.Reason = metav1.Time{}, "", ""
				conditions = append(conditions, c)
			}
		}
		n.Status = corev1.NodeStatus{Conditions: conditions, NodeInfo: corev1.NodeSystemInfo{BootID: n.Status.NodeInfo.BootID}}
		if addresses, there := n.Annotations[datastore.AnnotationNetworkAddresses]; there {
			kept = map[string]string{datastore.AnnotationNetworkAddresses: addresses}
		}
	}
	m.SetManagedFields(nil)
	m.SetAnnotations(kept)
	return o, nil
}

// api is what a writer asks of the API; kube.API says what its methods promise.
type api interface {
	ApplyStatus(ctx context.Context, resource schema.GroupVersionResource, name string, applied []byte, owner string) error
	Heartbeats(ctx context.Context, namespace string) (map[string]kube.Heartbeat, error)
	MarkUnknown(ctx context.Context, namespace, node, since string) error
}

// writer brings the conditions of all pools, settings and nodes up to date.
type writer struct {
	selector  labels.Selector // of the nodes that have an agent
	namespace string          // of the Leases
	api       api
	events    *teller
	metrics   *metrics
	log       *slog.Logger

	pools    *kube.Mirror[*apiv3.IPPool] // nil: they are not ours
	configs  *kube.Mirror[*v1alpha1.NATConfiguration]
	nodes    *kube.Mirror[*corev1.Node]
	statuses *kube.Mirror[*v1alpha1.SallyportNode]
	follow   []func(context.Context) // what keeps those up to date
	wake     chan struct{}

	beats   heartbeats // of the goroutine of run
	unknown unsettled  // likewise
	marks   []mark     // likewise: those that are due

	network *network // nil: Sallyport is not the pod network

	seenMu sync.Mutex
	seen   seen

	mu    sync.Mutex
	wrote map[types.UID]write
}

// write is when the conditions of an object were written last, and from which resourceVersion of it.
type write struct {
	from   string
	at     time.Time
	failed bool // that did not succeed
}

func newWriter(api *kube.API, id string, m *metrics, o *Options) *writer {
	w := &writer{selector: o.NodeSelector, namespace: o.LeaseNamespace, beats: heartbeats{bound: cmp.Or(o.UnknownAfter, UnknownAfter)}, api: api, events: newTeller(api, id, o.Log), metrics: m, log: o.Log,
		wake: make(chan struct{}, 1), seen: seen{}, wrote: map[types.UID]write{}}
	if o.Network {
		w.network = &network{api: api, absent: absences{bound: cmp.Or(o.AbsentAfter, AbsentAfter)}}
	}
	return w
}

// hear notes what is heard of a pool.
func (w *writer) hear(p *apiv3.IPPool) {
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	w.seen.hear(time.Now(), p)
}

// hearSettings notes what is heard of a NATConfiguration.
func (w *writer) hearSettings(c *v1alpha1.NATConfiguration) {
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	w.seen.hearSettings(time.Now(), c)
}

// signal asks for a look at everything.
func (w *writer) signal() {
	waiting.Signal(w.wake)
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
	var there world
	allPools := true
	if w.pools != nil { // those of others are not looked at
		there.pools, allPools = values(w.pools)
	}
	there.configs, _ = values(w.configs) // nothing else waits for them: their definition may be missing
	nodes, allNodes := values(w.nodes)
	said, allSaid := values(w.statuses)
	allBlocks := true
	if w.keepsBlocks() {
		there.blocks, allBlocks = w.network.blocks.Objects()
	}
	if !allPools || !allNodes || !allSaid || !allBlocks {
		return 0, nil // the rest is news
	}
	there.nodes, there.said = nodes, said
	b := &batch{writer: w, now: began}
	unheard := w.bring(ctx, b, &there)
	looked := time.Since(began)
	err = errors.Join(unheard, b.group.Wait())
	waiting.Sleep(ctx, nil, max(pause, pauseShare*looked))
	return b.recheck, err
}

// world is all that conditions depend on, as one look finds it.
type world struct {
	pools   []apiv3.IPPool
	configs []v1alpha1.NATConfiguration
	nodes   []corev1.Node
	said    []v1alpha1.SallyportNode
	blocks  []*v1alpha1.IPBlock
}

// keepsBlocks says whether the writer looks after blocks: Sallyport is the pod network, and the pools are ours.
func (w *writer) keepsBlocks() bool { return w.network != nil && w.network.blocks != nil }

// followBlocks has the writer know all blocks.
func (w *writer) followBlocks(from *kube.API) error {
	m, err := kube.NewMirror[v1alpha1.IPBlock](from, kube.IPBlocks, trimBlock, nil, w.signal)
	if err != nil {
		return err
	}
	w.network.blocks, w.follow = m, append(w.follow, m.Run)
	return nil
}

// bring begins to write what differs from what there should be.
func (w *writer) bring(ctx context.Context, b *batch, there *world) error {
	b.group.SetLimit(writers)
	err := w.listen(ctx, b, there.said)
	calls := w.beats.calls(there.nodes, there.said)
	stand, recheck := standings(b.now, there.nodes, w.selector, there.said, calls)
	w.metrics.count(stand)
	b.recheck = sooner(sooner(recheck, b.recheck), w.beats.due(b.now))
	wants := w.judge(b, there, stand)
	for i := range there.said {
		if c, ok := calls[there.said[i].Name]; ok {
			b.call(&there.said[i], c)
		}
	}
	for i := range there.pools {
		b.bring(poolObject(&there.pools[i]), wants[i])
	}
	for i := range there.configs {
		b.bring(configObject(&there.configs[i]), wants[len(there.pools)+i])
	}
	if w.keepsBlocks() && err == nil { // else the API does not answer, and what is absent is not known
		b.chores = w.chores(b, there, calls)
	}
	b.start(ctx)
	return err
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

// judge says what the conditions of each pool, and then of each NATConfiguration, should be.
func (w *writer) judge(b *batch, there *world, stand []standing) [][]metav1.Condition {
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	w.seen.note(b.now, there.pools, there.configs)
	w.seen.learnAll(there.pools, there.configs, there.said)
	w.forget()
	settled, unsettled := w.unknown.settle(b.now, stand)
	b.recheck = sooner(b.recheck, unsettled)
	wants := slices.Concat(judge(there.pools, there.blocks, w.seen, settled), judgeSettings(there.configs, w.seen, withAgent(there.nodes, w.selector), settled))
	for i := range wants {
		o := object{}
		if i < len(there.pools) {
			o = poolObject(&there.pools[i])
		} else {
			o = configObject(&there.configs[i-len(there.pools)])
		}
		left := w.seen.settles(b.now, o.meta.UID, len(stand))
		if pending(wants[i]) && left > 0 || unsettled > 0 && (len(settled) == 0 || meta.IsStatusConditionTrue(wants[i], programmedType)) {
			wants[i] = hold(o.was, wants[i])
			b.recheck = sooner(b.recheck, max(left, 0))
		}
	}
	return wants
}

// sooner is the shorter of two times to wait, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// waits says whether an object was written already from the version that the cache still has: what was written is about
// to be heard of, and nothing is to be said of it twice.
func (w *writer) waits(o *metav1.ObjectMeta) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrote[o.UID].from == o.ResourceVersion
}

// forget forgets what was written of objects that are gone, or so long ago that it does not matter.
func (w *writer) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.wrote, func(uid types.UID, last write) bool {
		_, there := w.seen[uid]
		return !there && time.Since(last.at) > time.Minute // of a node, its cache is not so far behind
	})
}
