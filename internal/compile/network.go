package compile

import "net/netip"

// Network is the part of a plan about the node's place among the others.
type Network struct {
	// WantsTunnel4 and WantsTunnel6 say that the node needs an address for its VXLAN device of the family.
	WantsTunnel4, WantsTunnel6 bool
	// Settings say for each field of a NodeNetworkConfiguration what is in force, and which configuration decided that, in the
	// order of the fields.
	Settings []NetworkSetting
	// Problems are what keeps blocks from being reached, each with its remedy: at most one of each sort.
	Problems []string
}

// Workloads is the part of a plan about the links of workloads.
type Workloads struct {
	// MTU is that of a workload's interface, in bytes; 0: the kernel's default. A workload talks to those of all pools by one
	// interface, so it is the smallest that any pool needs: where some pool has VXLAN, that of the node's uplink less 50 bytes over IPv4
	// and 70 over IPv6 (RFC 7348: the outer IP and UDP headers, VXLAN's, and the inner Ethernet header).
	MTU int
	// Node4 and Node6 are the node's own addresses, by which other nodes reach it, and which packets from the node to its workloads have
	// as their source; invalid where it has none.
	Node4, Node6 netip.Addr
	// Nodes are the addresses of all nodes, to which no workload may send packets of the overlay. Sorted.
	Nodes []netip.Addr
	// VXLANPort is the UDP port of the overlay, to which no workload may send where a node is; 0: none.
	VXLANPort uint16
	// VXLAN says that this node has devices of the overlay: to that port it accepts packets from Nodes alone.
	VXLAN bool
}

// Routes is the part of a plan about the routes between nodes.
type Routes struct {
	Devices []VXLAN  // at most one of each family, IPv4 first
	Routes  []*Route // sorted by CIDR, none twice; one that has not changed is mostly the same in the next plan (see Plan.Next)
}

// The names of the VXLAN devices.
const (
	Device4 = "sallyport.v4"
	Device6 = "sallyport.v6"
)

// VXLAN is a VXLAN device.
type VXLAN struct {
	Name    string     // Device4 or Device6
	V6      bool       // the family of the packets that it carries, and of those that carry them
	VNI     uint32     // VXLAN network identifier, 1 to 2^24-1
	Port    uint16     // UDP
	Local   netip.Addr // the node's address, from which packets of the overlay are sent
	Address netip.Addr // the device's own, which packets from the node to workloads of other nodes have as their source
	MTU     int        // in bytes; 0: the kernel's default
	MAC     [6]byte
	Peers   []Peer // sorted by Node
}

// Peer is another node in the overlay.
type Peer struct {
	Node   netip.Addr // where it receives packets of the overlay
	Tunnel netip.Addr // the address of its device
	MAC    [6]byte    // of its device
}

// Route says where the addresses of a block are.
type Route struct {
	CIDR netip.Prefix
	// Via is the next hop: another node's address, or its tunnel's where Device is set. It is invalid for what is unreachable: what
	// is free in this node's blocks, and blocks of nodes to which no way is known.
	Via    netip.Addr
	Device string     // the name of a VXLAN device; empty: the interface of the subnet that Via is in
	Source netip.Addr // of packets from this node itself; invalid: the kernel chooses

	Node, Pool string // of the block
	Way        Way    // and why
}

// Way is how the addresses of a block are reached, or why they are not.
type Way uint8

// The ways. From NoNode on, the block is unreachable.
const (
	Here          Way = iota // on this node; what is free in the block is unreachable
	Direct                   // the block's node is in a subnet of this node
	Overlay                  // by VXLAN
	Elsewhere                // the network between the nodes knows the way: no route is ours
	NoNode                   // the block's node does not exist, or runs no pod network of ours
	NoAddress                // it announces no address of the family
	OurAddress               // it announces an address that this node has
	NoTunnel                 // it announces no tunnel address that lies in a block of its own
	NoAddressHere            // this node has no address of the family
	NoTunnelHere             // this node has no tunnel address of the family
	NoIPIP                   // the pool asks for IPIP
	InSubnet                 // this node is in a subnet that has the block: no route is ours

	undecided // of no plan
)

// Reason says why a route goes where it goes.
func (r Route) Reason() string {
	family := familyOf(r.CIDR.Addr()).String()
	switch r.Way {
	case Here:
		return "this node owns the block"
	case Direct:
		return "node " + r.Node + " is in a subnet of this node"
	case Overlay:
		return "pool " + r.Pool + " has node " + r.Node + " reached by VXLAN"
	case Elsewhere:
		return "pool " + r.Pool + " has vxlanMode: Never, and node " + r.Node + " is in no subnet of this node: the network between the nodes has to know the way"
	case NoNode:
		return "node " + r.Node + " does not exist, or its agent has not announced addresses: start the agent there, or release the block"
	case NoAddress:
		return "node " + r.Node + " announces no " + family + " address"
	case OurAddress:
		return "node " + r.Node + " announces an " + family + " address that this node has: give one of them another address"
	case NoTunnel:
		return "node " + r.Node + " announces no " + family + " tunnel address that lies in a block of its own"
	case NoAddressHere:
		return "this node has no " + family + " address by which other nodes reach it"
	case NoTunnelHere:
		return "this node has no " + family + " tunnel address yet"
	case NoIPIP:
		return "pool " + r.Pool + " asks for ipipMode, which Sallyport does not have: set vxlanMode instead"
	case InSubnet:
		return "this node has an interface in a subnet that contains it, and reaches machines there: delete the pods of node " + r.Node + " in it, and give pool " + r.Pool + " another range"
	}
	return "unknown"
}
