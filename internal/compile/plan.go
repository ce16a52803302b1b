package compile

import (
	"net/netip"
	"strconv"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

// Plan is what the kernel of one node should hold, and all that is needed to say why. It is never
// changed once made.
type Plan struct {
	NAT NAT
	// Workloads and Routes are for the pod network alone.
	Workloads Workloads
	Routes    Routes
	Network   Network
	// BGP is that of the pod network.
	BGP BGP
	// Settings say for each field of a NATConfiguration what is in force, and which configuration decided that, in the
	// order of the fields.
	Settings []Setting

	from  *model.Snapshot
	local model.Local
	own   map[netip.Addr]struct{} // the node's addresses, of which there may be thousands
	pools []*model.Pool           // every pool of the snapshot
	hosts hostAddresses

	between *between // nil where the agent is not the pod network

	keepLinkLocal bool // destinations in 169.254.0.0/16 are exempt
}

// NAT is the part of a plan that translates connections.
type NAT struct {
	// Sources are the addresses whose connections are translated: disjoint and sorted (IPv4 first).
	// Two neighbours may belong to one pool.
	Sources []Source
	// Exempt are the destinations that are never translated: disjoint, not adjacent, sorted (IPv4 first).
	Exempt []netipx.IPRange
	// OutInterfaces restricts translation to what leaves by these, sorted; a trailing "*" matches any rest.
	// Empty means every interface.
	OutInterfaces []string
	// To4 and To6 are the addresses to translate to; the zero Addr means that of the outgoing interface.
	To4, To6 netip.Addr
	// Ports is the range of source ports for TCP and SCTP, UDPPorts that for UDP; zero where the kernel
	// may choose freely.
	Ports, UDPPorts model.PortRange
	// Allocation says how a port is picked.
	Allocation model.PortAllocation
	// LeakGuard says that what should have been translated and was not is dropped.
	LeakGuard bool
	// ExistingFlows says what becomes of open connections about which a change decides otherwise.
	ExistingFlows model.ExistingFlows
}

// Source is a range of addresses with the one pool that decides that they are translated.
type Source struct {
	Range netipx.IPRange
	Pool  string
}

// Flow is the first packet of a connection, as the postrouting hook sees it: after any service
// translation.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            Protocol
	DestinationPort     uint16 // 0 where the protocol has none; it tells VXLAN, and decides nothing else
	OutInterface        string // empty: an interface that is covered
}

// Protocol is an IP protocol number (IANA).
type Protocol uint8

// The protocols that are told apart. Every other one is translated without regard to ports.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// String is the protocol's name, or its number where it is none of the above.
func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "icmpv6"
	case SCTP:
		return "sctp"
	default:
		return strconv.Itoa(int(p))
	}
}

// Action is what happens to the source address of a connection.
type Action string

// The actions.
const (
	Translate Action = "translate"
	Keep      Action = "keep"
)

// Verdict is a decision with its reason. Its JSON form is what `sallyport explain -o json` prints.
type Verdict struct {
	Action      Action   `json:"action"`
	Source      Endpoint `json:"source"`
	Destination Endpoint `json:"destination"`
	To          *Target  `json:"to,omitempty"` // nil for Keep
	Reason      string   `json:"reason"`
	// Decider is the pool that decides: for Translate the one whose natOutgoing does it, for Keep the
	// one that exempts the destination, or empty.
	Decider string `json:"-"`
}

// Endpoint is an address with the most specific pool that holds it, or "".
type Endpoint struct {
	Address netip.Addr `json:"address"`
	Pool    string     `json:"pool"`
}

// Target is what a source is translated to.
type Target struct {
	Address string `json:"address"` // "node", or the configured address
	Ports   string `json:"ports"`   // "", or a range such as "32768-65535"
}
