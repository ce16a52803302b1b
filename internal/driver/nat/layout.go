package nat

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
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

// natPriority is one before NF_IP_PRI_NAT_SRC (linux/netfilter_ipv4.h), where others register: at equal
// priority the last to register would win, so that a reload by others could flip the answer.
const natPriority = 100 - 1

// layout is the table that a plan wants, hooked or not. It fails if the plan breaks what compile promises.
func layout(nat compile.NAT, hooked bool) (*nftables.Table, error) {
	return new(layouts).of(nat, hooked)
}

// layouts makes tables of plans, and remembers the chains of the last: a change of ranges mostly leaves them as they
// are, and to write their rules takes longer than all the rest.
type layouts struct {
	settings compile.NAT // without its ranges
	hooked   bool
	fits     [2]fit
	chains   []nftables.Chain // nobody changes them
}

func (l *layouts) of(nat compile.NAT, hooked bool) (*nftables.Table, error) {
	if err := cmp.Or(checkSettings(nat), checkRanges(nat)); err != nil {
		return nil, fmt.Errorf("laying out table %s: %w", TableName, err)
	}
	t := &nftables.Table{}
	for _, f := range families() {
		exempt, source := f.set(setExempt), f.set(setSource)
		source.Counters, source.Labels = true, "pool"
		addExempt(&exempt, f, nat.Exempt)
		addSources(&source, f, nat.Sources)
		t.Sets = append(t.Sets, exempt, source)
	}
	addGuarded(t, nat)
	fits, settings := fitsOf(t), nat
	settings.Sources, settings.Exempt = nil, nil
	switch {
	case l.chains == nil || hooked != l.hooked || !equalNAT(&settings, &l.settings) || fits[0].translates != l.fits[0].translates || fits[1].translates != l.fits[1].translates:
		addChains(t, nat)
		addGuard(t, nat, fits)
		if !hooked {
			t.Chains = slices.DeleteFunc(t.Chains, func(c nftables.Chain) bool { return c.Hook.Kind != "" })
		}
	case fits != l.fits:
		t.Chains = slices.Clone(l.chains)
		fitGuard(t, fits)
	default:
		t.Chains = l.chains
	}
	l.settings, l.hooked, l.fits, l.chains = settings, hooked, fits, t.Chains
	return t, nil
}

// addChains adds the chains that translate.
func addChains(t *nftables.Table, nat compile.NAT) {
	for _, f := range families() {
		t.Chains = append(t.Chains, nftables.Chain{Name: chainSNAT + f.suffix, Rules: snatRules(f, nat)})
	}
	hook := nftables.Hook{Kind: nftables.KindNAT, Number: unix.NF_INET_POST_ROUTING, Priority: natPriority}
	t.Chains = append(t.Chains,
		nftables.Chain{Name: chainTranslate, Rules: translateRules()},
		nftables.Chain{Name: chainPostrouting, Hook: hook, Rules: baseRules(nat.OutInterfaces)})
}

// baseRules have what leaves by the interfaces decided on.
func baseRules(outInterfaces []string) []nftables.Rule {
	return perInterface(outInterfaces, nftables.OutBy, nftables.GoTo(chainTranslate))
}

// translateRules decides by destination, then by source.
func translateRules() []nftables.Rule {
	var list []nftables.Rule
	for _, f := range families() {
		list = append(list, nftables.NewRule(nftables.DestinationIn(f.Family, setExempt+f.suffix), nftables.Return()))
	}
	for _, f := range families() {
		list = append(list, nftables.NewRule(nftables.SourceIn(f.Family, setSource+f.suffix), nftables.GoTo(chainSNAT+f.suffix)))
	}
	return list
}

// snatRules translates: each protocol with a port range by a rule of its own, then all the others.
func snatRules(f family, nat compile.NAT) []nftables.Rule {
	var list []nftables.Rule
	for _, p := range []struct {
		protocol compile.Protocol
		ports    model.PortRange
	}{{compile.TCP, nat.Ports}, {compile.UDP, nat.UDPPorts}, {compile.SCTP, nat.Ports}} {
		if !p.ports.IsZero() {
			list = append(list, nftables.NewRule(nftables.ProtocolIs(uint8(p.protocol)), translate(f, f.to(nat), p.ports, nat.Allocation)))
		}
	}
	return append(list, nftables.NewRule(translate(f, f.to(nat), model.PortRange{}, nat.Allocation)))
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

// checkRanges refuses ranges that are none, or that are not in ascending order within their family.
func checkRanges(nat compile.NAT) error {
	var last [2]netipx.IPRange // by family
	check := func(r netipx.IPRange) error {
		if !r.IsValid() {
			return fmt.Errorf("not a range of addresses of one family")
		}
		l := &last[r.From().BitLen()/128]
		if l.IsValid() && l.To().Compare(r.From()) >= 0 {
			return fmt.Errorf("overlaps, or comes after, %s", l)
		}
		*l = r
		return nil
	}
	for _, s := range nat.Sources {
		if err := check(s.Range); err != nil {
			return fmt.Errorf("source %s of pool %q: %w", s.Range, s.Pool, err)
		}
	}
	last = [2]netipx.IPRange{}
	for _, r := range nat.Exempt {
		if err := check(r); err != nil {
			return fmt.Errorf("exempt range %s: %w", r, err)
		}
	}
	return nil
}

// addSources adds the sources of one family to a set.
func addSources(s *nftables.Set, f family, sources []compile.Source) {
	s.Grow(countFamily(f, len(sources), func(i int) netipx.IPRange { return sources[i].Range }))
	for _, src := range sources {
		if f.holds(src.Range) {
			s.AddRange(src.Range.From(), src.Range.To(), src.Pool)
		}
	}
}

// addExempt adds the exemptions of one family to a set.
func addExempt(s *nftables.Set, f family, ranges []netipx.IPRange) {
	s.Grow(countFamily(f, len(ranges), func(i int) netipx.IPRange { return ranges[i] }))
	for _, r := range ranges {
		if f.holds(r) {
			s.AddRange(r.From(), r.To(), "")
		}
	}
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
