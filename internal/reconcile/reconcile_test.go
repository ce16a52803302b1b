package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// fakeDriver fails when told to and remembers what it was given. It stands for the kernel only where a
// failure must come at a chosen moment; real kernels are tested with the drivers.
type fakeDriver struct {
	name string

	mu      sync.Mutex
	fail    error
	drift   int
	applied []*compile.Plan
	gate    chan struct{} // when set, Apply waits for it

	observing chan struct{}       // when set, Observe waits for it
	observe   func() (int, error) // when set, Observe is this
}

func (d *fakeDriver) Name() string { return d.name }

func (d *fakeDriver) Apply(ctx context.Context, p *compile.Plan) error {
	d.mu.Lock()
	gate := d.gate
	d.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied = append(d.applied, p)
	return d.fail
}

func (d *fakeDriver) Observe(context.Context) (int, error) {
	d.mu.Lock()
	gate := d.observing
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.observe != nil {
		return d.observe()
	}
	n := d.drift
	d.drift = 0
	return n, nil
}

func (d *fakeDriver) set(f func(*fakeDriver)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

func (d *fakeDriver) count() (n int) {
	d.set(func(d *fakeDriver) { n = len(d.applied) })
	return n
}

// start runs a loop over the drivers in the bubble of synctest, where time is fake.
func start(t *testing.T, drivers ...Driver) *Loop {
	t.Helper()
	return startWith(t, slog.New(slog.DiscardHandler), drivers...)
}

func startWith(t *testing.T, log *slog.Logger, drivers ...Driver) *Loop {
	t.Helper()
	l := New(Options{Drivers: drivers, Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func snapshot(cidr string) *model.Snapshot {
	return &model.Snapshot{Pools: []*model.Pool{{Name: "p", CIDR: netip.MustParsePrefix(cidr), NATOutgoing: true}}}
}

func TestNothingIsAppliedBeforeAllInputIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDriver{name: "d"}
		l := start(t, d)
		l.SetSnapshot(nil, 1) // a faulty directory without a last good state
		l.SetLocal(model.Local{Name: "n"})
		synctest.Wait()
		if s, _ := l.State(); d.count() != 0 || s.Plan != nil {
			t.Fatal("applied without a snapshot")
		}
		s, changed := l.State()
		if ready, why := s.Ready(); ready || why == "" {
			t.Fatalf("ready %v, %q", ready, why)
		}
		l.SetSnapshot(snapshot("10.0.0.0/8"), 2)
		<-changed
		synctest.Wait()
		if s, _ = l.State(); d.count() != 1 || s.Version != 2 {
			t.Fatalf("applied %d times, version %d", d.count(), s.Version)
		}
		if ready, why := s.Ready(); !ready {
			t.Fatal(why)
		}
	})
}

func TestWhatArrivesMeanwhileIsCoalesced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDriver{name: "d", gate: make(chan struct{})}
		l := start(t, d)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait() // the first Apply stands at the gate
		for v := range uint64(100) {
			l.SetSnapshot(snapshot("10.0.0.0/9"), 2+v)
		}
		if s, _ := l.State(); s.Drivers[0].Ready {
			t.Fatal("ready while a plan is being applied")
		}
		close(d.gate)
		synctest.Wait()
		if s, _ := l.State(); d.count() != 2 || s.Version != 101 {
			t.Fatalf("applied %d times, at last version %d", d.count(), s.Version)
		}
	})
}

func TestAFailureIsRetriedAloneAndReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bad, good := &fakeDriver{name: "bad", fail: errors.New("no room")}, &fakeDriver{name: "good"}
		l := start(t, bad, good)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		s, _ := l.State()
		if ready, why := s.Ready(); ready || why != "bad: no room" || !s.Drivers[1].Ready {
			t.Fatalf("ready %v, %q; good driver ready %v", ready, why, s.Drivers[1].Ready)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		// 50 ms doubles to 30 s within a minute; an hour then holds 120 tries.
		if n := bad.count(); n < 110 || n > 140 || good.count() != 1 {
			t.Fatalf("the failing driver was tried %d times, the other %d times", n, good.count())
		}
		bad.set(func(d *fakeDriver) { d.fail = nil })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		n := bad.count()
		if s, _ := l.State(); !s.Drivers[0].Ready {
			t.Fatal("not ready after the cause went away")
		}
		time.Sleep(time.Hour)
		if bad.count() != n {
			t.Fatal("applied again although nothing changed")
		}
	})
}

func TestDriftIsRepairedAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDriver{name: "d"}
		l := start(t, d)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		d.set(func(d *fakeDriver) { d.drift = 3 })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		s, _ := l.State()
		if d.count() != 2 || s.Drivers[0].Repairs != 1 || !s.Drivers[0].Ready {
			t.Fatalf("applied %d times, state %+v", d.count(), s.Drivers[0])
		}
	})
}

// What has arrived and is not compiled yet is newer than what the kernel holds.
func TestNotReadyWhileSomethingNewWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDriver{name: "d"}
		l := start(t, d)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		s, changed := l.State()
		if ready, why := s.Ready(); !ready {
			t.Fatal(why)
		}
		gate := make(chan struct{})
		d.set(func(d *fakeDriver) { d.observing = gate })
		time.Sleep(2 * time.Minute) // the loop looks at the kernel, for long
		l.SetSnapshot(snapshot("10.0.0.0/9"), 2)
		select {
		case <-changed:
		default:
			t.Error("nobody was told that there is something new")
		}
		s, _ = l.State()
		if ready, why := s.Ready(); ready || why == "" || s.Version != 1 {
			t.Errorf("ready %v, %q with version %d, while version 2 waits", ready, why, s.Version)
		}
		close(gate)
		synctest.Wait()
		s, _ = l.State()
		if ready, why := s.Ready(); !ready || s.Version != 2 {
			t.Fatalf("ready %v, %q, version %d", ready, why, s.Version)
		}
	})
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	t.Parallel()
	l := New(Options{Log: slog.New(slog.DiscardHandler)})
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "no valid resources were read yet"},
		{func() { l.SetSnapshot(snapshot("10.0.0.0/8"), 1) }, "the addresses of this node are not known yet"},
	} {
		step.do()
		s, _ := l.State()
		if ready, why := s.Ready(); ready || why != step.want {
			t.Errorf("ready %v, %q; want %q", ready, why, step.want)
		}
	}
}

// The datastore publishes for other reasons too, such as a fault, with the snapshot that it had.
func TestTheSameSnapshotAgainChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDriver{name: "d"}
		l := start(t, d)
		l.SetLocal(model.Local{Name: "n"})
		s := snapshot("10.0.0.0/8")
		l.SetSnapshot(s, 1)
		synctest.Wait()
		_, changed := l.State()
		l.SetSnapshot(s, 1)
		synctest.Wait()
		select {
		case <-changed:
			t.Error("the state changed")
		default:
		}
		if n := d.count(); n != 1 {
			t.Errorf("applied %d times", n)
		}
	})
}
