package nat

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nftables"
)

// previewed asks for a preview, which must change nothing.
func previewed(t *testing.T, ns *namespace, d *Driver, plan compile.NAT) *nftables.Preview {
	t.Helper()
	before := ns.generation()
	p, err := d.Preview(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if after := ns.generation(); after != before {
		t.Errorf("a preview changed generation %d to %d", before, after)
	}
	return p
}

func TestPreview(t *testing.T) {
	t.Parallel()
	ns, plan := newNamespace(t), simplePlan(t)
	other := ns.driver() // a process of its own, as a dry run is, which has applied nothing
	p := previewed(t, ns, other, plan)
	if p.Equal || p.Present || len(p.Chains) < 4 || len(p.Sets) != 4 || p.Sets[1].Add != 2 || p.Sets[1].AddFirst[0] != "10.1.0.0/24" {
		t.Errorf("before the first plan: %+v", p)
	}
	mustApply(t, ns.owner(), plan)
	if p = previewed(t, ns, other, plan); !p.Equal || !p.Present || p.Sets != nil || p.Chains != nil {
		t.Errorf("of an equal plan, whose table another owns: %+v", p)
	}
	plan.Sources, plan.OutInterfaces = plan.Sources[1:], []string{"eth0"}
	want := &nftables.Preview{Table: "inet sallyport", Present: true,
		Sets: []nftables.SetPreview{{Name: "source4", Remove: 1, RemoveFirst: []string{"10.1.0.0/24"}}}}
	p = previewed(t, ns, other, plan)
	chains := p.Chains
	p.Chains = nil
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("of a change (-want +got):\n%s", diff)
	}
	rules := 0
	for _, c := range chains {
		for _, r := range c.Add {
			if rules++; len(r) < 10 || r[:14] != `oifname "eth0"` {
				t.Errorf("chain %s gets %q", c.Name, r)
			}
		}
	}
	if rules == 0 {
		t.Errorf("no rule for the interface: %+v", chains)
	}
}

func TestPreviewOfStrangeTables(t *testing.T) {
	t.Parallel()
	plan := simplePlan(t)
	for _, c := range []struct {
		script string
		want   func(*nftables.Preview) bool
	}{
		{"add set inet sallyport strange { type inet_service; }", func(p *nftables.Preview) bool { return len(p.Sets) == 1 && p.Sets[0].Gone && !p.Sets[0].New }},
		{"add chain inet sallyport strange", func(p *nftables.Preview) bool { return len(p.Chains) == 1 && p.Chains[0].Gone && !p.Chains[0].New }},
		{"add counter inet sallyport strange", func(p *nftables.Preview) bool { return p.Replaced }},
		{"add rule inet sallyport snat4 counter drop", func(p *nftables.Preview) bool {
			return len(p.Chains) == 1 && cmp.Equal(p.Chains[0].Remove, []string{"counter drop"})
		}},
		{"flush set inet sallyport exempt4", func(p *nftables.Preview) bool { return len(p.Sets) == 1 && p.Sets[0].Add == 1 }},
	} {
		ns := newNamespace(t)
		mustApply(t, ns.driver(), plan)
		ns.nft(c.script)
		if p := previewed(t, ns, ns.driver(), plan); p.Equal || !c.want(p) {
			t.Errorf("%s: %+v", c.script, p)
		}
	}
}
