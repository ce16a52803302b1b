package bgp

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// statics are routes that a router tells of: some of them this node must not believe.
const statics = `
protocol static s4 { ipv4; route 0.0.0.0/0 unreachable; route 203.0.113.0/24 unreachable; route 10.1.0.0/26 unreachable; route 10.1.0.5/32 unreachable;
	route 192.0.2.1/32 unreachable; route 10.1.0.0/16 unreachable; }
protocol static s6 { ipv6; route ::/0 unreachable; route 2001:db8:9::/48 unreachable; route fd00::1:7/128 unreachable; }
`

// sessionOf is a BGP protocol of BIRD with this node.
func sessionOf(address, options, channels string) string {
	return "protocol bgp node" + strings.NewReplacer(".", "", ":", "").Replace(address) + " { local as 64513; neighbor " + address + " as 64512; hold time 9; connect retry time 1; error wait time 1,2; " + options + channels + " }\n"
}

const (
	channel4 = "ipv4 { import all; export where source = RTS_STATIC; next hop self; };"
	channel6 = "ipv6 { import all; export where source = RTS_STATIC; next hop self; };"
)

func TestTellsRouters(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24", "2001:db8::1/64"), prefixes("192.0.2.254/24", "2001:db8::fe/64"),
		statics+sessionOf("192.0.2.1", "", channel4)+sessionOf("2001:db8::1", "", channel6))
	d := newDriver(t, Options{})
	p := plan(peer("192.0.2.254"), peer("2001:db8::fe"))
	labtest.Must(t, d.Apply(t.Context(), p))
	up(t, d)
	learns(t, d, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254", "2001:db8:9::/48 via 2001:db8::fe")
	r.has("show route all 10.1.0.0/26 protocol node192021", "BGP.next_hop: 192.0.2.1", "BGP.as_path: 64512", "(64512,7)", "(64512, 1, 2)")
	r.has("show route all fd00::1:0/112 protocol node2001db81", "BGP.next_hop: 2001:db8::1")

	s := state(t, d)
	if s.Sessions[0].In != 6 || s.Sessions[0].Accepted != 2 || s.Sessions[0].Out != 1 || len(s.Sessions[0].Refused) != 4 {
		t.Errorf("the state is %+v", s)
	}
	if g, err := d.Glance(t.Context()); err != nil || g.Sessions[0].In != 6 || g.Sessions[0].Accepted != 2 || g.Sessions[0].Out != 1 || len(g.Sessions[0].Refused) != 0 ||
		g.Sessions[0].State != "Established" || g.Sessions[0].Resets != 0 || len(g.Announced) != 2 {
		t.Errorf("at a glance it is %+v, %v", g, err)
	}
	for _, refused := range s.Sessions[0].Refused {
		if refused.Why == "" {
			t.Errorf("no reason for %s", refused.Prefix)
		}
	}

	t.Log("one announcement goes, another comes; applied again, nothing happens")
	p.Announcements = append([]compile.Announcement{{Prefix: netip.MustParsePrefix("10.1.0.64/26")}}, p.Announcements[1:]...)
	labtest.Must(t, d.Apply(t.Context(), p), d.Apply(t.Context(), p))
	r.has("show route protocol node192021", "10.1.0.64/26", "!10.1.0.0/26")

	t.Log("a filter comes and goes, and the session stands")
	since := r.ask("show", "protocols", "node192021")
	filtered := p
	filtered.Peers = append([]compile.BGPPeer{}, p.Peers...)
	filtered.Peers[0].Export = []compile.BGPRule{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Min: 16, Max: 32}}
	filtered.Peers[0].Import = []compile.BGPRule{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Max: 0, Accept: true}, {Prefix: netip.MustParsePrefix("203.0.113.0/24"), Min: 24, Max: 32}}
	labtest.Must(t, d.Apply(t.Context(), filtered))
	r.has("show route protocol node192021", "!10.1.0.64/26")
	learns(t, d, "0.0.0.0/0 via 192.0.2.254", "10.1.0.0/16 via 192.0.2.254", "2001:db8:9::/48 via 2001:db8::fe")
	labtest.Must(t, d.Apply(t.Context(), p))
	r.has("show route protocol node192021", "10.1.0.64/26")
	learns(t, d, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254", "2001:db8:9::/48 via 2001:db8::fe")

	t.Log("one peer goes, the other stays")
	without := p
	without.Peers = p.Peers[:1]
	labtest.Must(t, d.Apply(t.Context(), without))
	r.has("show route", "!fd00::1:0/112", "10.1.0.64/26")
	learns(t, d, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254")
	if now := r.ask("show", "protocols", "node192021"); now != since {
		t.Errorf("the session was reset: %s\n%s", since, now)
	}

	t.Log("without peers nothing listens")
	labtest.Must(t, d.Apply(t.Context(), compile.BGP{}))
	r.has("show route", "!10.1.0.64/26")
	learns(t, d)
	if c, err := net.Dial("tcp", "127.0.0.1:179"); err == nil {
		_ = c.Close()
		t.Error("something listens")
	}
}

func TestLinkLocalPeer(t *testing.T) {
	node := here(t)
	r := newBird(t, "r2", node, prefixes("fe80::1/64"), prefixes("fe80::fe/64"), statics+sessionOf("fe80::1", "interface \"eth0\"; ",
		"ipv4 { import all; export where source = RTS_STATIC; next hop self; extended next hop; }; "+channel6))
	d := newDriver(t, Options{})
	there := peer("fe80::fe%r2")
	there.Source = netip.MustParseAddr("fe80::1") // of several on the interface
	labtest.Must(t, d.Apply(t.Context(), plan(there)))
	up(t, d)
	learns(t, d, "10.1.0.0/16 via fe80::fe%r2", "203.0.113.0/24 via fe80::fe%r2", "2001:db8:9::/48 via fe80::fe%r2")
	r.has("show route all 10.1.0.0/26 protocol nodefe801", "via fe80::1 on eth0")
	r.has("show route all fd00::1:0/112 protocol nodefe801", "via fe80::1 on eth0")
}
