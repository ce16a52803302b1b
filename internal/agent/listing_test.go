package agent

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/driver/conntrack"
)

func TestEnds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ s, holds, not string }{
		{"10.244.1.10", "10.244.1.10:1", "10.244.1.11:1"},
		{"10.244.0.0/16", "10.244.1.11:1", "10.245.0.0:1"},
		{"192.0.2.1:40000", "192.0.2.1:40000", "192.0.2.1:40001"},
		{"[2001:db8::1]:40000", "[2001:db8::1]:40000", "[2001:db8::2]:40000"},
		{"2001:db8::1", "[2001:db8::1]:7", "192.0.2.1:7"},
		{"fd00::/64", "[fd00::9]:7", "[fd00:1::9]:7"},
	} {
		e, err := ParseEnds(tc.s)
		if err != nil || !e.holds(netip.MustParseAddrPort(tc.holds)) || e.holds(netip.MustParseAddrPort(tc.not)) {
			t.Errorf("%s: %v, %v", tc.s, e, err)
		}
		if again, err := ParseEnds(e.String()); err != nil || again != e {
			t.Errorf("%s is written %s, which is read as %v, %v", tc.s, e, again, err)
		}
	}
	for _, s := range []string{"10.0.0", "10.0.0.1:0", "10.0.0.1:70000", "10.0.0.0/40", "node", "2001:db8::1:99999"} {
		if e, err := ParseEnds(s); err == nil {
			t.Errorf("%s is read as %v", s, e)
		}
	}
}

// TestFilterSurvivesTheWay makes sure that the agent filters by what the client was told.
func TestFilterSurvivesTheWay(t *testing.T) {
	t.Parallel()
	ends := func(s string) Ends {
		e, err := ParseEnds(s)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for _, f := range []FlowFilter{
		{},
		{Source: ends("10.0.0.0/8"), Destination: ends("[2001:db8::1]:53"), SeenAs: ends("192.0.2.1"), Pool: "a&b", Protocol: "udp", Limit: 7},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://agent/v1/flows?"+f.query().Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := filterOf(r); err != nil || got != f {
			t.Errorf("sent %+v, received %+v, %v", f, got, err)
		}
	}
}

func TestFilterChooses(t *testing.T) {
	t.Parallel()
	tuple := func(from, to string) conntrack.Tuple {
		return conntrack.Tuple{Source: netip.MustParseAddrPort(from), Destination: netip.MustParseAddrPort(to)}
	}
	flow := conntrack.Flow{Protocol: 58, Original: tuple("[fd00::2]:7", "[fd00:96::10]:7"), Reply: tuple("[2001:db8::7]:7", "[2001:db8::1]:9")}
	plain := flow
	plain.Reply.Destination = plain.Original.Source
	ends := func(s string) Ends { e, _ := ParseEnds(s); return e }
	for _, tc := range []struct {
		filter FlowFilter
		flow   conntrack.Flow
		want   bool
	}{
		{FlowFilter{}, flow, true},
		{FlowFilter{}, plain, false},
		{FlowFilter{Protocol: "icmp"}, flow, true},
		{FlowFilter{Protocol: "tcp"}, flow, false},
		{FlowFilter{Destination: ends("2001:db8::7")}, flow, true},
		{FlowFilter{Destination: ends("fd00:96::10")}, flow, true}, // the service
		{FlowFilter{Destination: ends("2001:db8::8")}, flow, false},
		{FlowFilter{SeenAs: ends("[2001:db8::1]:9")}, flow, true},
		{FlowFilter{SeenAs: ends("[2001:db8::1]:8")}, flow, false},
		{FlowFilter{Source: ends("fd00::3")}, flow, false},
	} {
		if got := tc.filter.chooses(&tc.flow); got != tc.want {
			t.Errorf("%+v: %v, want %v", tc.filter, got, tc.want)
		}
	}
}
