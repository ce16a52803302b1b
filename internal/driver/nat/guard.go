package nat

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// The chains and sets of the leak guard. Towards outside:
//
//	guard    base chain; what comes from near a source goes to covered, or to suspect if all interfaces are covered
//	covered  what leaves by a covered interface goes to suspect
//	suspect  what is translated, replies and exempt destinations pass; sources in "guarded" go to leak
//	leak     passes what may leave all the same, counts and drops the rest
//
// Every packet that the node forwards or sends passes guard, so its rules are such as the kernel evaluates in
// place: words of the packet, masked and compared. No source passes them; suspect decides exactly.
//
// The sets guarded4 and guarded6 hold the sources once more, merged and without counters: every lookup in
// a source set counts, and there it is to count translated connections alone.
//
// From outside:
//
//	input    base chain; INVALID TCP segments go to stray
//	stray    passes what a socket of this node waits for, counts and drops the rest
const (
	chainGuard   = "guard"
	chainCovered = "covered"
	chainSuspect = "suspect"
	chainLeak    = "leak"
	chainInput   = "input"
	chainStray   = "stray"
	setGuarded   = "guarded" // + "4" or "6"
)

const (
	// guardPriority is after every translation: NF_IP_PRI_NAT_SRC is 100 (linux/netfilter_ipv4.h).
	guardPriority = 300
	// inputPriority is before the filters of others (0), which may answer with the very reset that is to be
	// avoided.
	inputPriority = -150
)

// addGuarded adds the leak guard's sets, if the plan wants it.
func addGuarded(t *nftables.Table, nat compile.NAT) {
	if !nat.LeakGuard {
		return
	}
	for _, f := range families() {
		guarded := f.set(setGuarded)
		addMerged(&guarded, f, nat.Sources)
		t.Sets = append(t.Sets, guarded)
	}
}

// fit is what the guard's rules depend on of what a family's sets hold.
type fit struct {
	translates   bool // there are sources
	cover, homes [mostPrefixes]netip.Prefix
}

func fitsOf(t *nftables.Table) (out [2]fit) {
	for i, f := range families() {
		guarded := t.Set(setGuarded + f.suffix)
		if guarded == nil {
			continue
		}
		out[i].translates = guarded.Len() > 0
		copy(out[i].cover[:], cover(guarded))
		copy(out[i].homes[:], homes(t.Set(setExempt+f.suffix), guarded))
	}
	return out
}

// valid are the prefixes before the first that is none.
func valid(list [mostPrefixes]netip.Prefix) []netip.Prefix {
	n := 0
	for n < len(list) && list[n].IsValid() {
		n++
	}
	return list[:n]
}

// addGuard adds the leak guard's chains, if the plan wants it.
func addGuard(t *nftables.Table, nat compile.NAT, fits [2]fit) {
	if !nat.LeakGuard {
		return
	}
	t.Chains = append(t.Chains,
		nftables.Chain{Name: chainLeak, Rules: leakRules(nat.ExistingFlows), Tally: true},
		nftables.Chain{Name: chainSuspect})
	if len(nat.OutInterfaces) > 0 {
		t.Chains = append(t.Chains, nftables.Chain{Name: chainCovered, Rules: perInterface(nat.OutInterfaces, nftables.OutBy, nftables.GoTo(chainSuspect))})
	}
	t.Chains = append(t.Chains,
		nftables.Chain{Name: chainGuard, Hook: nftables.Hook{Kind: nftables.KindFilter, Number: unix.NF_INET_POST_ROUTING, Priority: guardPriority}},
		nftables.Chain{Name: chainStray, Rules: strayRules(nat, fits), Tally: true},
		nftables.Chain{Name: chainInput, Rules: inputRules(nat.OutInterfaces),
			Hook: nftables.Hook{Kind: nftables.KindFilter, Number: unix.NF_INET_LOCAL_IN, Priority: inputPriority}})
	fitGuard(t, fits)
}

// fitGuard fits the guard's rules to what the sets hold.
func fitGuard(t *nftables.Table, fits [2]fit) {
	if suspect := t.Chain(chainSuspect); suspect != nil {
		suspect.Rules = suspectRules(fits)
	}
	if guard := t.Chain(chainGuard); guard != nil {
		next := chainSuspect
		if t.Chain(chainCovered) != nil {
			next = chainCovered
		}
		guard.Rules = guardRules(fits, next)
	}
}

// addMerged adds the sources of one family to a set, neighbours merged whatever their pools.
func addMerged(s *nftables.Set, f family, sources []compile.Source) {
	apart := 0 // so that no room is wasted on large plans
	for i, src := range sources {
		if f.holds(src.Range) && (i == 0 || sources[i-1].Range.To().Next() != src.Range.From()) {
			apart++
		}
	}
	s.Grow(apart)
	for i := 0; i < len(sources); {
		first := i
		for i++; i < len(sources) && sources[i-1].Range.To().Next() == sources[i].Range.From(); {
			i++
		}
		if r := sources[first].Range; f.holds(r) {
			s.AddRange(r.From(), sources[i-1].Range.To(), "")
		}
	}
}

// guardRules let pass what comes from far away, which is most of what comes here: what was translated has an
// address of the node by now. They do not ask for the family; a packet that looks like a source of the other one
// costs a few steps more.
func guardRules(fits [2]fit, next string) []nftables.Rule {
	var list []nftables.Rule
	for i, f := range families() {
		for _, p := range valid(fits[i].cover) {
			list = append(list, nftables.NewRule(wordsAt(f.Source, p), nftables.GoTo(next)))
		}
	}
	return list
}

// suspectRules find what should have been translated. What pods say to pods comes first, since there is most of
// it. A packet without a connection has neither status nor direction, and their rules do not match it.
func suspectRules(fits [2]fit) []nftables.Rule {
	var list []nftables.Rule
	for i, f := range families() {
		for _, p := range valid(fits[i].homes) {
			list = append(list, nftables.NewRule(wordsAt(f.Destination, p), version(f), nftables.Return()))
		}
	}
	list = append(list, nftables.NewRule(translated(), nftables.Return()), nftables.NewRule(reply(), nftables.Return()))
	for _, f := range families() {
		list = append(list, nftables.NewRule(nftables.DestinationIn(f.Family, setExempt+f.suffix), nftables.Return()))
	}
	for _, f := range families() {
		list = append(list, nftables.NewRule(nftables.SourceIn(f.Family, setGuarded+f.suffix), nftables.GoTo(chainLeak)))
	}
	return list
}

// leakRules let pass connections that live on under an older decision, what this node sends itself, and
// neighbour discovery, which no router forwards and conntrack does not track.
func leakRules(flows model.ExistingFlows) []nftables.Rule {
	var list []nftables.Rule
	switch flows {
	case model.FlowsKeep:
		list = append(list, nftables.NewRule(tracked(), nftables.Return()))
	case model.FlowsReset:
	default:
		for _, p := range []compile.Protocol{compile.TCP, compile.SCTP} {
			list = append(list,
				nftables.NewRule(nftables.ProtocolIs(uint8(p)), established(), nftables.Return()),
				nftables.NewRule(related(), connectionOf(uint8(p)), nftables.ProtocolIsNot(uint8(p)), nftables.Return())) // ICMP errors about these
		}
	}
	return append(list, nftables.NewRule(sourceIsLocal(), nftables.Return()), nftables.NewRule(neighbourDiscovery(), nftables.Return()),
		nftables.NewRule(countAndDrop()))
}

// inputRules find segments that belong to no connection.
func inputRules(interfaces []string) []nftables.Rule {
	return perInterface(interfaces, nftables.InBy, nftables.ProtocolIs(uint8(compile.TCP)), invalid(), nftables.GoTo(chainStray))
}

// strayRules drop a segment for which no socket waits, since the node would answer it with a reset, and
// that may be for a connection of a pod's that is well. Segments from inside pools, and those to addresses
// that nothing is translated to, are the node's own affair.
func strayRules(nat compile.NAT, fits [2]fit) []nftables.Rule {
	var list []nftables.Rule
	for i, f := range families() {
		to := f.to(nat)
		switch {
		case !fits[i].translates:
			list = append(list, nftables.NewRule(nftables.InFamily(f.Family), nftables.Return()))
			continue
		case to.IsValid():
			list = append(list, nftables.NewRule(destinationIsNot(f, to), nftables.Return()))
		default:
			list = append(list, nftables.NewRule(nftables.InFamily(f.Family), destinationIsElsewhere(), nftables.Return()))
		}
		list = append(list, nftables.NewRule(nftables.SourceIn(f.Family, setExempt+f.suffix), nftables.Return()))
	}
	return append(list, nftables.NewRule(hasSocket(), nftables.Return()), nftables.NewRule(countAndDrop()))
}
