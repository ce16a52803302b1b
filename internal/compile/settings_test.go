package compile

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/internal/model"
)

// TestSettingsNameWhatDecidedThem merges three configurations that select a node, and one that does not, in every
// order of the list.
func TestSettingsNameWhatDecidedThem(t *testing.T) {
	t.Parallel()
	low := model.NATConfiguration{Name: "low", NodeSelector: "all()", Priority: -1, LeakGuard: ptr(model.LeakGuardDisabled),
		Addresses: []netip.Addr{}, PortRange: &model.PortRange{First: 1000, Last: 1999}}
	a := model.NATConfiguration{Name: "a", NodeSelector: "all()", PortRange: &model.PortRange{First: 2000, Last: 2999},
		Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}
	b := model.NATConfiguration{Name: "b", NodeSelector: "all()", PortRange: &model.PortRange{First: 3000, Last: 3999},
		OutInterfaces: []string{"wg0", "eth*"}}
	other := model.NATConfiguration{Name: "other", NodeSelector: "has(nothing)", Priority: 9, LeakGuard: ptr(model.LeakGuardEnabled)}
	want := []Setting{
		{Field: "exclusions", Value: "IPPoolsOnly"},
		{Field: "addresses", Family: "IPv4", Value: "node", NATConfiguration: "low"},
		{Field: "addresses", Family: "IPv6", Value: "2001:db8::1", NATConfiguration: "a", Overridden: []string{"low"}},
		{Field: "portRange", Value: "2000-2999", NATConfiguration: "a", Overridden: []string{"b", "low"}},
		{Field: "portAllocation", Value: "FullyRandom"},
		{Field: "existingFlows", Value: "Move"},
		{Field: "outInterfaces", Value: "eth*,wg0", NATConfiguration: "b"},
		{Field: "linkLocal", Value: "Translate"},
		{Field: "leakGuard", Value: "Disabled", NATConfiguration: "low"},
	}
	for _, list := range [][]model.NATConfiguration{{low, a, b, other}, {other, b, a, low}, {b, other, low, a}} {
		p := Compile(&model.Snapshot{NATConfigurations: list}, model.Local{Name: "n"})
		if diff := cmp.Diff(want, p.Settings); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if p.NAT.Ports.First != 2000 || p.NAT.To4.IsValid() || !p.NAT.To6.IsValid() || p.NAT.LeakGuard {
			t.Errorf("the plan is another: %+v", p.NAT)
		}
	}
	configs := []*model.NATConfiguration{&low, &b, &a}
	if diff := cmp.Diff(want, Merge(configs)); diff != "" || configs[0] != &low {
		t.Errorf("merged alone, or the list was changed (-want +got):\n%s", diff)
	}
}

func TestNetworkSettingsSayWhereTheyAreFrom(t *testing.T) {
	t.Parallel()
	s := &model.Snapshot{NodeNetworkConfigurations: []model.NodeNetworkConfiguration{
		{Name: "a", NodeSelector: "all()", MTU: ptr(1400), VXLANPort: ptr(uint16(8472)), Hold: ptr(9 * time.Second), BFD: &model.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}},
		{Name: "b", NodeSelector: "all()", Priority: 2, MaxPrefixes: ptr(uint32(5)), BFD: &model.BFD{}, MTU: ptr(1300), Interface: ptr("eth0"), CIDRs: prefixes("10.0.0.0/8")},
		{Name: "c", NodeSelector: "has(zone)", Priority: 9, MTU: ptr(1200)},
	}}
	_, got := mergeNetwork(s, "n")
	want := []NetworkSetting{
		{"nodeAddress", "interface eth0,10.0.0.0/8", "b", nil},
		{"mtu", "1300", "b", []string{"a"}},
		{"vxlan.port", "8472", "a", nil},
		{"vxlan.vni", "4097", "", nil},
		{"bgp.holdTime", "9s", "a", nil},
		{"bgp.maxPrefixes", "5", "b", nil},
		{"bgp.bfd", "", "b", []string{"a"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
