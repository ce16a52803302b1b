package compile

import "net/netip"

// Workloads is the part of a plan about the links of workloads.
type Workloads struct {
	// MTU is that of a workload's interface, in bytes; 0: the kernel's default.
	MTU int
	// Node4 and Node6 are the node's own addresses, which packets from the node to its workloads have as their source; invalid
	// where it has none.
	Node4, Node6 netip.Addr
	// Nodes are the addresses of all nodes, to which no workload may send packets of the overlay. Sorted.
	Nodes []netip.Addr
	// VXLANPort is the UDP port of the overlay.
	VXLANPort uint16
}

// Routes is the part of a plan about the routes between nodes.
type Routes struct {
	Devices []VXLAN // at most one of each family, IPv4 first
	Routes  []Route // sorted by CIDR
}

// VXLAN is a VXLAN device.
type VXLAN struct {
	Name    string
	V6      bool       // the family of the packets that it carries
	VNI     uint32     // VXLAN network identifier, 1 to 2^24-1
	Port    uint16     // UDP
	Local   netip.Addr // the node's address, from which packets of the overlay are sent
	Address netip.Addr // the device's own, which packets from the node to workloads of other nodes have as their source
	MTU     int        // in bytes
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
}
