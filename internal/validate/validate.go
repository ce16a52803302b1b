// Package validate says what is wrong with a resource before it is used.
//
// The rules are those of the CustomResourceDefinitions in api/crds: their schemas and CEL expressions,
// which an API server runs in a cluster and this package runs in-process, with the same libraries. What
// CEL cannot say, the syntax of selectors, is one function here. One fault in an object gives one
// model.Fault, on the field to blame, in plain words.
//
// The package knows objects as decoded JSON, one at a time: it reads no files, fills in no defaults, and
// does not ask whether two pools overlap.
package validate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sallyport/sallyport/api/crds"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
)

// validationFunc returns the faults of an object that this package may change, without kind and name. Old
// is nil unless the object replaces another.
type validationFunc func(ctx context.Context, obj, old map[string]any) []model.Fault

// kind is a kind of resource, as it may be written.
type kind struct {
	name        string
	apiVersions []string // the preferred one first
	validate    validationFunc
}

// Validator checks objects. It is immutable and safe for concurrent use.
type Validator struct {
	kinds []kind
}

// New makes a validator of all kinds. It compiles the rules of a kind when it first meets an object of that kind, which
// takes some tens of milliseconds and some megabytes: an agent that starts again, and finds all objects checked, does
// without.
func New() *Validator {
	by := map[string]validationFunc{
		model.KindIPPool:           definedBy("projectcalico.org_ippools.yaml"),
		model.KindNATConfiguration: definedBy("sallyport.dev_natconfigurations.yaml"),
		model.KindNode:             validateNode,

		model.KindIPReservation:            definedBy("projectcalico.org_ipreservations.yaml"),
		model.KindNodeNetworkConfiguration: definedBy("sallyport.dev_nodenetworkconfigurations.yaml"),
		model.KindIPBlock:                  definedBy("sallyport.dev_ipblocks.yaml"),

		model.KindBGPPeer:          definedBy("projectcalico.org_bgppeers.yaml"),
		model.KindBGPConfiguration: definedBy("projectcalico.org_bgpconfigurations.yaml"),
		model.KindBGPFilter:        definedBy("projectcalico.org_bgpfilters.yaml"),
	}
	v := &Validator{}
	for _, r := range model.Resources() {
		v.kinds = append(v.kinds, kind{r.Kind, r.APIVersions, by[r.Kind]})
	}
	return v
}

// Prepare compiles the rules of pools, for those who know that some will come.
func (v *Validator) Prepare() {
	v.Create(map[string]any{"kind": v.kinds[0].name, "apiVersion": v.kinds[0].apiVersions[0]})
}

// definedBy validates by an embedded CustomResourceDefinition. Where that cannot be used, no object is right.
func definedBy(file string) validationFunc {
	compiled := sync.OnceValues(func() (*definition, error) { return compile(crds.Files(), file) })
	return func(ctx context.Context, obj, old map[string]any) []model.Fault {
		d, err := compiled()
		if err != nil {
			return []model.Fault{{Message: "cannot be checked: " + err.Error()}}
		}
		return d.validate(ctx, obj, old)
	}
}

// Create returns what is wrong with a new object, sorted by field; nothing if it is right. The object is
// decoded JSON or YAML (see k8s.io/apimachinery/pkg/util/json) and is not changed. Faults carry no file
// and no line.
func (v *Validator) Create(obj map[string]any) []model.Fault {
	return v.validate(obj, nil)
}

// Update returns what is wrong with an object that replaces another of the same kind and name, which was
// right: all that Create would return, and what cannot be changed. An API server lets a fault pass that
// the old object had already; this does not.
func (v *Validator) Update(obj, old map[string]any) []model.Fault {
	return v.validate(obj, normalizeObject(old))
}

func (v *Validator) validate(obj, old map[string]any) []model.Fault {
	obj = normalizeObject(obj)
	kind, fault := v.kindOf(obj)
	var faults []model.Fault
	if fault != nil {
		faults = []model.Fault{*fault}
	} else {
		if old != nil {
			old["apiVersion"] = obj["apiVersion"]
		}
		faults = kind.validate(context.Background(), obj, old)
	}
	for i := range faults {
		faults[i].Kind, faults[i].Name = nameOf(obj)
	}
	slices.SortStableFunc(faults, func(a, b model.Fault) int { return cmp.Compare(a.Field, b.Field) })
	return faults
}

// nameOf returns the kind and the name that an object claims to have, as far as it has any.
func nameOf(obj map[string]any) (kind, name string) {
	kind, _ = obj["kind"].(string)
	metadata, _ := obj["metadata"].(map[string]any)
	name, _ = metadata["name"].(string)
	return kind, name
}

// kindOf finds the kind of an object, or says why it has none.
func (v *Validator) kindOf(obj map[string]any) (*kind, *model.Fault) {
	names := make([]string, len(v.kinds))
	for i, k := range v.kinds {
		names[i] = k.name
	}
	name, ok := obj["kind"].(string)
	if !ok || name == "" {
		return nil, &model.Fault{Field: "kind", Message: "is missing; it must be one of " + strings.Join(names, ", ")}
	}
	i := slices.IndexFunc(v.kinds, func(k kind) bool { return k.name == name })
	if i < 0 {
		return nil, &model.Fault{Field: "kind", Message: fmt.Sprintf("%q is not a kind that is known here; use one of %s", text.Clip(name, quoted), strings.Join(names, ", "))}
	}
	k := &v.kinds[i]
	version, ok := obj["apiVersion"].(string)
	switch {
	case !ok || version == "":
		return nil, &model.Fault{Field: "apiVersion", Message: "is missing; for " + name + " write " + k.apiVersions[0]}
	case !slices.Contains(k.apiVersions, version):
		return nil, &model.Fault{Field: "apiVersion", Message: fmt.Sprintf("%q has no kind %s; write %s", text.Clip(version, quoted), name, k.apiVersions[0])}
	}
	return k, nil
}

// quoted is how many characters of a text a message quotes, with the "..." of one that was shortened.
const quoted = 67
