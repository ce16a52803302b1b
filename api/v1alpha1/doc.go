// Package v1alpha1 holds Sallyport's own resources: group sallyport.dev, version v1alpha1.
//
// The markers in this package are the only source of the rules that an object must obey. The
// CustomResourceDefinitions in api/crds are generated from them; an API server runs them in a cluster,
// and package validate runs the same files everywhere else. What the markers cannot say (the syntax of
// selectors) is a function in package validate.
//
// +kubebuilder:object:generate=true
// +groupName=sallyport.dev
package v1alpha1

//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0 object paths=.
//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0 crd:generateEmbeddedObjectMeta=false paths=. output:crd:dir=../crds
