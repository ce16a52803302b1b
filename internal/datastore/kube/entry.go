package kube

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
)

// StartupTaint is the key of the taint with which a node may be registered until its agent is ready, so that no pod
// of another CNI plugin starts before the rules stand.
const StartupTaint = "sallyport.dev/not-ready"

// entry is an object of the API, as far as it matters here. It is never changed once made. There may be very many: it
// has no more of the object's metadata than is asked for.
type entry struct {
	Kind, Name, ResourceVersion string
	UID                         types.UID
	Generation                  int64
	created                     int64 // in seconds since 1970

	value  any    // as datastore.Value makes it; nil where it cannot be used
	fault  error  // why it cannot be used, or what of it cannot
	json   []byte // as it is kept
	taints []int  // of a node: where the start-up taint stands among its taints, highest first

	// guarded says that the API keeps the object until its owner lets it go: a block, while an address of it is in use.
	guarded bool

	judged *judgement // of a pool, where Sallyport is the pod network; nil: the controller has said nothing
}

// order is that of entries of one kind in a snapshot.
func order(a, b *entry) int {
	x, ok1 := a.value.(*model.Block)
	y, ok2 := b.value.(*model.Block)
	if ok1 && ok2 && x.CIDR != y.CIDR {
		return x.CIDR.Compare(y.CIDR)
	}
	return strings.Compare(a.Name, b.Name)
}

// GetName tells a mirror which object it is of.
func (e *entry) GetName() string { return e.Name }

// GetObjectMeta tells a reflector what it has to know.
func (e *entry) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: e.Name, UID: e.UID, ResourceVersion: e.ResourceVersion, Generation: e.Generation}
}

func (e *entry) key() datastore.Key { return datastore.Key{Kind: e.Kind, Name: e.Name} }

// kept is the form in which an object is kept on disk.
type kept struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   keptMeta       `json:"metadata"`
	Spec       any            `json:"spec,omitempty"`
	Status     map[string]any `json:"status,omitempty"`
}

type keptMeta struct {
	Name       string            `json:"name"`
	UID        types.UID         `json:"uid,omitempty"`
	Generation int64             `json:"generation,omitempty"`
	Created    metav1.Time       `json:"creationTimestamp,omitzero"`
	Deleted    *metav1.Time      `json:"deletionTimestamp,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`

	Annotations map[string]string `json:"annotations,omitempty"`
}

// keeping says what is kept of objects beside what always is.
type keeping struct {
	labels  bool // of Nodes
	network bool // what the pod network needs
}

// slim makes an entry of an object of the API. What cannot be used is no error: the entry says so.
func slim(kind string, o metav1.Object, what keeping) *entry {
	e := &entry{Kind: kind, Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(), Generation: o.GetGeneration(), created: seconds(o.GetCreationTimestamp())}
	k := kept{Kind: kind, Metadata: keptMeta{e.Name, e.UID, e.Generation, o.GetCreationTimestamp(), o.GetDeletionTimestamp(), nil, nil}}
	var doubt error
	switch o := o.(type) {
	case *corev1.Node:
		e.taints = startupTaints(o)
		k.APIVersion, k.Metadata.Generation = "v1", 0
		if what.labels {
			k.Metadata.Labels = o.Labels
		}
		if what.network {
			k.Metadata.Annotations, doubt = announced(o.Annotations)
		}
		k.Status = map[string]any{"addresses": o.Status.Addresses}
	case *unstructured.Unstructured:
		k.APIVersion, k.Spec = sourceOf(kind).at.GroupVersion().String(), o.Object["spec"]
		if kind == datastore.KindIPPool {
			k.Status = keptStatus(o, what.network)
			e.judged = judgementOf(k.Status)
		}
	case *v1alpha1.IPBlock:
		k.APIVersion, k.Spec = v1alpha1.GroupVersion().String(), o.Spec
		e.guarded = slices.Contains(o.Finalizers, v1alpha1.BlockFinalizer)
	default:
		e.fault = fmt.Errorf("%T is no object that is known here", o)
		return e
	}
	if e.json, e.fault = json.Marshal(k); e.fault == nil {
		if b, ok := o.(*v1alpha1.IPBlock); ok { // there may be ten thousand: none is decoded twice
			e.value, e.fault = decodedBlock(b)
		} else {
			e.value, e.fault = valueOf(kind, e.json)
		}
	}
	e.fault = cmp.Or(e.fault, doubt)
	return e
}

// conditionOf is a pool's condition of a type, or nil.
func conditionOf(o *unstructured.Unstructured, kind string) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions") // somebody else's may have any form
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return m
		}
	}
	return nil
}

func startupTaints(n *corev1.Node) []int {
	var at []int
	for i, t := range slices.Backward(n.Spec.Taints) {
		if t.Key == StartupTaint {
			at = append(at, i)
		}
	}
	return at
}

// seconds is a time in seconds since 1970; 0 for none.
func seconds(t metav1.Time) int64 { return max(0, t.Unix()) }

// decode reads an entry that was kept. One that this version cannot use is no error: the entry says so.
func decode(k datastore.Key, b []byte) (*entry, error) {
	var in kept
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", k, err)
	}
	e := &entry{Kind: k.Kind, Name: k.Name, UID: in.Metadata.UID, Generation: in.Metadata.Generation, created: seconds(in.Metadata.Created), json: append([]byte(nil), b...)}
	if k.Kind == kindDefinition {
		return e, nil
	}
	e.judged = judgementOf(in.Status)
	e.value, e.fault = valueOf(k.Kind, e.json)
	return e, nil
}

// decodedBlock makes the value of an IPBlock; nil where it has none.
func decodedBlock(b *v1alpha1.IPBlock) (any, error) {
	v, err := datastore.Block(b)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// valueOf makes the value of an object.
func valueOf(kind string, b []byte) (any, error) {
	v, err := datastore.Value(kind, b)
	chooses := map[string]string{}
	switch c := v.(type) {
	case model.NATConfiguration:
		chooses["nodeSelector"] = c.NodeSelector
	case model.NodeNetworkConfiguration:
		chooses["nodeSelector"] = c.NodeSelector
	case model.BGPPeer:
		chooses["nodeSelector"], chooses["peerSelector"] = c.NodeSelector, c.PeerSelector
	default:
		return v, err
	}
	// A pool whose selector cannot be read is translated all the same; it is unknown which nodes these objects are for.
	for _, field := range slices.Sorted(maps.Keys(chooses)) {
		if _, err := selector.Parse(chooses[field]); err != nil {
			return nil, fmt.Errorf("spec.%s: is not a selector: %w", field, err)
		}
	}
	return v, nil
}

// same says whether two values mean the same to a node.
func same(a, b any) bool {
	p, ok1 := a.(*model.Pool)
	q, ok2 := b.(*model.Pool)
	if ok1 && ok2 {
		r := *q
		r.WasAllocatable = p.WasAllocatable
		return *p == r
	}
	return equal(a, b)
}
