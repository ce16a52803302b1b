package bgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// TestPoliciesSayWhatThePlanSays compares gobgp's judgement of routes with the plan's, for random plans. One peer tells of routes,
// another one is told of them; each has both families in its session.
func TestPoliciesSayWhatThePlanSays(t *testing.T) {
	here(t)
	peers := []compile.BGPPeer{peer("127.0.0.2"), peer("127.0.0.3")}
	for i := range peers {
		p := &peers[i]
		p.Port, p.V6, p.MaxPrefixes, p.Source = 1790, true, 10_000, netip.MustParseAddr("127.0.0.1")
		p.Import = []compile.BGPRule{{Prefix: anywhere[0], Max: 32, Accept: true}, {Prefix: anywhere[1], Max: 128, Accept: true}}
	}
	peers[1].ASN = 64512 // a client of a reflector: another AS than that of the route, whose AS path would keep it away
	base := plan(peers...)
	base.Own, base.Listen = nil, []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	routes := far(t, "127.0.0.2", 64513, true)
	far(t, "127.0.0.3", 64512, false)
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), base))
	labtest.Eventually(t, func() string {
		if s := state(t, d); s.Sessions[0].Accepted != uint64(len(routes)) || !s.Sessions[1].Up { // no next hop is usable
			return fmt.Sprintf("of %d routes: %+v", len(routes), s)
		}
		return ""
	})

	// What is asked below makes gobgp write to its tables, which the learner, told of news, would read meanwhile.
	d.server.stop()
	some := rapid.Custom(func(t *rapid.T) netip.Prefix { return rapid.SampledFrom(routes).Draw(t, "prefix") })
	rule := rapid.Custom(func(t *rapid.T) compile.BGPRule {
		p := some.Draw(t, "cidr")
		if rapid.Bool().Draw(t, "everything") {
			p = anywhere[family(p)]
		}
		n := rapid.IntRange(p.Bits(), p.Addr().BitLen()).Draw(t, "min")
		return compile.BGPRule{Prefix: p, Min: uint8(n), Max: uint8(rapid.IntRange(n, p.Addr().BitLen()).Draw(t, "max")),
			Not: rapid.Bool().Draw(t, "not"), Learned: rapid.Bool().Draw(t, "learned"), Accept: rapid.Bool().Draw(t, "accept")}
	})
	rapid.Check(t, func(rt *rapid.T) {
		p := base
		p.Peers = slices.Clone(peers)
		for i := range p.Peers {
			q := &p.Peers[i]
			q.Import, q.Export = rapid.SliceOfN(rule, 0, 4).Draw(rt, "import"), rapid.SliceOfN(rule, 0, 4).Draw(rt, "export")
			q.Reflect, q.NextHopSelf = rapid.Bool().Draw(rt, "reflect"), rapid.Bool().Draw(rt, "next hop self")
		}
		if rapid.Bool().Draw(rt, "alike") { // those share statements
			p.Peers[1].Import, p.Peers[1].Export, p.Peers[1].Reflect = p.Peers[0].Import, p.Peers[0].Export, p.Peers[0].Reflect
		}
		p.Own, p.Reflected = rapid.SliceOfN(some, 0, 4).Draw(rt, "own"), rapid.SliceOfN(some, 0, 4).Draw(rt, "reflected")
		labtest.Must(t, d.server.setPolicies(t.Context(), policies(&p, p.Peers)))
		judge := func(kind api.TableType, peer int, says func(netip.Prefix, bool) (bool, string)) {
			seen := 0
			for _, f := range families {
				labtest.Must(t, d.server.bgp.ListPath(apiutil.ListPathRequest{TableType: kind, Name: p.Peers[peer].Address.String(), Family: f, EnableFiltered: true},
					func(nlri bgp.NLRI, paths []*apiutil.Path) {
						seen++
						at := nlri.(*bgp.IPAddrPrefix).Prefix
						learned := paths[0].PeerAddress.IsValid()
						if yes, why := says(at, learned); yes == paths[0].Filtered {
							rt.Errorf("peer %d, %s, learned %v: the plan says %v (%s), and gobgp %v", peer, at, learned, yes, why, !paths[0].Filtered)
						}
					}))
			}
			if seen < len(routes) {
				rt.Errorf("%d routes were judged, of %d", seen, len(routes))
			}
		}
		judge(api.TableType_TABLE_TYPE_ADJ_IN, 0, func(at netip.Prefix, _ bool) (bool, string) { return p.Imports(&p.Peers[0], at) })
		judge(api.TableType_TABLE_TYPE_ADJ_OUT, 1, func(at netip.Prefix, learned bool) (bool, string) { return p.Exports(&p.Peers[1], at, learned) })
	})
}

// far is a gobgp of others that waits for this node's, and tells of random routes, the default ones among them.
func far(t *testing.T, address string, asn uint32, tells bool) []netip.Prefix {
	t.Helper()
	s := gobgp.NewBgpServer()
	go s.Serve()
	t.Cleanup(s.Stop)
	labtest.Must(t, s.StartBgp(t.Context(), &api.StartBgpRequest{Global: &api.Global{Asn: asn, RouterId: address, ListenPort: 1790, ListenAddresses: []string{address},
		UseMultiplePaths: true, Families: []uint32{0, 1}}}))
	p := peer("127.0.0.1")
	p.V6, p.ASN, p.LocalASN, p.MaxPrefixes = true, 64512, asn, 10_000
	passive := peerOf(&p, "", time.Second)
	passive.Transport.PassiveMode = true
	labtest.Must(t, s.AddPeer(t.Context(), &api.AddPeerRequest{Peer: passive}))
	if !tells {
		return nil
	}
	random := rand.New(rand.NewPCG(1, 2)) // few bits, so that many lie in others
	routes := slices.Clone(anywhere[:])
	for range 150 {
		a4 := netip.AddrFrom4([4]byte{10, byte(random.IntN(3)) << 6, byte(random.IntN(3)) << 6, byte(random.IntN(3))})
		a6 := netip.AddrFrom16([16]byte{0xfd, 0, 0, byte(random.IntN(3)) << 6, 0, byte(random.IntN(3)), 15: byte(random.IntN(3))})
		routes = append(routes, netip.PrefixFrom(a4, 8+random.IntN(25)).Masked(), netip.PrefixFrom(a6, 16+random.IntN(113)).Masked())
	}
	slices.SortFunc(routes, netip.Prefix.Compare)
	routes = slices.Compact(routes)
	var paths []*apiutil.Path
	for _, r := range routes {
		path, err := pathOf(&compile.Announcement{Prefix: r, Communities: []model.Community{{Admin: 1, One: 2}}})
		labtest.Must(t, err)
		path.Attrs = slices.Clone(path.Attrs)
		paths = append(paths, path)
	}
	_, err := s.AddPath(apiutil.AddPathRequest{Paths: paths})
	labtest.Must(t, err)
	return routes
}
