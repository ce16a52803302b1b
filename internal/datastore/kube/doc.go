// Package kube is the datastore of a node in a cluster: the Kubernetes API, watched.
//
// It promises that what is in force never becomes worse than the last good view: while the API cannot be reached, or
// a resource is not served any more, everything stays; an object that cannot be used affects itself alone, and what
// it said before stays; objects that went away with their CustomResourceDefinition are not taken for deleted. The
// last good view survives a restart in the state directory, so that a node which boots while the API is away has it.
//
// It reads IPPools from one place: projectcalico.org/v3 where a CustomResourceDefinition serves it, else
// crd.projectcalico.org/v1, and never from an aggregated server. It asks for nothing that it does not watch but
// these definitions, and for no secret.
//
// A watched resource (watch.go) notes what the API has, a view (view.go) decides what of it is in force, and the
// Store (store.go) makes States of the views. What a node says of itself in the API is in report.go.
package kube
