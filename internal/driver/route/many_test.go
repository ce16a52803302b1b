package route

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestManyRoutesAreFewSystemCalls(t *testing.T) {
	t.Parallel()
	h := bigNode(t)
	routes := manyRoutes(5000, 10_000)
	labtest.Must(t, h.Do(func() error {
		d, err := New(Options{NetNS: h.FD()})
		if err != nil {
			return err
		}
		defer d.Close()
		if err := d.Apply(t.Context(), routes); err != nil {
			return err
		}
		if drift, err := d.Observe(t.Context()); err != nil || drift != 0 {
			return fmt.Errorf("%d things differ: %w", drift, err)
		}
		other := routes
		other.Routes = slices.Clone(routes.Routes)
		other.Routes[7] = via(routes.Routes[7], routes.Routes[8])
		if err := d.Apply(t.Context(), other); err != nil {
			return err
		}
		return d.Cleanup(t.Context())
	}))
}

// bigNode is a node of a big network.
func bigNode(t labtest.TB) *lab.Host {
	t.Helper()
	h := labtest.NewHost(t, "node")
	labtest.Must(t, lab.Link(lab.Port{Host: h, Name: "eth0", Addresses: prefixes("192.168.0.1/16")}, lab.Port{Host: labtest.NewHost(t, "peer"), Name: "eth0"}))
	return h
}

// BenchmarkRoutes programs 10,000 routes and 5,000 peers on a node that has none, changes one route, and reads all back.
func BenchmarkRoutes(b *testing.B) {
	h, routes := bigNode(b), manyRoutes(5000, 10_000)
	labtest.Must(b, h.Do(func() error {
		d, err := New(Options{NetNS: h.FD()})
		if err != nil {
			return err
		}
		defer d.Close()
		b.Run("cold", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				labtest.Must(b, d.Apply(b.Context(), routes))
				b.StopTimer()
				labtest.Must(b, d.Cleanup(b.Context()))
				b.StartTimer()
			}
		})
		labtest.Must(b, d.Apply(b.Context(), routes))
		other := routes
		other.Routes = slices.Clone(routes.Routes)
		other.Routes[7] = via(routes.Routes[7], routes.Routes[9000])
		b.Run("change", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				labtest.Must(b, d.Apply(b.Context(), other))
				routes, other = other, routes
			}
		})
		b.Run("observe", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := d.Observe(b.Context())
				labtest.Must(b, err)
			}
		})
		return nil
	}))
}

// via is a route that goes where another one does.
func via(r, other *compile.Route) *compile.Route {
	out := *r
	out.Via = other.Via
	return &out
}

// manyRoutes is a plan of peers, and of routes to them by the overlay.
func manyRoutes(peers, routes int) compile.Routes {
	at := func(first byte, n int) netip.Addr {
		return netip.AddrFrom4([4]byte{first, byte(n >> 16), byte(n >> 8), byte(n)})
	}
	v := compile.VXLAN{Name: compile.Device4, VNI: 4097, Port: 4789, Local: netip.MustParseAddr("192.168.0.1"), Address: netip.MustParseAddr("11.0.0.1"), MTU: 1450, MAC: compile.MAC("self")}
	for i := range peers {
		v.Peers = append(v.Peers, compile.Peer{Node: at(12, i+1), Tunnel: at(10, i*128+1), MAC: compile.MAC(fmt.Sprint(i))})
	}
	r := compile.Routes{Devices: []compile.VXLAN{v}}
	for i := range routes {
		r.Routes = append(r.Routes, &compile.Route{CIDR: netip.PrefixFrom(at(10, i*64), 26), Via: v.Peers[i*peers/routes].Tunnel, Device: v.Name, Source: v.Address})
	}
	return r
}
