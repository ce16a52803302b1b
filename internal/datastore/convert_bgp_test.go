package datastore

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/internal/model"
)

func TestBGPKinds(t *testing.T) {
	t.Parallel()
	yes := true
	bits := func(n uint8) *uint8 { return &n }
	peer := func(change func(*model.BGPPeer)) model.BGPPeer {
		p := model.BGPPeer{Name: "p", NodeSelector: "all()", Address: netip.MustParseAddr("192.0.2.1"), ASN: 65001, Restart: 120 * time.Second}
		change(&p)
		return p
	}
	for _, test := range []struct {
		kind, spec string
		want       any
		err        string
	}{
		{KindBGPPeer, `{"peerIP":"192.0.2.1","asNumber":65001}`, peer(func(*model.BGPPeer) {}), ""},
		{KindBGPPeer, `{"peerIP":"[fe80::1%eth0]:1179","asNumber":4294967295,"localASNumber":65009,"node":"a","nextHopMode":"Self","sourceAddress":"None","keepaliveTime":"1m0.4s",
			"maxRestartTime":"2m","ttlSecurity":255,"numAllowedLocalASNumbers":1,"filters":["f"],"reachableBy":"192.0.2.2","password":{"secretKeyRef":{"name":"s","key":"k","optional":true}}}`,
			peer(func(p *model.BGPPeer) {
				p.Address, p.Port, p.ASN, p.LocalASN, p.Node = netip.MustParseAddr("fe80::1%eth0"), 1179, 4294967295, 65009, "a"
				p.NextHopSelf, p.AnySource, p.Keepalive, p.TTLSecurity, p.AllowedLocalASNs = true, true, time.Minute, 255, 1
				p.Filters, p.Ignored, p.Password = []string{"f"}, []string{"spec.reachableBy"}, model.BGPPassword{Name: "s", Key: "k", Optional: true}
			}), ""},
		{KindBGPPeer, `{"peerSelector":"has(a)","nodeSelector":"has(b)","reversePeering":"Manual","nextHopMode":"Keep"}`,
			peer(func(p *model.BGPPeer) {
				p.Address, p.ASN, p.NodeSelector, p.PeerSelector, p.Manual = netip.Addr{}, 0, "has(b)", "has(a)", true
			}), ""},
		{KindBGPPeer, `{"localWorkloadSelector":"has(a)","asNumber":65001}`,
			peer(func(p *model.BGPPeer) { p.Address, p.Ignored = netip.Addr{}, []string{"spec.localWorkloadSelector"} }), ""},
		{KindBGPPeer, `{"peerIP":"router","asNumber":1}`, nil, "spec.peerIP"},
		{KindBGPPeer, `{"peerIP":"fe80::1","asNumber":1}`, nil, "spec.peerIP"},
		{KindBGPPeer, `{"peerIP":"2001:db8::1%eth0","asNumber":1}`, nil, "spec.peerIP"},
		{KindBGPPeer, `{"peerIP":"192.0.2.1:0","asNumber":1}`, nil, "spec.peerIP"},
		{KindBGPPeer, `{"peerIP":"0.0.0.0","asNumber":1}`, nil, "spec.peerIP"},
		{KindBGPPeer, `{"peerIP":"192.0.2.1"}`, nil, "spec.asNumber: is missing"},
		{KindBGPPeer, `{"peerIP":"192.0.2.1","asNumber":4294967296}`, nil, "spec.asNumber"},
		{KindBGPPeer, `{"peerIP":"192.0.2.1","asNumber":1,"peerSelector":"all()"}`, nil, "spec.peerSelector"},
		{KindBGPPeer, `{"peerIP":"192.0.2.1","asNumber":1,"node":"a","nodeSelector":"all()"}`, nil, "spec.nodeSelector"},
		{KindBGPPeer, `{"peerSelector":"all()","ttlSecurity":256}`, nil, "spec.ttlSecurity"},
		{KindBGPPeer, `{"peerSelector":"all()","numAllowedLocalASNumbers":256}`, nil, "spec.numAllowedLocalASNumbers"},
		{KindBGPPeer, `{"peerSelector":"all()","maxRestartTime":"4096s"}`, nil, "spec.maxRestartTime"},
		{KindBGPPeer, `{"peerSelector":"all()","keepaliveTime":"soon"}`, nil, "spec.keepaliveTime"},

		{KindBGPConfiguration, `{}`, model.BGPConfiguration{Name: "p", MeshRestart: 120 * time.Second}, ""},
		{KindBGPConfiguration, `{"asNumber":65000,"nodeToNodeMeshEnabled":false,"listenPort":1179,"bindMode":"NodeIP","logSeverityScreen":"info","serviceLoadBalancerAggregation":"Enabled",
			"communities":[{"name":"lan","value":"65000:1"}],"prefixAdvertisements":[{"cidr":"10.1.0.1/8","communities":["lan","1:2:3"]}]}`,
			model.BGPConfiguration{Name: "p", ASN: 65000, NoMesh: true, Port: 1179, NodeIP: &yes, MeshRestart: 120 * time.Second, Advertisements: []model.PrefixAdvertisement{
				{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Communities: []model.Community{{Admin: 65000, One: 1}, {Large: true, Admin: 1, One: 2, Two: 3}}}}}, ""},
		{KindBGPConfiguration, `{"nodeMeshPassword":{"secretKeyRef":{"name":"s","key":"k"}},"nodeMeshMaxRestartTime":"10s","logSeverityScreen":"Debug","serviceClusterIPs":[{"cidr":"10.0.0.0/8"}],
			"serviceLoadBalancerAggregation":"Disabled","ignoredInterfaces":["a"],"programClusterRoutes":"Enabled"}`,
			model.BGPConfiguration{Name: "p", MeshPassword: model.BGPPassword{Name: "s", Key: "k"}, MeshRestart: 10 * time.Second, Ignored: []string{"spec.ignoredInterfaces", "spec.logSeverityScreen",
				"spec.programClusterRoutes", "spec.serviceClusterIPs", "spec.serviceLoadBalancerAggregation"}}, ""},
		{KindBGPConfiguration, `{"listenPort":65536}`, nil, "spec.listenPort"},
		{KindBGPConfiguration, `{"communities":[{"name":"lan","value":"65536:1"}]}`, nil, "spec.communities[0].value"},
		{KindBGPConfiguration, `{"prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["1:2","lan"]}]}`, nil, "spec.prefixAdvertisements[0].communities[1]"},
		{KindBGPConfiguration, `{"prefixAdvertisements":[{"cidr":"10.0.0.0"}]}`, nil, "spec.prefixAdvertisements[0].cidr"},

		{KindBGPFilter, `{"importV4":[{"action":"Accept","cidr":"10.0.0.1/8","matchOperator":"In","prefixLength":{"min":9,"max":24}},{"action":"Reject","source":"RemotePeers"}],
			"exportV6":[{"action":"Reject","cidr":"fd00::/8","matchOperator":"NotEqual"}]}`,
			model.BGPFilter{Name: "p", Import4: []model.BGPFilterRule{{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Operator: model.MatchIn, Min: bits(9), Max: bits(24), Accept: true}, {Learned: true}},
				Export6: []model.BGPFilterRule{{CIDR: netip.MustParsePrefix("fd00::/8"), Operator: model.MatchNotEqual}}}, ""},
		{KindBGPFilter, `{"importV4":[{"action":"Accept","communities":{"values":["1:2"]}}]}`, nil, "spec.importV4[0].communities"},
		{KindBGPFilter, `{"exportV4":[{"action":"Accept"},{"action":"Reject","peerType":"eBGP"}]}`, nil, "spec.exportV4[1].peerType"},
		{KindBGPFilter, `{"exportV4":[{"action":"Accept","operations":[{"setPriority":{"value":1}}]}]}`, nil, "spec.exportV4[0].operations"},
		{KindBGPFilter, `{"importV6":[{"action":"Accept","interface":"eth0"}]}`, nil, "spec.importV6[0].interface"},
		{KindBGPFilter, `{"importV6":[{"action":"Accept","priority":5}]}`, nil, "spec.importV6[0].priority"},
		{KindBGPFilter, `{"exportV6":[{"action":"Accept","asPathPrefix":[5]}]}`, nil, "spec.exportV6[0].asPathPrefix"},
		{KindBGPFilter, `{"exportV6":[{"action":"Drop"}]}`, nil, "spec.exportV6[0].action"},
		{KindBGPFilter, `{"exportV6":[{"action":"Accept","source":"Local"}]}`, nil, "spec.exportV6[0].source"},
		{KindBGPFilter, `{"exportV6":[{"action":"Accept","cidr":"10.0.0.0/8","matchOperator":"In"}]}`, nil, "spec.exportV6[0].cidr"},
		{KindBGPFilter, `{"exportV6":[{"action":"Accept","cidr":"::/0"}]}`, nil, "spec.exportV6[0].matchOperator"},
		{KindBGPFilter, `{"exportV6":[{"action":"Accept","prefixLength":{"min":1}}]}`, nil, "spec.exportV6[0].matchOperator"},
		{KindBGPFilter, `{"exportV6":[{"action":"Accept","cidr":"::/0","matchOperator":"Within"}]}`, nil, "spec.exportV6[0].matchOperator"},
		{KindBGPFilter, `{"exportV4":[{"action":"Accept","cidr":"0.0.0.0/0","matchOperator":"In","prefixLength":{"max":33}}]}`, nil, "spec.exportV4[0].prefixLength.max"},

		{KindNodeNetworkConfiguration, `{"bgp":{"holdTime":"2s","maxPrefixes":0}}`, nil, "spec.bgp.maxPrefixes"},
		{KindNodeNetworkConfiguration, `{"bgp":{"holdTime":"never"}}`, nil, "spec.bgp.holdTime"},
		{KindNodeNetworkConfiguration, `{"bgp":{"bfd":{"interval":"-1s"}}}`, nil, "spec.bgp.bfd.interval"},
		{KindNodeNetworkConfiguration, `{"bgp":{"bfd":{"interval":"1s","multiplier":256}}}`, nil, "spec.bgp.bfd.multiplier"},
		{KindNodeNetworkConfiguration, `{"bgp":{"bfd":{"interval":"0s","multiplier":5}}}`, model.NodeNetworkConfiguration{Name: "p", NodeSelector: "all()", BFD: &model.BFD{}}, ""},
		{KindNodeNetworkConfiguration, `{"bgp":{"bfd":{"interval":"300ms"}}}`, model.NodeNetworkConfiguration{Name: "p", NodeSelector: "all()", BFD: &model.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}}, ""},
	} {
		got, err := Value(test.kind, []byte(`{"metadata":{"name":"p"},"spec":`+test.spec+`}`))
		switch diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); {
		case test.err != "":
			if err == nil || !strings.HasPrefix(err.Error(), test.err) || got != nil {
				t.Errorf("%s: %v, error %v, want one about %s", test.spec, got, err, test.err)
			}
		case err != nil || diff != "":
			t.Errorf("%s: %v\n%s", test.spec, err, diff)
		}
	}
}

// TestNodesAboutBGP reads the annotations.
func TestNodesAboutBGP(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asn, cluster string
		want         model.Node
		err          string
	}{
		{"65000", "244.0.0.1", model.Node{ASN: 65000, ClusterID: netip.MustParseAddr("244.0.0.1")}, ""},
		{"1.10", "", model.Node{ASN: 65546}, ""},
		{"4294967296", "", model.Node{}, "metadata.annotations[projectcalico.org/ASNumber]"},
		{"1.65536", "", model.Node{}, "metadata.annotations[projectcalico.org/ASNumber]"},
		{"0.0", "", model.Node{}, "metadata.annotations[projectcalico.org/ASNumber]"},
		{"", "1", model.Node{}, "metadata.annotations[projectcalico.org/RouteReflectorClusterID]"},
		{"", "0.0.0.0", model.Node{}, "metadata.annotations[projectcalico.org/RouteReflectorClusterID]"},
	} {
		got, err := Node([]byte(`{"metadata":{"annotations":{"projectcalico.org/ASNumber":"` + test.asn + `","projectcalico.org/RouteReflectorClusterID":"` + test.cluster + `"}}}`))
		if got.ASN != test.want.ASN || got.ClusterID != test.want.ClusterID && test.err == "" || (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
			t.Errorf("%q, %q: %+v, %v", test.asn, test.cluster, got, err)
		}
	}
}
