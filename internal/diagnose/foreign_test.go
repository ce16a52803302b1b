package diagnose

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// in makes the ranges of prefixes.
func in(list ...string) (out []netipx.IPRange) {
	for _, p := range prefixes(list...) {
		out = append(out, netipx.RangeOfPrefix(p))
	}
	return out
}

func source(p ...string) Match      { return Match{Kind: MatchSource, Ranges: in(p...)} }
func destination(p ...string) Match { return Match{Kind: MatchDestination, Ranges: in(p...)} }
func out(n ...string) Match         { return Match{Kind: MatchOut, Names: n} }
func unknown() Match                { return Match{Kind: MatchUnknown} }
func marked(v uint32) Match         { return Match{Kind: MatchMark, Mask: v, Value: v} }
func not(m Match) Match             { m.Not = !m.Not; return m }

func rule(kind ActionKind, to string, matches ...Match) Rule {
	r := Rule{Where: "rule", Matches: matches, Action: Action{Kind: kind, Text: "masquerade"}}
	if to != "" {
		r.Action.Chains = []string{to}
	}
	return r
}
func masquerade(matches ...Match) Rule { return rule(ActionTranslate, "", matches...) }

// base is a chain of the postrouting hook at the usual priority.
func base(rules ...Rule) Chain {
	return Chain{Table: "table ip nat", Name: "POSTROUTING", Base: true, Priority: 100, IPv4: true, Rules: rules}
}

func chain(name string, rules ...Rule) Chain {
	return Chain{Table: "table ip nat", Name: name, Rules: rules}
}

func at(priority int32, c Chain) Chain { c.Priority = priority; return c }

// TestForeignRules judges the rules of others on a node with a translated pool, one that is not, and an
// exempt range behind the default route. 10.244.1.0/24 and 203.0.113.0/26 are on this node, and 10.244.2.0/24
// elsewhere, behind a tunnel.
func TestForeignRules(t *testing.T) {
	t.Parallel()
	s := &model.Snapshot{Pools: []*model.Pool{
		pool("corporate", "10.0.0.0/8", func(p *model.Pool) { p.NATOutgoing, p.Disabled = false, true }),
		pool("pods", "10.244.0.0/16"),
		pool("public", "203.0.113.0/24", func(p *model.Pool) { p.NATOutgoing = false }),
	}}
	const (
		none    = ""
		between = "catches connections between pools"
		outside = "catches connections towards the outside"
		maybe   = "may catch connections between pools"
	)
	tests := []struct {
		name   string
		chains []Chain
		want   string // the beginning of what is said
		also   string // a part of it
	}{
		{"nothing", []Chain{base()}, none, ""},
		{"all there is", []Chain{base(masquerade())}, between, "; and towards the outside, such as from pool public (203.0.113.0) to 1.0.0.0 by eth0"},
		{"all pods", []Chain{base(masquerade(source("10.244.0.0/16")))}, between, "from pool pods (10.244.0.0) to pool pods (10.244.1.2) by cni0"},
		{"pods elsewhere", []Chain{base(masquerade(source("10.244.7.0/24"), not(destination("10.244.0.0/16", "203.0.113.0/24"))))}, none, ""},
		{"all pods, before us", []Chain{at(0, base(masquerade(source("10.244.0.0/16"), not(destination("10.0.0.0/8", "203.0.113.0/24")))))}, outside, "from pool pods (10.244.1.2) to 1.0.0.0 by eth0"},
		{"all pods to the outside", []Chain{base(masquerade(source("10.244.0.0/16"), not(destination("10.0.0.0/8", "203.0.113.0/24"))))}, none, ""},
		{"at our priority", []Chain{at(OurPriority, base(masquerade(source("10.244.0.0/16"), not(destination("10.0.0.0/8", "203.0.113.0/24")))))}, "may catch connections towards the outside", ""},
		{"some pods", []Chain{base(masquerade(source("10.244.1.128/25")))}, between, "from pool pods (10.244.1.128)"},
		{"a pool that is not translated", []Chain{base(masquerade(source("203.0.113.32/27"), not(destination("10.0.0.0/8", "203.0.113.0/24"))))}, outside, "from pool public (203.0.113.32)"},
		{"containers of another program", []Chain{base(masquerade(source("172.17.0.0/16"), not(out("docker0"))))}, none, ""},
		{"a bridge's own range", []Chain{base(masquerade(source("10.244.1.0/24"), not(out("cni0"))))}, between, "by eth0"},
		{"what a pod says to itself", []Chain{base(masquerade(source("10.244.1.5/32"), destination("10.244.1.5/32")))}, none, ""},
		{"kube-proxy", []Chain{base(rule(ActionJump, "KUBE")), chain("KUBE", rule(ActionReturn, "", not(marked(0x4000))),
			Rule{Action: Action{Kind: ActionMark, Set: 0x4000}}, masquerade())}, none, ""},
		{"a mark that is set", []Chain{base(Rule{Action: Action{Kind: ActionMark, Set: 1}}, masquerade(marked(1)))}, between, ""},
		{"a mark that is set perhaps", []Chain{base(Rule{Matches: []Match{unknown()}, Action: Action{Kind: ActionMark, Set: 1}}, masquerade(marked(1)))}, maybe, ""},
		{"ip-masq-agent", []Chain{base(rule(ActionJump, "AGENT", Match{Kind: MatchEverything})),
			chain("AGENT", rule(ActionReturn, "", destination("10.0.0.0/8")), rule(ActionReturn, "", destination("203.0.113.0/24")), masquerade(source("10.0.0.0/8")))}, none, ""},
		{"ip-masq-agent without a range", []Chain{base(rule(ActionJump, "AGENT", Match{Kind: MatchEverything})),
			chain("AGENT", rule(ActionReturn, "", destination("10.0.0.0/8")), masquerade(source("10.0.0.0/8")))}, between, "to pool public (203.0.113.0)"},
		{"an end before", []Chain{base(rule(ActionEnd, "", source("10.244.0.0/16")), masquerade(source("10.0.0.0/8")))}, none, ""},
		{"an end perhaps", []Chain{base(rule(ActionEnd, "", unknown()), masquerade(source("10.244.0.0/16")))}, maybe, ""},
		{"a match that nobody knows", []Chain{base(masquerade(source("10.244.0.0/16"), unknown()))}, maybe, ""},
		{"a match that nobody knows, and one that excludes", []Chain{base(masquerade(source("172.17.0.0/16"), unknown()))}, none, ""},
		{"one protocol", []Chain{base(masquerade(source("10.244.0.0/16"), Match{Kind: MatchProtocol, Protocols: []uint8{17}}))}, between, ""},
		{"a protocol that pods do not speak", []Chain{base(masquerade(Match{Kind: MatchProtocol, Protocols: []uint8{50}}))}, none, ""},
		{"the other family", []Chain{base(masquerade(not(Match{Kind: MatchIPv4})))}, none, ""},
		{"a goto that comes not back", []Chain{base(rule(ActionGoto, "A"), masquerade()), chain("A", rule(ActionReturn, ""))}, none, ""},
		{"a jump that comes back", []Chain{base(rule(ActionJump, "A"), masquerade()), chain("A", rule(ActionReturn, ""))}, between, ""},
		{"a jump that ends", []Chain{base(rule(ActionJump, "A"), masquerade()), chain("A", rule(ActionEnd, ""))}, none, ""},
		{"a chain that is not there", []Chain{base(rule(ActionJump, "A"), masquerade())}, maybe, ""},
		{"a verdict map", []Chain{base(rule(ActionUnknown, "A")), chain("A", masquerade())}, maybe, ""},
		{"a loop", []Chain{base(rule(ActionJump, "A")), chain("A", rule(ActionJump, "A"))}, none, ""},
		{"a chain that nothing leads to", []Chain{base(), chain("A", masquerade())}, none, ""},
		{"another hook's", []Chain{base(), {Table: "table ip nat", Name: "OTHER", Rules: []Rule{masquerade()}}}, none, ""},
		{"by the tunnel", []Chain{base(masquerade(out("flannel.1")))}, between, "to pool pods (10.244.2.0) by flannel.1"},
		{"by no interface", []Chain{base(masquerade(out("wg*")))}, none, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &Facts{Node: node(), Rules: &Ruleset{Chains: tt.chains}}
			r := Judge(s, compile.Compile(s, model.Local{Name: "node"}), f)
			if tt.want == none {
				if len(r.Problems) > 0 {
					t.Errorf("found %v", r.Problems)
				}
				return
			}
			if len(r.Problems) != 1 {
				t.Fatalf("found %v", r.Problems)
			}
			p := r.Problems[0]
			_, said, _ := strings.Cut(p.What, `" `)
			if !strings.HasPrefix(said, tt.want) || !strings.Contains(said, tt.also) {
				t.Errorf("%s: %s\nwant %q with %q", p.Kind, said, tt.want, tt.also)
			}
			if certain := !strings.HasPrefix(tt.want, "may"); certain != (p.Kind == ForeignTranslation) {
				t.Errorf("%s: %s", p.Kind, said)
			}
		})
	}
}

// TestForeignRulesElsewhere makes sure that others may translate by interfaces that we do not cover.
func TestForeignRulesElsewhere(t *testing.T) {
	t.Parallel()
	s := &model.Snapshot{Pools: []*model.Pool{pool("pods", "10.244.0.0/16")},
		NATConfigurations: []model.NATConfiguration{{Name: "a", NodeSelector: "all()", OutInterfaces: []string{"wan*"}}}}
	f := &Facts{Node: node(), Rules: &Ruleset{Chains: []Chain{at(0, base(masquerade(source("10.244.0.0/16"), not(destination("10.244.0.0/16")))))}}}
	if r := Judge(s, compile.Compile(s, model.Local{Name: "node"}), f); len(r.Problems) > 0 {
		t.Errorf("found %v", r.Problems)
	}
}

// TestPoints makes sure that every part of an area has one point.
func TestPoints(t *testing.T) {
	t.Parallel()
	area := in("10.0.0.0/24", "10.0.2.0/24", "fd00::/64")
	bounds := []netip.Addr{netip.IPv4Unspecified(), netip.MustParseAddr("10.0.0.128"), netip.MustParseAddr("10.0.1.7"), netip.MustParseAddr("10.9.0.0"), netip.IPv6Unspecified(), netip.MustParseAddr("fe80::")}
	var got []string
	for _, a := range points(area, bounds) {
		got = append(got, a.String())
	}
	if want := "10.0.0.0 10.0.0.128 10.0.2.0 fd00::"; strings.Join(got, " ") != want {
		t.Errorf("points %v, want %s", got, want)
	}
}

// TestForeignRulesMany judges many rules on a node with an interface for each of many pods, which must not be
// too much: pods that all rules treat alike are judged once.
func TestForeignRulesMany(t *testing.T) {
	t.Parallel()
	s := &model.Snapshot{Pools: []*model.Pool{pool("pods", "10.244.0.0/16")}}
	n := node()
	for i := range 250 {
		p := prefixes(fmt.Sprintf("10.244.9.%d/32", i))
		n.Interfaces = append(n.Interfaces, Interface{Name: fmt.Sprintf("veth%d", i), ForwardIPv4: true, Routes: p, OnLink: p})
	}
	var rules []Rule
	for i := range 500 {
		rules = append(rules, rule(ActionReturn, "", destination(fmt.Sprintf("172.16.%d.0/24", i%256))))
	}
	f := &Facts{Node: n, Rules: &Ruleset{Chains: []Chain{base(append(rules, masquerade(source("10.244.9.77/32")))...)}}}
	r := Judge(s, compile.Compile(s, model.Local{Name: "node"}), f)
	if len(r.Problems) != 1 || r.Problems[0].Kind != ForeignTranslation || !strings.Contains(r.Problems[0].What, "from pool pods (10.244.9.77) to pool pods (") {
		t.Errorf("found %v", r.Problems)
	}
}
