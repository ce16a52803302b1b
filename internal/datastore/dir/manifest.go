package dir

import (
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// What every store has, by the names that it has here.
type (
	// Key names an object.
	Key = datastore.Key
	// Object is one object as a manifest declares it, without what only a server writes.
	Object = datastore.Object
	// State is what a Store holds at one moment.
	State = datastore.State
	// Loaded is what a directory declares at one moment. Pools are ordered by name alone, since ranks are the
	// agent's.
	Loaded = datastore.Loaded
)

// The kinds that a directory may hold.
const (
	KindIPPool           = datastore.KindIPPool
	KindNATConfiguration = datastore.KindNATConfiguration
	KindNode             = datastore.KindNode
)

// Validator says what is wrong with an object, as a new one or as the successor of an old one. It is safe
// for concurrent use and leaves the objects as they are.
type Validator interface {
	Create(obj map[string]any) []model.Fault
	Update(obj, old map[string]any) []model.Fault
}

// canonicalVersion is the apiVersion under which an object of a kind is kept, or "" where apiVersion and
// kind do not go together.
func canonicalVersion(apiVersion, kind string) string {
	switch kind {
	case KindIPPool:
		if apiVersion == "projectcalico.org/v3" || apiVersion == "crd.projectcalico.org/v1" {
			return "projectcalico.org/v3"
		}
	case KindNATConfiguration:
		if apiVersion == "sallyport.dev/v1alpha1" {
			return apiVersion
		}
	case KindNode:
		if apiVersion == "v1" {
			return apiVersion
		}
	}
	return ""
}

// serverFields are the fields of metadata that only a server writes.
var serverFields = []string{"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink"}

// lastApplied is where kubectl keeps what was applied last.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// normalise checks that a tree is an object of a known kind with a name, and removes what only a server
// writes, so that what `kubectl get -o yaml` printed can be used as it is.
func normalise(tree map[string]any) (Key, *model.Fault) {
	kind, _ := tree["kind"].(string)
	apiVersion, _ := tree["apiVersion"].(string)
	meta, metaOK := tree["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	fault := func(field, message string) (Key, *model.Fault) {
		return Key{}, &model.Fault{Kind: kind, Name: name, Field: field, Message: message}
	}
	switch {
	case kind == "":
		return fault("kind", "is required and must be a string: IPPool, NATConfiguration or Node")
	case apiVersion == "":
		return fault("apiVersion", "is required and must be a string, such as projectcalico.org/v3 for an IPPool")
	}
	for _, known := range []string{KindIPPool, KindNATConfiguration, KindNode} {
		if kind != known && (strings.EqualFold(kind, known) || strings.EqualFold(kind, known+"s")) {
			return fault("kind", fmt.Sprintf("%s is not known here: did you mean %s?", kind, known))
		}
	}
	version := canonicalVersion(apiVersion, kind)
	if version == "" {
		return fault("apiVersion", fmt.Sprintf("%s of %s is not known here: use IPPool of projectcalico.org/v3, NATConfiguration of sallyport.dev/v1alpha1 or Node of v1", kind, apiVersion))
	}
	if _, there := tree["metadata"]; there && !metaOK {
		return fault("metadata", "must be an object with a name")
	}
	switch meta["name"].(type) {
	case bool, int64, float64: // YAML 1.1 takes n, y, on and off for booleans
		return fault("metadata.name", "must be a string: write it in quotes")
	}
	if name == "" {
		return fault("metadata.name", "is required and must be a string")
	}
	tree["apiVersion"] = version
	for _, f := range serverFields {
		delete(meta, f)
	}
	if notes, ok := meta["annotations"].(map[string]any); ok {
		delete(notes, lastApplied)
		if len(notes) == 0 {
			delete(meta, "annotations")
		}
	}
	trimStatus(tree, kind)
	dropNulls(tree)
	return Key{Kind: kind, Name: name}, nil
}

// trimStatus removes the status, except for the addresses of a Node: these are declared here, since nobody
// else says them.
func trimStatus(tree map[string]any, kind string) {
	status, _ := tree["status"].(map[string]any)
	addresses, there := status["addresses"]
	if kind == KindNode && there {
		tree["status"] = map[string]any{"addresses": addresses}
		return
	}
	delete(tree, "status")
}

// dropNulls removes fields that are null, which is the same as absent to an API server.
func dropNulls(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, value := range v {
			if value == nil {
				delete(v, k)
				continue
			}
			dropNulls(value)
		}
	case []any:
		for _, item := range v {
			dropNulls(item)
		}
	}
}
