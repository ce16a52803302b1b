package nat

import (
	"net/netip"
	"testing"

	"go4.org/netipx"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// cuts are the addresses between which random ranges lie: the edges of both families, neighbours, and
// prefixes within prefixes.
func cuts() (v4, v6 []netip.Addr) {
	for _, s := range []string{"0.0.0.0", "0.0.0.1", "9.255.255.255", "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.128", "10.0.1.0", "10.1.0.0",
		"11.0.0.0", "128.0.0.0", "192.168.0.0", "192.168.0.255", "255.255.255.0", "255.255.255.254", "255.255.255.255"} {
		v4 = append(v4, netip.MustParseAddr(s))
	}
	for _, s := range []string{"::", "::1", "fd00::", "fd00::1", "fd00::2", "fd00::1:0:0:0", "fd00:1::", "fe00::",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		v6 = append(v6, netip.MustParseAddr(s))
	}
	return v4, v6
}

// drawOwners cuts a family into pieces and gives each piece to "" or to one of some pools.
func drawOwners(rt *rapid.T, cuts []netip.Addr, pools []string, label string) []compile.Source {
	var out []compile.Source
	density := rapid.IntRange(0, 4).Draw(rt, label+" density")
	for i := 0; i < len(cuts); {
		n := min(rapid.IntRange(1, 4).Draw(rt, label+" length"), len(cuts)-i)
		last := lastAddr(cuts[i])
		if i+n < len(cuts) {
			last = cuts[i+n].Prev()
		}
		if rapid.IntRange(0, 3).Draw(rt, label+" held") < density {
			pool := rapid.SampledFrom(pools).Draw(rt, label+" pool")
			out = append(out, compile.Source{Range: netipx.IPRangeFrom(cuts[i], last), Pool: pool})
		}
		i += n
	}
	return out
}

// lastAddr is the last address of a's family.
func lastAddr(a netip.Addr) netip.Addr {
	return netipx.PrefixLastIP(netip.PrefixFrom(a, 0).Masked())
}

func drawPlan(rt *rapid.T) compile.NAT {
	v4, v6 := cuts()
	pools := []string{"a", "b", "c"}
	n := compile.NAT{
		Sources:       append(drawOwners(rt, v4, pools, "sources4"), drawOwners(rt, v6, pools, "sources6")...),
		OutInterfaces: rapid.SampledFrom([][]string{nil, {"eth0"}, {"eth*", "wan0"}}).Draw(rt, "interfaces"),
		To4:           rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("192.0.2.1")}).Draw(rt, "to4"),
		To6:           rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("2001:db8::1")}).Draw(rt, "to6"),
		Ports:         rapid.SampledFrom([]model.PortRange{{}, {First: 1024, Last: 65535}}).Draw(rt, "ports"),
		UDPPorts:      rapid.SampledFrom([]model.PortRange{{}, {First: 4790, Last: 65535}}).Draw(rt, "udp ports"),
		Allocation:    rapid.SampledFrom([]model.PortAllocation{model.PortsFullyRandom, model.PortsRandom, model.PortsPreserve}).Draw(rt, "allocation"),
	}
	n.LeakGuard = rapid.Bool().Draw(rt, "leak guard")
	n.ExistingFlows = rapid.SampledFrom([]model.ExistingFlows{model.FlowsMove, model.FlowsKeep, model.FlowsReset}).Draw(rt, "existing flows")
	for _, s := range append(drawOwners(rt, v4, []string{""}, "exempt4"), drawOwners(rt, v6, []string{""}, "exempt6")...) {
		n.Exempt = append(n.Exempt, s.Range)
	}
	return n
}

// TestRandomPlans applies random plans one after another. After each, a reading by a driver that knows
// nothing must show exactly the plan, and only the first may have cost a reading of the driver's own.
func TestRandomPlans(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ns := newNamespace(t)
		d := ns.driver()
		for range rapid.IntRange(2, 10).Draw(rt, "plans") {
			plan := drawPlan(rt)
			if err := d.Apply(t.Context(), plan); err != nil {
				rt.Fatal(err)
			}
			if p := differences(t, ns, plan); !p.Equal {
				rt.Fatalf("the kernel differs: %+v", p)
			}
		}
		if n := d.Stats().FullReads; n > 2 {
			rt.Fatalf("%d full reads; want the two of the first plan", n)
		}
	})
}

// TestLayoutsRememberNothingElse lays out random plans one after another: each table is as if it were the first.
func TestLayoutsRememberNothingElse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var l layouts
		for range 5 {
			plan := drawPlan(rt)
			if rapid.Bool().Draw(rt, "other ranges alone") && l.chains != nil {
				sources, exempt := plan.Sources, plan.Exempt
				plan = l.settings
				plan.Sources, plan.Exempt = sources, exempt
			}
			hooked := rapid.Bool().Draw(rt, "hooked")
			got, err := l.of(plan, hooked)
			if err != nil {
				rt.Fatal(err)
			}
			want, err := layout(plan, hooked)
			if err != nil {
				rt.Fatal(err)
			}
			if len(got.Chains) != len(want.Chains) {
				rt.Fatalf("%d chains, want %d", len(got.Chains), len(want.Chains))
			}
			for i, c := range got.Chains {
				if w := want.Chains[i]; c.Name != w.Name || !nftables.EqualRules(c.Rules, w.Rules) {
					rt.Fatalf("chain %s: %v, want %s: %v", c.Name, c.Rules, w.Name, w.Rules)
				}
			}
		}
	})
}

// TestRandomAdoption lets a new driver continue after each plan.
func TestRandomAdoption(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ns := newNamespace(t)
		for range rapid.IntRange(2, 4).Draw(rt, "plans") {
			plan := drawPlan(rt)
			d := ns.driver()
			if err := d.Apply(t.Context(), plan); err != nil {
				rt.Fatal(err)
			}
			if err := d.Close(); err != nil {
				rt.Fatal(err)
			}
			if p := differences(t, ns, plan); !p.Equal {
				rt.Fatalf("the kernel differs: %+v", p)
			}
		}
	})
}
