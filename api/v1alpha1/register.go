package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group and Version are the two halves of the apiVersion of the kinds in this package.
const (
	Group   = "sallyport.dev"
	Version = "v1alpha1"
)

// GroupVersion returns the group and version of the kinds in this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme registers the kinds of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &NATConfiguration{}, &NATConfigurationList{}, &SallyportNode{}, &SallyportNodeList{},
		&NodeNetworkConfiguration{}, &NodeNetworkConfigurationList{}, &IPBlock{}, &IPBlockList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
