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
