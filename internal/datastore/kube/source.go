package kube

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// source is a kind that a CustomResourceDefinition defines, and where Sallyport's has it in the API.
type source struct {
	kind     string
	at       schema.GroupVersionResource
	optional bool // the view is whole also without a definition
}

// sources are all kinds that are read beside Nodes.
func sources() []source {
	return []source{
		{kind: datastore.KindIPPool, at: IPPools},
		{kind: datastore.KindNATConfiguration, at: NATConfigurations, optional: true},
	}
}

// sourceOf is the source of a kind; the zero value where it is none.
func sourceOf(kind string) source {
	for _, s := range sources() {
		if s.kind == kind {
			return s
		}
	}
	return source{}
}

// snapshotOf makes a snapshot of the entries of each kind.
func snapshotOf(of func(kind string) []*entry) *model.Snapshot {
	return &model.Snapshot{
		Pools:             values[*model.Pool](of(datastore.KindIPPool)),
		NATConfigurations: values[model.NATConfiguration](of(datastore.KindNATConfiguration)),
		Nodes:             values[model.Node](of(datastore.KindNode)),
	}
}

func values[T any](entries []*entry) []T {
	out := make([]T, len(entries))
	for i, e := range entries {
		out[i] = e.value.(T)
	}
	return out
}
