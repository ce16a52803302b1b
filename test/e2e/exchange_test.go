package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// probe is a connection to try: its first packet goes in by a tap, and the answer to what comes out
// goes back the way it came.
type probe struct {
	compile.Flow
	sport uint16
	in    *tap
}

func (p probe) String() string {
	return fmt.Sprintf("%s %s:%d > %s:%d in by %s, out by %s",
		protocolName(p.Protocol), p.Source, p.sport, p.Destination, p.DestinationPort, p.in.name, p.OutInterface)
}

// probes numbers the packets of a rig and keeps its connections apart from each other.
type probes struct {
	lastID uint32
	used   map[packet]bool
}

// fresh says whether no probe had these addresses, protocol and ports before, and remembers them.
func (ps *probes) fresh(p probe) bool {
	if ps.used == nil {
		ps.used = map[packet]bool{}
	}
	key := packet{src: p.Source, dst: p.Destination, proto: p.Protocol, sport: p.sport, dport: p.DestinationPort}
	if ps.used[key] {
		return false
	}
	ps.used[key] = true
	return true
}

// batchSize is how many packets are in flight at once: few enough for a small receive buffer.
const batchSize = 64

// try sends the probes through the rig and reports every one that the kernel treats otherwise than the
// plan says. It returns what was seen on the far side, in the order of the probes.
func (r *rig) try(t *testing.T, ps *probes, plan *compile.Plan, list []probe) []sighting {
	t.Helper()
	var all []sighting
	for len(list) > 0 {
		n := min(len(list), batchSize)
		all = append(all, r.tryBatch(t, ps, plan, list[:n])...)
		if t.Failed() {
			t.FailNow()
		}
		list = list[n:]
	}
	return all
}

func (r *rig) tryBatch(t *testing.T, ps *probes, plan *compile.Plan, list []probe) []sighting {
	t.Helper()
	first := ps.lastID + 1
	ids := map[uint32]bool{}
	for i, p := range list {
		out := packet{src: p.Source, dst: p.Destination, proto: p.Protocol, sport: p.sport, dport: p.DestinationPort, id: first + uint32(i)}
		send(t, p.in, out)
		ids[out.id] = true
	}
	requests, err := collect(r.taps(), ids)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]sighting, len(list))
	answers := first + uint32(len(list))
	ids = map[uint32]bool{}
	for i, p := range list {
		seen, ok := requests[first+uint32(i)]
		if err := judge(plan, p, seen, ok); err != nil {
			t.Errorf("%v\n flow    %v\n verdict %v\n seen    %v", err, p, describe(plan.Decide(p.Flow)), seen.packet)
			continue
		}
		all[i] = seen
		back := packet{src: seen.dst, dst: seen.src, proto: seen.proto, sport: seen.dport, dport: seen.sport, id: answers + uint32(i), answers: seen.id}
		if seen.proto == compile.ICMP || seen.proto == compile.ICMPv6 {
			back.sport, back.dport = seen.sport, 0
		}
		send(t, seen.at, back)
		ids[back.id] = true
	}
	replies, err := collect(r.taps(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range list {
		if id := answers + uint32(i); ids[id] {
			seen, ok := replies[id]
			r.judgeReply(t, p, seen, ok)
		}
	}
	ps.lastID = answers + uint32(len(list)) - 1
	return all
}

func send(t *testing.T, by *tap, p packet) {
	t.Helper()
	if err := by.send(p.marshal()); err != nil {
		t.Fatal(err)
	}
}

// judge compares what the kernel made of a first packet with what the plan says.
func judge(plan *compile.Plan, p probe, seen sighting, ok bool) error {
	if !ok {
		return fmt.Errorf("the packet was lost")
	}
	if seen.at.name != p.OutInterface || seen.dst != p.Destination || p.DestinationPort != 0 && seen.dport != p.DestinationPort {
		return fmt.Errorf("the packet went elsewhere: to %s:%d by %s", seen.dst, seen.dport, seen.at.name)
	}
	v := plan.Decide(p.Flow)
	if v.Action == compile.Keep {
		if seen.src != p.Source || seen.sport != p.sport {
			return fmt.Errorf("translated, and should not be")
		}
		return nil
	}
	want := nodeAddress(p.OutInterface, p.Source)
	if v.To.Address != "node" {
		want = netip.MustParseAddr(v.To.Address)
	}
	if seen.src != want {
		return fmt.Errorf("the source should be %s", want)
	}
	if first, last := portBounds(v.To.Ports); seen.sport < first || seen.sport > last {
		return fmt.Errorf("the source port should be from %s", v.To.Ports)
	}
	return nil
}

// portBounds reads a verdict's range of ports; "" is every port.
func portBounds(s string) (first, last uint16) {
	if s == "" {
		return 0, 65535
	}
	if _, err := fmt.Sscanf(s, "%d-%d", &first, &last); err != nil {
		return 0, 0
	}
	return first, last
}

// judgeReply makes sure that the answer reached the side that asked, turned back to the addresses and
// ports that it asked with.
func (r *rig) judgeReply(t *testing.T, p probe, seen sighting, ok bool) {
	t.Helper()
	want := packet{src: p.Destination, dst: p.Source, proto: p.Protocol, sport: p.DestinationPort, dport: p.sport}
	if p.Protocol == compile.ICMP || p.Protocol == compile.ICMPv6 {
		want.sport, want.dport = p.sport, 0
	}
	got := packet{src: seen.src, dst: seen.dst, proto: seen.proto, sport: seen.sport, dport: seen.dport}
	way := r.pod[0]
	if p.in == r.out[0] || p.in == r.out[1] {
		way = r.out[0]
	}
	if !ok || got != want || seen.at != way {
		t.Errorf("the answer should come as %v by %s\n flow %v\n seen %v", want, way.name, p, seen.packet)
	}
}

// describe renders a verdict on one line.
func describe(v compile.Verdict) string {
	if v.To == nil {
		return fmt.Sprintf("%s (%s)", v.Action, v.Reason)
	}
	return fmt.Sprintf("%s to %s ports %q (%s)", v.Action, v.To.Address, v.To.Ports, v.Reason)
}

// kind names the case of the rule that a flow falls under, so that a test can see that it met them all.
func kind(s *model.Snapshot, p probe, v compile.Verdict) string {
	holds := func(a netip.Addr, want func(*model.Pool) bool) bool {
		for _, q := range s.Pools {
			if q.CIDR.Contains(a) && want(q) {
				return true
			}
		}
		return false
	}
	disabled := func(q *model.Pool) bool { return q.Name == v.Decider && q.Disabled }
	noNAT := func(q *model.Pool) bool { return !q.NATOutgoing && !q.LoadBalancerOnly() }
	switch {
	case v.Action == compile.Translate && holds(p.Destination, (*model.Pool).LoadBalancerOnly):
		return "translate to a load balancer address"
	case v.Action == compile.Translate && v.To.Address != "node":
		return "translate to a configured address"
	case v.Action == compile.Translate && v.To.Ports != "":
		return "translate with a port range"
	case v.Action == compile.Translate:
		return "translate to the node's address"
	case p.OutInterface == "pod0":
		return "keep inbound"
	case v.Decider != "" && holds(p.Destination, disabled):
		return "keep towards a disabled pool"
	case v.Decider != "":
		return "keep towards a pool"
	case holds(p.Source, func(q *model.Pool) bool { return q.NATOutgoing && !q.LoadBalancerOnly() }):
		return "keep for the destination or interface"
	case holds(p.Source, noNAT):
		return "keep without natOutgoing"
	case holds(p.Source, (*model.Pool).LoadBalancerOnly):
		return "keep from a load balancer address"
	default:
		return "keep outside all pools"
	}
}
