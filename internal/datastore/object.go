package datastore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	kjson "sigs.k8s.io/json"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// The kinds that a store may hold.
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

// Object is one object as it is declared. It is never changed once made.
type Object struct {
	Key
	File string // path of the file that holds it; "-" for standard input; empty for one of an API server
	Line int    // where its document begins, from 1
	JSON []byte // the whole object, keys sorted
}

// Digest is the SHA-256 of the object's JSON, in hexadecimal. Two manifests that say the same have the same.
func (o *Object) Digest() string {
	sum := sha256.Sum256(o.JSON)
	return hex.EncodeToString(sum[:])
}

// Map is the object as maps and slices of its own.
func (o *Object) Map() (map[string]any, error) {
	var m map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(o.JSON, &m); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", o.Key, err)
	}
	return m, nil
}

// Loaded is what a store declares at one moment, read without an agent.
type Loaded struct {
	Objects []Object // sorted by kind and name; those with faults are left out
	Faults  []model.Fault
	// Snapshot is made of Objects.
	Snapshot   *model.Snapshot
	Conditions map[string]compile.Condition // of the pools, by name
	// Programmed is why the controller says that nodes hold a pool as it is now, or do not, by the pool's name; nil: nobody
	// says so, and pools have no status of their own.
	Programmed map[string]string
}
