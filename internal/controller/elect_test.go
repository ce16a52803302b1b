package controller

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

// leases is an API server with one Lease, which can be away for some who ask.
type leases struct {
	mu      sync.Mutex
	now     *coordinationv1.Lease
	version int
	away    map[string]bool // by who asks
	updates int
}

// as is how one asks.
func (l *leases) as(id string) lease { return &asking{l, id} }

type asking struct {
	*leases
	id string
}

var (
	errAway       = errors.New("connection refused")
	leaseResource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
)

func (a *asking) do(ctx context.Context, call func() error) (*coordinationv1.Lease, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away[a.id] {
		return nil, errAway
	}
	if err := errors.Join(ctx.Err(), call()); err != nil {
		return nil, err
	}
	return a.now.DeepCopy(), nil
}

func (a *asking) put(l *coordinationv1.Lease) {
	a.version++
	a.now = l.DeepCopy()
	a.now.ResourceVersion = strconv.Itoa(a.version)
}

func (a *asking) Get(ctx context.Context) (*coordinationv1.Lease, error) {
	return a.do(ctx, func() error {
		if a.now == nil {
			return apierrors.NewNotFound(leaseResource, LeaseName)
		}
		return nil
	})
}

func (a *asking) Create(ctx context.Context, spec coordinationv1.LeaseSpec) (*coordinationv1.Lease, error) {
	return a.do(ctx, func() error {
		if a.now != nil {
			return apierrors.NewAlreadyExists(leaseResource, LeaseName)
		}
		a.put(&coordinationv1.Lease{Spec: spec})
		return nil
	})
}

func (a *asking) Update(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return a.do(ctx, func() error {
		if a.now == nil {
			return apierrors.NewNotFound(leaseResource, LeaseName)
		}
		if l.ResourceVersion != a.now.ResourceVersion {
			return apierrors.NewConflict(leaseResource, LeaseName, errors.New("it has changed"))
		}
		a.updates++
		a.put(l)
		return nil
	})
}

// candidate is one that takes part in an election.
type candidate struct {
	leads atomic.Bool
	end   chan error // what its work ends with
	ended chan error // what it ended with itself
	stop  context.CancelFunc
}

func (l *leases) candidate(t *testing.T, id string) *candidate {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &candidate{end: make(chan error, 1), ended: make(chan error, 1), stop: stop}
	e := &elector{lease: l.as(id), id: id, log: slog.New(slog.DiscardHandler)}
	go func() {
		c.ended <- e.run(ctx, func(ctx context.Context) error {
			c.leads.Store(true)
			defer func() { c.leads.Store(false) }()
			select {
			case <-ctx.Done():
				return nil
			case err := <-c.end:
				return err
			}
		})
	}()
	return c
}

// after lets time pass, and says who of some leads.
func after(d time.Duration, of ...*candidate) (leading []bool) {
	time.Sleep(d)
	synctest.Wait()
	for _, c := range of {
		leading = append(leading, c.leads.Load())
	}
	return leading
}

func (l *leases) cut(id string, away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away[id] = away
}

func holder(l *leases) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ptr.Deref(l.now.Spec.HolderIdentity, "")
}

// election runs a test with an API server, in a time of its own.
func election(t *testing.T, run func(*testing.T, *leases)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { run(t, &leases{away: map[string]bool{}}) })
}

func TestElectOne(t *testing.T) {
	election(t, func(t *testing.T, l *leases) {
		a := l.candidate(t, "a")
		after(time.Second)
		b := l.candidate(t, "b")
		if got := after(time.Hour, a, b); !got[0] || got[1] {
			t.Fatalf("after an hour %v lead", got)
		}
		if per := time.Hour / time.Duration(l.updates); per < renewEvery || per > 2*renewEvery {
			t.Errorf("the Lease was renewed every %s", per)
		}
		a.stop()
		if got := after(0, a, b); got[0] || <-a.ended != nil || holder(l) != "" {
			t.Errorf("one that was stopped leads, or keeps the Lease: %+v", l.now)
		}
		if got := after(2*renewEvery, a, b); !got[1] || *l.now.Spec.LeaseTransitions != 1 {
			t.Errorf("the other does not take what was given back: %+v", l.now)
		}
		b.end <- errMoved
		if err := <-b.ended; !errors.Is(err, errMoved) || holder(l) != "" {
			t.Errorf("one whose work has ended says %v, and the Lease is %+v", err, l.now)
		}
	})
}

// TestElectAfterSilence: a leader that reaches the API server no more has stopped before another begins.
func TestElectAfterSilence(t *testing.T) {
	election(t, func(t *testing.T, l *leases) {
		a := l.candidate(t, "a")
		for round := range 20 { // when who looks is random
			after(time.Minute)
			name := strconv.Itoa(round)
			b := l.candidate(t, name)
			after(time.Minute)
			l.cut(holder(l), true)
			both, none := 0, 0
			for range 10 * int((leaseTime+5*renewEvery)/time.Second) {
				switch got := after(time.Second/10, a, b); {
				case got[0] && got[1]:
					both++
				case !got[0] && !got[1]:
					none++
				}
			}
			if got := after(0, a, b); both > 0 || none == 0 || got[0] || !got[1] {
				t.Fatalf("both led for %d tenths of a second, none for %d; at last %v", both, none, got)
			}
			if err := <-a.ended; !errors.Is(err, errLost) {
				t.Errorf("who has lost the Lease says %v", err)
			}
			a = b
		}
		a.stop()
	})
}

// TestElectShortSilence: a leader goes on over what is shorter than the time it has.
func TestElectShortSilence(t *testing.T) {
	election(t, func(t *testing.T, l *leases) {
		a, b := l.candidate(t, "a"), (*candidate)(nil)
		after(time.Minute)
		b = l.candidate(t, "b")
		for range 20 {
			l.cut("a", true)
			if got := after(renewWithin-2*renewEvery, a, b); !got[0] || got[1] {
				t.Fatalf("%v lead", got)
			}
			l.cut("a", false)
			after(2 * renewEvery)
		}
		a.stop()
		b.stop()
	})
}

// TestElectOthersChanges: a leader gives way to one that has written itself into the Lease, and takes one again that was
// deleted.
func TestElectOthersChanges(t *testing.T) {
	election(t, func(t *testing.T, l *leases) {
		a := l.candidate(t, "a")
		after(time.Minute)
		l.mu.Lock()
		l.now = nil
		l.mu.Unlock()
		after(2 * renewEvery)
		if !a.leads.Load() || holder(l) != "a" {
			t.Fatalf("after the Lease was deleted: %+v", l.now)
		}
		l.mu.Lock()
		next := l.now.DeepCopy()
		next.Spec.HolderIdentity = ptr.To("b")
		(&asking{l, "b"}).put(next)
		l.mu.Unlock()
		began := time.Now()
		if err := <-a.ended; !errors.Is(err, errLost) || a.leads.Load() || holder(l) != "b" || time.Since(began) > renewEvery {
			t.Errorf("after %s it ends with %v, and the Lease is %+v", time.Since(began), err, l.now)
		}
	})
}
