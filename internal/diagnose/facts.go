package diagnose

import (
	"net/netip"
	"slices"
	"time"
)

// Facts are what was read of a node at one moment. What is nil was not read; Unread says why.
type Facts struct {
	Node      *Node
	Conntrack *Conntrack
	// Earlier is what Conntrack was Window ago; nil where nothing is known from then.
	Earlier *Conntrack
	Window  time.Duration
	// Rules are those of others that translate.
	Rules *Ruleset
	// Ports are those that translated connections use.
	Ports *Ports
	// Unread are the things that could not be read.
	Unread []Unread
}

// Unread is something that could not be read.
type Unread struct {
	What string // such as "the node's interfaces"
	Why  error
}

// Node is what the node's interfaces, routes and settings are.
type Node struct {
	Interfaces []Interface
	// Local says of some addresses whether packets to them are delivered on this node, whether by an
	// interface's address or by a local route.
	Local map[netip.Addr]bool
	// ForwardIPv4 and ForwardIPv6 are the sysctls net.ipv4.ip_forward and net.ipv6.conf.all.forwarding. A
	// kernel without IPv6 has nothing to forward: NoIPv6.
	ForwardIPv4, ForwardIPv6, NoIPv6 bool
}

// Interface is a network interface that is up.
type Interface struct {
	Name     string
	Loopback bool
	// Physical says that no kernel driver of virtual links made it: it is no bridge, veth, tunnel and so on.
	Physical bool
	// Addresses are its addresses with the lengths of their subnets, without link-local ones.
	Addresses []netip.Prefix
	// Routes are the destinations that the main routing table sends out by it, 0.0.0.0/0 and ::/0 among
	// them. The reader bounds their number.
	Routes []netip.Prefix
	// OnLink are those of Routes that are reached without another machine.
	OnLink []netip.Prefix
	// ForwardIPv4 is the sysctl net.ipv4.conf.NAME.forwarding: packets that come in by it are forwarded.
	// ForwardIPv6 is net.ipv6.conf.NAME.force_forwarding, from Linux 6.17 on: they are even where
	// Node.ForwardIPv6 is off.
	ForwardIPv4, ForwardIPv6 bool
}

// uplink says whether a default route leaves by the interface.
func (i *Interface) uplink() bool { return i.uplinkOf(0) || i.uplinkOf(1) }

// uplinkOf says so for one family.
func (i *Interface) uplinkOf(f int) bool {
	return slices.ContainsFunc(i.Routes, func(r netip.Prefix) bool { return r.Bits() == 0 && family(r.Addr()) == f })
}

// Conntrack is what the connection tracking of the network namespace says of itself.
type Conntrack struct {
	Entries uint64
	Limit   uint64 // 0: there is none
	// InsertFailed counts the connections whose first packet was dropped since no entry could be made for
	// it, above all for want of a free port; since the namespace was made, on all CPUs.
	InsertFailed uint64
	// Dropped counts the packets that were dropped, for that reason or since the table was full.
	Dropped uint64
}
