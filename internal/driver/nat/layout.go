package nat

import (
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// The names in the kernel. They are public: operators see them, and other agents find our table by them.
const (
	// TableName is the name of the one table that Sallyport owns, of family inet.
	TableName = "sallyport"

	chainPostrouting = "postrouting" // the base chain
	chainTranslate   = "translate"   // decides
	chainSNAT        = "snat"        // + "4" or "6": translates
	setSource        = "source"      // + "4" or "6": what is translated
	setExempt        = "exempt"      // + "4" or "6": towards what nothing is
)

// The types of base chains.
const kindNAT, kindFilter = "nat", "filter"

// natPriority is one before NF_IP_PRI_NAT_SRC (linux/netfilter_ipv4.h), where others register: at equal
// priority the last to register would win, so that a reload by others could flip the answer.
const natPriority = 100 - 1

// verdictAccept is NF_ACCEPT of linux/netfilter.h.
const verdictAccept = 1

// counterExpr is the expression that counts connections.
const counterExpr = "counter"

// layout is the table that a plan wants. It fails if the plan breaks what compile promises.
func layout(nat compile.NAT) (*table, error) {
	t := &table{present: true}
	for _, f := range []family{ipv4(), ipv6()} {
		sources, err := sourceSegments(f, nat.Sources)
		if err != nil {
			return nil, err
		}
		exempt, err := exemptSegments(f, nat.Exempt)
		if err != nil {
			return nil, err
		}
		spec := setSpec{keyType: f.keyType, keyLen: f.addrLen, flags: unix.NFT_SET_INTERVAL}
		t.sets = append(t.sets, set{name: setExempt + f.suffix, spec: spec, segments: exempt})
		spec.expr = counterExpr
		t.sets = append(t.sets, set{name: setSource + f.suffix, spec: spec, segments: sources})
	}
	if err := t.addChains(nat); err != nil {
		return t, err
	}
	return t, t.addGuard(nat)
}

// addChains adds the chains; a chain comes after those that it goes to.
func (t *table) addChains(nat compile.NAT) error {
	if err := checkSettings(nat); err != nil {
		return err
	}
	for _, to := range []struct {
		f    family
		addr netip.Addr
	}{{ipv4(), nat.To4}, {ipv6(), nat.To6}} {
		rules, err := snatRules(to.f, to.addr, nat)
		if err != nil {
			return err
		}
		t.chains = append(t.chains, chain{name: chainSNAT + to.f.suffix, rules: rules})
	}
	rules, err := translateRules()
	if err != nil {
		return err
	}
	t.chains = append(t.chains, chain{name: chainTranslate, rules: rules})
	if rules, err = baseRules(nat.OutInterfaces); err != nil {
		return err
	}
	h := hook{kind: kindNAT, number: unix.NF_INET_POST_ROUTING, priority: natPriority, policy: verdictAccept}
	t.chains = append(t.chains, chain{name: chainPostrouting, hook: h, rules: rules})
	return nil
}

// baseRules have what leaves by the interfaces decided on.
func baseRules(outInterfaces []string) ([]rule, error) {
	return buildRules(perInterface(outInterfaces, (*ruleBuilder).outInterface, chainTranslate)...)
}

// translateRules decides by destination, then by source.
func translateRules() ([]rule, error) {
	var list []*ruleBuilder
	for _, f := range []family{ipv4(), ipv6()} {
		list = append(list, new(ruleBuilder).addressIn(f, f.destination, setExempt+f.suffix).leave())
	}
	for _, f := range []family{ipv4(), ipv6()} {
		list = append(list, new(ruleBuilder).addressIn(f, f.source, setSource+f.suffix).goTo(chainSNAT+f.suffix))
	}
	return buildRules(list...)
}

// snatRules translates: each protocol with a port range by a rule of its own, then all the others.
func snatRules(f family, to netip.Addr, nat compile.NAT) ([]rule, error) {
	var list []*ruleBuilder
	for _, p := range []struct {
		protocol compile.Protocol
		ports    model.PortRange
	}{{compile.TCP, nat.Ports}, {compile.UDP, nat.UDPPorts}, {compile.SCTP, nat.Ports}} {
		if !p.ports.IsZero() {
			list = append(list, new(ruleBuilder).protocol(uint8(p.protocol)).translate(f, to, p.ports, nat.Allocation))
		}
	}
	list = append(list, new(ruleBuilder).translate(f, to, model.PortRange{}, nat.Allocation))
	return buildRules(list...)
}

func buildRules(list ...*ruleBuilder) ([]rule, error) {
	rules := make([]rule, 0, len(list))
	for _, b := range list {
		r, err := b.build()
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// checkSettings refuses settings that the kernel would take for something else.
func checkSettings(nat compile.NAT) error {
	switch nat.Allocation {
	case model.PortsFullyRandom, model.PortsRandom, model.PortsPreserve:
	default:
		return fmt.Errorf("port allocation %q: must be %s, %s or %s", nat.Allocation, model.PortsFullyRandom, model.PortsRandom, model.PortsPreserve)
	}
	for _, p := range []model.PortRange{nat.Ports, nat.UDPPorts} {
		if !p.IsZero() && (p.First == 0 || p.First > p.Last) {
			return fmt.Errorf("port range %s: must be ascending and begin at 1 or more", p)
		}
	}
	if a := nat.To4; a.IsValid() && !a.Is4() {
		return fmt.Errorf("address to translate IPv4 to: %s is not an IPv4 address", a)
	}
	if a := nat.To6; a.IsValid() && (!a.Is6() || a.Is4In6() || a.Zone() != "") {
		return fmt.Errorf("address to translate IPv6 to: %s is not an IPv6 address without zone", a)
	}
	for _, name := range nat.OutInterfaces {
		if name == "" || len(strings.TrimSuffix(name, "*")) >= unix.IFNAMSIZ || strings.ContainsRune(name, 0) {
			return fmt.Errorf("out interface %q: a name has 1 to %d bytes", name, unix.IFNAMSIZ-1)
		}
	}
	return nil
}

// sourceSegments takes the sources of one family.
func sourceSegments(f family, sources []compile.Source) ([]segment, error) {
	out := make([]segment, 0, countFamily(f, len(sources), func(i int) netipx.IPRange { return sources[i].Range }))
	for _, s := range sources {
		var err error
		if out, err = appendSegment(out, f, s.Range, s.Pool); err != nil {
			return nil, fmt.Errorf("source %s of pool %q: %w", s.Range, s.Pool, err)
		}
	}
	return out, nil
}

// exemptSegments takes the exemptions of one family.
func exemptSegments(f family, ranges []netipx.IPRange) ([]segment, error) {
	out := make([]segment, 0, countFamily(f, len(ranges), func(i int) netipx.IPRange { return ranges[i] }))
	for _, r := range ranges {
		var err error
		if out, err = appendSegment(out, f, r, ""); err != nil {
			return nil, fmt.Errorf("exempt range %s: %w", r, err)
		}
	}
	return out, nil
}

// countFamily counts the ranges of a family, so that no room is wasted on large plans.
func countFamily(f family, n int, at func(int) netipx.IPRange) int {
	count := 0
	for i := range n {
		if f.holds(at(i)) {
			count++
		}
	}
	return count
}

// appendSegment appends a range if it is of the family. Ranges must come in ascending order.
func appendSegment(out []segment, f family, r netipx.IPRange, pool string) ([]segment, error) {
	if !r.IsValid() {
		return nil, fmt.Errorf("not a range of addresses of one family")
	}
	if !f.holds(r) {
		return out, nil
	}
	if n := len(out); n > 0 && out[n-1].last.Compare(r.From()) >= 0 {
		return nil, fmt.Errorf("overlaps, or comes after, %s", out[n-1])
	}
	return append(out, segment{first: r.From(), last: r.To(), pool: pool}), nil
}
