package datastore

import (
	"reflect"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
)

// FuzzValue makes sure that whatever stands where an object should be gives a value or an error, and twice the same.
func FuzzValue(f *testing.F) {
	for kind, texts := range map[string][]string{
		KindIPPool: {`{"metadata":{"name":"p","creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"cidr":"10.0.0.0/16","allowedUses":["Workload"]},"status":{"conditions":[{"type":"Allocatable","status":"True"}]}}`,
			`{"metadata":null,"spec":[],"status":{"conditions":{}}}`},
		KindNATConfiguration:         {`{"metadata":{"name":"c"},"spec":{"addresses":["192.0.2.1"],"portRange":"1-2","nodeSelector":"all()"}}`},
		KindIPReservation:            {`{"metadata":{"name":"r"},"spec":{"reservedCIDRs":["10.0.0.1/28","fd00::/120"]}}`},
		KindNodeNetworkConfiguration: {`{"metadata":{"name":"c"},"spec":{"priority":1,"nodeAddress":{"interface":"eth*","cidrs":["10.0.0.0/8"]},"mtu":1500,"vxlan":{"port":4790,"vni":5}}}`},
		KindIPBlock:                  {`{"metadata":{"name":"4-10-0-0-0-26","deletionTimestamp":"2026-01-02T03:04:05Z"},"spec":{"cidr":"10.0.0.0/26","node":"n","pool":"p","poolUID":"u"}}`},
		KindBGPPeer:                  {`{"metadata":{"name":"p"},"spec":{"peerIP":"[fe80::1%eth0]:179","asNumber":65001,"keepaliveTime":"1m","ttlSecurity":1,"filters":["f"],"password":{"secretKeyRef":{"name":"s","key":"k"}}}}`},
		KindBGPConfiguration:         {`{"metadata":{"name":"default"},"spec":{"asNumber":65000,"communities":[{"name":"a","value":"1:2"}],"prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["a"]}]}}`},
		KindBGPFilter:                {`{"metadata":{"name":"f"},"spec":{"importV4":[{"action":"Accept","cidr":"10.0.0.0/8","matchOperator":"In","prefixLength":{"min":9}}],"exportV6":[{"action":"Reject"}]}}`},
		KindNode: {`{"metadata":{"name":"n","annotations":{"sallyport.dev/network-addresses":"192.0.2.1,2001:db8::1","sallyport.dev/tunnel-addresses":"x"}}}`,
			`{"metadata":{"name":"n","labels":{"a":"b"}},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}}`},
	} {
		for _, text := range texts {
			f.Add(kind, []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, kind string, text []byte) {
		v, err := Value(kind, text)
		if (v == nil) == (err == nil) {
			t.Fatalf("value %v, error %v", v, err)
		}
		if p, ok := v.(*model.Pool); ok && (!p.CIDR.IsValid() || p.CIDR != p.CIDR.Masked() || p.CIDR.Addr().Is4In6()) {
			t.Fatalf("the range of %+v", p)
		}
		if b, ok := v.(*model.Block); ok && (!b.CIDR.IsValid() || b.CIDR != b.CIDR.Masked() || b.CIDR.Addr().Is4In6()) {
			t.Fatalf("the range of %+v", b)
		}
		if n, ok := v.(model.Node); ok && (len(n.NetworkAddresses) > 2 || len(n.Tunnels) > 2) {
			t.Fatalf("the addresses of %+v", n)
		}
		if p, ok := v.(model.BGPPeer); ok && (p.Address.IsValid() && (p.PeerSelector != "" || p.ASN == 0) || p.Restart < 0 || p.Keepalive < 0) {
			t.Fatalf("%+v", p)
		}
		if again, _ := Value(kind, text); !reflect.DeepEqual(v, again) {
			t.Fatalf("%+v, and then %+v", v, again)
		}
	})
}
