package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// LeasePrefix begins the name of each Lease that an agent renews; the name of its node follows. The chart's admission policy
// knows it, and the length at which a name is cut.
const LeasePrefix = "sallyport-node-"

// partOf is the label of all Leases that agents renew, with the value sallyport.
const partOf = "app.kubernetes.io/part-of"

// Bounds of the name of a Lease: names longer than maxLease are cut after cutLease bytes of the node's, and end with a hash.
const (
	maxLease = 253
	cutLease = 200
)

// leaseSeconds is what a Lease says that it is good for without being renewed. The controller does not read it.
const leaseSeconds = 120

// LeaseOf is the name of the Lease that the agent of a node renews.
func LeaseOf(node string) string {
	if name := LeasePrefix + node; len(name) <= maxLease {
		return name
	}
	sum := sha256.Sum256([]byte(node))
	return LeasePrefix + node[:cutLease] + "x" + hex.EncodeToString(sum[:8])
}

// Heartbeat is what a Lease says of the agent that renews it. Its times are of the agent's clock, to be compared with nothing
// but an earlier one of the same Lease.
type Heartbeat struct {
	Renewed      string // when it was renewed; empty: never
	UnknownSince string // when the controller called the node unknown last; empty: never
}

// heartbeatOf reads a Lease.
func heartbeatOf(l *coordinationv1.Lease) Heartbeat {
	h := Heartbeat{UnknownSince: l.Annotations[v1alpha1.LeaseUnknownSince]}
	if l.Spec.RenewTime != nil {
		h.Renewed = l.Spec.RenewTime.UTC().Format(time.RFC3339Nano)
	}
	return h
}

// Renew renews the Lease of this node, which the Node with this UID owns, and makes it where there is none. It says whether
// the controller has called the node unknown since, so that Report should be called again. It may be called while Run
// and Report run, by one goroutine at a time.
func (s *Store) Renew(ctx context.Context, nodeUID string) (unknown bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	name := LeaseOf(s.node)
	l := &coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{partOf: "sallyport"}, OwnerReferences: owned(s.node, nodeUID)},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &s.node, LeaseDurationSeconds: ptr.To[int32](leaseSeconds), RenewTime: ptr.To(metav1.NowMicro())},
	}
	c, err := s.api.leases()
	if err != nil {
		return false, err
	}
	write := s.put
	if s.network {
		l.Annotations = map[string]string{leaseBoot: s.alone.boot, leaseMachine: s.alone.seal(s.alone.boot)}
		write = s.renew
	}
	now, err := write(ctx, c, l)
	if s.network {
		s.signal() // whether this agent is alone may be news
	}
	if err != nil {
		return false, fmt.Errorf("renewing the Lease %s/%s: %w%s", s.namespace, name, err, remedy(err.Error()))
	}
	return s.reported.hear(heartbeatOf(now).UnknownSince), nil
}

// put writes the Lease of this node, whatever it is.
func (s *Store) put(ctx context.Context, c rest.Interface, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	b, err := encoded(l)
	if err != nil {
		return nil, err
	}
	now := &coordinationv1.Lease{}
	err = c.Patch(types.MergePatchType).Namespace(s.namespace).Resource("leases").Name(l.Name).Body(b).Do(ctx).Into(now)
	if apierrors.IsNotFound(err) {
		err = c.Post().Namespace(s.namespace).Resource("leases").SetHeader("Content-Type", "application/json").Body(b).Do(ctx).Into(now)
	}
	return now, err
}

func encoded(l *coordinationv1.Lease) ([]byte, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encoding the Lease %s: %w", l.Name, err)
	}
	return b, nil
}

// owned are the owner references of what goes with a Node.
func owned(node, uid string) []metav1.OwnerReference {
	if uid == "" {
		return nil
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: types.UID(uid)}}
}

// Heartbeats are those of all agents, by the names of their Leases, as the API has them at this moment.
func (a *API) Heartbeats(ctx context.Context, namespace string) (map[string]Heartbeat, error) {
	c, err := a.leases()
	if err != nil {
		return nil, err
	}
	var list coordinationv1.LeaseList
	if err := c.Get().Namespace(namespace).Resource("leases").Param("labelSelector", partOf+"=sallyport").Do(ctx).Into(&list); err != nil {
		return nil, fmt.Errorf("listing the Leases of agents: %w%s", err, remedy(err.Error()))
	}
	out := make(map[string]Heartbeat, len(list.Items))
	for i := range list.Items {
		if l := &list.Items[i]; strings.HasPrefix(l.Name, LeasePrefix) {
			out[l.Name] = heartbeatOf(l)
		}
	}
	return out, nil
}

// MarkUnknown says in the Lease of a node since when it is called unknown, so that its agent writes again how it stands.
func (a *API) MarkUnknown(ctx context.Context, namespace, node, since string) error {
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{v1alpha1.LeaseUnknownSince: since}}})
	if err != nil {
		return fmt.Errorf("encoding a mark: %w", err)
	}
	c, err := a.leases()
	if err != nil {
		return err
	}
	err = c.Patch(types.MergePatchType).Namespace(namespace).Resource("leases").Name(LeaseOf(node)).Body(b).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("marking the Lease %s/%s: %w", namespace, LeaseOf(node), err)
	}
	return nil
}

// leases returns a client of Leases.
func (a *API) leases() (rest.Interface, error) { return a.typed(coordinationv1.SchemeGroupVersion) }
