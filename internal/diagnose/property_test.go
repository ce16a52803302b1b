package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go4.org/netipx"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// TestForeignRulesRandom compares what is found with what is found by trying every pair of addresses: those
// that stand for others must stand for all of them.
func TestForeignRulesRandom(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"eth0", "cni0", "veth1"}
		small := func(what string) string { // a prefix within 10.0.0.0/27
			bits := rapid.IntRange(28, 32).Draw(t, what+" length")
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 31).Draw(t, what))})
			return netip.PrefixFrom(a, bits).Masked().String()
		}
		s := &model.Snapshot{}
		for i := range rapid.IntRange(1, 3).Draw(t, "pools") {
			s.Pools = append(s.Pools, pool(fmt.Sprint(i), small("pool"), func(p *model.Pool) { p.NATOutgoing = rapid.Bool().Draw(t, "natOutgoing") }))
		}
		n := &Node{}
		for _, name := range names {
			i := Interface{Name: name}
			for range rapid.IntRange(0, 2).Draw(t, "routes") {
				i.Routes = append(i.Routes, prefix(small("route")))
			}
			i.OnLink = slices.Clone(i.Routes[:rapid.IntRange(0, len(i.Routes)).Draw(t, "on link")])
			n.Interfaces = append(n.Interfaces, i)
		}
		n.Interfaces[0].Routes = append(n.Interfaces[0].Routes, prefix("0.0.0.0/0"))
		match := func() Match {
			m := rapid.SampledFrom([]Match{source(small("source")), destination(small("destination")), out(rapid.SampledFrom(names).Draw(t, "out")), unknown(), marked(1)}).Draw(t, "match")
			m.Not = m.Kind != MatchUnknown && rapid.Bool().Draw(t, "not")
			return m
		}
		rules := func() (list []Rule) {
			for range rapid.IntRange(0, 4).Draw(t, "rules") {
				kind := rapid.SampledFrom([]ActionKind{ActionNone, ActionEnd, ActionReturn, ActionJump, ActionGoto, ActionMark, ActionTranslate, ActionTranslate}).Draw(t, "action")
				r := rule(kind, "sub")
				r.Action.Set, r.Where = 1, fmt.Sprint(len(list))
				for range rapid.IntRange(0, 2).Draw(t, "matches") {
					r.Matches = append(r.Matches, match())
				}
				list = append(list, r)
			}
			return list
		}
		rs := &Ruleset{Chains: []Chain{at(rapid.SampledFrom([]int32{0, OurPriority, 100}).Draw(t, "priority"), base(rules()...)), chain("sub", rules()...)}}
		for i := range rs.Chains[1].Rules { // no loops: they end, but not where the other walk ends
			if a := &rs.Chains[1].Rules[i].Action; a.Kind == ActionJump || a.Kind == ActionGoto {
				a.Kind = ActionNone
			}
		}
		plan := compile.Compile(s, model.Local{Name: "node"})

		got := kindsByRule(judgeRules(s, plan, n, rs))
		j, a := newRulesJudge(plan, n, rs), areasOf(s.Pools, plan, n)
		every := func(ranges []netipx.IPRange) (all []netip.Addr) {
			for i := range 32 {
				if x := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}); within(ranges, x) {
					all = append(all, x)
				}
			}
			return all
		}
		for _, from := range append(every(a.translated), every(a.kept)...) {
			for _, to := range every(a.pools) {
				j.try(from, to, a.pools, false)
			}
			for _, to := range append(every(a.outside), netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("10.1.0.0")) {
				j.try(from, to, a.outside, true)
			}
		}
		if want := kindsByRule(j.problems()); got != want {
			t.Errorf("found %s, with every address %s", got, want)
		}
	})
}

// kindsByRule sorts problems by what is said of which rule, without the examples.
func kindsByRule(found []Problem) string {
	var all []string
	for _, p := range found {
		all = append(all, fmt.Sprintf("%s %s %t %t", p.Kind, p.Object, strings.Contains(p.What, "between pools"), strings.Contains(p.What, "towards the outside")))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}
