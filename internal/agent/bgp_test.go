package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/bgp"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// TestBGPAnnouncements says to whom blocks are announced, and which are not, and why.
func TestBGPAnnouncements(t *testing.T) {
	t.Parallel()
	block, other, kept := netip.MustParsePrefix("10.1.0.0/26"), netip.MustParsePrefix("10.1.0.64/26"), netip.MustParsePrefix("10.2.0.0/26")
	var peers []compile.BGPPeer
	var sessions []bgp.Session
	for i, up := range []bool{true, false, true, true} {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})
		peers, sessions = append(peers, compile.BGPPeer{Address: a, V4: i != 3, V6: i == 3}), append(sessions, bgp.Session{Address: a, Up: up})
	}
	peers[2].Export = []compile.BGPRule{{Prefix: block, Min: 26, Max: 32, Filter: "f", Field: "exportV4[0]"}}
	st := &bgp.State{Sessions: sessions, Announced: []compile.Announcement{{Prefix: block, Pool: "p", Why: "it is ours"}},
		Plan: compile.BGP{Run: true, Peers: peers, Announcements: []compile.Announcement{{Prefix: block, Pool: "p"}, {Prefix: other, Pool: "p"}},
			Withheld: []compile.Withheld{{Prefix: kept, Pool: "q", Why: "no export"}}}}
	var out BGPResponse
	out.announcements(st)
	got := fmt.Sprint(out.Announced, out.Withheld)
	want := `[{10.1.0.0/26 p it is ours [] [192.0.2.1] [{192.0.2.2 the session is down} {192.0.2.3 BGPFilter "f", exportV4[0]} {192.0.2.4 the session does not carry routes of this family}]}] [{10.2.0.0/26 q no export} {10.1.0.64/26 p not yet: `
	if !strings.HasPrefix(got, want) {
		t.Errorf("it says %s\nwant     %s", got, want)
	}
	if n := withheld(st); n != 2 {
		t.Errorf("%d blocks are withheld", n)
	}
}

// TestWhySilent says why an agent does not speak BGP.
func TestWhySilent(t *testing.T) {
	t.Parallel()
	some := reconcile.State{Plan: &compile.Plan{}}
	for _, c := range []struct {
		plan compile.BGP
		loop reconcile.State
		want string
	}{
		{compile.BGP{}, reconcile.State{}, "no plan yet"},
		{compile.BGP{}, some, "create one that selects it"},
		{compile.BGP{Problems: []string{"no filter"}}, some, "see the problems"},
		{compile.BGP{Run: true}, reconcile.State{Plan: some.Plan, Drivers: []reconcile.DriverState{{Name: "bgp", Error: "the port is taken"}}}, "the port is taken"},
		{compile.BGP{Run: true}, some, "about to begin"},
	} {
		if got := whySilent(&c.plan, c.loop); !strings.Contains(got, c.want) {
			t.Errorf("it says %q, want %q", got, c.want)
		}
	}
}

// TestBGPMetricsAreBounded has more sessions than have metrics of their own: the counts have all.
func TestBGPMetricsAreBounded(t *testing.T) {
	t.Parallel()
	st := &bgp.State{}
	for i := range 200 {
		st.Sessions = append(st.Sessions, bgp.Session{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Up: i%2 == 0, Resets: 3, In: 5, Accepted: 4, Out: 2})
	}
	var series []string
	collectSessions(st, func(d *prometheus.Desc, _ prometheus.ValueType, v float64, labels ...string) {
		name, _, _ := strings.Cut(strings.TrimPrefix(d.String(), `Desc{fqName: "sallyport_`), `"`)
		series = append(series, fmt.Sprint(name, labels, " ", v))
	})
	for _, want := range []string{"bgp_sessions[up] 100", "bgp_sessions[down] 100", "bgp_session_up[10.0.0.0] 1", "bgp_session_up[10.0.0.1] 0", "bgp_session_resets_total[10.0.0.63] 3",
		"bgp_session_routes[10.0.0.63 received] 5", "bgp_session_routes[10.0.0.63 accepted] 4", "bgp_session_routes[10.0.0.63 told] 2"} {
		if !slices.Contains(series, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if n := len(series); n > 7+5*maxSeries {
		t.Errorf("there are %d series", n)
	}
}

// TestBGPWithoutPeers: nothing is said of it in short, and in whole it is said why.
func TestBGPWithoutPeers(t *testing.T) {
	t.Parallel()
	s := &speaker{driver: bgp.New(bgp.Options{Log: slog.New(slog.DiscardHandler)})}
	if st, err := s.status(t.Context()); st != nil || err != nil {
		t.Errorf("in short: %+v, %v", st, err)
	}
	if err := s.collectBGP(t.Context(), func(d *prometheus.Desc, _ prometheus.ValueType, _ float64, _ ...string) { t.Errorf("a metric: %s", d) }); err != nil {
		t.Error(err)
	}
}

// TestReportOfBGP has more sessions than a SallyportNode names, BGPPeers with and without sessions, and a mesh.
func TestReportOfBGP(t *testing.T) {
	t.Parallel()
	st := &bgp.State{Plan: compile.BGP{Run: true, Asked: []compile.BGPAsked{{Resource: "lacks", Generation: 2, Why: "no filter"}, {Resource: "needs-none"}, {Resource: "rack", Generation: 7}}}}
	for i := range 100 {
		s := bgp.Session{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), ASN: 4200000000, Up: i != 90, In: 5, Accepted: 4, Out: 3, Since: time.Unix(1000, 5)}
		if i >= 90 {
			s.Resource = "rack"
		}
		if !s.Up {
			s.Why, s.Since = strings.Repeat("x", 300), time.Time{}
		}
		st.Sessions = append(st.Sessions, s)
	}
	out := reportOf(st)
	if out.Sessions != 100 || out.Established != 99 || len(out.List) != maxBGPSessions {
		t.Errorf("%d sessions, %d up, %d named", out.Sessions, out.Established, len(out.List))
	}
	if first := out.List[0]; first.State != v1alpha1.BGPSessionDown || first.Peer != "10.0.0.90" || first.BGPPeer != "rack" || len(first.Why) > maxBGPWhy || first.Since != nil {
		t.Errorf("first comes %+v", first)
	}
	if second := out.List[1]; second.State != v1alpha1.BGPSessionEstablished || second.ASNumber != 4200000000 || second.Received != 5 || second.Accepted != 4 || second.Told != 3 || second.Since.Unix() != 1000 {
		t.Errorf("then comes %+v", second)
	}
	peers := fmt.Sprint(out.Peers)
	if want := "[{lacks 2 0 0 no filter} {needs-none 0 0 0 } {rack 7 10 9 xxx"; !strings.HasPrefix(peers, want) {
		t.Errorf("the BGPPeers are %s", peers)
	}
}

// TestCountsOfBGPWait: a session that turns is written soon; numbers of routes and other words for why it is down can wait.
func TestCountsOfBGPWait(t *testing.T) {
	t.Parallel()
	status := func(state, why string, routes int64) *written {
		return &written{status: v1alpha1.SallyportNodeStatus{BGP: &v1alpha1.NodeBGP{Sessions: 1, Peers: []v1alpha1.NodeBGPPeer{{Name: "p", Sessions: 1, Why: why}},
			List: []v1alpha1.NodeBGPSession{{Peer: "192.0.2.1", State: state, Why: why, Received: routes, Accepted: routes, Told: routes}}}}}
	}
	p := &pacing{nodes: 1, last: status("Down", "it begins", 1)}
	for _, c := range []struct {
		want *written
		as   urgency
	}{{status("Down", "it begins", 1), refresh}, {status("Down", "it begins", 9), follow}, {status("Down", "no connection", 1), follow}, {status("Established", "it begins", 1), soon}, {&written{}, soon}} {
		if got := p.urgency(c.want); got != c.as {
			t.Errorf("%+v: urgency %d, want %d", c.want.status.BGP, got, c.as)
		}
	}
	if p.last.status.BGP.List[0].Received != 1 {
		t.Error("what was written is changed")
	}
}

// TestExplainBGP names the narrowest learned route, and to whom the block of an address is announced.
func TestExplainBGP(t *testing.T) {
	t.Parallel()
	router, far := netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("10.20.1.1")
	block, kept := netip.MustParsePrefix("10.1.0.0/26"), netip.MustParsePrefix("10.2.0.0/26")
	st := &bgp.State{Sessions: []bgp.Session{{Address: router, Up: true}}, Announced: []compile.Announcement{{Prefix: block}},
		Plan: compile.BGP{Peers: []compile.BGPPeer{{Address: router, V4: true}}, Withheld: []compile.Withheld{{Prefix: kept, Why: "no export"}}}}
	routes := []bgp.Route{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Hops: []netip.Addr{far}}, {Prefix: netip.MustParsePrefix("10.20.0.0/16"), Hops: []netip.Addr{router, far}}}
	got := explainBGP(st, routes, netip.MustParseAddr("10.1.0.5"), far)
	if want := []string{"peers tell of the route 10.20.0.0/16 to 10.20.1.1, by 192.0.2.254, 10.20.1.1", "block 10.1.0.0/26 of 10.1.0.5 is announced to 192.0.2.254"}; !slices.Equal(got, want) {
		t.Errorf("it says %q", got)
	}
	if got := explainBGP(st, nil, netip.MustParseAddr("10.2.0.5"), far); !slices.Equal(got, []string{"block 10.2.0.0/26 of 10.2.0.5 is not announced: no export"}) {
		t.Errorf("it says %q", got)
	}
	st.Sessions[0].Up = false
	if got := explainBGP(st, nil, netip.MustParseAddr("10.1.0.5"), far); !slices.Equal(got, []string{"block 10.1.0.0/26 of 10.1.0.5 is announced to no peer now"}) {
		t.Errorf("it says %q", got)
	}
}
