package nat

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TestAFaultInOneFamilyHoldsNoOther lets the kernel refuse an element of one family. The other family's part of the
// plan must come to the kernel all the same, that of the refused one must stay, and both must be there once
// the fault is gone.
func TestAFaultInOneFamilyHoldsNoOther(t *testing.T) {
	t.Parallel()
	before := compile.NAT{
		Sources: append(sources(t, "a", "10.1.0.0/24"), sources(t, "b", "fd00:1::/64")...),
		Exempt:  ranges(t, "10.0.0.0/8", "fd00::/16"), Allocation: "FullyRandom", LeakGuard: true,
	}
	after := before
	after.Sources = append(sources(t, "a", "10.77.0.0/24"), sources(t, "b", "fd77:1::/64")...)
	after.Exempt = ranges(t, "10.76.0.0/15", "fd77::/16")
	mixed := map[string]compile.NAT{"IPv4": after, "IPv6": after}
	for name, n := range mixed {
		n.Sources, n.Exempt = append([]compile.Source{}, after.Sources...), append(n.Exempt[:0:0], after.Exempt...)
		i := map[string]int{"IPv4": 0, "IPv6": 1}[name]
		n.Sources[i], n.Exempt[i] = before.Sources[i], before.Exempt[i]
		mixed[name] = n
	}
	for _, c := range []struct{ family, word string }{
		{"IPv4", "\x0a\x4d\x00\x00"}, {"IPv6", "\xfd\x77\x00\x01"},
	} {
		for _, fresh := range []bool{false, true} {
			ns := newNamespace(t)
			refusing := &refusingSocket{kind: unix.NFT_MSG_NEWSETELEM, word: "never there", errno: unix.ENOSPC}
			d := ns.open(nftables.Options{Unowned: true, Wrap: refusing.over})
			want := mixed[c.family]
			if fresh { // nothing of the refused family is there
				i := map[string]int{"IPv4": 1, "IPv6": 0}[c.family]
				want.Sources, want.Exempt = want.Sources[i:i+1], want.Exempt[i:i+1]
			} else {
				mustApply(t, d, before)
			}
			refusing.word = c.word
			for range 2 { // as retries do
				err := d.Apply(t.Context(), after)
				if err == nil || !strings.Contains(err.Error(), c.family+": adding to set") {
					t.Fatalf("%s refused: %v", c.family, err)
				}
				if fresh {
					// The refused family's chain has no rules yet. Those of stray depend on which families are
					// translated, and are harmless.
					p := differences(t, ns, want)
					p.Chains = slices.DeleteFunc(p.Chains, func(p nftables.ChainPreview) bool {
						return p.Name == chainStray || p.Name == chainSNAT+map[string]string{"IPv4": "4", "IPv6": "6"}[c.family] && len(p.Remove) == 0
					})
					if len(p.Chains)+len(p.Sets) > 0 || p.Replaced {
						t.Errorf("%s refused in a fresh table: %+v", c.family, p)
					}
					continue
				}
				mustHold(t, ns, want)
			}
			refusing.word = "never there"
			mustApply(t, d, after)
			mustHold(t, ns, after)
		}
	}
}

// TestAFaultOfBothFamiliesIsOne lets the kernel refuse what both families need: it is reported once.
func TestAFaultOfBothFamiliesIsOne(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	refusing := &refusingSocket{kind: unix.NFT_MSG_NEWSETELEM, errno: unix.ENOSPC}
	err := ns.open(nftables.Options{Unowned: true, Wrap: refusing.over}).Apply(t.Context(), simplePlan(t))
	if err == nil || strings.Count(err.Error(), "adding to set") != 1 || strings.Contains(err.Error(), "IPv4:") {
		t.Errorf("error %v; want one about a set", err)
	}
}
