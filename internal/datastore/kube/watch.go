package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sallyport/sallyport/internal/datastore"
)

// never is a period that does not come: watches bring every change.
const never = 1000 * time.Hour

// watch is what the API has of one kind, as far as it was heard.
type watch struct {
	wake func()
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	live   map[string]*entry   // by name
	dirty  map[string]struct{} // the names of which something was heard since take
	synced bool                // all that there was at first has been heard
	taken  bool                // and was taken
}

// start begins to watch a kind, all of it or the object of one name, until the context or stop ends it. wake is called
// when something was heard; it does not wait.
func (a *api) start(ctx context.Context, kind string, version schema.GroupVersion, only string, wake func()) (*watch, error) {
	ctx, stop := context.WithCancel(ctx)
	w := &watch{wake: wake, stop: stop, done: make(chan struct{}), live: map[string]*entry{}, dirty: map[string]struct{}{}}
	opts := ctrlcache.Options{HTTPClient: a.http, Scheme: a.scheme, Mapper: a.mapper, SyncPeriod: ptr.To(never), DefaultUnsafeDisableDeepCopy: ptr.To(true),
		DefaultTransform: func(o any) (any, error) { return slimmed(kind, o, only != "") }}
	if only != "" {
		opts.DefaultFieldSelector = fields.OneTermEqualSelector("metadata.name", only)
	}
	err := w.begin(ctx, a, opts, kind, version)
	if err != nil {
		stop()
		return nil, fmt.Errorf("watching %ss: %w", kind, err)
	}
	return w, nil
}

func (w *watch) begin(ctx context.Context, a *api, opts ctrlcache.Options, kind string, version schema.GroupVersion) error {
	c, err := ctrlcache.New(a.config, opts)
	if err != nil {
		return err
	}
	var object client.Object = &corev1.Node{}
	if kind != datastore.KindNode {
		// A typed object that this version does not understand would keep all others from being read.
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(version.WithKind(kind))
		object = u
	}
	informer, err := c.GetInformer(ctx, object, ctrlcache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { w.hear(o, false) },
		UpdateFunc: func(_, o any) { w.hear(o, false) },
		DeleteFunc: func(o any) { w.hear(o, true) },
	})
	if err != nil {
		return err
	}
	var others sync.WaitGroup
	others.Go(func() { _ = c.Start(ctx) }) // ends with the context, and has no other error
	others.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			w.mu.Lock()
			w.synced = true
			w.mu.Unlock()
			w.wake()
		}
	})
	go func() { others.Wait(); close(w.done) }()
	return nil
}

// slimmed makes entries of what an informer has decoded; what is one already, or tells of a deletion, stays.
// Only of this node's own Node are the labels of interest.
func slimmed(kind string, o any, own bool) (any, error) {
	if _, ok := o.(*entry); ok {
		return o, nil
	}
	if m, ok := o.(metav1.Object); ok {
		return slim(kind, m, own), nil
	}
	return o, nil
}

func (w *watch) hear(o any, gone bool) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	e, ok := o.(*entry)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if gone {
		delete(w.live, e.Name)
	} else {
		w.live[e.Name] = e
	}
	w.dirty[e.Name] = struct{}{}
	w.wake()
}

// take returns what was heard since it was called last: entries by name, nil for what is gone. With all it is
// everything that there is. It is not ok before that was heard.
func (w *watch) take() (news map[string]*entry, all, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.synced {
		return nil, false, false
	}
	all, w.taken = !w.taken, true
	news = make(map[string]*entry, len(w.dirty))
	for name := range w.dirty {
		news[name] = w.live[name]
	}
	clear(w.dirty)
	return news, all, true
}

// end stops watching, and waits until nothing more is heard.
func (w *watch) end() {
	w.stop()
	<-w.done
}
