package diagnose

import (
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// OurPriority is that of our chain of the postrouting hook: one before NF_IP_PRI_NAT_SRC
// (linux/netfilter_ipv4.h). The first chain of the nat type that translates a connection decides.
const OurPriority = 100 - 1

// Ruleset is what rules of others do to the source addresses of connections: their chains of the nat type in
// the postrouting hook, and the chains that these lead to.
type Ruleset struct {
	Chains []Chain
	// Services are addresses of services, sorted; only where kube-proxy makes them known, and not necessarily all.
	Services []netip.Addr
}

// Chain is a list of rules.
type Chain struct {
	Table string // with its kind and family, as "table ip nat" or "iptables-legacy table nat"
	Name  string // unique in its table
	// Base says that the postrouting hook leads to it, at Priority; IPv4 and IPv6 for which packets.
	Base       bool
	Priority   int32
	IPv4, IPv6 bool
	Rules      []Rule
}

// Rule is a list of matches, all of which a packet must meet, and what then happens to it.
type Rule struct {
	Where   string // how to find it, such as "rule 3 (handle 12)"
	Delete  string // a command that deletes it, or ""
	Text    string // its matches, as people write them
	Matches []Match
	Action  Action
}

// ActionKind is a kind of action.
type ActionKind int

// The kinds of actions.
const (
	ActionNone      ActionKind = iota // on to the next rule
	ActionEnd                         // accept or drop: the chain is left, and those that led to it
	ActionReturn                      // back to the rule after the one that led to the chain
	ActionJump                        // to the chain Chains[0], and back
	ActionGoto                        // to the chain Chains[0], and from its end back as by Return
	ActionMark                        // the packet's mark becomes mark &^ Clear ^ Set
	ActionTranslate                   // masquerade, snat and the like
	ActionUnknown                     // anything: perhaps to one of Chains, perhaps the end
)

// Action is what happens to a packet that meets a rule's matches.
type Action struct {
	Kind       ActionKind
	Chains     []string // in the same table
	Clear, Set uint32
	Text       string // for ActionTranslate, such as "masquerade" or "snat to 192.0.2.1"
}

// MatchKind is what a match looks at.
type MatchKind int

// The kinds of matches. A packet that is judged is the first of a connection that goes straight to its
// destination: it is new, not translated so far, and neither from nor to the node itself.
const (
	MatchUnknown     MatchKind = iota // nobody knows
	MatchNothing                      // nothing that is judged meets it
	MatchEverything                   // everything does
	MatchSource                       // the source lies in Ranges
	MatchDestination                  // the destination lies in Ranges
	MatchOut                          // it leaves by one of Names; a trailing "*" matches any rest
	MatchProtocol                     // its protocol is one of Protocols
	MatchMark                         // mark & Mask == Value
	MatchIPv4                         // it is IPv4
)

// Match is one condition.
type Match struct {
	Kind        MatchKind
	Not         bool
	Ranges      []netipx.IPRange
	Names       []string
	Protocols   []uint8
	Mask, Value uint32
}

// answer is what is known of whether a packet meets a condition. They are ordered, so that the least of
// several is the answer to all of them.
type answer int8

const (
	no answer = iota
	maybe
	yes
)

func answerOf(b bool) answer {
	if b {
		return yes
	}
	return no
}

// flow is the first packet of a connection.
type flow struct {
	source, destination netip.Addr
	out                 string // "" if not known
	protocol            uint8
}

// meets says whether a packet with a mark, if that is known, meets a match.
func (m *Match) meets(f *flow, mark uint32, marked bool) answer {
	a := maybe
	switch m.Kind {
	case MatchNothing:
		a = no
	case MatchEverything:
		a = yes
	case MatchSource:
		a = answerOf(within(m.Ranges, f.source))
	case MatchDestination:
		a = answerOf(within(m.Ranges, f.destination))
	case MatchOut:
		if f.out != "" {
			a = answerOf(slices.ContainsFunc(m.Names, func(n string) bool { return named(n, f.out) }))
		}
	case MatchProtocol:
		a = answerOf(slices.Contains(m.Protocols, f.protocol))
	case MatchMark:
		if marked {
			a = answerOf(mark&m.Mask == m.Value)
		}
	case MatchIPv4:
		a = answerOf(f.source.Is4())
	}
	if m.Not {
		return yes - a
	}
	return a
}

func within(ranges []netipx.IPRange, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(r netipx.IPRange) bool { return r.Contains(a) })
}

// named says whether a pattern matches the name of an interface.
func named(pattern, name string) bool {
	if prefix, wild := strings.CutSuffix(pattern, "*"); wild {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
