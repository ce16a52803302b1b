package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
)

// watch is what the API has of one kind, and what of that is news.
type watch struct {
	Mirror[*entry]
	stop context.CancelFunc
	done chan struct{}

	dirty map[string]struct{} // the names of which something was heard since take
	freed map[string]struct{} // those that were guarded and are deleted
	taken bool                // all that there was at first was taken
}

// start begins to watch a kind, all of it or the object of one name, until the context or end ends it. Of Nodes the labels are
// kept where they are asked for. wake is called when something was heard; it does not wait.
func (a *API) start(ctx context.Context, kind string, resource schema.GroupVersionResource, only string, labels bool, wake func()) (*watch, error) {
	// A typed object that this version does not understand would keep all others from being read. Nodes are big and many, and
	// decoded with less effort into their type.
	client, like := a.untyped, runtime.Object(&unstructured.Unstructured{})
	switch kind {
	case datastore.KindNode:
		client, like = a.typed, &corev1.Node{}
	case datastore.KindIPBlock: // agents alone make them, so that they are as their type
		client, like = a.typed, &v1alpha1.IPBlock{}
	}
	c, err := client(resource.GroupVersion())
	if err != nil {
		return nil, fmt.Errorf("watching %ss: %w", kind, err)
	}
	ctx, stop := context.WithCancel(ctx)
	w := newWatch(wake)
	w.stop = stop
	what := keeping{labels: labels, network: a.network}
	w.turn = func(o any) (any, error) { return slimmed(kind, o, what) }
	w.reflect(c, resource, only, like)
	go func() {
		defer close(w.done)
		w.Run(ctx)
	}()
	return w, nil
}

func newWatch(wake func()) *watch {
	w := &watch{done: make(chan struct{}), dirty: map[string]struct{}{}, freed: map[string]struct{}{}}
	w.news, w.heard, w.deleted = wake, w.note, w.free
	return w
}

// note notes that something was heard of an object.
func (w *watch) note(e *entry, _ bool) {
	w.dirty[e.Name] = struct{}{}
	delete(w.freed, e.Name)
}

// free notes that an object was deleted, as its guardian has allowed.
func (w *watch) free(was *entry) {
	if was.guarded {
		w.freed[was.Name] = struct{}{}
	}
}

// slimmed makes entries of what was decoded; what is one already stays.
func slimmed(kind string, o any, what keeping) (any, error) {
	if _, ok := o.(*entry); ok {
		return o, nil
	}
	if m, ok := o.(metav1.Object); ok {
		return slim(kind, m, what), nil
	}
	return o, nil
}

// take returns what was heard since it was called last: entries by name, nil for what is gone, and which of those were guarded and
// deleted. With all it is everything that there is. It is not ok before that was heard.
func (w *watch) take() (news map[string]*entry, freed []string, all, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.synced {
		return nil, nil, false, false
	}
	freed = slices.Collect(maps.Keys(w.freed))
	clear(w.freed)
	all, w.taken = !w.taken, true
	news = make(map[string]*entry, len(w.dirty))
	for name := range w.dirty {
		news[name] = w.live[name]
	}
	clear(w.dirty)
	return news, freed, all, true
}

// end stops watching, and waits until nothing more is heard.
func (w *watch) end() {
	w.stop()
	<-w.done
}
