package datastore

import (
	"context"
	"fmt"
	"net/netip"
)

// Claims makes a node the owner of blocks, and gives them back. Each call waits for the answer of the store; an error that is
// neither a *TakenError nor a *RefusedError says that nothing is known of what became of it, and that the same call can be
// made again.
type Claims interface {
	// Claim makes this node the owner of a block of a pool. Once it has returned nil, the block may be used at once, though
	// Snapshots may lack it for a while. A *TakenError says that another node owns the block or that it is just being given
	// back, and a *RefusedError that the pool gives out no addresses any more; the node does not own the block then.
	Claim(ctx context.Context, cidr netip.Prefix, pool string) error
	// GiveBack ends that. The caller has made sure that no address of the block is in use, and gives out none from then on. It
	// is no error where this node does not own the block.
	GiveBack(ctx context.Context, cidr netip.Prefix) error
	// Alone is why this node must give out no address at all, though blocks are its own; nil: it may. Another agent that lives
	// answers to the same node name, or whether one does is not known yet. It does not wait.
	Alone() error
	// Usage says how much of this node's blocks is in use. The caller decides how often.
	Usage(ctx context.Context, usage []BlockUsage) error
}

// BlockUsage is how much of one block is in use.
type BlockUsage struct {
	CIDR      netip.Prefix
	Allocated int // addresses that workloads or the node itself have
	Cooling   int // addresses that were given back and are not given out again yet
}

// TakenError says that a block cannot be claimed: choose another one.
type TakenError struct {
	CIDR netip.Prefix
	Node string // that owns it; empty: it is not known
	Why  string // unless another node owns it
}

func (e *TakenError) Error() string {
	if e.Why != "" {
		return fmt.Sprintf("the block %s cannot be claimed: %s", e.CIDR, e.Why)
	}
	return fmt.Sprintf("the block %s belongs to the node %q", e.CIDR, e.Node)
}

// RefusedError says that a pool gives out no addresses any more, or none to this node.
type RefusedError struct {
	Pool string
	Why  string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the pool %q gives out no addresses: %s", e.Pool, e.Why)
}

// PodInfo is what addresses of a pod are chosen by.
type PodInfo struct {
	Annotations          map[string]string // those of AnnotationPools4, AnnotationPools6 and AnnotationAddresses that the pod has
	NamespaceLabels      map[string]string
	NamespaceAnnotations map[string]string // those of AnnotationPools4 and AnnotationPools6 that the namespace has
}

// The annotations by which a pod or its namespace chooses pools and addresses; all are Calico's. The values are JSON lists of
// text.
const (
	AnnotationPools4    = "cni.projectcalico.org/ipv4pools"
	AnnotationPools6    = "cni.projectcalico.org/ipv6pools"
	AnnotationAddresses = "cni.projectcalico.org/ipAddrs"
)

// Pods knows the pods of this node.
type Pods interface {
	// Pod is what is known of a pod, which must have that UID unless it is empty. It is an error where the pod is gone, and where
	// nothing is known of it because the API server does not answer (see UnreachableError).
	Pod(ctx context.Context, namespace, name, uid string) (PodInfo, error)
	// Names are the pods of this node that were heard of, as NAMESPACE/NAME by their UID.
	Names() map[string]string
}

// UnreachableError says that the API server does not answer: the same call may succeed later.
type UnreachableError struct{ Err error }

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the API server does not answer: %v", e.Err)
}
func (e *UnreachableError) Unwrap() error { return e.Err }

// Announcer tells other nodes how to reach this one.
type Announcer interface {
	// Announce says which addresses this node has for others, and which its VXLAN devices have: at most one of each family. It
	// returns once that stands, and nothing is to be done again where the Node was not changed by others.
	Announce(ctx context.Context, addresses, tunnels []netip.Addr) error
}

// The annotations of a Node by which its agent announces itself, as lists of addresses with commas between them.
const (
	AnnotationNetworkAddresses = "sallyport.dev/network-addresses"
	AnnotationTunnelAddresses  = "sallyport.dev/tunnel-addresses"
)
