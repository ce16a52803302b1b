package compile

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
)

// family is an address family, and the place of what belongs to it in arrays.
type family int

const (
	v4 family = iota
	v6
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

func (f family) String() string {
	if f == v4 {
		return "IPv4"
	}
	return "IPv6"
}

// standing is an address on one of the node's links.
type standing struct {
	addr netip.Addr
	bits int
	link *model.Link
}

// uplink finds the address of a family by which other nodes reach this one, and the link that has it. A NodeNetworkConfiguration
// decides; else it is the first address that the Node declares and that stands on a link; else one on the link of the default route.
// It is invalid where none fits.
func uplink(f family, links []model.Link, declared []netip.Addr, set nodeAddress) standing {
	var all []standing
	for i := range links {
		for _, p := range links[i].Addresses {
			if a := p.Addr(); familyOf(a) == f && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
				all = append(all, standing{a, p.Bits(), &links[i]})
			}
		}
	}
	rank := func(s standing) int {
		if i := slices.Index(declared, s.addr); i >= 0 {
			return i
		}
		return len(declared)
	}
	slices.SortFunc(all, func(a, b standing) int {
		return cmp.Or(rank(a)-rank(b), byBool(a.hasDefault(f), b.hasDefault(f)), byBool(!a.alone(), !b.alone()), a.addr.Compare(b.addr))
	})
	if set.decides(f) {
		return set.choose(f, all)
	}
	for _, s := range all {
		if rank(s) < len(declared) || s.hasDefault(f) {
			return s
		}
	}
	return standing{}
}

// hasDefault says whether the link has a default route of the family.
func (s standing) hasDefault(f family) bool {
	return f == v4 && s.link.Default4 || f == v6 && s.link.Default6
}

// alone says whether the address has no subnet, as those have that move between nodes.
func (s standing) alone() bool { return s.bits == s.addr.BitLen() }

func byBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// nodeAddress is the field of that name of a NodeNetworkConfiguration. The zero value: any address.
type nodeAddress struct {
	link  string // a trailing "*" matches any rest; empty: any
	cidrs []netip.Prefix
}

// decides says whether the field is set for a family: ranges of the other family alone say nothing of this one.
func (n nodeAddress) decides(f family) bool {
	return (n.link != "" || slices.ContainsFunc(n.cidrs, func(p netip.Prefix) bool { return familyOf(p.Addr()) == f }))
}

// choose is the first of the addresses that the field allows; where it has ranges of the family, the first of them that holds one decides.
func (n nodeAddress) choose(f family, all []standing) standing {
	ranges := make([]netip.Prefix, 0, len(n.cidrs))
	for _, p := range n.cidrs {
		if familyOf(p.Addr()) == f {
			ranges = append(ranges, p)
		}
	}
	if len(ranges) == 0 {
		ranges = []netip.Prefix{{}} // any
	}
	for _, r := range ranges {
		for _, s := range all {
			if (!r.IsValid() || r.Contains(s.addr)) && matchesLink(n.link, s.link.Name) {
				return s
			}
		}
	}
	return standing{}
}

func matchesLink(pattern, name string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, begin)
	}
	return pattern == "" || pattern == name
}
