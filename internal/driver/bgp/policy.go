package bgp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"

	"github.com/sallyport/sallyport/internal/compile"
)

// Names of the two policies, which are those of all peers: gobgp has policies of a single peer for clients of route servers alone.
const (
	importPolicy = "import"
	exportPolicy = "export"
)

// anywhere are the prefixes that contain all addresses of a family.
var anywhere = [2]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// learned are the kinds of routes that a peer told of.
var learned = []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_INTERNAL, api.Conditions_ROUTE_TYPE_EXTERNAL}

// policies says to gobgp what compile.BGP.Imports and Exports say of peers. The result depends on its arguments alone.
func policies(plan *compile.BGP, peers []compile.BGPPeer) *api.SetPoliciesRequest {
	b := &builder{}
	in := &api.Policy{Name: importPolicy, Statements: b.imports(plan, peers)}
	out := &api.Policy{Name: exportPolicy, Statements: b.exports(plan, peers)}
	return &api.SetPoliciesRequest{DefinedSets: b.sets, Policies: []*api.Policy{in, out}}
}

// builder makes statements and the sets that they name.
type builder struct {
	sets       []*api.DefinedSet
	statements int
}

// span is a prefix with the lengths of the routes in it that are meant.
type span struct {
	prefix   netip.Prefix
	min, max uint8
}

// within are the routes that lie in a prefix.
func within(p netip.Prefix) span { return span{p, uint8(p.Bits()), uint8(p.Addr().BitLen())} }

// family is 0 of IPv4, and 1 of IPv6.
func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

// prefixes makes a set of prefixes of one family. A condition that inverts it matches routes of that family alone.
func (b *builder) prefixes(invert bool, spans ...span) *api.MatchSet {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: fmt.Sprintf("prefixes-%d", len(b.sets))}
	for _, s := range spans {
		set.Prefixes = append(set.Prefixes, &api.Prefix{IpPrefix: s.prefix.String(), MaskLengthMin: uint32(s.min), MaskLengthMax: uint32(s.max)})
	}
	b.sets = append(b.sets, set)
	m := &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set.Name}
	if invert {
		m.Type = api.MatchSet_TYPE_INVERT
	}
	return m
}

// neighbours makes a set of peers. There must be one: gobgp takes the empty set for all. It knows no zones: see shares.
func (b *builder) neighbours(peers []compile.BGPPeer) *api.MatchSet {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: fmt.Sprintf("peers-%d", len(b.sets))}
	for i := range peers {
		a := peers[i].Address.WithZone("")
		set.List = append(set.List, netip.PrefixFrom(a, a.BitLen()).String())
	}
	b.sets = append(b.sets, set)
	return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set.Name}
}

// statement makes a statement; without an action the next one is asked too.
func (b *builder) statement(c *api.Conditions, action api.RouteAction, hop *api.NexthopAction) *api.Statement {
	b.statements++
	return &api.Statement{Name: fmt.Sprintf("statement-%d", b.statements), Conditions: c, Actions: &api.Actions{RouteAction: action, Nexthop: hop}}
}

const (
	goOn   = api.RouteAction_ROUTE_ACTION_UNSPECIFIED
	accept = api.RouteAction_ROUTE_ACTION_ACCEPT
	reject = api.RouteAction_ROUTE_ACTION_REJECT
)

// groups calls do for peers that are alike.
func groups(peers []compile.BGPPeer, alike func(a, b *compile.BGPPeer) bool, do func([]compile.BGPPeer)) {
	var all [][]compile.BGPPeer
	for i := range peers {
		at := slices.IndexFunc(all, func(g []compile.BGPPeer) bool { return alike(&g[0], &peers[i]) })
		if at < 0 {
			all = append(all, nil)
			at = len(all) - 1
		}
		all[at] = append(all[at], peers[i])
	}
	for _, g := range all {
		do(g)
	}
}

// imports are the statements about what peers tell of.
func (b *builder) imports(plan *compile.BGP, peers []compile.BGPPeer) []*api.Statement {
	out := []*api.Statement{b.statement(&api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, accept, nil)}
	var own [2][]span
	for _, p := range plan.Own {
		own[family(p)] = append(own[family(p)], within(p))
	}
	for _, spans := range own {
		if len(spans) > 0 {
			out = append(out, b.statement(&api.Conditions{PrefixSet: b.prefixes(false, spans...)}, reject, nil))
		}
	}
	groups(peers, func(a, b *compile.BGPPeer) bool { return slices.Equal(a.Import, b.Import) }, func(g []compile.BGPPeer) {
		if len(g[0].Import) == 0 {
			return
		}
		who := b.neighbours(g)
		for _, r := range g[0].Import {
			out = append(out, b.statement(&api.Conditions{NeighborSet: who, PrefixSet: b.rule(r)}, verdict(r), nil))
		}
	})
	for _, every := range anywhere {
		out = append(out, b.statement(&api.Conditions{PrefixSet: b.prefixes(false, span{every, 0, 0})}, reject, nil))
	}
	return out
}

func (b *builder) rule(r compile.BGPRule) *api.MatchSet {
	return b.prefixes(r.Not, span{r.Prefix, r.Min, r.Max})
}

func verdict(r compile.BGPRule) api.RouteAction {
	if r.Accept {
		return accept
	}
	return reject
}

// exports are the statements about what peers are told of.
func (b *builder) exports(plan *compile.BGP, peers []compile.BGPPeer) []*api.Statement {
	self := &api.NexthopAction{Self: true}
	out := []*api.Statement{b.statement(&api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, goOn, self)}
	alike := func(a, b *compile.BGPPeer) bool { return a.Reflect == b.Reflect && a.NextHopSelf == b.NextHopSelf }
	groups(peers, alike, func(g []compile.BGPPeer) {
		who := b.neighbours(g)
		hop := self
		if !g[0].NextHopSelf {
			hop = &api.NexthopAction{Unchanged: true}
		}
		for _, kind := range learned {
			if !g[0].Reflect {
				out = append(out, b.statement(&api.Conditions{NeighborSet: who, RouteType: kind}, reject, nil))
				continue
			}
			for f := range anywhere {
				out = append(out, b.statement(&api.Conditions{NeighborSet: who, RouteType: kind, PrefixSet: b.notReflected(plan, f)}, reject, nil))
			}
			out = append(out, b.statement(&api.Conditions{NeighborSet: who, RouteType: kind}, goOn, hop))
		}
	})
	groups(peers, func(a, b *compile.BGPPeer) bool { return slices.Equal(a.Export, b.Export) }, func(g []compile.BGPPeer) {
		if len(g[0].Export) == 0 {
			return
		}
		who := b.neighbours(g)
		for _, r := range g[0].Export {
			kinds := []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_UNSPECIFIED}
			if r.Learned {
				kinds = learned
			}
			for _, kind := range kinds {
				out = append(out, b.statement(&api.Conditions{NeighborSet: who, RouteType: kind, PrefixSet: b.rule(r)}, verdict(r), nil))
			}
		}
	})
	return out
}

// notReflected are the routes of a family that lie outside of all that is reflected. An empty set has no family, and matches nothing.
func (b *builder) notReflected(plan *compile.BGP, f int) *api.MatchSet {
	var spans []span
	for _, p := range plan.Reflected {
		if family(p) == f {
			spans = append(spans, within(p))
		}
	}
	if len(spans) == 0 {
		return b.prefixes(false, within(anywhere[f]))
	}
	return b.prefixes(true, spans...)
}

// shares says whether two peers have one address but for its zone, and are to be told or believed different things. gobgp's policies
// know no zones, and so cannot tell them apart.
func shares(a, b *compile.BGPPeer) bool {
	return a.Address.WithZone("") == b.Address.WithZone("") &&
		!(a.Reflect == b.Reflect && a.NextHopSelf == b.NextHopSelf && slices.Equal(a.Import, b.Import) && slices.Equal(a.Export, b.Export))
}
