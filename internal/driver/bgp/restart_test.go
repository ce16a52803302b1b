package bgp

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// graceful has BIRD keep the routes of a peer that restarts.
const graceful = "graceful restart on; "

func TestPeersKeepRoutesWhileTheAgentIsAway(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), statics+sessionOf("192.0.2.1", graceful, channel4))
	p := plan(peer("192.0.2.254"))
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), p))
	r.has("show route protocol node192021", "10.1.0.0/26")
	learns(t, d, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254")

	labtest.Must(t, d.Close())
	r.has("show protocols all node192021", "Neighbor graceful restart active")
	r.has("show route protocol node192021", "10.1.0.0/26")
	learns(t, d, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254") // the keeper of routes is not told to remove them

	t.Log("the next agent knows no block yet: it waits before it speaks")
	next := newDriver(t, Options{Held: true})
	early := p
	early.Announcements = nil
	if err := next.Apply(t.Context(), early); err == nil || !strings.Contains(err.Error(), "not known yet") {
		t.Errorf("it speaks without blocks: %v", err)
	}
	if _, complete := next.Learned(); complete {
		t.Error("what it learned is complete before it spoke")
	}
	gone := r.watch("show route protocol node192021", "10.1.0.0/26")
	labtest.Must(t, next.Apply(t.Context(), p))
	up(t, next)
	labtest.Eventually(t, func() string {
		if _, complete := next.Learned(); !complete {
			return "what it learned does not become complete"
		}
		return ""
	})
	learns(t, next, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254")
	r.has("show protocols all node192021", "!Neighbor graceful restart active", "Routes:         1 imported")
	if out := gone(); out != "" {
		t.Errorf("the route went: %s", out)
	}

	t.Log("a cleanup says goodbye")
	labtest.Must(t, next.Cleanup(t.Context()))
	r.has("show route protocol node192021", "!10.1.0.0/26")
	learns(t, next)
}

func TestADeadPeerHoldsTheOthersUpForTheDeferralAlone(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), statics+sessionOf("192.0.2.1", graceful, channel4))
	d := newDriver(t, Options{Held: true, Deferral: 2 * time.Second})
	labtest.Must(t, d.Apply(t.Context(), plan(peer("192.0.2.77"), peer("192.0.2.254"))))
	learns(t, d, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254") // at once: what is missing alone waits
	labtest.Eventually(t, func() string {
		if _, complete := d.Learned(); !complete {
			return "what it learned does not become complete"
		}
		return ""
	})
	r.has("show route protocol node192021", "10.1.0.0/26")
	if s := state(t, d).Sessions[0]; s.Up || !strings.Contains(s.Why, "does not answer") {
		t.Errorf("the dead peer: %+v", s)
	}
}

func TestBlocksThatAreNotReadyAreNotAnnounced(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), sessionOf("192.0.2.1", "", channel4))
	ready := false
	d := newDriver(t, Options{Ready: func(context.Context, netip.Prefix) bool { return ready }})
	p := plan(peer("192.0.2.254"))
	if err := d.Apply(t.Context(), p); err == nil || !strings.Contains(err.Error(), "10.1.0.0/26, fd00::1:0/112") {
		t.Errorf("applied: %v", err)
	}
	up(t, d)
	r.has("show protocols all node192021", "0 imported")
	ready = true
	labtest.Must(t, d.Apply(t.Context(), p))
	r.has("show route protocol node192021", "10.1.0.0/26")
	ready = false // what is announced stays so
	labtest.Must(t, d.Apply(t.Context(), p))
	r.has("show route protocol node192021", "10.1.0.0/26")
}

// TestNothingStays looks for goroutines that outlive a driver.
func TestNothingStays(t *testing.T) {
	node := here(t)
	newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), sessionOf("192.0.2.1", graceful, channel4))
	for _, end := range []func(*Driver) error{(*Driver).Close, func(d *Driver) error { return d.Cleanup(context.Background()) }} {
		d := newDriver(t, Options{})
		labtest.Must(t, d.Apply(t.Context(), plan(peer("192.0.2.254"))))
		up(t, d)
		labtest.Must(t, end(d))
		labtest.Eventually(t, func() string {
			buf := make([]byte, 1<<20)
			for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				if strings.Contains(g, "osrg/gobgp") || strings.Contains(g, "(*learner)") {
					return "a goroutine stays:\n" + g
				}
			}
			return ""
		})
		if l, err := net.Listen("tcp", "127.0.0.1:179"); err != nil {
			t.Error(err)
		} else {
			_ = l.Close()
		}
	}
}

func TestResets(t *testing.T) {
	base := peer("192.0.2.254")
	for name, c := range map[string]struct {
		change func(*compile.BGPPeer)
		resets bool
	}{
		"hold time":       {func(p *compile.BGPPeer) { p.Hold = time.Minute }, false},
		"maximum":         {func(p *compile.BGPPeer) { p.MaxPrefixes = 7 }, false},
		"filters":         {func(p *compile.BGPPeer) { p.Import = []compile.BGPRule{{Accept: true}} }, false},
		"password":        {func(p *compile.BGPPeer) { p.Password.Name = "s" }, true},
		"BFD begins":      {func(p *compile.BGPPeer) { p.BFD = model.BFD{Interval: time.Second, Multiplier: 3} }, false},
		"AS":              {func(p *compile.BGPPeer) { p.ASN = 7 }, true},
		"TTL security":    {func(p *compile.BGPPeer) { p.TTLSecurity = 1 }, true},
		"becomes client":  {func(p *compile.BGPPeer) { p.Reflect, p.ClusterID = true, netip.MustParseAddr("1.1.1.1") }, true},
		"next hop of own": {func(p *compile.BGPPeer) { p.NextHopSelf = true }, false},
	} {
		now := base
		c.change(&now)
		if got := Resets(&base, &now); got != c.resets {
			t.Errorf("%s: %v", name, got)
		}
	}
	one, other := watched("192.0.2.254"), watched("192.0.2.254")
	other.BFD.Interval *= 2
	if !Resets(&one, &other) || !Resets(&one, &base) || Resets(&one, &one) {
		t.Error("peers take the end of BFD for that of this node")
	}
}
