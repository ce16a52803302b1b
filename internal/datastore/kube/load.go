package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// loadPatience bounds a whole Load.
const loadPatience = 30 * time.Second

// Load reads what an API server has now, without an agent. An object that cannot be used is a fault; that one cannot
// be listed is an error.
// IPBlocks, which may be many, are read only where they are asked for.
func Load(ctx context.Context, cfg *rest.Config, version string, blocks bool) (*datastore.Loaded, error) {
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	a, err := Connect(cfg, "sallyport/"+version)
	if err != nil {
		return nil, err
	}
	pools, err := a.locate(ctx, datastore.KindIPPool, version, followed{})
	if err != nil {
		return nil, err
	}
	l := &loader{api: a, views: map[string]*view{}, programmed: map[string]string{}}
	for _, from := range append(sources(true), source{kind: datastore.KindNode, at: resourceNodes}) {
		if from.kind == datastore.KindIPPool {
			from.at = pools.version.WithResource(from.at.Resource)
		}
		if from.kind == datastore.KindIPBlock && !blocks {
			l.views[from.kind] = newView(from.kind)
			continue
		}
		if err := l.list(ctx, from); err != nil {
			return nil, err
		}
	}
	return l.loaded(), nil
}

type loader struct {
	api     *API
	views   map[string]*view
	objects []datastore.Object
	faults  []model.Fault

	programmed map[string]string
}

// list reads all objects of a kind.
func (l *loader) list(ctx context.Context, from source) error {
	kind := from.kind
	list, err := l.api.dynamic.Resource(from.at).List(ctx, metav1.ListOptions{})
	switch {
	case from.network && apierrors.IsNotFound(err): // Sallyport is not the pod network
		list = &unstructured.UnstructuredList{}
	case err != nil:
		return fmt.Errorf("listing %ss: %w", kind, err)
	}
	news := map[string]*entry{}
	for i := range list.Items {
		o := &list.Items[i]
		e := slim(kind, o, keeping{labels: true, network: true})
		if kind == datastore.KindNode {
			e = &entry{Kind: e.Kind, Name: e.Name, UID: e.UID, ResourceVersion: e.ResourceVersion, Generation: e.Generation}
			said, doubt := announced(o.GetAnnotations())
			node := o.DeepCopy()
			node.SetAnnotations(said)
			b, err := node.MarshalJSON()
			if err != nil {
				return fmt.Errorf("reading node %q: %w", o.GetName(), err)
			}
			e.value, e.fault = valueOf(kind, b)
			e.fault = cmp.Or(e.fault, doubt)
		}
		news[e.Name] = e
		if e.value == nil {
			continue
		}
		o.SetManagedFields(nil)
		if kind == datastore.KindIPPool {
			if reason := programmed(o); reason != "" {
				l.programmed[o.GetName()] = reason
			}
			o.SetAPIVersion("projectcalico.org/v3")
		}
		b, err := json.Marshal(o.Object)
		if err != nil {
			return fmt.Errorf("reading %s %q: %w", kind, o.GetName(), err)
		}
		l.objects = append(l.objects, datastore.Object{Key: e.key(), JSON: b})
	}
	v := newView(kind)
	v.absorb(news, true)
	_, faults := v.exceptions()
	l.faults = append(l.faults, faults...)
	l.views[kind] = v
	return nil
}

// programmed is the reason of a pool's condition Programmed, unless that is of an earlier generation.
func programmed(o *unstructured.Unstructured) string {
	c := conditionOf(o, apiv3.IPPoolConditionProgrammed)
	if c["observedGeneration"] != o.GetGeneration() {
		return ""
	}
	reason, _ := c["reason"].(string)
	return reason
}

func (l *loader) loaded() *datastore.Loaded {
	out := &datastore.Loaded{Objects: l.objects, Faults: l.faults, Programmed: l.programmed,
		Snapshot: snapshotOf(func(kind string) []*entry { return l.views[kind].entries() })}
	slices.SortFunc(out.Objects, func(a, b datastore.Object) int { return a.Key.Compare(b.Key) })
	slices.SortStableFunc(out.Faults, func(a, b model.Fault) int { return strings.Compare(a.Kind+"/"+a.Name, b.Kind+"/"+b.Name) })
	out.Conditions = compile.Allocatable(out.Snapshot.Pools)
	return out
}
