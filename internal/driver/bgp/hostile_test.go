package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

func TestRoutersHearNothingOfEachOther(t *testing.T) {
	node := here(t)
	one := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), statics+sessionOf("192.0.2.1", "", channel4))
	two := newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"),
		"protocol static s4 { ipv4; route 203.0.113.0/24 unreachable; route 198.18.0.0/15 unreachable; }\n"+sessionOf("198.51.100.1", "", channel4))
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), plan(peer("192.0.2.254"), peer("198.51.100.254"))))
	// What both tell of goes to both.
	learns(t, d, "10.1.0.0/16 via 192.0.2.254", "198.18.0.0/15 via 198.51.100.254", "203.0.113.0/24 via 192.0.2.254,198.51.100.254")
	one.has("show protocols all node192021", "Routes:         1 imported")
	two.has("show protocols all node198511001", "Routes:         1 imported")
	two.has("show route all 10.1.0.0/26", "BGP.next_hop: 198.51.100.1")
}

func TestPasswords(t *testing.T) {
	node := here(t)
	for _, c := range []struct{ name, here, there, why string }{
		{"right", "secret", "secret", ""},
		{"wrong", "secret", "other", "no connection yet"},
		{"missing there", "secret", "", "no connection yet"},
		{"too long", strings.Repeat("x", 81), "", "80 bytes at most"},
		{"unreadable", "", "", "reading its password: no such Secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			options := ""
			if c.there != "" {
				options = fmt.Sprintf("password %q; ", c.there)
			}
			r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), sessionOf("192.0.2.1", options, channel4))
			other := newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"), sessionOf("198.51.100.1", "", channel4))
			d := newDriver(t, Options{Password: func(_ context.Context, p model.BGPPassword) (string, error) {
				if c.here == "" {
					return "", errors.New("no such " + p.Name)
				}
				return c.here, nil
			}})
			with := peer("192.0.2.254")
			with.Password.Name = "Secret"
			labtest.Must(t, d.Apply(t.Context(), plan(with, peer("198.51.100.254"))))
			other.has("show route", "10.1.0.0/26")
			if c.why == "" {
				r.has("show route", "10.1.0.0/26")
				return
			}
			s := state(t, d).Sessions[0]
			if s.Up || !strings.Contains(s.Why, c.why) {
				t.Errorf("the session is up (%v), or it is said why not: %s", s.Up, s.Why)
			}
		})
	}
}

func TestStrangersAndFloodsDoNoHarm(t *testing.T) {
	node := here(t)
	var flood strings.Builder
	for i := range 200 {
		fmt.Fprintf(&flood, "route 198.18.%d.0/24 unreachable;\n", i)
	}
	good := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), sessionOf("192.0.2.1", "", channel4))
	bad := newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"),
		"protocol static s4 { ipv4; "+flood.String()+" }\n"+sessionOf("198.51.100.1", "", channel4))
	stranger := newBird(t, "r3", node, prefixes("203.0.113.1/24"), prefixes("203.0.113.254/24"), sessionOf("203.0.113.1", "", channel4))
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), plan(peer("192.0.2.254"), peer("198.51.100.254"))))
	good.has("show route", "10.1.0.0/26")
	stranger.has("show protocols node203011311", "!Established")
	labtest.Eventually(t, func() string {
		s := state(t, d)
		if s.Strangers == 0 || s.Sessions[1].Up || !strings.Contains(s.Sessions[1].Why, "more routes than the maximum") {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	learns(t, d)
	bad.has("show route", "!10.1.0.0/26")
	for range 500 {
		if c, err := stranger.host.Dial(t.Context(), "tcp", "203.0.113.1:179"); err == nil {
			_, _ = c.Write([]byte(strings.Repeat("garbage ", 8)))
			_ = c.Close()
		}
	}
	for range 50 { // from the address of a peer
		if c, err := good.host.Dial(t.Context(), "tcp", "192.0.2.1:179"); err == nil {
			_, _ = c.Write([]byte(strings.Repeat("garbage ", 8)))
			_ = c.Close()
		}
	}
	labtest.Eventually(t, func() string {
		if s := state(t, d); s.Strangers < 500 || !s.Sessions[0].Up {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

func TestPeersOnTwoInterfacesWithOneAddress(t *testing.T) {
	node := here(t)
	config := statics + sessionOf("fe80::1", "interface \"eth0\"; ", channel6)
	newBird(t, "r1", node, prefixes("fe80::1/64"), prefixes("fe80::fe/64"), config)
	newBird(t, "r2", node, prefixes("fe80::1/64"), prefixes("fe80::fe/64"), config)
	one, two := peer("fe80::fe%r1"), peer("fe80::fe%r2")
	one.Source, two.Source, one.V4, two.V4 = netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::1"), false, false
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), plan(one, two)))
	learns(t, d, "2001:db8:9::/48 via fe80::fe%r1,fe80::fe%r2")
	two.Import = []compile.BGPRule{{Prefix: netip.MustParsePrefix("2001:db8::/32"), Min: 32, Max: 128}}
	labtest.Must(t, d.Apply(t.Context(), plan(one, two)))
	if s := state(t, d).Sessions[1]; s.Up || !strings.Contains(s.Fault, "other filters") {
		t.Errorf("filters that cannot be told apart: %+v", s)
	}
	learns(t, d, "2001:db8:9::/48 via fe80::fe%r1")
}

// TestAFloodPasses has a router tell of more routes than the maximum, first for a while and then until the maximum is another one.
func TestAFloodPasses(t *testing.T) {
	node := here(t)
	const few = "protocol static s4 { ipv4; route 203.0.113.0/24 unreachable; }\n"
	var flood strings.Builder
	for i := range 200 {
		fmt.Fprintf(&flood, "protocol static f%d { ipv4; route 198.18.%d.0/24 unreachable; }\n", i, i)
	}
	// Not graceful: gobgp marks the routes of such a peer while others read them, which the race detector reports.
	session := sessionOf("192.0.2.1", "", channel4)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), few+session)
	good := newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"), sessionOf("198.51.100.1", "", channel4))
	d := newDriver(t, Options{Reopen: 3 * time.Second})
	keeping(t, d)
	p := plan(peer("192.0.2.254"), peer("198.51.100.254"))
	labtest.Must(t, d.Apply(t.Context(), p))
	learns(t, d, "203.0.113.0/24 via 192.0.2.254")
	tooMany := func() {
		t.Helper()
		r.write(flood.String() + few + session)
		r.ask("configure")
		labtest.Eventually(t, func() string {
			if s := state(t, d).Sessions[0]; s.Up || !strings.Contains(s.Why, "more routes than the maximum, 100; the next session is tried at 20") {
				return fmt.Sprintf("%+v", s)
			}
			return ""
		})
		learns(t, d)
	}
	tooMany()
	before := state(t, d).Sessions[0].Resets
	labtest.Eventually(t, func() string {
		if s := state(t, d).Sessions[0]; s.Resets < before+1 {
			return fmt.Sprintf("no session is tried again: %+v", s)
		}
		return ""
	})
	r.write(few + session)
	r.ask("configure")
	learns(t, d, "203.0.113.0/24 via 192.0.2.254")
	if s := state(t, d).Sessions[0]; !s.Up || s.Why != "" {
		t.Errorf("once the flood is over: %+v", s)
	}

	t.Log("a higher maximum opens the session at once")
	d.mu.Lock()
	d.opts.Reopen = time.Hour
	d.mu.Unlock()
	tooMany()
	p.Peers = append([]compile.BGPPeer{}, p.Peers...)
	p.Peers[0].MaxPrefixes = 1000
	labtest.Must(t, d.Apply(t.Context(), p))
	labtest.Eventually(t, func() string {
		if s := state(t, d); !s.Sessions[0].Up || s.Learned != 201 || s.Sessions[1].Resets != 0 {
			return fmt.Sprintf("%d learned, %+v", s.Learned, s.Sessions)
		}
		return ""
	})
	good.has("show route", "10.1.0.0/26")
}
