// Package v3 holds the resources of group projectcalico.org, version v3, that Sallyport reads. They are
// compatible on the wire with Calico's: a manifest written for one is understood by the other.
//
// The markers in this package are the only source of the rules that an IPPool must obey. The
// CustomResourceDefinition in api/crds is generated from them; an API server runs it in a cluster, and
// package validate runs the same file everywhere else. What the markers cannot say (the syntax of
// selectors) is a function in package validate. An API server needs Kubernetes 1.31 for them (isCIDR).
//
// +kubebuilder:object:generate=true
// +groupName=projectcalico.org
package v3

//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0 object paths=.
//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0 crd:generateEmbeddedObjectMeta=false paths=. output:crd:dir=../crds
