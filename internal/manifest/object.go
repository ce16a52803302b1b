package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"

	"github.com/sallyport/sallyport/internal/model"
)

// Key names an object.
type Key = model.Key

// Object is one object as it is declared, without the fields that only a server writes. It is never changed once made.
type Object struct {
	Key
	File string // path of the file that holds it; "-" for standard input; empty for one of an API server
	Line int    // where its document begins, from 1
	JSON []byte // the whole object, keys sorted
}

// Digest is the SHA-256 of the object's JSON, in hexadecimal. Two manifests that say the same have the same.
func (o *Object) Digest() string {
	sum := sha256.Sum256(o.JSON)
	return hex.EncodeToString(sum[:])
}

// Map is the object as maps and slices of its own.
func (o *Object) Map() (map[string]any, error) {
	var m map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(o.JSON, &m); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", o.Key, err)
	}
	return m, nil
}

// Validator says what is wrong with an object, as a new one or as the successor of an old one. It is safe
// for concurrent use and leaves the objects as they are.
type Validator interface {
	Create(obj map[string]any) []model.Fault
	Update(obj, old map[string]any) []model.Fault
}

// canonicalVersion is the apiVersion under which an object of a kind is kept, or "" where apiVersion and
// kind do not go together.
func canonicalVersion(apiVersion, kind string) string {
	for _, r := range model.Resources() {
		if r.Kind == kind && slices.Contains(r.APIVersions, apiVersion) {
			return r.APIVersions[0]
		}
	}
	return ""
}

// known lists the kinds that a manifest may declare, each in the words that say makes of it.
func known(say func(r model.Resource) string) string {
	var words []string
	for _, r := range model.Resources() {
		if !r.Claimed {
			words = append(words, say(r))
		}
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
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
		return fault("kind", "is required and must be a string: "+known(func(r model.Resource) string { return r.Kind }))
	case apiVersion == "":
		return fault("apiVersion", "is required and must be a string, such as projectcalico.org/v3 for an IPPool")
	}
	for _, r := range model.Resources() {
		switch {
		case kind == r.Kind && r.Claimed:
			return fault("kind", fmt.Sprintf("an %s is declared in no manifest, since agents create and delete them in the API of a cluster; remove the document", kind))
		case kind != r.Kind && !r.Claimed && (strings.EqualFold(kind, r.Kind) || strings.EqualFold(kind, r.Kind+"s")):
			return fault("kind", fmt.Sprintf("%s is not known here: did you mean %s?", kind, r.Kind))
		}
	}
	version := canonicalVersion(apiVersion, kind)
	if version == "" {
		return fault("apiVersion", fmt.Sprintf("%s of %s is not known here: use %s", kind, apiVersion,
			known(func(r model.Resource) string { return r.Kind + " of " + r.APIVersions[0] })))
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
	if kind == model.KindNode && there {
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
