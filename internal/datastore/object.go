package datastore

import (
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// The kinds that a store may hold.
const (
	KindIPPool           = model.KindIPPool
	KindNATConfiguration = model.KindNATConfiguration
	KindNode             = model.KindNode

	KindIPReservation            = model.KindIPReservation
	KindNodeNetworkConfiguration = model.KindNodeNetworkConfiguration
	KindIPBlock                  = model.KindIPBlock

	KindBGPPeer          = model.KindBGPPeer
	KindBGPConfiguration = model.KindBGPConfiguration
	KindBGPFilter        = model.KindBGPFilter
)

// What the layers below have, by the names that every store uses.
type (
	// Key names an object.
	Key = model.Key
	// Object is one object as it is declared.
	Object = manifest.Object
)

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
