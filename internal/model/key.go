package model

import (
	"fmt"
	"strings"
)

// The kinds of resources that a snapshot is made of.
const (
	KindIPPool           = "IPPool"
	KindNATConfiguration = "NATConfiguration"
	KindNode             = "Node"

	KindIPReservation            = "IPReservation"
	KindNodeNetworkConfiguration = "NodeNetworkConfiguration"
	KindIPBlock                  = "IPBlock"

	KindBGPPeer          = "BGPPeer"
	KindBGPConfiguration = "BGPConfiguration"
	KindBGPFilter        = "BGPFilter"
)

// Resource is a kind of objects, and under which apiVersions one may be declared: it is kept under the first.
type Resource struct {
	Kind        string
	APIVersions []string
	// Claimed says that agents alone make such objects, in the API of a cluster: no manifest declares one.
	Claimed bool
}

// Resources are all kinds that a snapshot is made of.
func Resources() []Resource {
	return []Resource{
		{Kind: KindIPPool, APIVersions: []string{"projectcalico.org/v3", "crd.projectcalico.org/v1"}}, // the second is Calico's own store
		{Kind: KindNATConfiguration, APIVersions: []string{"sallyport.dev/v1alpha1"}},
		{Kind: KindNode, APIVersions: []string{"v1"}},
		{Kind: KindIPReservation, APIVersions: []string{"projectcalico.org/v3"}},
		{Kind: KindNodeNetworkConfiguration, APIVersions: []string{"sallyport.dev/v1alpha1"}},
		{Kind: KindIPBlock, APIVersions: []string{"sallyport.dev/v1alpha1"}, Claimed: true},
		{Kind: KindBGPPeer, APIVersions: []string{"projectcalico.org/v3"}},
		{Kind: KindBGPConfiguration, APIVersions: []string{"projectcalico.org/v3"}},
		{Kind: KindBGPFilter, APIVersions: []string{"projectcalico.org/v3"}},
	}
}

// Key names an object. Kinds are cluster-wide, so that a name is enough.
type Key struct{ Kind, Name string }

func (k Key) String() string { return fmt.Sprintf("%s %q", k.Kind, k.Name) }

// Compare orders keys by kind and name.
func (k Key) Compare(o Key) int {
	if c := strings.Compare(k.Kind, o.Kind); c != 0 {
		return c
	}
	return strings.Compare(k.Name, o.Name)
}
