package datastore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// Store reads declared resources, keeps the last good state of them, and watches them.
type Store interface {
	// Run publishes the first State, and from then on one for every change, until the context ends. It calls
	// publish from one goroutine at a time; publish should return at once. It can be called once.
	Run(ctx context.Context, publish func(State)) error
	// Look returns when what had been changed before the call is published, as far as the store can tell. The
	// error is that of the context.
	Look(ctx context.Context) error
	// Contact says how the store stands with what it reads.
	Contact() Contact
	Passwords
	// Close lets go of the state directory. Call it after Run has returned.
	Close() error
}

// State is what a Store holds at one moment. It is never changed once published.
type State struct {
	// Dir is the directory of manifests that was read last; the zero value where there is none.
	Dir manifest.DirIdentity
	// Snapshot is the last good state of all resources; nil while there is none.
	Snapshot *model.Snapshot
	// Version counts the snapshots, from 1: the same version is the same snapshot. It is 0 without one.
	Version uint64
	// Conditions are the Allocatable conditions of the snapshot's pools, by name.
	Conditions map[string]compile.Condition
	// Faults hold everything back: while there is one, the snapshot stays as it is.
	Faults []model.Fault
	// Pending is what has changed and is not in force yet, sorted.
	Pending []string
	// Warnings are what is wrong without holding anything else back: the state cannot be saved, changes are
	// noticed late, or an object of the API cannot be used.
	Warnings []model.Fault
	// Holder says which objects the snapshot has; nil without one.
	Holder Holder
	// Fresh says that all was heard of an API since the store began, so that the snapshot is not just what was saved.
	Fresh bool
	// Followed is how far an API was followed, by kind; nil where there is none.
	Followed map[string]Followed
	// Exceptions are the objects of an API that are not in force as they are, sorted by key.
	Exceptions []Exception
	// Self is the Node object of this node; the zero value where none is known.
	Self Self
}

// Holder knows objects by their content.
type Holder interface {
	// Digest is that of the object with this key, or "" where there is none.
	Digest(Key) string
	// Objects are those of a kind, in the order of names; of the names given, where there are any.
	Objects(kind string, names []string) []Object
}

// Holds says whether the snapshot has the object with this digest (see Object.Digest), or with an empty digest, has
// no such object.
func (s State) Holds(kind, name, digest string) bool {
	return s.Holder != nil && s.Holder.Digest(Key{Kind: kind, Name: name}) == digest
}

// Followed is how far the objects of one kind were followed. Seen and Changed are resourceVersions of objects, which are
// numbers that grow with each change of any object of the kind; 0: there was none.
type Followed struct {
	Seen    uint64 // the highest that an object has
	Changed uint64 // the highest by which more changed than a status, as far as it was watched
	Unclear bool   // an object had one that is no number: how far the API was followed cannot be said

	// Digest is the sum of GenerationDigest of all objects that the API was heard to have, whether they can be used or not.
	Digest uint64
}

// GenerationDigest stands for one generation of one object. Those of several objects add up to what stands for all of them:
// two sums are the same where they are of the same generations of the same objects, and else only by a chance of 1 in 2⁶⁴.
func GenerationDigest(uid string, generation int64) uint64 {
	sum := sha256.Sum256(strconv.AppendInt([]byte(uid+"/"), generation, 10))
	return binary.BigEndian.Uint64(sum[:])
}

// DigestText is a sum of digests as SallyportNodes have it; empty: there was no object.
func DigestText(sum uint64) string {
	if sum == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", sum)
}

// VersionNumber is a resourceVersion as a number. Not every API has them so: of one that is no number it cannot be said
// what came before it.
func VersionNumber(version string) (n uint64, ok bool) {
	n, err := strconv.ParseUint(version, 10, 64)
	return n, err == nil
}

// Exception is an object that is not in force as it is.
type Exception struct {
	Key
	Generation int64
	Reason     string
}

// Self is what a node knows of its own Node object.
type Self struct {
	UID string
	// Gone says that the API has that Node no more: what names the Node as its owner is collected as garbage.
	Gone bool
	// Taints is where the start-up taint stands among the node's taints, the last one first; empty: it does not.
	Taints []int
}

// Contact is how a store stands with what it reads.
type Contact struct {
	// Where is what is read: the path of a directory, or the address of an API server.
	Where string
	// Heard is when an API server was last heard of; zero: never, or there is none to be heard.
	Heard time.Time
	// Lost is since when it does not answer, and Error why; zero and empty: it does.
	Lost  time.Time
	Error string
	// Problems are what it refuses.
	Problems []model.Fault
}
