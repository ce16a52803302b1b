package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/text"
)

// What can be followed.
var (
	IPPools           = apiv3.GroupVersion().WithResource(pathPools)
	NATConfigurations = v1alpha1.GroupVersion().WithResource("natconfigurations")
	SallyportNodes    = v1alpha1.GroupVersion().WithResource("sallyportnodes")
	Nodes             = resourceNodes

	IPReservations            = apiv3.GroupVersion().WithResource("ipreservations")
	NodeNetworkConfigurations = v1alpha1.GroupVersion().WithResource("nodenetworkconfigurations")
	IPBlocks                  = v1alpha1.GroupVersion().WithResource("ipblocks")

	BGPPeers          = apiv3.GroupVersion().WithResource("bgppeers")
	BGPConfigurations = apiv3.GroupVersion().WithResource("bgpconfigurations")
	BGPFilters        = apiv3.GroupVersion().WithResource("bgpfilters")
)

// ApplyStatus applies the status of an object of a resource, of which owner then owns what applied has; applied is the
// object as JSON, with its name and UID and nothing else; with a resourceVersion, it fails as apierrors.IsConflict where
// the object has changed since.
func (a *API) ApplyStatus(ctx context.Context, resource schema.GroupVersionResource, name string, applied []byte, owner string) error {
	_, err := a.dynamic.Resource(resource).
		Patch(ctx, name, types.ApplyPatchType, applied, metav1.PatchOptions{FieldManager: owner, Force: ptr.To(true)}, "status")
	return err
}

// SetNodeCondition sets one condition of a Node that was seen, and leaves all others as they are. It fails as
// apierrors.IsConflict where another Node has its place.
func (a *API) SetNodeCondition(ctx context.Context, o *metav1.ObjectMeta, c corev1.NodeCondition, owner string) error {
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.UID}, "status": map[string]any{"conditions": []corev1.NodeCondition{c}}})
	if err != nil {
		return fmt.Errorf("encoding a patch: %w", err)
	}
	_, err = a.dynamic.Resource(resourceNodes).Patch(ctx, o.Name, types.StrategicMergePatchType, b, metav1.PatchOptions{FieldManager: owner}, "status")
	return err
}

// Event is what an operator should hear of an object that has no namespace.
type Event struct {
	APIVersion, Kind, Name string // of the object
	UID                    types.UID
	ResourceVersion        string

	Reason string // in one word
	Action string // what was done when it was noticed, in one word
	Note   string // in a sentence; at most 1024 bytes of it are written
}

// Bounds of an Event of the API.
const (
	maxNote      = 1024
	maxEventName = 253
)

var events = schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}

// Warn makes an Event of the API, of which the reporter, a controller, is an instance of that name.
func (a *API) Warn(ctx context.Context, e *Event, reporter, instance string, now time.Time) error {
	id := fmt.Sprintf(".%x", now.UnixNano())
	name := strings.TrimRight(text.Cut(e.Name, maxEventName-len(id)), ".-") + id
	_, err := a.dynamic.Resource(events).Namespace(metav1.NamespaceDefault).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": events.GroupVersion().String(), "kind": "Event",
		"metadata":            map[string]any{"name": name, "namespace": metav1.NamespaceDefault},
		"eventTime":           now.UTC().Format(metav1.RFC3339Micro),
		"reportingController": reporter, "reportingInstance": text.Cut(instance, 128),
		"type": "Warning", "reason": e.Reason, "action": e.Action, "note": text.Cut(e.Note, maxNote),
		"regarding": map[string]any{"apiVersion": e.APIVersion, "kind": e.Kind, "name": e.Name, "uid": string(e.UID), "resourceVersion": e.ResourceVersion},
	}}, metav1.CreateOptions{})
	return err
}

// Lease is one Lease of the API.
type Lease struct {
	client          rest.Interface
	namespace, name string
}

// Lease returns the Lease of a name, which need not exist.
func (a *API) Lease(namespace, name string) (*Lease, error) {
	c, err := a.typed(coordinationv1.SchemeGroupVersion)
	if err != nil {
		return nil, fmt.Errorf("preparing the Lease %s/%s: %w", namespace, name, err)
	}
	return &Lease{c, namespace, name}, nil
}

// Get reads it. It fails as apierrors.IsNotFound where there is none.
func (l *Lease) Get(ctx context.Context) (*coordinationv1.Lease, error) {
	out := &coordinationv1.Lease{}
	return out, l.client.Get().Namespace(l.namespace).Resource("leases").Name(l.name).Do(ctx).Into(out)
}

// Create makes it, and returns what it became.
func (l *Lease) Create(ctx context.Context, spec coordinationv1.LeaseSpec) (*coordinationv1.Lease, error) {
	out := &coordinationv1.Lease{}
	in := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: l.name}, Spec: spec}
	return out, l.client.Post().Namespace(l.namespace).Resource("leases").Body(in).Do(ctx).Into(out)
}

// Update writes it in the place of what was read, and returns what it became. It fails as apierrors.IsConflict where it has
// changed since.
func (l *Lease) Update(ctx context.Context, in *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	out := &coordinationv1.Lease{}
	return out, l.client.Put().Namespace(l.namespace).Resource("leases").Name(l.name).Body(in).Do(ctx).Into(out)
}
