package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/model"
)

// TestNothingIsDrivenInAPause pauses a loop with a driver and one that follows it, while a new plan and a look at the
// kernel become due.
func TestNothingIsDrivenInAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead, behind := &fakeDriver{name: "ahead"}, &fakeFollower{fakeDriver: fakeDriver{name: "behind"}}
		l := start(t, ahead, behind)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		failed := errors.New("failed")
		err := l.Pause(t.Context(), func() error {
			synctest.Wait()
			s, _ := l.State()
			for _, d := range s.Drivers {
				if d.Ready || d.Error != "a cleanup is under way" {
					t.Errorf("in the pause: %+v", d)
				}
			}
			ahead.set(func(d *fakeDriver) { d.drift = 1 })
			l.SetSnapshot(snapshot("10.0.0.0/9"), 2)
			time.Sleep(time.Hour)
			if ahead.count() != 1 || behind.count() != 1 {
				t.Errorf("applied in the pause: %d and %d times", ahead.count(), behind.count())
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Errorf("said %v", err)
		}
		synctest.Wait()
		s, _ := l.State()
		if ready, why := s.Ready(); !ready || s.Version != 2 || ahead.count() < 3 || ahead.applied[1] != ahead.applied[0] {
			t.Errorf("afterwards: ready %t %q, version %d, applied %d times; want the old plan again and then the new one", ready, why, s.Version, ahead.count())
		}
	})
}

// TestAPauseGivesUp asks for a pause while a driver hangs.
func TestAPauseGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead := &fakeDriver{name: "ahead"}
		behind := &fakeFollower{fakeDriver: fakeDriver{name: "behind", gate: make(chan struct{})}}
		l := start(t, ahead, behind)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Pause(ctx, func() error { t.Error("called"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("said %v", err)
		}
		close(behind.gate)
		synctest.Wait()
		s, _ := l.State()
		if ready, why := s.Ready(); !ready {
			t.Errorf("afterwards it is not ready: %s", why)
		}
	})
}

// TestNothingIsAppliedAfterAPauseThatEndsTheLoop ends the loop in a pause, as a cleanup does that succeeded.
func TestNothingIsAppliedAfterAPauseThatEndsTheLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDriver{name: "d"}
		l := New(Options{Drivers: []Driver{d}, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.Run(ctx); close(done) }()
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		synctest.Wait()
		if err := l.Pause(t.Context(), func() error { cancel(); return nil }); err != nil {
			t.Error(err)
		}
		<-done
		if d.count() != 1 {
			t.Errorf("applied %d times", d.count())
		}
	})
}
