package compile

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/internal/model"
)

// BGP is the part of a plan about what the node tells routers of its blocks, and what it believes of them. It has no secrets:
// a password is a reference, which the agent resolves.
type BGP struct {
	// Run says that the node has peers. Without any no server runs, and nothing listens.
	Run bool
	// RouterID is an IPv4 address that no other node has: the node's, else one made of its name.
	RouterID netip.Addr
	ASN      uint32 // of this node
	// Listen are the addresses to accept sessions at, IPv4 first; an unspecified one stands for all of its family.
	Listen     []netip.Addr
	ListenPort uint16 // TCP

	Announcements []Announcement // sorted by Prefix
	Withheld      []Withheld     // sorted by Prefix
	Peers         []BGPPeer      // sorted by Address: no two have the same one

	// Own are this node's addresses and blocks, sorted: no learned route may lie in one of them. A wider route may contain them.
	Own []netip.Prefix
	// Reflected are the ranges that a learned route must lie in to be told to peers with Reflect, sorted; none overlaps another.
	Reflected []netip.Prefix

	// Asked are the BGPPeers that ask this node for sessions, sorted by Resource.
	Asked []BGPAsked
	// Problems are what keeps the node from speaking BGP as it is asked to, each with its object, field and remedy.
	Problems []string
	// Ignored are the fields of objects that decide about this node on which Sallyport does not act, each with its object.
	Ignored []string
}

// Announcement is a route that the node tells its peers of, with itself as the next hop.
type Announcement struct {
	Prefix netip.Prefix
	// Communities are sorted, each once.
	Communities []model.Community
	Pool        string // of the block
	Why         string // in words
}

// Withheld is a block of this node of which no peer is told.
type Withheld struct {
	Prefix netip.Prefix
	Pool   string
	Why    string // in words, with the remedy
}

// BGPAsked is a BGPPeer that asks a node for sessions, of which it may need none: it may be the only one that is selected.
type BGPAsked struct {
	Resource   string
	Generation int64
	Why        string // it has a session less than it asks for; empty: it has all
}

// BGPPeer is one session.
type BGPPeer struct {
	// Resource is the name of the BGPPeer that asks for the session; empty: the mesh between nodes does.
	Resource string
	// Node is the node at the other end; empty: a router.
	Node string

	// Address is that of the other end, with a zone where it is link-local: the name of the interface.
	Address netip.Addr
	Port    uint16 // TCP
	ASN     uint32 // of the other end
	// LocalASN is this node's in the session: that of BGP.ASN, unless the BGPPeer says another.
	LocalASN uint32
	// V4 and V6 are the families of the routes in the session: that of Address, and both where it is link-local (RFC 8950).
	V4, V6 bool
	// Source is the address to speak from; invalid: the kernel chooses.
	Source netip.Addr

	// Password is a key of a Secret in the agent's namespace, or, without Kubernetes, the file of that name (TCP MD5, RFC 2385).
	Password model.BGPPassword

	Keepalive, Hold time.Duration
	Restart         time.Duration // of graceful restart (RFC 4724), as announced
	// TTLSecurity is how many hops the other end may be away: what comes with a TTL below 256 less that is dropped (RFC 5082).
	// 0: any TTL will do.
	TTLSecurity uint8
	// Multihop says that the other end may be off the link: an external peer without TTLSecurity. The driver knows whether it is.
	Multihop bool
	// BFD is that of a peer on the link; its zero value is none. A peer off the link gets none.
	BFD model.BFD

	// AllowedLocalASNs is how often LocalASN may occur in the AS path of a learned route.
	AllowedLocalASNs uint8
	// MaxPrefixes is how many routes of a family the peer may tell of before the session is closed.
	MaxPrefixes uint32

	// Reflect says that this node is a route reflector and the peer is a client of it (RFC 4456): the peer is told of learned routes
	// inside Reflected too. All others are told of Announcements alone.
	Reflect   bool
	ClusterID netip.Addr // an IPv4 address; invalid without Reflect
	// NextHopSelf says that reflected routes get this node as their next hop; else they keep theirs. Announcements have this node as
	// theirs always.
	NextHopSelf bool

	// Import and Export are what the BGPFilters of the BGPPeer come to. The first rule that matches a route decides: BGP.Imports and
	// BGP.Exports have what stands before and after them.
	Import, Export []BGPRule
}

// BGPRule is one rule of a BGPFilter. It matches routes of the family of Prefix alone.
type BGPRule struct {
	// Prefix is what the route lies in, and Min and Max are the least and the greatest length that it has. Min is not less than the
	// length of Prefix. A rule without a cidr has the prefix of length 0 and all lengths.
	Prefix   netip.Prefix
	Min, Max uint8
	Not      bool // it matches the routes of the family that do not fit
	Learned  bool // of export: it matches learned routes alone (source: RemotePeers)
	Accept   bool // else it rejects

	Filter string // the name of the BGPFilter
	Field  string // the rule in it, such as importV4[2]
}
