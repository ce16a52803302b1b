package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// beating is a cluster that counts heartbeats, and where they may fail.
type beating struct {
	bigCluster
	beats   atomic.Int64
	fails   atomic.Bool
	unknown atomic.Bool
	owner   atomic.Value // the UID that Renew was called with last
}

func (c *beating) Renew(_ context.Context, owner string) (bool, error) {
	c.beats.Add(1)
	c.owner.Store(owner)
	if c.fails.Load() {
		return false, errors.New("no")
	}
	return c.unknown.Swap(false), nil
}

// hanging is a driver that hangs when it is told to.
type hanging struct{ hangs chan struct{} }

func (*hanging) Name() string { return "hanging" }

func (h *hanging) Apply(ctx context.Context, _ *compile.Plan) error {
	select {
	case h.hangs <- struct{}{}:
		<-ctx.Done()
	default:
	}
	return nil
}

func (*hanging) Observe(context.Context) (int, error) { return 0, nil }

// TestBeat: an agent whose loop turns says so every 40 seconds or so, sooner after a failure, and one whose loop hangs does not.
func TestBeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		driver := &hanging{hangs: make(chan struct{})}
		loop := reconcile.New(reconcile.Options{Drivers: []reconcile.Driver{driver}, Log: slog.New(slog.DiscardHandler)})
		c, to, called := &Core{Loop: loop, Log: slog.New(slog.DiscardHandler)}, &beating{}, make(chan struct{}, 1)
		loop.SetSnapshot(&model.Snapshot{}, 1)
		loop.SetLocal(model.Local{Name: "n"})
		ended := make(chan struct{}, 2)
		go func() { loop.Run(ctx); ended <- struct{}{} }()
		go func() { c.beat(ctx, to, called); ended <- struct{}{} }()
		in := func(d time.Duration) int64 {
			before := to.beats.Load()
			time.Sleep(d)
			synctest.Wait()
			return to.beats.Load() - before
		}
		if n := in(time.Hour); n < 72 || n > 120 {
			t.Errorf("in an hour there were %d heartbeats", n)
		}
		to.fails.Store(true)
		if n := in(time.Hour); n < 110 || n > 360 {
			t.Errorf("in an hour of failures it was tried %d times", n)
		}
		if w := c.complaints.warnings(); len(w) != 1 {
			t.Errorf("status says %v", w)
		}
		to.fails.Store(false)
		to.unknown.Store(true)
		in(time.Minute)
		if len(called) != 1 || len(c.complaints.warnings()) != 0 {
			t.Errorf("the controller called it unknown: told %d times; status says %v", len(called), c.complaints.warnings())
		}
		<-called
		if in(time.Hour); len(called) != 0 {
			t.Error("it is told so again")
		}
		for _, self := range []datastore.Self{{UID: "node"}, {UID: "node", Gone: true}} {
			c.resources.set(datastore.State{Self: self})
			in(time.Minute)
			if got := to.owner.Load(); (got == "node") == self.Gone {
				t.Errorf("of the Node %+v the Lease has the owner %q", self, got)
			}
		}
		loop.SetSnapshot(&model.Snapshot{Pools: []*model.Pool{}}, 2)
		<-driver.hangs
		if n := in(time.Hour); n > 1 {
			t.Errorf("while the loop hangs there were %d heartbeats", n)
		}
		cancel()
		<-ended
		<-ended
	})
}

// TestCalledUnknown: what an agent has written is written again when the controller has written in its place.
func TestCalledUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop := reconcile.New(reconcile.Options{Log: slog.New(slog.DiscardHandler)})
		to := &beating{}
		c := &Core{Loop: loop, Log: slog.New(slog.DiscardHandler)}
		makeReady(t, c, datastore.State{Snapshot: &model.Snapshot{}, Version: 1, Fresh: true})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { c.reportCluster(ctx, to); close(ended) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(to.reports) != 1 {
			t.Errorf("in ten minutes it has reported %d times", len(to.reports))
		}
		to.unknown.Store(true)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(to.reports) != 2 || !isReady(to.reports[1]) {
			t.Errorf("after it was called unknown it has reported %+v", to.reports)
		}
		cancel()
		<-ended
	})
}

// TestUntilIsBounded: nobody makes the agent wait for longer than MaxWait.
func TestUntilIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{Core: &Core{}, loop: reconcile.New(reconcile.Options{Log: slog.New(slog.DiscardHandler)})}
		start := time.Now()
		if said := a.until(t.Context(), 24*time.Hour, func() string { return "not yet" }); said != "not yet" || time.Since(start) != MaxWait {
			t.Errorf("after %s it says %q", time.Since(start), said)
		}
		start = time.Now()
		if a.until(t.Context(), time.Minute, func() string { return "not yet" }); time.Since(start) != time.Minute {
			t.Errorf("it waited %s", time.Since(start))
		}
	})
}
