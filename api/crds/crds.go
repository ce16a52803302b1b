// Package crds holds the CustomResourceDefinitions of every resource that Sallyport reads, as files that
// kubectl can apply and as bytes that the program carries. They are generated from the Go types in api/v3
// and api/v1alpha1 by `go generate`; never edit them by hand.
package crds

import "embed"

// files is never written to.
//
//go:embed *.yaml
var files embed.FS

// Files returns the CustomResourceDefinitions, one a file, named GROUP_PLURAL.yaml.
func Files() embed.FS { return files }
