package reconcile

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// fakeFollower remembers, beside what a fakeDriver does, what it was told.
type fakeFollower struct {
	fakeDriver
	told     []*compile.Plan
	repaired int
}

func (d *fakeFollower) Stands(p *compile.Plan, repaired bool) {
	d.set(func(*fakeDriver) {
		d.told = append(d.told, p)
		if repaired {
			d.repaired++
		}
	})
}

func TestAFollowerWaitsForTheDriverBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead := &fakeDriver{name: "ahead", fail: errors.New("no room")}
		behind := &fakeFollower{fakeDriver: fakeDriver{name: "behind"}}
		l := start(t, ahead, behind)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		if s, _ := l.State(); behind.count() != 0 || s.Drivers[1].Ready {
			t.Fatalf("it was applied %d times before the plan stood, %+v", behind.count(), s.Drivers[1])
		}
		ahead.set(func(d *fakeDriver) { d.fail = nil })
		time.Sleep(time.Second)
		synctest.Wait()
		s, _ := l.State()
		if ready, why := s.Ready(); !ready || behind.count() != 1 || len(behind.told) != 1 || behind.repaired != 0 {
			t.Fatalf("ready %v, %q; applied %d times, told %d plans", ready, why, behind.count(), len(behind.told))
		}
		// It fails alone, and is tried again alone.
		behind.set(func(d *fakeDriver) { d.fail = errors.New("no memory") })
		l.SetSnapshot(snapshot("10.0.0.0/9"), 2)
		synctest.Wait()
		if s, _ = l.State(); !s.Drivers[0].Ready || s.Drivers[1].Ready || s.Drivers[1].Error != "no memory" {
			t.Fatalf("%+v", s.Drivers)
		}
		applied := ahead.count()
		behind.set(func(d *fakeDriver) { d.fail = nil })
		time.Sleep(time.Second)
		synctest.Wait()
		if s, _ = l.State(); !s.Drivers[1].Ready || ahead.count() != applied {
			t.Fatalf("%+v; the driver before was applied %d times more", s.Drivers, ahead.count()-applied)
		}
		// A repair is told as such.
		ahead.set(func(d *fakeDriver) { d.drift = 1 })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if behind.repaired != 1 {
			t.Fatalf("told of %d repairs", behind.repaired)
		}
	})
}

// mender is a fakeDriver that mends while it applies.
type mender struct {
	fakeDriver
	mended bool
}

func (d *mender) Mended() (m bool) {
	d.set(func(*fakeDriver) { m, d.mended = d.mended, false })
	return m
}

// TestARepairByANewPlanIsToldAsOne has a new plan come before the look at what somebody undid.
func TestARepairByANewPlanIsToldAsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead := &mender{fakeDriver: fakeDriver{name: "ahead"}}
		behind := &fakeFollower{fakeDriver: fakeDriver{name: "behind"}}
		l := start(t, ahead, behind)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		ahead.set(func(d *fakeDriver) { ahead.mended, d.fail = true, errors.New("no room") })
		l.SetSnapshot(snapshot("10.0.0.0/9"), 2)
		synctest.Wait()
		if s, _ := l.State(); s.Drivers[0].Repairs != 0 || behind.repaired != 0 {
			t.Fatalf("before it is repaired: %+v, told of %d repairs", s.Drivers[0], behind.repaired)
		}
		ahead.set(func(d *fakeDriver) { d.fail = nil })
		time.Sleep(time.Second)
		synctest.Wait()
		if s, _ := l.State(); s.Drivers[0].Repairs != 1 || behind.repaired != 1 || !s.Drivers[0].Ready {
			t.Fatalf("%+v, told of %d repairs", s.Drivers[0], behind.repaired)
		}
	})
}

// TestNotReadyUntilARepairIsFollowed makes a driver slow that follows one whose part somebody changes.
func TestNotReadyUntilARepairIsFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead, gate := &fakeDriver{name: "ahead"}, make(chan struct{})
		behind := &fakeFollower{fakeDriver: fakeDriver{name: "behind"}}
		l := start(t, ahead, behind)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		behind.set(func(d *fakeDriver) { d.gate = gate })
		ahead.set(func(d *fakeDriver) { d.drift = 1 })
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if s, _ := l.State(); !s.Drivers[0].Ready || s.Drivers[1].Ready || s.Drivers[1].Error == "" || s.Drivers[0].Repairs != 1 {
			t.Fatalf("while the repair is not followed: %+v", s.Drivers)
		}
		close(gate)
		synctest.Wait()
		if s, _ := l.State(); !s.Drivers[1].Ready {
			t.Fatalf("after it was: %+v", s.Drivers)
		}
	})
}

func TestASlowFollowerHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead := &fakeDriver{name: "ahead"}
		behind := &fakeFollower{fakeDriver: fakeDriver{name: "behind", gate: make(chan struct{})}}
		l := start(t, ahead, behind)
		l.SetLocal(model.Local{Name: "n"})
		for i := range 5 {
			l.SetSnapshot(snapshot("10.0.0.0/8"), uint64(i))
			synctest.Wait()
		}
		if s, _ := l.State(); ahead.count() != 5 || len(behind.told) != 5 || !s.Drivers[0].Ready || s.Drivers[1].Ready {
			t.Fatalf("applied %d times, told %d plans, %+v", ahead.count(), len(behind.told), s.Drivers)
		}
		behind.gate <- struct{}{} // the first plan is no longer the newest
		synctest.Wait()
		if s, _ := l.State(); s.Drivers[1].Ready {
			t.Fatal("ready with a plan that is not the newest")
		}
		close(behind.gate)
		synctest.Wait()
		if s, _ := l.State(); behind.count() != 2 || !s.Drivers[1].Ready {
			t.Fatalf("applied %d times, %+v", behind.count(), s.Drivers[1])
		}
	})
}

// TestTurnWaitsForEveryDriver makes a driver and one that follows it hang, one at a time.
func TestTurnWaitsForEveryDriver(t *testing.T) {
	t.Parallel()
	for _, hangs := range []string{"none", "ahead", "behind"} {
		synctest.Test(t, func(t *testing.T) {
			ahead, behind := &fakeDriver{name: "ahead"}, &fakeFollower{fakeDriver: fakeDriver{name: "behind"}}
			gate := make(chan struct{})
			for _, d := range []*fakeDriver{ahead, &behind.fakeDriver} {
				if d.name == hangs {
					d.gate = gate
				}
			}
			l := start(t, ahead, behind)
			l.SetLocal(model.Local{Name: "n"})
			l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := l.Turn(ctx); (err == nil) != (hangs == "none") {
				t.Errorf("while %s hangs: %v", hangs, err)
			}
			close(gate)
			if err := l.Turn(t.Context()); err != nil {
				t.Errorf("after %s went on: %v", hangs, err)
			}
		})
	}
}
