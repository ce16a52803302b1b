package bgp

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// TestAFaultOfAPeerPasses has a password that cannot be read at first, beside a peer without one.
func TestAFaultOfAPeerPasses(t *testing.T) {
	node := here(t)
	newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), sessionOf("192.0.2.1", "password \"secret\"; ", channel4))
	newBird(t, "r2", node, prefixes("198.51.100.1/24"), prefixes("198.51.100.254/24"), sessionOf("198.51.100.1", "", channel4))
	var there atomic.Bool
	var turned atomic.Int64
	d := newDriver(t, Options{Reread: 50 * time.Millisecond, Turned: func() { turned.Add(1) }, Password: func(context.Context, model.BGPPassword) (string, error) {
		if there.Load() {
			return "secret", nil
		}
		return "", errors.New("there is no Secret")
	}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { d.Run(ctx); close(ended) }()
	defer func() { stop(); <-ended }()
	with := peer("192.0.2.254")
	with.Password.Name = "Secret"
	labtest.Must(t, d.Apply(t.Context(), plan(with, peer("198.51.100.254"))))
	labtest.Eventually(t, func() string {
		if s := state(t, d).Sessions; s[0].Up || s[0].Fault != "reading its password: there is no Secret" || s[0].Why != s[0].Fault || !s[1].Up || s[1].Fault != "" {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	there.Store(true)
	up(t, d)
	if s := state(t, d).Sessions[0]; s.Fault != "" || s.Resets != 0 || turned.Load() < 3 {
		t.Errorf("it is up, and says %+v; %d turns", s, turned.Load())
	}

	t.Log("a session that stands outlives its password; without the peer it ends")
	there.Store(false)
	labtest.Must(t, d.Apply(t.Context(), plan(with, peer("198.51.100.254"))))
	labtest.Eventually(t, func() string {
		if s := state(t, d).Sessions[0]; !s.Up || s.Fault == "" || s.Why != "" || s.Resets != 0 {
			return fmt.Sprintf("without its password: %+v", s)
		}
		return ""
	})
	there.Store(true)
	other := with
	other.Password.Name = "Another" // gobgp sees no difference
	other.AllowedLocalASNs = 3      // but here
	labtest.Must(t, d.Apply(t.Context(), plan(other, peer("198.51.100.254"))))
	labtest.Eventually(t, func() string {
		if s := state(t, d).Sessions; s[0].Resets != 1 || s[1].Resets != 0 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	labtest.Must(t, d.Apply(t.Context(), compile.BGP{}))
	if s := state(t, d); s.Running || len(s.Sessions) != 0 {
		t.Errorf("without peers: %+v", s)
	}
}

// TestStateDoesNotWaitForPasswords asks how sessions stand while a password takes long to read.
func TestStateDoesNotWaitForPasswords(t *testing.T) {
	node := here(t)
	newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), "")
	reading, proceed := make(chan struct{}), make(chan struct{})
	d := newDriver(t, Options{Password: func(context.Context, model.BGPPassword) (string, error) {
		close(reading)
		<-proceed
		return "secret", nil
	}})
	with := peer("192.0.2.254")
	with.Password.Name = "Secret"
	done := make(chan error, 1)
	go func() { done <- d.Apply(t.Context(), plan(with)) }()
	<-reading
	if s := state(t, d); len(s.Sessions) != 1 || s.Sessions[0].Up {
		t.Errorf("it says %+v", s)
	}
	close(proceed)
	labtest.Must(t, <-done)
}
