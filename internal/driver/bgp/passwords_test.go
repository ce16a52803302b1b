package bgp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// keeping runs a driver until the test ends.
func keeping(t *testing.T, d *Driver) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { d.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
}

// passwordOf has BIRD ask for a password.
func passwordOf(password string) string { return fmt.Sprintf("password %q; ", password) }

func TestAPasswordIsReadOnceForAllWhoHaveIt(t *testing.T) {
	node := here(t)
	newBird(t, "r1", node, prefixes("192.0.2.1/24", "2001:db8::1/64"), prefixes("192.0.2.254/24", "2001:db8::fe/64"),
		statics+sessionOf("192.0.2.1", passwordOf("s3cret"), channel4)+sessionOf("2001:db8::1", passwordOf("s3cret"), channel6))
	var reads atomic.Int64
	d := newDriver(t, Options{Password: func(context.Context, model.BGPPassword) (string, error) { reads.Add(1); return "s3cret", nil }})
	keeping(t, d)
	one, two := peer("192.0.2.254"), peer("2001:db8::fe")
	one.Password = model.BGPPassword{Name: "bgp", Key: "rack"}
	two.Password = one.Password
	p := plan(one, two)
	for range 5 {
		labtest.Must(t, d.Apply(t.Context(), p))
	}
	up(t, d)
	p.Announcements = p.Announcements[1:]
	labtest.Must(t, d.Apply(t.Context(), p))
	if n := reads.Load(); n != 1 {
		t.Errorf("it was read %d times for two sessions and six plans", n)
	}
}

// TestAPasswordIsFollowed changes a password, here and at the peer, and looks for both in all that is said.
func TestAPasswordIsFollowed(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), statics+sessionOf("192.0.2.1", passwordOf("s3cret-one"), channel4))
	newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"), sessionOf("198.51.100.1", passwordOf("s3cret-other"), channel4))
	var rack atomic.Value
	rack.Store("s3cret-one")
	var said logged
	d := New(Options{Reread: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Password: func(_ context.Context, ref model.BGPPassword) (string, error) {
			switch text := rack.Load().(string); {
			case ref.Key == "other":
				return "s3cret-other", nil
			case text == "":
				return "", errors.New("the API server does not answer")
			default:
				return text, nil
			}
		}})
	t.Cleanup(func() { _ = d.Close() })
	keeping(t, d)
	one, two := peer("192.0.2.254"), peer("198.51.100.254")
	one.Password, two.Password = model.BGPPassword{Name: "bgp", Key: "rack"}, model.BGPPassword{Name: "bgp", Key: "other"}
	labtest.Must(t, d.Apply(t.Context(), plan(one, two)))
	up(t, d)

	t.Log("one that cannot be read any more leaves the session alone")
	rack.Store("")
	labtest.Eventually(t, func() string {
		if s := state(t, d).Sessions[0]; !s.Up || s.Resets != 0 || !strings.Contains(s.Fault, "does not answer") {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	rack.Store("s3cret-one")
	labtest.Eventually(t, func() string { return state(t, d).Sessions[0].Fault })

	t.Log("another one is followed, without another plan")
	r.write(statics + sessionOf("192.0.2.1", passwordOf("s3cret-two"), channel4))
	r.ask("configure")
	rack.Store("s3cret-two")
	labtest.Eventually(t, func() string {
		if s := state(t, d).Sessions; s[0].Resets == 0 || !s[0].Up || s[0].Fault != "" {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	s := state(t, d)
	if s.Sessions[1].Resets != 0 || !s.Sessions[1].Up {
		t.Errorf("the session that has another password: %+v", s.Sessions[1])
	}
	labtest.Must(t, d.Cleanup(t.Context()))
	if all := fmt.Sprintf("%+v", s) + said.String(); strings.Contains(all, "s3cret") || !strings.Contains(all, "gobgp: ") {
		t.Errorf("a password is told, or nothing is:\n%s", all)
	}
}

// logged is a log in memory.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestNoSessionGoesOnWithoutAPasswordThatIsAskedFor, also where one stood without.
func TestNoSessionGoesOnWithoutAPasswordThatIsAskedFor(t *testing.T) {
	node := here(t)
	newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), sessionOf("192.0.2.1", graceful, channel4))
	d := newDriver(t, Options{Password: func(context.Context, model.BGPPassword) (string, error) { return "", errors.New("there is no Secret") }})
	with := peer("192.0.2.254")
	labtest.Must(t, d.Apply(t.Context(), plan(with)))
	up(t, d)
	with.Password = model.BGPPassword{Name: "bgp", Key: "rack"}
	labtest.Must(t, d.Apply(t.Context(), plan(with)))
	if s := state(t, d).Sessions[0]; s.Up || s.State != "" || s.Fault == "" {
		t.Errorf("the session goes on: %+v", s)
	}
}

// TestAPasswordThatComesLate has an agent start again while the password cannot be read: its peer keeps the routes meanwhile, and then
// must be told that this node has kept its own.
func TestAPasswordThatComesLate(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), statics+sessionOf("192.0.2.1", graceful+passwordOf("s3cret"), channel4))
	newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"), sessionOf("198.51.100.1", graceful, channel4))
	with := peer("192.0.2.254")
	with.Password = model.BGPPassword{Name: "bgp", Key: "rack"}
	p := plan(with, peer("198.51.100.254"))
	var there atomic.Bool
	there.Store(true)
	o := Options{Reread: time.Second, Password: func(context.Context, model.BGPPassword) (string, error) {
		if !there.Load() {
			return "", errors.New("the API server does not answer")
		}
		return "s3cret", nil
	}}
	d := newDriver(t, o)
	labtest.Must(t, d.Apply(t.Context(), p))
	r.has("show route protocol node192021", "10.1.0.0/26")
	labtest.Must(t, d.Close())
	r.has("show protocols all node192021", "Neighbor graceful restart active")

	there.Store(false)
	o.Held = true
	next := newDriver(t, o)
	keeping(t, next)
	labtest.Must(t, next.Apply(t.Context(), p))
	labtest.Eventually(t, func() string {
		if s := state(t, next).Sessions; s[0].Fault == "" || !s[1].Up {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	r.has("show route protocol node192021", "10.1.0.0/26")
	there.Store(true)
	up(t, next)
	r.has("show protocols all node192021", "Restart recovery", "!Neighbor graceful restart active")
	r.has("show route protocol node192021", "10.1.0.0/26")
}
