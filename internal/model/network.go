package model

import (
	"net/netip"
	"time"
)

// Block is one IPBlock: a piece of a pool that one node owns.
type Block struct {
	CIDR netip.Prefix // masked
	Pool string       // the name of the pool from which it was claimed
	Node string       // that gives out its addresses
	// Terminating says that it is being given back: its node gives out no more of its addresses.
	Terminating bool
}

// Reservation is one IPReservation: addresses that no pool gives out.
type Reservation struct {
	Name  string
	CIDRs []netip.Prefix // masked
}

// NodeNetworkConfiguration is one object of that kind. A nil pointer or slice is a field that is not set.
type NodeNetworkConfiguration struct {
	Name         string
	NodeSelector string // "all()" by default
	Priority     int32  // the highest wins, then the lower name

	// Interface and CIDRs say which of the node's addresses is the one by which others reach it: one on an interface of this
	// name, a trailing "*" matching any rest; one inside these ranges. Where neither is set, it is an address that the Node has.
	Interface *string
	CIDRs     []netip.Prefix
	// MTU is that of the network between the nodes, in bytes. Nil: that of the interface that has the node's address.
	MTU *int
	// VXLANPort and VXLANVNI are the same on all nodes: only an object that selects all nodes can set them.
	VXLANPort *uint16
	VXLANVNI  *uint32
	// Hold is how long a BGP session lives without a sign of life, in whole seconds, and MaxPrefixes how many routes of a family a peer
	// may tell of.
	Hold        *time.Duration
	MaxPrefixes *uint32
	// BFD is that of routers; its zero value is none.
	BFD *BFD
}

// BFD says how failures of a BGP peer are detected (RFC 5880).
type BFD struct {
	Interval   time.Duration // between packets, both ways; 0: no BFD
	Multiplier uint8         // how many of them must be missing
}

// DefaultVXLANVNI is the VNI where no NodeNetworkConfiguration sets one: another one than Calico's 4096 and flannel's 1, so that
// their devices and ours can stand side by side. The default port is VXLANPort.
const DefaultVXLANVNI = 4097
