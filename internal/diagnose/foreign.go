package diagnose

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// maxPoints bounds the addresses that stand for all others of an area.
const maxPoints = 512

// judgeRules finds the rules of others that translate what pods say. It takes packets through their chains: from
// and to one address out of each part of the pools, and of the outside, that some rule or route tells apart.
// A packet has no mark, as those that no service has touched. It leaves by the interface that the main routing
// table says, and comes in by another one, by which that table reaches its source. One end is a pod of this
// node, for what is outside the source: what others say to each other does not come by here.
//
// What we translate ourselves only a chain before ours can take; what we leave alone, between pools or from a
// pool that is not translated, any chain.
func judgeRules(s *model.Snapshot, plan *compile.Plan, n *Node, rs *Ruleset) []Problem {
	j := newRulesJudge(plan, n, rs)
	if len(j.bases) == 0 {
		return nil
	}
	a := areasOf(s.Pools, plan, n)
	pools, outside := j.distinct(MatchDestination, points(a.pools, j.destinations)), j.distinct(MatchDestination, points(a.outside, j.destinations))
	for _, area := range [][]netipx.IPRange{a.translated, a.kept} {
		for _, source := range j.distinct(MatchSource, points(area, j.sources)) {
			for _, destination := range pools {
				j.try(source, destination, a.pools, false)
			}
			for _, destination := range outside {
				j.try(source, destination, a.outside, true)
			}
		}
	}
	found := j.problems()
	if j.steps > maxSteps {
		found = append(found, Problem{Kind: NotExamined, Object: "rules of others", What: "there are too many to judge them all",
			Remedy: "look for masquerade and snat in nft list ruleset and iptables-save -t nat"})
	}
	return found
}

func newRulesJudge(plan *compile.Plan, n *Node, rs *Ruleset) *rulesJudge {
	j := &rulesJudge{plan: plan, rules: rs, found: map[*Rule]*catch{}, chains: map[[2]string]*Chain{}}
	for i := range rs.Chains {
		c := &rs.Chains[i]
		j.chains[[2]string{c.Table, c.Name}] = c
		if c.Base {
			j.bases = append(j.bases, c)
		}
	}
	slices.SortStableFunc(j.bases, func(a, b *Chain) int { return int(a.Priority) - int(b.Priority) })
	j.readRoutes(n)
	j.readMatches()
	return j
}

// areas are addresses without the node's own: those of pods that we translate, of other pods, of all pools, and
// those outside of all that is exempt.
type areas struct{ translated, kept, pools, outside []netipx.IPRange }

func areasOf(list []*model.Pool, plan *compile.Plan, n *Node) areas {
	var translated, kept, pools, outside netipx.IPSetBuilder
	for _, p := range list {
		if holdsPods(p) {
			kept.AddPrefix(p.CIDR)
		}
		if !p.LoadBalancerOnly() {
			pools.AddPrefix(p.CIDR)
		}
	}
	for _, s := range plan.NAT.Sources {
		translated.AddRange(s.Range)
		kept.RemoveRange(s.Range)
	}
	// What others can have: unicast addresses that are neither loopback nor link-local (IANA's registries).
	for _, r := range []string{"1.0.0.0-126.255.255.255", "128.0.0.0-223.255.255.255",
		"2000::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		outside.AddRange(netipx.MustParseIPRange(r))
	}
	for _, r := range plan.NAT.Exempt {
		outside.RemoveRange(r)
	}
	ranges := func(b *netipx.IPSetBuilder) []netipx.IPRange {
		for _, i := range n.Interfaces {
			for _, a := range i.Addresses {
				b.Remove(a.Addr())
			}
		}
		set, err := b.IPSet()
		if err != nil { // only an invalid prefix can cause it, and the model holds none
			return nil
		}
		return set.Ranges()
	}
	return areas{ranges(&translated), ranges(&kept), ranges(&pools), ranges(&outside)}
}

// points are the first addresses of an area at or after each bound: one out of each part of it that the
// bounds tell apart.
func points(area []netipx.IPRange, bounds []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, b := range bounds {
		i, _ := slices.BinarySearchFunc(area, b, func(r netipx.IPRange, b netip.Addr) int { return r.To().Compare(b) })
		if i == len(area) || area[i].From().BitLen() != b.BitLen() {
			continue
		}
		if b.Less(area[i].From()) {
			b = area[i].From()
		}
		out = append(out, b)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// distinct leaves out addresses that all rules treat as they treat another one. Two of a kind remain, reached by
// different interfaces, since a packet does not leave by the one that it came in by.
func (j *rulesJudge) distinct(kind MatchKind, list []netip.Addr) (out []netip.Addr) {
	first, twice := map[string]netip.Addr{}, map[string]bool{}
	for _, a := range list {
		key := j.signature(kind, a)
		other, seen := first[key]
		if seen && (twice[key] || slices.Equal(j.way(a).by, j.way(other).by)) {
			continue
		}
		first[key], twice[key] = a, seen
		if out = append(out, a); len(out) == maxPoints {
			break
		}
	}
	return out
}

// signature is how rules treat an address as a source, or as a destination.
func (j *rulesJudge) signature(kind MatchKind, a netip.Addr) string {
	w := j.way(a)
	s := []byte{byte(a.BitLen())}
	add := func(b bool) { s = append(s, byte(answerOf(b))) }
	add(w.onLink)
	for _, m := range j.matches[kind] {
		add(within(m.Ranges, a))
	}
	j.steps += len(j.matches[kind])
	if kind == MatchSource {
		return string(s)
	}
	for _, out := range w.by {
		add(j.plan.NAT.Covers(out))
		for _, m := range j.matches[MatchOut] {
			s = append(s, byte(m.meets(&flow{out: out}, 0, false)))
		}
	}
	return string(s)
}

func (j *rulesJudge) way(a netip.Addr) way {
	w, _ := j.routes.Lookup(a)
	return w
}

// rulesJudge is one judgement.
type rulesJudge struct {
	plan   *compile.Plan
	rules  *Ruleset
	chains map[[2]string]*Chain
	bases  []*Chain // by priority

	routes                bart.Table[way] // how destinations are reached
	sources, destinations []netip.Addr    // where matches and routes begin and end
	protocols             []uint8
	matches               map[MatchKind][]*Match

	steps int
	found map[*Rule]*catch
}

// way is how a destination is reached.
type way struct {
	by     []string // names of interfaces
	onLink bool     // what is there is on this node, if it is a pod
}

// catch is what a rule catches.
type catch struct {
	chain            *Chain
	certain          bool
	outside, between *flow // an example of each
}

func (j *rulesJudge) readRoutes(n *Node) {
	for _, i := range n.Interfaces {
		for _, r := range i.Routes {
			w, _ := j.routes.Get(r)
			j.routes.Insert(r, way{append(w.by, i.Name), w.onLink || r.Bits() > 0 && slices.Contains(i.OnLink, r)})
			from, after := r.Masked().Addr(), netipx.RangeOfPrefix(r).To().Next()
			j.sources, j.destinations = append(j.sources, from, after), append(j.destinations, from, after)
		}
	}
}

// readMatches collects what the matches tell apart.
func (j *rulesJudge) readMatches() {
	first := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	j.sources, j.destinations = append(j.sources, first...), append(j.destinations, first...)
	j.protocols = []uint8{uint8(compile.TCP)}
	j.matches = map[MatchKind][]*Match{}
	for _, c := range j.rules.Chains {
		for _, r := range c.Rules {
			for i := range r.Matches {
				m := &r.Matches[i]
				j.matches[m.Kind] = append(j.matches[m.Kind], m)
				to := &j.sources
				switch m.Kind {
				case MatchDestination:
					to = &j.destinations
				case MatchProtocol:
					j.protocols = []uint8{uint8(compile.TCP), uint8(compile.UDP), uint8(compile.ICMP), uint8(compile.ICMPv6)}
				}
				for _, part := range m.Ranges {
					*to = append(*to, part.From(), part.To().Next())
				}
			}
		}
	}
	valid := func(a netip.Addr) bool { return !a.IsValid() } // after the last address of all there is none
	j.sources, j.destinations = slices.DeleteFunc(j.sources, valid), slices.DeleteFunc(j.destinations, valid)
}

// try takes packets from one address to another through the chains.
func (j *rulesJudge) try(source, destination netip.Addr, area []netipx.IPRange, outside bool) {
	if source.BitLen() != destination.BitLen() {
		return
	}
	if source == destination { // what a pod says to itself does not leave it
		if destination = destination.Next(); !destination.IsValid() || !within(area, destination) {
			return
		}
	}
	from, to := j.way(source), j.way(destination)
	if !from.onLink && (outside || !to.onLink) {
		return
	}
	for _, out := range to.by {
		if outside && !j.plan.NAT.Covers(out) {
			continue // none of ours: others may translate there
		}
		if !slices.ContainsFunc(from.by, func(in string) bool { return in != out }) {
			continue
		}
		for _, protocol := range j.protocols {
			if protocol == uint8(compile.ICMP) && source.Is6() || protocol == uint8(compile.ICMPv6) && source.Is4() {
				continue
			}
			j.send(&flow{source: source, destination: destination, out: out, protocol: protocol}, outside)
		}
	}
}

// send takes one packet through the chains, in the order of their priorities, until one translates it.
func (j *rulesJudge) send(f *flow, outside bool) {
	w := &walk{flow: f, steps: &j.steps, marked: true, certain: true, find: func(table, chain string) *Chain { return j.chains[[2]string{table, chain}] }}
	taken, perhaps := false, false
	ours := outside && translated(&j.plan.NAT, f.source)
	for _, c := range j.bases {
		if f.source.Is4() && !c.IPv4 || f.source.Is6() && !c.IPv6 {
			continue
		}
		if taken || ours && c.Priority > OurPriority {
			return
		}
		// Of chains at the same priority the one registered last comes first, and nobody can say which that is.
		w.certain = !perhaps && (!ours || c.Priority < OurPriority)
		w.hit = func(in *Chain, r *Rule, certain bool) {
			j.note(in, r, certain, f, outside)
			taken, perhaps = taken || certain, true
		}
		w.chain(c, 0)
	}
}

func (j *rulesJudge) note(c *Chain, r *Rule, certain bool, f *flow, outside bool) {
	k := j.found[r]
	if k == nil || certain && !k.certain {
		k = &catch{chain: c, certain: certain}
		j.found[r] = k
	}
	if k.certain != certain {
		return
	}
	if example := &k.between; !outside && *example == nil {
		*example = f
	}
	if example := &k.outside; outside && *example == nil {
		*example = f
	}
}

// translated says whether we translate what an address says to the outside.
func translated(nat *compile.NAT, a netip.Addr) bool {
	i, _ := slices.BinarySearchFunc(nat.Sources, a, func(s compile.Source, a netip.Addr) int { return s.Range.To().Compare(a) })
	return i < len(nat.Sources) && nat.Sources[i].Range.Contains(a)
}

// problems says what was found, one problem for each rule.
func (j *rulesJudge) problems() []Problem {
	var found []Problem
	for r, k := range j.found {
		p := Problem{Kind: ForeignTranslation, Object: fmt.Sprintf("%s, chain %s, %s", k.chain.Table, k.chain.Name, r.Where)}
		verb := "catches"
		if !k.certain {
			p.Kind, verb = PossibleForeignTranslation, "may catch"
		}
		text := r.Action.Text
		if r.Text != "" {
			text = r.Text + " " + text
		}
		what := ""
		if k.between != nil {
			what = j.example("between pools", k.between)
		}
		if k.outside != nil {
			if what != "" {
				what += "; and "
			}
			what += j.example("towards the outside", k.outside)
		}
		p.What = fmt.Sprintf("%q %s connections %s", text, verb, what)
		p.Remedy = "turn masquerading off in the program that made it, or let it pass over the pools"
		if r.Delete != "" {
			p.Remedy += "; to delete it: " + r.Delete
		}
		found = append(found, p)
	}
	return found
}

// example says which pools a connection is between.
func (j *rulesJudge) example(where string, f *flow) string {
	v := j.plan.Decide(compile.Flow{Source: f.source, Destination: f.destination, Protocol: compile.Protocol(f.protocol), OutInterface: f.out})
	s := fmt.Sprintf("%s, such as from pool %s (%s) ", where, v.Source.Pool, f.source)
	if v.Destination.Pool != "" {
		s += fmt.Sprintf("to pool %s (%s)", v.Destination.Pool, f.destination)
	} else {
		s += "to " + f.destination.String()
	}
	return s + " by " + f.out
}
