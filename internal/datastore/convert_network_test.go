package datastore

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/internal/model"
)

func TestNetworkKinds(t *testing.T) {
	t.Parallel()
	eth, mtu, port, vni := "eth*", 1500, uint16(4790), uint32(5)
	for _, test := range []struct {
		kind, in string
		want     any
		err      string
	}{
		{KindIPReservation, `{"metadata":{"name":"a"},"spec":{"reservedCIDRs":["10.0.0.1/28","fd00::5/120"]}}`,
			model.Reservation{Name: "a", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/28"), netip.MustParsePrefix("fd00::/120")}}, ""},
		{KindIPReservation, `{"metadata":{"name":"a"},"spec":{}}`, model.Reservation{Name: "a"}, ""},
		{KindIPReservation, `{"spec":{"reservedCIDRs":["10.0.0.0/8","x"]}}`, nil, "spec.reservedCIDRs[1]"},
		{KindIPReservation, `{"spec":{"reservedCIDRs":["::ffff:10.0.0.0/104"]}}`, nil, "spec.reservedCIDRs[0]"},
		{KindNodeNetworkConfiguration, `{"metadata":{"name":"a"},"spec":{}}`, model.NodeNetworkConfiguration{Name: "a", NodeSelector: "all()"}, ""},
		{KindNodeNetworkConfiguration, `{"metadata":{"name":"a"},"spec":{"nodeSelector":"all()","priority":-2,"nodeAddress":{"interface":"eth*","cidrs":["192.0.2.1/24"]},"mtu":1500,"vxlan":{"port":4790,"vni":5}}}`,
			model.NodeNetworkConfiguration{Name: "a", NodeSelector: "all()", Priority: -2, Interface: &eth, CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, MTU: &mtu, VXLANPort: &port, VXLANVNI: &vni}, ""},
		{KindNodeNetworkConfiguration, `{"spec":{"nodeAddress":{"cidrs":["192.0.2.1"]}}}`, nil, "spec.nodeAddress.cidrs[0]"},
		{KindNodeNetworkConfiguration, `{"spec":{"nodeSelector":"has(a)","vxlan":{}}}`, nil, "spec.vxlan: is the same on all nodes"},
		{KindNodeNetworkConfiguration, `{"spec":{"vxlan":{"port":65536}}}`, nil, "spec.vxlan.port"},
		{KindNodeNetworkConfiguration, `{"spec":{"vxlan":{"vni":16777216}}}`, nil, "spec.vxlan.vni"},
		{KindNodeNetworkConfiguration, `{"spec":{"mtu":0}}`, nil, "spec.mtu"},
		{KindIPBlock, `{"metadata":{"name":"x"},"spec":{"cidr":"10.0.0.0/26","node":"n","pool":"p"}}`, &model.Block{CIDR: netip.MustParsePrefix("10.0.0.0/26"), Node: "n", Pool: "p"}, ""},
		{KindIPBlock, `{"metadata":{"deletionTimestamp":"2026-01-02T03:04:05Z"},"spec":{"cidr":"fd00::40/122","node":"n","pool":"p"}}`,
			&model.Block{CIDR: netip.MustParsePrefix("fd00::40/122"), Node: "n", Pool: "p", Terminating: true}, ""},
		{KindIPBlock, `{"spec":{}}`, nil, "spec.cidr"},
		{KindNode, `{"metadata":{"name":"n","annotations":{"sallyport.dev/network-addresses":"2001:db8::1,192.0.2.1","sallyport.dev/tunnel-addresses":"10.0.0.1"}}}`,
			model.Node{Name: "n", NetworkAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, Tunnels: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, ""},
		{KindNode, `{"metadata":{"annotations":{"sallyport.dev/tunnel-addresses":"10.0.0.1,10.0.0.2"}}}`, nil, "two addresses of one family"},
		{KindNode, `{"metadata":{"annotations":{"sallyport.dev/network-addresses":"127.0.0.1"}}}`, nil, "sallyport.dev/network-addresses"},
	} {
		got, err := Value(test.kind, []byte(test.in))
		switch diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: error %v, want one about %s", test.in, err, test.err)
			}
		case err != nil || diff != "":
			t.Errorf("%s: %v\n%s", test.in, err, diff)
		}
	}
}

// TestAnnouncedText: what an agent writes is what others read.
func TestAnnouncedText(t *testing.T) {
	t.Parallel()
	for _, want := range []string{"", "192.0.2.1", "192.0.2.1,2001:db8::1"} {
		got, err := Announced("a", want)
		if err != nil || AnnouncedText(got) != want {
			t.Errorf("%q is read as %v and written as %q: %v", want, got, AnnouncedText(got), err)
		}
	}
}
