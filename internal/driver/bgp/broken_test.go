package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// failing fails once in what it is asked next.
type failing struct {
	origin
	judge
	add, remove, reset bool
}

var errFailing = errors.New("this fails")

// AddPath adds half of the routes before it fails.
func (f *failing) AddPath(r apiutil.AddPathRequest) ([]apiutil.AddPathResponse, error) {
	if f.add {
		f.add = false
		_, _ = f.origin.AddPath(apiutil.AddPathRequest{Paths: r.Paths[:(len(r.Paths)+1)/2]})
		return nil, errFailing
	}
	return f.origin.AddPath(r)
}

func (f *failing) DeletePath(r apiutil.DeletePathRequest) error {
	if f.remove {
		f.remove = false
		return errFailing
	}
	return f.origin.DeletePath(r)
}

func (f *failing) ResetPeer(ctx context.Context, r *api.ResetPeerRequest) error {
	if f.reset {
		f.reset = false
		return errFailing
	}
	return f.judge.ResetPeer(ctx, r)
}

// TestNewPeersAreToldAgain: gobgp may leave out routes that come while it tells a new peer of all.
func TestNewPeersAreToldAgain(t *testing.T) {
	restarting, told := 2, make(chan string, 8)
	fake := &asked{list: func(p *api.Peer) {
		restarting--
		p.GracefulRestart = &api.GracefulRestart{LocalRestarting: restarting > 0}
	}, reset: func(r *api.ResetPeerRequest) {
		told <- fmt.Sprintf("%s soft=%v %s, %d to go", r.Address, r.Soft, r.Direction, restarting)
	}}
	r := &resender{judge: fake, judging: &sync.Mutex{}, after: time.Millisecond, news: make(chan struct{}, 1), fresh: map[netip.Addr]time.Time{}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { r.run(ctx); close(ended) }()
	r.up(netip.MustParseAddr("192.0.2.254"))
	if got, want := <-told, "192.0.2.254 soft=true DIRECTION_OUT, 0 to go"; got != want {
		t.Errorf("after a restart: %s, not %s", got, want)
	}
	r.up(netip.MustParseAddr("fe80::1%eth0"))
	if got, want := <-told, "fe80::1%eth0 soft=true DIRECTION_OUT, -1 to go"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	stop()
	<-ended
	if len(told) > 0 || len(r.fresh) > 0 {
		t.Errorf("it goes on: %d, %v", len(told), r.fresh)
	}
}

// asked notes what it is asked.
type asked struct {
	list  func(*api.Peer)
	reset func(*api.ResetPeerRequest)
}

func (a *asked) ListPeer(_ context.Context, _ *api.ListPeerRequest, f func(*api.Peer)) error {
	p := &api.Peer{}
	a.list(p)
	f(p)
	return nil
}

func (a *asked) ResetPeer(_ context.Context, r *api.ResetPeerRequest) error { a.reset(r); return nil }

// TestFailuresAreMadeGood has gobgp fail in one step after the other. The next plan is applied as if it had not.
func TestFailuresAreMadeGood(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), statics+sessionOf("192.0.2.1", "", channel4))
	d := newDriver(t, Options{})
	p := plan(peer("192.0.2.254"))
	labtest.Must(t, d.Apply(t.Context(), p))
	up(t, d)
	f := &failing{origin: d.server.bgp, judge: d.server.bgp}
	d.server.announcer.to, d.server.judge = f, f
	fails := func(p compile.BGP, what string) {
		t.Helper()
		if err := d.Apply(t.Context(), p); !errors.Is(err, errFailing) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	of := func(blocks ...string) compile.BGP {
		p := p
		p.Announcements = nil
		for _, b := range blocks {
			p.Announcements = append(p.Announcements, compile.Announcement{Prefix: netip.MustParsePrefix(b)})
		}
		return p
	}
	table := "show route protocol node192021"

	t.Log("what may have been announced is withdrawn, and what may not have been is announced")
	f.add = true
	fails(of("10.1.0.64/26", "10.1.0.128/26"), "announcing routes")
	if got := state(t, d).Announced; len(got) != 0 {
		t.Errorf("of routes in doubt it is said that they are announced: %v", got)
	}
	labtest.Must(t, d.Apply(t.Context(), of("10.1.0.128/26")))
	r.has(table, "!10.1.0.64/26", "10.1.0.128/26")

	t.Log("what was not withdrawn is withdrawn the next time")
	f.remove = true
	fails(of("10.1.0.192/26"), "withdrawing routes")
	r.has(table, "10.1.0.128/26", "10.1.0.192/26")
	labtest.Must(t, d.Apply(t.Context(), of("10.1.0.192/26")))
	r.has(table, "!10.1.0.128/26", "10.1.0.192/26")

	t.Log("sessions are judged by policies that were set before")
	filtered := of("10.1.0.192/26")
	filtered.Peers = []compile.BGPPeer{p.Peers[0]}
	filtered.Peers[0].Export = []compile.BGPRule{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Min: 16, Max: 32}}
	f.reset = true
	fails(filtered, "applying policies")
	r.has(table, "10.1.0.192/26")
	labtest.Must(t, d.Apply(t.Context(), filtered))
	r.has(table, "!10.1.0.192/26")
}

// TestServersThatBreakAreStartedAgain: peers keep the routes of this node meanwhile.
func TestServersThatBreakAreStartedAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		breaks func(*testing.T, *Driver)
	}{
		{"it does not tell any more", func(t *testing.T, d *Driver) {
			labtest.Must(t, d.server.bgp.StopBgp(t.Context(), &api.StopBgpRequest{AllowGracefulRestart: true}))
			d.server.learner.wake()
		}},
		{"it does not listen any more", exhaust},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := here(t)
			r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), statics+sessionOf("192.0.2.1", graceful, channel4))
			d := newDriver(t, Options{})
			p := plan(peer("192.0.2.254"))
			labtest.Must(t, d.Apply(t.Context(), p))
			learns(t, d, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254")
			r.has("show route protocol node192021", "10.1.0.0/26")
			if drift, err := d.Observe(t.Context()); drift != 0 || err != nil {
				t.Errorf("before: %d, %v", drift, err)
			}
			c.breaks(t, d)
			breaks(t, d)
			gone := r.watch("show route protocol node192021", "10.1.0.0/26")
			labtest.Must(t, d.Apply(t.Context(), p))
			if drift, _ := d.Observe(t.Context()); drift != 0 {
				t.Error("it is still broken")
			}
			up(t, d)
			learns(t, d, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254")
			r.has("show protocols all node192021", "Established", "Routes:         1 imported")
			if out := gone(); out != "" {
				t.Errorf("the route went meanwhile: %s", out)
			}
			c, err := r.host.Dial(t.Context(), "tcp", "192.0.2.1:179")
			labtest.Must(t, err, c.Close())
		})
	}
}

// exhaust has the driver accept a connection while the process has no file descriptor left.
func exhaust(t *testing.T, d *Driver) {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	labtest.Must(t, err)
	defer func() { _ = syscall.Close(socket) }()
	var limit syscall.Rlimit
	labtest.Must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	labtest.Must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Max: limit.Max}))
	defer func() { labtest.Must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }()
	labtest.Must(t, syscall.Connect(socket, &syscall.SockaddrInet4{Port: 179, Addr: [4]byte{127, 0, 0, 1}}))
	breaks(t, d)
}

// breaks waits until it is observed that the server of a driver is broken.
func breaks(t *testing.T, d *Driver) {
	t.Helper()
	labtest.Eventually(t, func() string {
		if drift, _ := d.Observe(t.Context()); drift != 1 {
			return "that it is broken is not observed"
		}
		return ""
	})
}
