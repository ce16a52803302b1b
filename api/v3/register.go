package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group and Version are the two halves of the apiVersion of the kinds in this package.
const (
	Group   = "projectcalico.org"
	Version = "v3"
)

// GroupVersion returns the group and version of the kinds in this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme registers the kinds of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &IPPool{}, &IPPoolList{}, &IPReservation{}, &IPReservationList{},
		&BGPPeer{}, &BGPPeerList{}, &BGPConfiguration{}, &BGPConfigurationList{}, &BGPFilter{}, &BGPFilterList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
