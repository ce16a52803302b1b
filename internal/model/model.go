// Package model holds what a node must know to decide about outgoing connections, as plain values.
//
// It promises that every address is unmapped, every prefix masked and every default filled in, so that
// no later step has to ask again. It does no I/O, knows no wire format and imports no other package of
// Sallyport.
package model

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// VXLANPort is the UDP port on which nodes receive VXLAN (RFC 7348, section 5; Calico's default too).
const VXLANPort = 4789

// Mode says when traffic between nodes is encapsulated.
type Mode string

// The modes, as in the fields vxlanMode and ipipMode of an IPPool.
const (
	ModeNever       Mode = "Never"
	ModeAlways      Mode = "Always"
	ModeCrossSubnet Mode = "CrossSubnet"
)

// Uses is the set of things that a pool's addresses may be given to.
type Uses uint8

// The uses, as in the field allowedUses of an IPPool.
const (
	UseWorkload Uses = 1 << iota
	UseTunnel
	UseLoadBalancer
)

// Pool is one IPPool with its defaults filled in.
type Pool struct {
	Name string
	CIDR netip.Prefix // masked

	NATOutgoing       bool
	Disabled          bool // gives out no new address; changes nothing else
	DisableBGPExport  bool
	VXLANMode         Mode
	IPIPMode          Mode
	AllowedUses       Uses
	ManualAssignment  bool   // assignmentMode: Manual
	BlockSize         int    // prefix length of a block, in bits
	NodeSelector      string // Calico's selector language; "all()" by default
	NamespaceSelector string

	// Rank orders pools by age: lower is older. Pools of equal rank are ordered by name.
	Rank uint64
	// WasAllocatable is the Allocatable condition as it last stood; a pool that has it keeps it against
	// an overlapping newcomer.
	WasAllocatable bool
	Terminating    bool // it is being deleted, which changes nothing about translation
}

// LoadBalancerOnly says whether the pool's addresses are for services alone. Such a pool holds no pod
// and exempts nothing from translation.
func (p *Pool) LoadBalancerOnly() bool { return p.AllowedUses == UseLoadBalancer }

// Older says whether p comes before q where their order matters: lower rank first, then lower name.
func (p *Pool) Older(q *Pool) bool {
	if p.Rank != q.Rank {
		return p.Rank < q.Rank
	}
	return p.Name < q.Name
}

// Exclusions says which destinations, beside the pools themselves, are not translated.
type Exclusions string

// The exclusions, as in the field of that name of a NATConfiguration.
const (
	ExcludeIPPoolsOnly       Exclusions = "IPPoolsOnly"
	ExcludeIPPoolsAndHostIPs Exclusions = "IPPoolsAndHostIPs"
)

// PortAllocation says how the kernel picks the source port of a translated connection.
type PortAllocation string

// The ways to pick a port, as in the field portAllocation of a NATConfiguration.
const (
	PortsFullyRandom PortAllocation = "FullyRandom"
	PortsRandom      PortAllocation = "Random"
	PortsPreserve    PortAllocation = "Preserve"
)

// ExistingFlows says what becomes of open connections about which a change decides otherwise.
type ExistingFlows string

// What becomes of them, as in the field existingFlows of a NATConfiguration.
const (
	// FlowsMove lets TCP and SCTP finish under the old decision, and takes all others to the new one.
	FlowsMove ExistingFlows = "Move"
	// FlowsKeep lets all of them finish under the old decision.
	FlowsKeep ExistingFlows = "Keep"
	// FlowsReset ends all of them.
	FlowsReset ExistingFlows = "Reset"
)

// LinkLocal says what happens to connections to IPv4 link-local addresses outside the node.
type LinkLocal string

// What happens to them, as in the field linkLocal of a NATConfiguration.
const (
	LinkLocalTranslate LinkLocal = "Translate"
	LinkLocalKeep      LinkLocal = "Keep"
)

// LeakGuard says what happens to a packet that should have been translated and was not.
type LeakGuard string

// The guards, as in the field leakGuard of a NATConfiguration.
const (
	LeakGuardEnabled  LeakGuard = "Enabled"
	LeakGuardDisabled LeakGuard = "Disabled"
)

// PortRange is an inclusive range of ports. The zero value means that none is set.
type PortRange struct {
	First, Last uint16
}

// IsZero says whether no range is set.
func (r PortRange) IsZero() bool { return r == PortRange{} }

// String renders the range as "32768-65535", and the zero value as "".
func (r PortRange) String() string {
	if r.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// NATConfiguration is one object of that kind. A nil pointer or slice is a field that is not set; an
// empty, non-nil slice is one that is set to nothing.
type NATConfiguration struct {
	Name         string
	NodeSelector string // "all()" by default
	Priority     int32  // the highest wins, then the lower name

	Exclusions     *Exclusions
	Addresses      []netip.Addr // at most one per family
	PortRange      *PortRange   // the zero range: the kernel chooses
	PortAllocation *PortAllocation
	ExistingFlows  *ExistingFlows
	LinkLocal      *LinkLocal
	LeakGuard      *LeakGuard
	OutInterfaces  []string // interface names; a trailing "*" matches any rest
}

// Node is what is declared about one node.
type Node struct {
	Name      string
	Labels    map[string]string
	Addresses []netip.Addr // those of type InternalIP first, in the Node's order
	// NetworkAddresses and Tunnels are what the node's agent says of itself, where it is the pod network: the addresses by which
	// other nodes reach it, and those of its VXLAN devices. At most one of each family, sorted.
	NetworkAddresses []netip.Addr
	Tunnels          []netip.Addr
	// ASN is the AS number that the Node is annotated with; 0: none. ClusterID is that of its route reflector (RFC 4456), an IPv4
	// address; invalid where the node is none.
	ASN       uint32
	ClusterID netip.Addr
}

// Local is what the node on which a plan is to stand knows of itself.
type Local struct {
	Name string
	// Network says that the agent is the pod network.
	Network bool
	// Interfaces are the addresses on the node's interfaces with their subnets, unmasked and sorted.
	Interfaces []netip.Prefix
	// Links are the interfaces that have these addresses, sorted by name. They are known only where the agent is the pod network.
	Links []Link
	// Tunnels are the addresses that were assigned to the VXLAN devices of this node: at most one of each family, sorted.
	Tunnels []netip.Addr
	// Blocks are those of this node where no datastore keeps blocks, sorted by CIDR: they count as a snapshot's do.
	Blocks []Block
}

// Link is a network interface of the node.
type Link struct {
	Name      string
	MTU       int            // in bytes
	Addresses []netip.Prefix // with their subnets, unmasked and sorted
	// Default4 and Default6 say that it has a default route of that family.
	Default4, Default6 bool
}

// Same says whether two slices of snapshots are one, so that they need not be compared: snapshots are never changed.
func Same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Snapshot is every declared resource at one moment. It is never changed once made.
type Snapshot struct {
	Pools             []*Pool            // sorted by name; one that has not changed is the same in the next Snapshot
	NATConfigurations []NATConfiguration // sorted by name
	Nodes             []Node             // sorted by name

	// What follows is for the pod network alone.
	Blocks                    []*Block                   // sorted by CIDR; one that has not changed is the same in the next Snapshot
	Reservations              []Reservation              // sorted by name
	NodeNetworkConfigurations []NodeNetworkConfiguration // sorted by name
	BGPPeers                  []BGPPeer                  // sorted by name
	BGPConfigurations         []BGPConfiguration         // sorted by name
	BGPFilters                []BGPFilter                // sorted by name
}

// Fault is something wrong with one declared object or with the file that holds it.
type Fault struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // from 1; 0 where it is not known
	Kind    string `json:"kind"`           // empty for a document that cannot be read
	Name    string `json:"name"`
	Field   string `json:"field"`   // a path such as spec.cidr; empty for the whole object
	Message string `json:"message"` // what is wrong and what would be right
}

// String renders a fault on one line: where, what object, which field, what is wrong.
func (f Fault) String() string {
	s := ""
	if f.File != "" {
		s = f.File
		if f.Line > 0 {
			s += ":" + strconv.Itoa(f.Line)
		}
		s += ": "
	}
	if f.Kind != "" {
		s += f.Kind
		if f.Name != "" {
			s += " " + `"` + f.Name + `"`
		}
		s += ": "
	}
	if f.Field != "" {
		s += f.Field + ": "
	}
	return strings.ReplaceAll(s+f.Message, "\n", `\n`)
}

// Error makes a Fault an error.
func (f Fault) Error() string { return f.String() }
