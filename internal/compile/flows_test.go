package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/model"
)

// change compiles two sets of pools for a node with address 192.0.2.1, and one more configured.
func change(before, after []*model.Pool, settings ...model.NATConfiguration) Change {
	local := model.Local{Name: "me", Interfaces: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24")}}
	plan := func(pools []*model.Pool, settings []model.NATConfiguration) *Plan {
		return Compile(&model.Snapshot{Pools: pools, NATConfigurations: settings}, local)
	}
	c := Change{Now: plan(after, settings)}
	if before != nil {
		c.Stood = []*Plan{plan(before, settings[:min(1, len(settings))])}
	}
	return c
}

func TestJudge(t *testing.T) {
	t.Parallel()
	off, on := []*model.Pool{pool("a", "10.1.0.0/16", false)}, []*model.Pool{pool("a", "10.1.0.0/16", true)}
	exempting := append(slices.Clone(on), pool("b", "198.51.100.0/24", false))
	set := func(f func(*model.NATConfiguration)) model.NATConfiguration {
		c := model.NATConfiguration{Name: "c", NodeSelector: "all()"}
		f(&c)
		return c
	}
	keep := set(func(c *model.NATConfiguration) { c.ExistingFlows = ptr(model.FlowsKeep) })
	reset := set(func(c *model.NATConfiguration) { c.ExistingFlows = ptr(model.FlowsReset) })
	uplink := set(func(c *model.NATConfiguration) { c.OutInterfaces = []string{"eth0"} })
	fixed := set(func(c *model.NATConfiguration) { c.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.2")} })
	ports := set(func(c *model.NATConfiguration) { c.PortRange = &model.PortRange{First: 2000, Last: 2999} })
	nothing := set(func(*model.NATConfiguration) {})
	before := func(a, b model.NATConfiguration) []model.NATConfiguration {
		b.Priority = 1
		return []model.NATConfiguration{a, b}
	}

	plain, translated := "10.1.0.9:1000", "192.0.2.1:1000"
	tracked := func(p Protocol, seen, peer string, answered bool) Tracked {
		return Tracked{Protocol: p, Source: netip.MustParseAddrPort("10.1.0.9:1000"), Peer: netip.MustParseAddr(peer), Seen: netip.MustParseAddrPort(seen), Answered: answered}
	}
	const out = "198.51.100.7"
	tampered := change(on, on)
	tampered.Tampered = true
	older := func(f Tracked) Tracked { f.Older = true; return f }
	for _, tc := range []struct {
		name   string
		change Change
		flow   Tracked
		want   Fate
	}{
		{"on: UDP moves", change(off, on), tracked(UDP, plain, out, true), Ends},
		{"on: ICMP moves", change(off, on), tracked(ICMP, plain, out, true), Ends},
		{"on: other protocols move", change(off, on), tracked(47, plain, out, true), Ends},
		{"on: TCP finishes", change(off, on), tracked(TCP, plain, out, true), Outlives},
		{"on: SCTP finishes", change(off, on), tracked(SCTP, plain, out, true), Outlives},
		{"on: unanswered TCP begins anew", change(off, on), tracked(TCP, plain, out, false), Ends},
		{"on: to another pool", change(off, exempting), tracked(UDP, plain, out, true), Stays},
		{"on: to the node", change(off, on), tracked(UDP, plain, "192.0.2.1", true), Stays},
		{"on: translated by somebody else", change(off, on), tracked(UDP, "192.0.2.77:1", out, true), Stays},
		{"on, Keep: UDP finishes", change(off, on, keep), tracked(UDP, plain, out, false), Outlives},
		{"on, Reset: TCP ends", change(off, on, reset), tracked(TCP, plain, out, true), Ends},
		{"off: UDP moves", change(on, off), tracked(UDP, translated, out, true), Ends},
		{"off: TCP finishes", change(on, off), tracked(TCP, translated, out, true), Outlives},
		{"off: what was never translated stays", change(on, off), tracked(UDP, plain, out, true), Stays},
		{"off: to an address that we do not give", change(on, off), tracked(UDP, "192.0.2.77:1000", out, true), Stays},
		{"exempted: UDP moves", change(on, exempting), tracked(UDP, translated, out, true), Ends},
		{"exempted: somebody else's, towards a pool", change(exempting, exempting), tracked(UDP, translated, out, true), Stays},
		{"exempted: found before", change(exempting, exempting), older(tracked(TCP, translated, out, true)), Outlives},
		{"no change", change(on, on), tracked(UDP, translated, out, true), Stays},
		{"no change, a flow from before", change(on, on), tracked(UDP, plain, out, true), Ends},
		{"on: only its port was changed", change(off, on), tracked(UDP, "10.1.0.9:7", out, true), Ends},
		{"off: its port made way", change(on, off), tracked(UDP, "10.1.0.9:7", out, true), Ends},
		{"off: TCP whose port made way", change(on, off), tracked(TCP, "10.1.0.9:7", out, true), Outlives},
		{"off all the time: a port that was in use", change(off, off), tracked(UDP, "10.1.0.9:7", out, true), Stays},
		{"a source of nobody's", change(off, on), Tracked{Protocol: UDP, Source: netip.MustParseAddrPort("10.2.0.9:1"), Peer: netip.MustParseAddr(out), Seen: netip.MustParseAddrPort("10.2.0.9:1")}, Stays},

		{"address: UDP moves", change(on, on, before(nothing, fixed)...), tracked(UDP, translated, out, true), Ends},
		{"address: has it already", change(on, on, before(nothing, fixed)...), tracked(UDP, "192.0.2.2:7", out, true), Stays},
		{"address removed: UDP moves", change(on, on, before(fixed, set(func(c *model.NATConfiguration) { c.Addresses = []netip.Addr{} }))...), tracked(UDP, "192.0.2.2:7", out, true), Ends},
		{"ports: UDP moves", change(on, on, before(nothing, ports)...), tracked(UDP, translated, out, true), Ends},
		{"ports: in range already", change(on, on, before(nothing, ports)...), tracked(UDP, "192.0.2.1:2500", out, true), Stays},
		{"ports: ICMP has none", change(on, on, before(nothing, ports)...), tracked(ICMP, translated, out, true), Stays},

		{"interfaces: on", change(off, on, uplink), tracked(UDP, plain, out, true), Ends},
		{"interfaces: leaves by another one", change(on, on, uplink), tracked(UDP, plain, out, true), Stays},
		{"interfaces: others from now on", change(on, on, before(nothing, uplink)...), tracked(UDP, plain, out, true), Ends},
		{"interfaces: translated stays translated", change(on, on, before(nothing, uplink)...), tracked(UDP, translated, out, true), Stays},

		{"nothing known: plain", change(nil, on), tracked(UDP, plain, out, true), Ends},
		{"nothing known: plain, interfaces", change(nil, on, uplink), tracked(UDP, plain, out, true), Ends},
		{"nothing known: translated", change(nil, off), tracked(UDP, translated, out, true), Stays},

		{"tampered: TCP opened meanwhile", tampered, tracked(TCP, plain, out, true), Ends},
		{"tampered: TCP opened long before", tampered, older(tracked(TCP, plain, out, true)), Outlives},
		{"tampered: translated", tampered, tracked(TCP, translated, out, true), Stays},
	} {
		if got := tc.change.Judge(&tc.flow); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestJudgeFollowsDecide opens a flow under one plan, by some interface, and judges it by another: it is
// affected if and only if the second decides otherwise, as far as one can know without the interface.
func TestJudgeFollowsDecide(t *testing.T) {
	t.Parallel()
	seen := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		before, after := drawWorld(t), drawWorld(t)
		after.local = before.local
		if rapid.Bool().Draw(t, "same settings") {
			after.snapshot.NATConfigurations = before.snapshot.NATConfigurations
		}
		old, now := Compile(before.snapshot, before.local), Compile(after.snapshot, after.local)
		c := Change{Stood: []*Plan{old}, Now: now}
		for range 60 {
			flow := Flow{
				Source: drawAddr(t, "source"), Destination: drawAddr(t, "destination"),
				Protocol:     rapid.SampledFrom([]Protocol{TCP, UDP, ICMP}).Draw(t, "protocol"),
				OutInterface: rapid.SampledFrom([]string{"eth0", "eth1", "wan"}).Draw(t, "out"),
			}
			if flow.Source.Is4() != flow.Destination.Is4() || old.isLocal(flow.Source) {
				continue
			}
			f, ok := open(t, old, flow, before.local)
			if !ok {
				continue
			}
			got := c.affects(&f)
			seen[got]++
			v, was := now.Decide(flow), old.Decide(flow)
			differs := v.Action == Keep && f.Seen != f.Source || v.Action == Translate && !fits(v.To, &f) || movedOff(was.To, v.To)
			unsure := len(now.NAT.OutInterfaces) > 0
			switch {
			case differs && !got && (!unsure || f.Seen == f.Source):
				t.Fatalf("%+v: the decision went from %+v to %+v, and it is not affected", f, was, v)
			case !differs && got && (!unsure || f.Seen != f.Source):
				t.Fatalf("%+v: it is affected, and the decision went from %+v to %+v", f, was, v)
			}
		}
	})
	if seen[true] < 20 || seen[false] < 20 {
		t.Fatalf("hardly anything was judged: %v", seen)
	}
	t.Logf("judged: %v", seen)
}

// open is the entry of a flow that is opened under a plan. It is false where the node has no address to
// give.
func open(t *rapid.T, p *Plan, flow Flow, local model.Local) (Tracked, bool) {
	source := netip.AddrPortFrom(flow.Source, rapid.Uint16Range(1, 65535).Draw(t, "port"))
	f := Tracked{Protocol: flow.Protocol, Source: source, Peer: flow.Destination, Seen: source}
	v := p.Decide(flow)
	if v.Action == Keep {
		return f, true
	}
	to := p.NAT.To(flow.Source)
	for _, l := range local.Interfaces {
		if !to.IsValid() && l.Addr().Is4() == flow.Source.Is4() {
			to = l.Addr()
		}
	}
	ports := p.NAT.PortsFor(flow.Protocol)
	if ports.IsZero() {
		ports = model.PortRange{First: 1, Last: 65535}
	}
	f.Seen = netip.AddrPortFrom(to, rapid.Uint16Range(ports.First, ports.Last).Draw(t, "seen port"))
	return f, to.IsValid()
}

// fits says whether a flow has what a verdict wants.
func fits(to *Target, f *Tracked) bool {
	if to.Address == "node" && f.Seen == f.Source || to.Address != "node" && to.Address != f.Seen.Addr().String() {
		return false
	}
	ports, err := parsePorts(to.Ports)
	return err == nil && (ports.IsZero() || ports.First <= f.Seen.Port() && f.Seen.Port() <= ports.Last)
}

// movedOff says whether a configured address is no longer configured.
func movedOff(was, is *Target) bool {
	return was != nil && is != nil && was.Address != "node" && is.Address == "node"
}

func parsePorts(s string) (r model.PortRange, err error) {
	if s != "" {
		_, err = fmt.Sscanf(s, "%d-%d", &r.First, &r.Last)
	}
	return r, err
}
