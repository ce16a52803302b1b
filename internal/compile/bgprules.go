package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/sallyport/sallyport/internal/model"
)

// Imports says whether a route that a peer tells of is taken, and if not, why. Nothing of this node is, whatever filters say; of the
// rest the first rule that matches decides, and where none does, all is taken but the default route.
func (b *BGP) Imports(p *BGPPeer, route netip.Prefix) (taken bool, why string) {
	for _, own := range b.Own {
		if covers(own, route) {
			return false, "this node has " + own.String()
		}
	}
	if r := firstRule(p.Import, route, true); r != nil {
		return r.Accept, r.String()
	}
	if route.Bits() == 0 {
		return false, "no BGPFilter accepts the default route"
	}
	return true, ""
}

// Exports says whether a peer is told of a route, and if not, why: of one that the node has learned, or else of an announcement.
func (b *BGP) Exports(p *BGPPeer, route netip.Prefix, learned bool) (told bool, why string) {
	if learned && !p.Reflect {
		return false, "the node has learned the route, and reflects none to this peer"
	}
	if learned && !slices.ContainsFunc(b.Reflected, func(r netip.Prefix) bool { return covers(r, route) }) {
		return false, "the node has learned the route, and reflects routes inside of pools alone"
	}
	if r := firstRule(p.Export, route, learned); r != nil {
		return r.Accept, r.String()
	}
	return true, ""
}

// Tells says whether a peer is told of an announcement while the session is up, and if not, why.
func (b *BGP) Tells(p *BGPPeer, route netip.Prefix) (told bool, why string) {
	if v4 := route.Addr().Is4(); v4 && !p.V4 || !v4 && !p.V6 {
		return false, "the session does not carry routes of this family"
	}
	return b.Exports(p, route, false)
}

// covers says whether every address of a route lies in a range.
func covers(in, route netip.Prefix) bool {
	return in.Bits() <= route.Bits() && in.Contains(route.Addr())
}

// firstRule is the first rule that matches, or nil.
func firstRule(rules []BGPRule, route netip.Prefix, learned bool) *BGPRule {
	for i := range rules {
		if rules[i].Matches(route, learned) {
			return &rules[i]
		}
	}
	return nil
}

// String names the rule.
func (r *BGPRule) String() string { return "BGPFilter " + strconv.Quote(r.Filter) + ", " + r.Field }

// Matches says whether the rule is about a route; learned: the node was told of it by a peer.
func (r *BGPRule) Matches(route netip.Prefix, learned bool) bool {
	if route.Addr().Is4() != r.Prefix.Addr().Is4() || r.Learned && !learned {
		return false
	}
	n := route.Bits()
	fits := n >= int(r.Min) && n <= int(r.Max) && r.Prefix.Contains(route.Addr())
	return fits != r.Not
}

// direction is one of the two of a filter, by family.
type direction struct {
	name  string
	rules func(*model.BGPFilter) [2][]model.BGPFilterRule
}

var (
	importing = direction{"import", func(f *model.BGPFilter) [2][]model.BGPFilterRule {
		return [2][]model.BGPFilterRule{f.Import4, f.Import6}
	}}
	exporting = direction{"export", func(f *model.BGPFilter) [2][]model.BGPFilterRule {
		return [2][]model.BGPFilterRule{f.Export4, f.Export6}
	}}
)

// rulesOf are what filters come to, in their order. Rules that match no route are left out.
func rulesOf(filters []*model.BGPFilter, to direction) []BGPRule {
	var out []BGPRule
	for f := range families {
		for _, filter := range filters {
			rules := to.rules(filter)[f]
			for i := range rules {
				if r, ok := ruleOf(&rules[i], family(f)); ok {
					r.Filter, r.Field = filter.Name, fmt.Sprintf("%sV%s[%d]", to.name, [2]string{"4", "6"}[f], i)
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// families is how many there are.
const families = 2

// ruleOf is a rule about routes of a family; not ok where no route matches it. Its lengths narrow what the operator says, and
// NotEqual and NotIn match all else, as in Calico.
func ruleOf(in *model.BGPFilterRule, f family) (out BGPRule, ok bool) {
	all := netip.PrefixFrom([2]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[f], 0)
	bits := uint8(all.Addr().BitLen())
	out = BGPRule{Prefix: all, Max: bits, Learned: in.Learned, Accept: in.Accept}
	if !in.CIDR.IsValid() {
		return out, true
	}
	out.Prefix, out.Min = in.CIDR, uint8(in.CIDR.Bits())
	out.Not = in.Operator == model.MatchNotEqual || in.Operator == model.MatchNotIn
	if in.Operator == model.MatchEqual || in.Operator == model.MatchNotEqual {
		out.Max = out.Min
	}
	if in.Min != nil {
		out.Min = max(out.Min, *in.Min)
	}
	if in.Max != nil {
		out.Max = min(out.Max, *in.Max)
	}
	if out.Min <= out.Max {
		return out, true
	}
	return BGPRule{Prefix: all, Max: bits, Learned: in.Learned, Accept: in.Accept}, out.Not // all that is not nothing
}
