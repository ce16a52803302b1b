package foreign

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestServices looks for the addresses of services in each of the places where kube-proxy keeps them.
func TestServices(t *testing.T) {
	t.Parallel()
	const iptables = `
		-N KUBE-SERVICES
		-N KUBE-SVC
		-A PREROUTING -j KUBE-SERVICES
		-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC
		-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 53 -j KUBE-SVC
		-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC
		-A KUBE-SERVICES ! -d 10.96.0.2/32 -j KUBE-SVC
		-A KUBE-SERVICES -d 10.97.0.0/16 -j KUBE-SVC`
	by := func(command string) func(*testing.T, *lab.Host) {
		return func(t *testing.T, h *lab.Host) {
			load(t, h, command, iptables)
		}
	}
	for _, tt := range []struct {
		name  string
		build func(*testing.T, *lab.Host)
		want  string
	}{
		{"no kube-proxy", func(*testing.T, *lab.Host) {}, "[]"},
		{"iptables-legacy", by("iptables-legacy"), "[10.96.0.1 10.96.0.10]"},
		{"iptables-nft", by("iptables-nft"), "[10.96.0.1 10.96.0.10]"},
		{"nftables", func(t *testing.T, h *lab.Host) {
			labtest.Must(t, run(t, h, "nft", `
				table ip kube-proxy { set cluster-ips { type ipv4_addr; elements = { 10.96.0.1, 10.96.0.10 }; }; }
				table ip6 kube-proxy { set cluster-ips { type ipv6_addr; elements = { fd00:96::1 }; }; }`))
		}, "[10.96.0.1 10.96.0.10 fd00:96::1]"},
		{"IPVS", func(t *testing.T, h *lab.Host) {
			labtest.Must(t, h.Bridge("kube-ipvs0", []netip.Prefix{netip.MustParsePrefix("10.96.0.1/32"), netip.MustParsePrefix("fd00:96::1/128")}), h.SetDown("kube-ipvs0"),
				h.AddAddress("lo", netip.MustParsePrefix("10.96.0.99/32")))
		}, "[10.96.0.1]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			tt.build(t, h)
			if got := fmt.Sprint(read(t, h).Services); got != tt.want {
				t.Errorf("services %s, want %s", got, tt.want)
			}
		})
	}
}
