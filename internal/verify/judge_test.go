package verify

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var (
	pod     = netip.MustParseAddrPort("10.244.1.10:40000")
	nodes   = netip.MustParseAddrPort("192.0.2.10:50000")
	outside = netip.MustParseAddrPort("203.0.113.9:60000")
	odd     = netip.AddrPortFrom(pod.Addr(), 7)
	h1      = netip.MustParseAddr("10.0.1.1")
	h2      = netip.MustParseAddr("10.0.2.1")
	h3      = netip.MustParseAddr("10.0.3.1")
	b1      = netip.MustParseAddr("10.9.3.2")
	b2      = netip.MustParseAddr("10.9.2.2")
)

// path is one of three routers: node, hop 1, hop 2, hop 3, server. Hops that are the zero Addr are silent.
func path(hops ...netip.Addr) Trace {
	t := Trace{To: netip.MustParseAddr("198.51.100.1"), End: len(hops) + 1}
	for _, h := range hops {
		t.Hops = append(t.Hops, Hop{Address: h})
	}
	return t
}

func back(hops ...netip.Addr) Back {
	b := Back{End: len(hops) + 1}
	for _, h := range hops {
		b.Hops = append(b.Hops, BackHop{By: h})
	}
	return b
}

func echo(arrived netip.AddrPort, state string, as netip.AddrPort) Echo {
	return Echo{Local: pod, Arrived: arrived, Node: NodeFlow{State: state, As: as}}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	none, silent := netip.AddrPort{}, netip.Addr{}
	kept := echo(pod, FlowKept, pod)
	further := echo(outside, FlowKept, pod)
	lost := Echo{Local: pod, Error: "it timed out"}
	base := Evidence{Server: netip.MustParseAddrPort("198.51.100.1:3478"), Ours: true, TCP: kept, Path: path(h1, h2, h3)}
	with := func(change func(*Evidence)) Evidence {
		e := base
		e.UDP = further
		change(&e)
		return e
	}
	unowned := back(b1, b2, outside.Addr())
	unowned.Hops[1].By = outside.Addr() // from hop 2 on
	sized := func(up, down Size) *Sizes { return &Sizes{1500, up, down} }
	full := Size{Passes: 1500}
	for _, tc := range []struct {
		what string
		e    Evidence
		want Kind
		say  string // "OF: VERDICT[, PLACE]" of each finding
	}{
		{"clean", with(func(e *Evidence) { e.UDP, e.Back, e.Sizes = kept, back(b1, b2, h1), sized(full, full) }), Kept, "udp: kept; tcp: kept; size: kept"},
		{"no tracking", with(func(e *Evidence) { e.UDP = echo(pod, FlowUntracked, none) }), Kept, "udp: kept; tcp: kept"},
		{"on the node", with(func(e *Evidence) { e.UDP = echo(nodes, FlowTranslated, nodes) }), TranslatedHere, "udp: translated by this node; tcp: kept"},
		{"only the port, on the node", with(func(e *Evidence) { e.UDP = echo(odd, FlowTranslated, odd) }), PortRewritten, "udp: port rewritten; tcp: kept"},
		{"a router", with(func(e *Evidence) { e.Back, e.ToArrived = unowned, Trace{To: outside.Addr(), End: 2} }), TranslatedFurther,
			"udp: translated further on, by hop 2, 10.0.2.1; tcp: kept"},
		{"node and router", with(func(e *Evidence) { e.UDP, e.Back = echo(outside, FlowTranslated, nodes), unowned }), TranslatedFurther,
			"udp: translated by this node; udp: translated further on, by hop 2, 10.0.2.1; tcp: kept"},
		{"an address that no box owns", with(func(e *Evidence) { e.Back = unowned }), TranslatedFurther, "udp: translated further on, by hop 2, 10.0.2.1; tcp: kept"},
		{"the last router", with(func(e *Evidence) { e.Back = back(outside.Addr(), outside.Addr(), outside.Addr()) }), TranslatedFurther,
			"udp: translated further on, by hop 3, 10.0.3.1; tcp: kept"},
		{"a trace that contradicts", with(func(e *Evidence) { e.Back, e.ToArrived = unowned, Trace{To: outside.Addr(), End: 1} }), TranslatedFurther,
			"udp: translated further on, where is unknown; tcp: kept"},
		{"ways of different lengths", with(func(e *Evidence) { e.Back = unowned; e.Back.End = 5 }), TranslatedFurther, "udp: translated further on, where is unknown; tcp: kept"},
		{"a way back without end", with(func(e *Evidence) { e.Back = unowned; e.Back.End = 0 }), TranslatedFurther, "udp: translated further on, where is unknown; tcp: kept"},
		{"silent to the server, and it owns the address", with(func(e *Evidence) {
			e.Path, e.Back, e.ToArrived = path(h1, silent, h3), back(b1, silent, outside.Addr()), Trace{To: outside.Addr(), End: 2}
		}), TranslatedFurther, "udp: translated further on, by hop 2, which owns 203.0.113.9; tcp: kept"},
		{"silent, and unowned", with(func(e *Evidence) { e.Path, e.Back = path(h1, silent, h3), back(b1, silent, outside.Addr()) }), TranslatedFurther,
			"udp: translated further on, between this node and 10.0.3.1; tcp: kept"},
		{"silent on the path alone", with(func(e *Evidence) { e.Path, e.Back = path(h1, silent, h3), unowned }), TranslatedFurther,
			"udp: translated further on, by hop 2, which answers no probe; tcp: kept"},
		{"all silent", with(func(e *Evidence) { e.Path, e.Back = path(silent, silent, silent), back(silent, silent, silent) }), TranslatedFurther,
			"udp: translated further on, where is unknown; tcp: kept"},
		{"a foreign server", with(func(e *Evidence) { e.Ours, e.ToArrived = false, Trace{To: outside.Addr(), End: 2} }), TranslatedFurther,
			"udp: translated further on, where is unknown; tcp: kept"},
		{"stateless", with(func(e *Evidence) {
			e.Back = back(b1, b2, h1)
			e.Back.Hops[0].Quoted, e.Back.Hops[1].Quoted, e.Back.Hops[2].Quoted = outside, pod, pod
		}), TranslatedFurther, "udp: translated further on, by hop 2, 10.0.2.1; tcp: kept"},
		{"stateless, and a foreign server", with(func(e *Evidence) {
			e.Path = path(h1, h2, h3)
			e.Path.Hops[2].QuotedUDP, e.Path.Hops[2].Rewritten = outside, true
		}), TranslatedFurther, "udp: translated further on, between 10.0.1.1 and the server; tcp: kept"},
		{"only the port", with(func(e *Evidence) { e.UDP = echo(odd, FlowKept, pod); e.Back = back(b1, pod.Addr(), pod.Addr()) }), PortRewritten,
			"udp: port rewritten, by hop 2, 10.0.2.1; tcp: kept"},
		{"only the port, statelessly", with(func(e *Evidence) {
			e.UDP, e.Back = echo(odd, FlowKept, pod), back(b1, b2, h1)
			e.Back.Hops[0].Quoted, e.Back.Hops[1].Quoted = odd, pod
		}), PortRewritten, "udp: port rewritten, by hop 2, 10.0.2.1; tcp: kept"},
		{"conntrack was not read", with(func(e *Evidence) { e.UDP = echo(outside, FlowUnread, none) }), Translated, "udp: translated, where is unknown; tcp: kept"},
		{"TCP alone", with(func(e *Evidence) { e.UDP, e.TCP = kept, further }), TranslatedFurther, "udp: kept; tcp: translated further on, where is unknown"},
		{"no way back", with(func(e *Evidence) { e.UDP, e.TCP, e.Asked = lost, lost, &Asked{State: AskedSaid, UDP: 3} }), NoWayBack, "udp: no way back; tcp: unknown"},
		{"never arrived", with(func(e *Evidence) { e.UDP, e.TCP, e.Asked = lost, lost, &Asked{State: AskedSaid} }), NeverArrived, "udp: never arrived; tcp: unknown"},
		{"no answer to the node either", with(func(e *Evidence) { e.UDP, e.TCP, e.Asked = lost, lost, &Asked{State: AskedNoAnswer} }), Unknown, "udp: unknown; tcp: unknown"},
		{"no room for tokens", with(func(e *Evidence) { e.UDP, e.Asked = lost, &Asked{State: AskedFull} }), Unknown, "udp: unknown; tcp: kept"},
		{"a foreign server, and no answer", with(func(e *Evidence) { e.UDP, e.Asked = lost, &Asked{State: AskedForeign} }), Unknown, "udp: unknown; tcp: kept"},
		{"no TCP there", with(func(e *Evidence) {
			e.Ours, e.UDP, e.TCP = false, kept, Echo{Local: pod, Error: "refused", Refused: true}
		}), Kept, "udp: kept; tcp: unknown"},
		{"TCP rejected on the way", with(func(e *Evidence) { e.UDP, e.TCP = kept, Echo{Local: pod, Error: "refused", Refused: true} }), Unknown, "udp: kept; tcp: unknown"},
		{"TCP times out", with(func(e *Evidence) { e.UDP, e.TCP = kept, lost }), Unknown, "udp: kept; tcp: unknown"},
		{"a black hole", with(func(e *Evidence) { e.UDP, e.Sizes = kept, sized(Size{Passes: 1400, Fails: 1401}, full) }), BlackHole, "udp: kept; tcp: kept; size: MTU black hole"},
		{"a black hole on the way back", with(func(e *Evidence) { e.UDP, e.Sizes = kept, sized(full, Size{Passes: 1400, Fails: 1401}) }), BlackHole, "udp: kept; tcp: kept; size: MTU black hole"},
		{"too big, and said", with(func(e *Evidence) {
			e.UDP, e.Sizes = kept, sized(Size{Passes: 1400, Fails: 1401, SaidBy: h2, SaidMTU: 1400}, full)
		}), Kept, "udp: kept; tcp: kept; size: kept"},
		{"a server with a smaller MTU", with(func(e *Evidence) { e.UDP, e.Sizes = kept, sized(full, Size{Passes: 1400, Fails: 1401, AtServer: true}) }), Kept, "udp: kept; tcp: kept; size: kept"},
		{"sizes unknown", with(func(e *Evidence) { e.UDP, e.Sizes = kept, sized(full, Size{Reason: "answers came unevenly"}) }), Unknown, "udp: kept; tcp: kept; size: unknown"},
	} {
		r := Judge(tc.e)
		var said []string
		for _, f := range r.Findings {
			s := fmt.Sprintf("%s: %s", f.Of, f.Verdict)
			if f.Place != nil {
				s += ", " + f.Place.String()
			}
			if said = append(said, s); len(f.Because) == 0 {
				t.Errorf("%s: %s has no evidence", tc.what, s)
			}
		}
		if got := strings.Join(said, "; "); r.Verdict != tc.want || got != tc.say {
			t.Errorf("%s: %s\n%s\nwant %s\n%s", tc.what, r.Verdict, got, tc.want, tc.say)
		}
	}
}

// TestSizesSayWhatWasTried holds the sentence about sizes against what was sent: interfaces may carry more than is tried.
func TestSizesSayWhatWasTried(t *testing.T) {
	t.Parallel()
	for mtu, want := range map[int]string{
		1500:  "A packet of 1500 bytes with DF, the MTU of the interface, passed to the server.",
		65536: "A packet of 9216 bytes with DF, the longest that is tried, passed to the server.",
	} {
		passed := Size{Passes: min(mtu, maxMessage)}
		found := (&Evidence{Sizes: &Sizes{MTU: mtu, Up: passed, Down: passed}}).sizes()
		if got := found[0].Because[0]; got != want {
			t.Errorf("an MTU of %d: %q, want %q", mtu, got, want)
		}
	}
}
