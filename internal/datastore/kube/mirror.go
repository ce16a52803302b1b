package kube

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sallyport/sallyport/internal/datastore"
)

// Mirror is what the API has of one kind, as far as it was heard. A reflector writes into it, without the queue and the
// index of an informer, which would hold everything twice.
type Mirror[K Named] struct {
	turn      func(any) (any, error)    // what a decoded object is kept as, a K; what was turned already stays
	heard     func(object K, gone bool) // of each version of an object that is heard of; mu is held
	deleted   func(was K)               // after heard, where a watch says that an object was deleted: what it was; mu is held. Nil: there is no such hook
	news      func()                    // something was heard; it does not wait
	reflector *cache.Reflector

	mu     sync.Mutex
	live   map[string]K      // by name
	synced bool              // all that there was at first has been heard
	upTo   uint64            // the highest resourceVersion that was heard
	ahead  map[string]uint64 // what was learned and not heard of yet: its resourceVersion, by name
}

// Named is an object that has a name.
type Named interface{ GetName() string }

// NewMirror returns a Mirror of all objects of a resource, which are decoded into T; it is empty until Run. Each object
// is trimmed before it is kept, and never changed then. heard, unless it is nil, is called with each version of an object
// that is heard of, and news after it; neither waits.
func NewMirror[T any, K interface {
	*T
	Named
	runtime.Object
}](a *API, resource schema.GroupVersionResource, trim func(any) (any, error), heard func(K), news func()) (*Mirror[K], error) {
	c, err := a.typed(resource.GroupVersion())
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", resource.Resource, err)
	}
	m := &Mirror[K]{turn: trim, news: news, heard: func(object K, gone bool) {
		if heard != nil && !gone {
			heard(object)
		}
	}}
	m.reflect(c, resource, "", K(new(T)))
	return m, nil
}

// reflect says of what it is a mirror: of all of a resource, or of the object of one name. That is decoded into something
// like the object given.
func (m *Mirror[K]) reflect(c rest.Interface, resource schema.GroupVersionResource, only string, like runtime.Object) {
	which := fields.Everything()
	if only != "" {
		which = fields.OneTermEqualSelector("metadata.name", only)
	}
	m.live = map[string]K{}
	from := cache.NewListWatchFromClient(c, resource.Resource, "", which)
	if _, untyped := like.(*unstructured.Unstructured); untyped { // a list would be decoded as if it were one object
		from.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = which.String()
			out := &unstructured.UnstructuredList{}
			return out, c.Get().Resource(resource.Resource).SpecificallyVersionedParams(&o, metav1.ParameterCodec, schema.GroupVersion{Version: "v1"}).Do(ctx).Into(out)
		}
	}
	m.reflector = cache.NewReflectorWithOptions(from, like, m,
		cache.ReflectorOptions{Name: resource.GroupResource().String()})
}

// Run keeps the mirror equal to the resource until the context ends.
func (m *Mirror[K]) Run(ctx context.Context) {
	log := logr.ToSlogHandler(klog.FromContext(ctx))
	m.reflector.RunWithContext(klog.NewContext(ctx, logr.FromSlogHandler(&untilEnd{log, ctx})))
}

// untilEnd is a log until a context ends: a reflector says of a watch that is to end that it has failed.
type untilEnd struct {
	slog.Handler
	ctx context.Context
}

// Handle writes a line.
func (u *untilEnd) Handle(ctx context.Context, r slog.Record) error {
	select {
	case <-u.ctx.Done():
		return nil
	default:
	}
	return u.Handler.Handle(ctx, r)
}

// WithAttrs adds to each line.
func (u *untilEnd) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &untilEnd{u.Handler.WithAttrs(attrs), u.ctx}
}

// WithGroup adds to each line.
func (u *untilEnd) WithGroup(name string) slog.Handler {
	return &untilEnd{u.Handler.WithGroup(name), u.ctx}
}

// Objects are all there are, in no order; ok says whether they have been heard of.
func (m *Mirror[K]) Objects() (all []K, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.AppendSeq(make([]K, 0, len(m.live)), maps.Values(m.live)), m.synced
}

// Object is the object of a name, if there is one, as far as was heard.
func (m *Mirror[K]) Object(name string) (object K, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	object, ok = m.live[name]
	return object, ok
}

// learn takes an object that was just written, of a resourceVersion, so that it is known before its watch brings it. Where
// the watch is that far already, it knows better: the object may be gone again.
func (m *Mirror[K]) learn(k K, resourceVersion string) {
	version, ok := datastore.VersionNumber(resourceVersion)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ok || !m.synced || version <= m.upTo {
		return
	}
	if m.ahead == nil {
		m.ahead = map[string]uint64{}
	}
	name := k.GetName()
	m.live[name], m.ahead[name] = k, version
	m.heard(k, false)
	m.news()
}

// Transformer lets a reflector keep what it lists as it is kept here, and not all of it decoded.
func (m *Mirror[K]) Transformer() cache.TransformFunc { return m.turn }

// Add takes an object that is new.
func (m *Mirror[K]) Add(o any) error { return m.put(o, false) }

// Update takes an object that has changed.
func (m *Mirror[K]) Update(o any) error { return m.put(o, false) }

// Delete takes an object that is gone.
func (m *Mirror[K]) Delete(o any) error { return m.put(o, true) }

func (m *Mirror[K]) put(o any, gone bool) error {
	k, err := m.turned(o)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, err := meta.Accessor(o); err == nil {
		version, _ := datastore.VersionNumber(a.GetResourceVersion())
		m.upTo = max(m.upTo, version)
	}
	delete(m.ahead, k.GetName())
	was, there := m.live[k.GetName()]
	if gone {
		delete(m.live, k.GetName())
	} else {
		m.live[k.GetName()] = k
	}
	m.heard(k, gone)
	if gone && there && m.deleted != nil {
		m.deleted(was)
	}
	m.news()
	return nil
}

// Replace takes all that there is now: at first, and where a watch could not go on from where it was.
func (m *Mirror[K]) Replace(all []any, resourceVersion string) error {
	live := make(map[string]K, len(all))
	for _, o := range all {
		k, err := m.turned(o)
		if err != nil {
			return err
		}
		live[k.GetName()] = k
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.upTo, _ = datastore.VersionNumber(resourceVersion)
	for name, version := range m.ahead {
		if _, there := live[name]; !there && version > m.upTo { // it was written after the list was made
			live[name] = m.live[name]
			continue
		}
		delete(m.ahead, name)
	}
	for name, k := range m.live {
		if _, there := live[name]; !there {
			m.heard(k, true)
		}
	}
	for _, k := range live {
		m.heard(k, false)
	}
	m.live, m.synced = live, true
	m.news()
	return nil
}

// Resync does nothing: watches bring every change.
func (m *Mirror[K]) Resync() error { return nil }

func (m *Mirror[K]) turned(o any) (k K, err error) {
	t, err := m.turn(o)
	if err != nil {
		return k, err
	}
	k, ok := t.(K)
	if !ok {
		return k, fmt.Errorf("%T is no object that is known here", t)
	}
	return k, nil
}
