package nat

import (
	"net/netip"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
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

// addGuard adds the leak guard's sets and chains, if the plan wants it.
func (t *table) addGuard(nat compile.NAT) error {
	if !nat.LeakGuard {
		return nil
	}
	for _, f := range []family{ipv4(), ipv6()} {
		spec := setSpec{keyType: f.keyType, keyLen: f.addrLen, flags: unix.NFT_SET_INTERVAL}
		t.sets = append(t.sets, set{name: setGuarded + f.suffix, spec: spec, segments: guardedSegments(f, nat.Sources)})
	}
	next := chainSuspect
	chains := []guardChain{
		{name: chainLeak, rules: leakRules(nat.ExistingFlows)},
		{name: chainSuspect, rules: suspectRules(t)},
	}
	if len(nat.OutInterfaces) > 0 {
		next = chainCovered
		chains = append(chains, guardChain{name: chainCovered, rules: perInterface(nat.OutInterfaces, (*ruleBuilder).outInterface, chainSuspect)})
	}
	for _, c := range append(chains,
		guardChain{name: chainGuard, rules: guardRules(t, next),
			hook: hook{kind: kindFilter, number: unix.NF_INET_POST_ROUTING, priority: guardPriority, policy: verdictAccept}},
		guardChain{name: chainStray, rules: strayRules(nat)},
		guardChain{name: chainInput, rules: inputRules(nat.OutInterfaces),
			hook: hook{kind: kindFilter, number: unix.NF_INET_LOCAL_IN, priority: inputPriority, policy: verdictAccept}},
	) {
		rules, err := buildRules(c.rules...)
		if err != nil {
			return err
		}
		t.chains = append(t.chains, chain{name: c.name, hook: c.hook, rules: rules})
	}
	return nil
}

// guardChain is a chain whose rules are yet to be built.
type guardChain struct {
	name  string
	hook  hook
	rules []*ruleBuilder
}

// refitGuard fits the guard's rules to sets that have become others since.
func (t *table) refitGuard() (err error) {
	guard, suspect, next := t.chain(chainGuard), t.chain(chainSuspect), chainSuspect
	if guard == nil {
		return nil
	}
	if t.chain(chainCovered) != nil {
		next = chainCovered
	}
	if guard.rules, err = buildRules(guardRules(t, next)...); err != nil {
		return err
	}
	suspect.rules, err = buildRules(suspectRules(t)...)
	return err
}

// guardedSegments are the sources of one family, neighbours merged whatever their pools.
func guardedSegments(f family, sources []compile.Source) []segment {
	apart := 0 // so that no room is wasted on large plans
	for i, s := range sources {
		if f.holds(s.Range) && (i == 0 || sources[i-1].Range.To().Next() != s.Range.From()) {
			apart++
		}
	}
	out := make([]segment, 0, apart)
	for _, s := range sources {
		if !f.holds(s.Range) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].last.Next() == s.Range.From() {
			out[n-1].last = s.Range.To()
			continue
		}
		out = append(out, segment{first: s.Range.From(), last: s.Range.To()})
	}
	return out
}

// guardRules let pass what comes from far away, which is most of what comes here: what was translated has an
// address of the node by now. They do not ask for the family; a packet that looks like a source of the other one
// costs a few steps more.
func guardRules(t *table, next string) []*ruleBuilder {
	var list []*ruleBuilder
	for _, f := range []family{ipv4(), ipv6()} {
		for _, p := range cover(t.set(setGuarded + f.suffix).segments) {
			list = append(list, new(ruleBuilder).wordsAt(f.source, p).goTo(next))
		}
	}
	return list
}

// suspectRules find what should have been translated. What pods say to pods comes first, since there is most of
// it. A packet without a connection has neither status nor direction, and their rules do not match it.
func suspectRules(t *table) []*ruleBuilder {
	var list []*ruleBuilder
	for _, f := range []family{ipv4(), ipv6()} {
		for _, p := range homes(t.set(setExempt+f.suffix).segments, t.set(setGuarded+f.suffix).segments) {
			list = append(list, new(ruleBuilder).wordsAt(f.destination, p).version(f).leave())
		}
	}
	list = append(list, new(ruleBuilder).translated().leave(), new(ruleBuilder).reply().leave())
	for _, f := range []family{ipv4(), ipv6()} {
		list = append(list, new(ruleBuilder).addressIn(f, f.destination, setExempt+f.suffix).leave())
	}
	for _, f := range []family{ipv4(), ipv6()} {
		list = append(list, new(ruleBuilder).addressIn(f, f.source, setGuarded+f.suffix).goTo(chainLeak))
	}
	return list
}

// leakRules let pass connections that live on under an older decision, what this node sends itself, and
// neighbour discovery, which no router forwards and conntrack does not track.
func leakRules(flows model.ExistingFlows) []*ruleBuilder {
	var list []*ruleBuilder
	switch flows {
	case model.FlowsKeep:
		list = append(list, new(ruleBuilder).tracked().leave())
	case model.FlowsReset:
	default:
		for _, p := range []compile.Protocol{compile.TCP, compile.SCTP} {
			list = append(list,
				new(ruleBuilder).protocol(uint8(p)).established().leave(),
				new(ruleBuilder).related().connection(uint8(p)).protocolIsNot(uint8(p)).leave()) // ICMP errors about these
		}
	}
	return append(list, new(ruleBuilder).sourceIsLocal().leave(), new(ruleBuilder).neighbourDiscovery().leave(), new(ruleBuilder).countAndDrop())
}

// inputRules find segments that belong to no connection.
func inputRules(interfaces []string) []*ruleBuilder {
	stray := func(r *ruleBuilder) *ruleBuilder { return r.protocol(uint8(compile.TCP)).invalid().goTo(chainStray) }
	if len(interfaces) == 0 {
		return []*ruleBuilder{stray(new(ruleBuilder))}
	}
	var list []*ruleBuilder
	for _, name := range interfaces {
		list = append(list, stray(new(ruleBuilder).inInterface(name)))
	}
	return list
}

// strayRules drop a segment for which no socket waits, since the node would answer it with a reset, and
// that may be for a connection of a pod's that is well. Segments from inside pools, and those to addresses
// that nothing is translated to, are the node's own affair.
func strayRules(nat compile.NAT) []*ruleBuilder {
	var list []*ruleBuilder
	for _, to := range []struct {
		f    family
		addr netip.Addr
	}{{ipv4(), nat.To4}, {ipv6(), nat.To6}} {
		switch {
		case !translates(to.f, nat.Sources):
			list = append(list, new(ruleBuilder).inFamily(to.f).leave())
			continue
		case to.addr.IsValid():
			list = append(list, new(ruleBuilder).destinationIsNot(to.f, to.addr).leave())
		default:
			list = append(list, new(ruleBuilder).inFamily(to.f).destinationIsElsewhere().leave())
		}
		list = append(list, new(ruleBuilder).addressIn(to.f, to.f.source, setExempt+to.f.suffix).leave())
	}
	return append(list, new(ruleBuilder).hasSocket().leave(), new(ruleBuilder).countAndDrop())
}

// translates says whether there are sources of a family.
func translates(f family, sources []compile.Source) bool {
	return countFamily(f, len(sources), func(i int) netipx.IPRange { return sources[i].Range }) > 0
}

// perInterface are rules that go to a chain for each of the interfaces, or for all if there are none.
func perInterface(names []string, match func(*ruleBuilder, string) *ruleBuilder, chain string) []*ruleBuilder {
	if len(names) == 0 {
		return []*ruleBuilder{new(ruleBuilder).goTo(chain)}
	}
	var list []*ruleBuilder
	for _, name := range names {
		list = append(list, match(new(ruleBuilder), name).goTo(chain))
	}
	return list
}
