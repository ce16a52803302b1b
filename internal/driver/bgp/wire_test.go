package bgp

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// client has BIRD be a client of this node, with some routes of IPv4.
func client(address, routes string) string {
	return "protocol static s4 { ipv4; " + routes + " }\n" + strings.ReplaceAll(sessionOf(address, "", channel4), "local as 64513", "local as 64512")
}

func TestReflects(t *testing.T) {
	node := here(t)
	one := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), "router id 192.0.2.254;\n"+
		client("192.0.2.1", "route 10.1.0.64/26 unreachable; route 203.0.113.0/24 unreachable; route 0.0.0.0/0 unreachable; route 10.0.0.0/8 unreachable;"))
	two := newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"), "router id 198.51.100.254;\n"+
		client("198.51.100.1", "route 10.1.0.128/26 unreachable; route 10.1.0.0/26 unreachable;")) // the last is this node's
	router := newBird(t, "r3", node, prefixes("198.18.0.1/24"), prefixes("198.18.0.254/24"), "router id 198.18.0.254;\n"+
		"protocol static s4 { ipv4; route 10.1.0.192/26 unreachable; route 0.0.0.0/0 unreachable; }\n"+sessionOf("198.18.0.1", "", channel4))
	p := plan(peer("192.0.2.254"), peer("198.51.100.254"), peer("198.18.0.254"))
	for i := range p.Peers[:2] {
		q := &p.Peers[i]
		q.ASN, q.Multihop, q.Reflect, q.ClusterID = 64512, false, true, netip.MustParseAddr("244.0.0.1")
	}
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), p))
	up(t, d)
	// A client hears of the blocks of this node, of the other client and of the router, inside pools, and of nothing else.
	one.has("show route count protocol node192021", "3 of 7 routes")
	one.has("show route all protocol node192021", "10.1.0.0/26", "10.1.0.128/26", "10.1.0.192/26", "!203.0.113.0/24", "!10.1.0.64/26")
	two.has("show route count protocol node198511001", "3 of 5 routes")
	two.has("show route all 10.1.0.64/26 protocol node198511001", "BGP.originator_id: 192.0.2.254", "BGP.cluster_list: 244.0.0.1", "BGP.next_hop: 192.0.2.254")
	two.has("show route all 10.1.0.0/26 protocol node198511001", "BGP.next_hop: 198.51.100.1")
	// The router hears of this node's block alone.
	router.has("show route protocol node1981801", "10.1.0.0/26", "!10.1.0.64/26", "!10.1.0.128/26")
}

func TestWrongAS(t *testing.T) {
	node := here(t)
	bad := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), sessionOf("192.0.2.1", "", channel4))
	good := newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"), sessionOf("198.51.100.1", "", channel4))
	d := newDriver(t, Options{})
	p := plan(peer("192.0.2.254"), peer("198.51.100.254"))
	p.Peers[0].ASN = 64599
	labtest.Must(t, d.Apply(t.Context(), p))
	good.has("show route", "10.1.0.0/26")
	labtest.Eventually(t, func() string {
		// gobgp does not say that it is the AS where it was this node that connected.
		if s := state(t, d).Sessions; s[0].Up || s[0].Why == "" || !s[1].Up {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	bad.has("show route", "!10.1.0.0/26")
	p.Peers[0].ASN = 64513
	labtest.Must(t, d.Apply(t.Context(), p))
	bad.has("show route", "10.1.0.0/26")
}

// TestTTLSecurity has a router on the link, and one behind another router, whose packets have a TTL of 255 where they leave.
func TestTTLSecurity(t *testing.T) {
	for _, c := range []struct {
		name    string
		far     bool
		options string // of the router
		hops    uint8  // here
		up      bool
	}{
		{"on the link", false, "ttl security on; ", 1, true},
		{"on the link, without it there", false, "", 1, false},
		{"two hops away", true, "multihop 2; ttl security on; ", 2, true},
		{"two hops away, and one is asked for", true, "multihop 2; ttl security on; ", 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := here(t)
			at, router, address := "192.0.2.1/24", "192.0.2.254/24", "192.0.2.254"
			joined := node
			if c.far {
				joined = labtest.NewHost(t, "between")
				labtest.Must(t, lab.Link(lab.Port{Host: node, Name: "r0", Addresses: prefixes(at)}, lab.Port{Host: joined, Name: "eth0", Addresses: prefixes(router)}), joined.Forward(),
					node.AddRoute(lab.Route{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr(address)}))
				t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "r0").Run() })
				at, router, address = "198.51.100.1/24", "198.51.100.254/24", "198.51.100.254"
			}
			r := newBird(t, "r1", joined, prefixes(at), prefixes(router), sessionOf("192.0.2.1", c.options, channel4))
			if c.far {
				labtest.Must(t, r.host.AddRoute(lab.Route{To: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("198.51.100.1")}))
			}
			other := newBird(t, "r2", node, prefixes("203.0.113.1/24"), prefixes("203.0.113.254/24"), sessionOf("203.0.113.1", "", channel4))
			d := newDriver(t, Options{})
			with := peer(address)
			with.TTLSecurity, with.Source = c.hops, netip.MustParseAddr("192.0.2.1")
			labtest.Must(t, d.Apply(t.Context(), plan(with, peer("203.0.113.254"))))
			other.has("show route", "10.1.0.0/26")
			if c.up {
				r.has("show route", "10.1.0.0/26")
				return
			}
			// Each end has tried to connect, and failed.
			r.has("show protocols all node192021", "!Established", "Socket: ")
			if s := state(t, d).Sessions[0]; s.Up || s.Why == "" {
				t.Errorf("the session is up (%v), or it is not said why not: %s", s.Up, s.Why)
			}
		})
	}
}
