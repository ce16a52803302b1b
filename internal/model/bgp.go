package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The annotations of a Node about BGP; both are Calico's.
const (
	AnnotationASNumber  = "projectcalico.org/ASNumber"
	AnnotationClusterID = "projectcalico.org/RouteReflectorClusterID"
)

// The defaults of BGP: Calico's where it has them.
const (
	DefaultASN           = 64512
	DefaultBGPPort       = 179 // TCP (RFC 4271, section 8)
	DefaultBGPHold       = 90 * time.Second
	DefaultBGPRestart    = 120 * time.Second
	DefaultMaxPrefixes   = 10_000
	DefaultBFDMultiplier = 3
)

// BGPPeer is one object of that kind.
type BGPPeer struct {
	Name       string
	Generation int64 // of its spec; 0 without Kubernetes
	// Node and NodeSelector say which nodes have the peer: the one of that name, or else those that are selected.
	Node         string
	NodeSelector string // "all()" by default

	// Address is that of a router, with the interface as its zone where it is link-local; invalid where PeerSelector says which nodes are
	// the peers.
	Address      netip.Addr
	Port         uint16 // 0: that of the node that has Address, else DefaultBGPPort
	ASN          uint32 // of the router
	PeerSelector string // empty: there is none
	// Manual says that the nodes of PeerSelector get the other end of the sessions by another BGPPeer.
	Manual bool

	LocalASN         uint32 // 0: the node's
	Password         BGPPassword
	AnySource        bool // the kernel chooses the address to speak from
	NextHopSelf      bool // of reflected routes
	Keepalive        time.Duration
	Restart          time.Duration // DefaultBGPRestart by default
	TTLSecurity      uint8         // in hops; 0: none
	AllowedLocalASNs uint8
	Filters          []string // the names of BGPFilters, in their order

	// Ignored are the fields that are set and that Sallyport does not act on, such as spec.reachableBy.
	Ignored []string
}

// BGPPassword says where a password is: the name of a Secret, and of the key in it. The zero value: there is none.
type BGPPassword struct {
	Name, Key string
	Optional  bool // without that Secret or key, there is none
}

// BGPConfiguration is one object of that kind.
type BGPConfiguration struct {
	Name string

	// Of the one for all nodes.
	ASN          uint32 // 0: it sets none
	NoMesh       bool   // nodeToNodeMeshEnabled: false
	MeshPassword BGPPassword
	MeshRestart  time.Duration // DefaultBGPRestart by default

	Port           uint16 // 0: it sets none
	NodeIP         *bool  // bindMode: NodeIP; nil: it sets none
	Advertisements []PrefixAdvertisement

	// Ignored are the fields that are set and that Sallyport does not act on.
	Ignored []string
}

// PrefixAdvertisement says with which communities blocks in a range are announced.
type PrefixAdvertisement struct {
	CIDR        netip.Prefix // masked
	Communities []Community
}

// Community is a standard community (RFC 1997), of which the first two numbers have 16 bits, or a large one (RFC 8092).
type Community struct {
	Large    bool
	Admin    uint32 // an AS number
	One, Two uint32 // Two is 0 in a standard one
}

// ParseCommunity reads aa:nn with two numbers of 16 bits, or aa:nn:mm with three of 32.
func ParseCommunity(text string) (c Community, ok bool) {
	parts := strings.Split(text, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	if bits == 0 {
		return c, false
	}
	var numbers [3]uint32
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, bits)
		if err != nil {
			return c, false
		}
		numbers[i] = uint32(n)
	}
	return Community{Large: len(parts) == 3, Admin: numbers[0], One: numbers[1], Two: numbers[2]}, true
}

// String is what ParseCommunity reads.
func (c Community) String() string {
	if c.Large {
		return fmt.Sprintf("%d:%d:%d", c.Admin, c.One, c.Two)
	}
	return fmt.Sprintf("%d:%d", c.Admin, c.One)
}

// Compare orders communities: standard ones first, then by their numbers.
func (c Community) Compare(o Community) int {
	if c.Large != o.Large {
		if o.Large {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(c.Admin, o.Admin), cmp.Compare(c.One, o.One), cmp.Compare(c.Two, o.Two))
}

// ParseASN reads an AS number that is not 0: a number, or two of 16 bits with a dot between them (RFC 5396).
func ParseASN(text string) (asn uint32, ok bool) {
	high, low, dotted := strings.Cut(text, ".")
	if !dotted {
		n, err := strconv.ParseUint(text, 10, 32)
		return uint32(n), err == nil && n > 0
	}
	h, err := strconv.ParseUint(high, 10, 16)
	l, err2 := strconv.ParseUint(low, 10, 16)
	n := h<<16 | l
	return uint32(n), err == nil && err2 == nil && n > 0
}

// ParseClusterID reads the cluster ID of a route reflector, which has the form of an IPv4 address.
func ParseClusterID(text string) (id netip.Addr, ok bool) {
	a, err := netip.ParseAddr(text)
	return a, err == nil && a.Is4() && !a.IsUnspecified()
}

// BGPFilter is one object of that kind. Of the rules about one family and direction, the first that matches a route decides.
type BGPFilter struct {
	Name                               string
	Import4, Import6, Export4, Export6 []BGPFilterRule
}

// BGPFilterRule is one rule of a filter.
type BGPFilterRule struct {
	CIDR     netip.Prefix // masked; invalid: any route matches
	Operator MatchOperator
	// Min and Max bound the length of the route's prefix; nil: that of CIDR, and of a single address.
	Min, Max *uint8
	// Learned says that the rule is about routes alone that the node was told of.
	Learned bool
	Accept  bool
}

// MatchOperator is how a route compares with a range.
type MatchOperator string

// The operators, as in the field matchOperator of a BGPFilter.
const (
	MatchEqual    MatchOperator = "Equal"
	MatchNotEqual MatchOperator = "NotEqual"
	MatchIn       MatchOperator = "In"
	MatchNotIn    MatchOperator = "NotIn"
)
