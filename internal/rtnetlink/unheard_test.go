package rtnetlink

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// TestUnheard hears of each change what is to be heard of it.
func TestUnheard(t *testing.T) {
	t.Parallel()
	h, own, _, index := open(t)
	other, err := Dial(h.FD())
	labtest.Must(t, err)
	t.Cleanup(func() { _ = other.Close() })
	change := func(by *Conn, name string, fill func(*Batch)) {
		var b Batch
		fill(&b)
		if refused, err := by.Execute(context.WithoutCancel(t.Context()), &b); err != nil || len(refused) > 0 {
			t.Error(name, refused, err)
		}
	}
	route := func(kind, flags uint16, prefix string) func(*Batch) {
		to := netip.MustParsePrefix(prefix)
		return func(b *Batch) {
			b.Message(kind, flags, RouteFixed{Destination: to, Table: unix.RT_TABLE_MAIN, Protocol: RouteProtocol, Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK}.Encode())
			if to.Bits() > 0 {
				b.Addr(unix.RTA_DST, to.Addr())
			}
			b.Uint32(unix.RTA_OIF, uint32(index))
		}
	}
	groups := []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}
	all := []string{"default", "10.0.0.0/24", "10.0.1.1/32", "fd00::/64", "neighbour"}
	for i, tc := range []struct {
		unheard Unheard
		want    []string
	}{
		{Unheard{}, all},
		{Unheard{From: []uint32{1, other.PortID()}}, []string{"default", "10.0.0.0/24"}},
		{Unheard{Kinds: []uint16{unix.RTM_NEWROUTE}}, []string{"neighbour"}},
		{Unheard{RoutesBut: []uint8{0}}, []string{"default", "neighbour"}},
		{Unheard{RoutesBut: []uint8{32, 64}, Forwarding: true}, []string{"10.0.1.1/32", "fd00::/64", "neighbour"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var heard []string
		began, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- Subscribe(ctx, h.FD(), groups, tc.unheard, func() { close(began) }, func(m nfnetlink.Message) {
				switch m.Kind {
				case unix.RTM_NEWLINK: // what is done last
					cancel()
				case unix.RTM_NEWNEIGH:
					heard = append(heard, "neighbour")
				case unix.RTM_NEWROUTE:
					if r, err := ParseRoute(m); err == nil && r.Protocol == RouteProtocol {
						heard = append(heard, map[bool]string{true: "default", false: r.To.String()}[m.Body[1] == 0])
					}
				}
			})
		}()
		<-began
		for _, r := range []struct {
			by *Conn
			to string
		}{{own, "0.0.0.0/0"}, {own, "10.0.0.0/24"}, {other, "10.0.1.1/32"}, {other, "fd00::/64"}} {
			change(r.by, r.to, route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.to))
			change(r.by, r.to, route(unix.RTM_DELROUTE, 0, r.to))
		}
		change(other, "neighbour", func(b *Batch) {
			b.Message(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, Neighbour(unix.AF_INET, index, unix.NUD_PERMANENT, 0))
			b.Addr(unix.NDA_DST, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
			b.Bytes(unix.NDA_LLADDR, []byte{2, 0, 0, 0, 0, 1})
		})
		change(other, "link", func(b *Batch) {
			b.Message(unix.RTM_NEWLINK, 0, Link(index, 0, 0))
			b.Uint32(unix.IFLA_MTU, uint32(1400+i))
		})
		if err := <-done; err != nil || !slices.Equal(heard, tc.want) {
			t.Errorf("without %+v, %q is heard, want %q: %v", tc.unheard, heard, tc.want, err)
		}
		cancel()
	}
}
