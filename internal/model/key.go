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
)

// Resource is a kind of objects, and under which apiVersions one may be declared: it is kept under the first.
type Resource struct {
	Kind        string
	APIVersions []string
}

// Resources are all kinds that a snapshot is made of.
func Resources() []Resource {
	return []Resource{
		{KindIPPool, []string{"projectcalico.org/v3", "crd.projectcalico.org/v1"}}, // the second is Calico's own store
		{KindNATConfiguration, []string{"sallyport.dev/v1alpha1"}},
		{KindNode, []string{"v1"}},
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
