package reconcile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/model"
)

// watchedDriver is a fakeDriver that tells of what a test changes behind its back.
type watchedDriver struct {
	fakeDriver
	watching chan func()
	broken   chan error
}

func newWatchedDriver() *watchedDriver {
	return &watchedDriver{fakeDriver: fakeDriver{name: "d"}, watching: make(chan func(), 1), broken: make(chan error)}
}

func (d *watchedDriver) Watch(ctx context.Context, changed func()) error {
	d.watching <- changed
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.broken:
		return err
	}
}

// tamper changes one thing behind the driver's back and has it noticed.
func (d *watchedDriver) tamper(changed func()) {
	d.set(func(d *fakeDriver) { d.drift = 1 })
	changed()
}

func startWatched(t *testing.T) (*watchedDriver, *Loop, func()) {
	t.Helper()
	d := newWatchedDriver()
	l := start(t, d)
	l.SetLocal(model.Local{Name: "n"})
	l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
	changed := <-d.watching
	synctest.Wait()
	return d, l, changed
}

func TestAChangeThatIsNoticedIsRepairedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, l, changed := startWatched(t)
		for want := range uint64(3) {
			begun := time.Now()
			d.tamper(changed)
			synctest.Wait()
			s, _ := l.State()
			if ready, why := s.Ready(); !ready || s.Drivers[0].Repairs != want+1 || time.Since(begun) != 0 {
				t.Fatalf("after %v: ready %t (%s), %+v", time.Since(begun), ready, why, s.Drivers[0])
			}
			time.Sleep(calm + time.Second)
		}
		changed() // of something that turns out to be as it was
		synctest.Wait()
		if s, _ := l.State(); s.Drivers[0].Repairs != 3 || !s.Drivers[0].Ready || d.count() != 4 {
			t.Fatalf("%d applies, %+v", d.count(), s.Drivers[0])
		}
	})
}

// TestAFightIsSaidOnce repairs what one command changed in two steps, and then what goes on: only that is a fight, and is said once.
func TestAFightIsSaidOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newWatchedDriver()
		var said bytes.Buffer
		l := startWith(t, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError})), d)
		l.SetLocal(model.Local{Name: "n"})
		l.SetSnapshot(snapshot("10.0.0.0/8"), 1)
		changed := <-d.watching
		for i := range 5 {
			d.tamper(changed)
			time.Sleep(time.Second)
			synctest.Wait()
			if got, want := strings.Count(said.String(), "again and again"), min(1, i/2); got != want {
				t.Errorf("after %d changes it is said %d times, want %d", i+1, got, want)
			}
		}
	})
}

// TestAFightBacksOff lets somebody undo every repair at once, for ten minutes.
func TestAFightBacksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, l, changed := startWatched(t)
		fought := false
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			d.tamper(changed)
			synctest.Wait()
			s, _ := l.State()
			fought = fought || !s.Drivers[0].Ready && strings.Contains(s.Drivers[0].Error, "again and again")
		}
		s, _ := l.State()
		if n := s.Drivers[0].Repairs; !fought || n < 10 || n > 60 {
			t.Fatalf("%d repairs in ten minutes, reported: %t", n, fought)
		}
		time.Sleep(5 * time.Second) // so that no minute ends now
		for s, _ = l.State(); s.Drivers[0].Ready; s, _ = l.State() {
			d.tamper(changed)
			synctest.Wait()
		}
		// A new plan is applied at once all the same, but does not make the node ready.
		before := d.count()
		l.SetSnapshot(snapshot("10.0.0.0/9"), 2)
		synctest.Wait()
		if s, _ := l.State(); d.count() != before+1 || s.Drivers[0].Ready || !strings.Contains(s.Drivers[0].Error, "again and again") {
			t.Fatalf("a new plan: %d applies, %+v", d.count()-before, s.Drivers[0])
		}
		// Once it is over, the last change is repaired, and the next one at once again.
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s, _ := l.State(); !s.Drivers[0].Ready {
			t.Fatalf("after the fight: %+v", s.Drivers[0])
		}
		s, _ = l.State()
		d.tamper(changed)
		synctest.Wait()
		if now, _ := l.State(); now.Drivers[0].Repairs != s.Drivers[0].Repairs+1 || !now.Drivers[0].Ready {
			t.Fatalf("the next change: %+v, then %+v", s.Drivers[0], now.Drivers[0])
		}
	})
}

// TestALookThatFailsInAFight has the kernel give no answer just when the last change is to be looked at.
func TestALookThatFailsInAFight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, l, changed := startWatched(t)
		for s, _ := l.State(); s.Drivers[0].Ready; s, _ = l.State() {
			d.tamper(changed)
			synctest.Wait()
		}
		looks := 0
		d.set(func(d *fakeDriver) {
			d.observe = func() (int, error) {
				if looks++; looks > 100 {
					return 0, nil // so that the test ends
				}
				return 0, errors.New("no answer")
			}
		})
		before := d.count()
		time.Sleep(45 * time.Second)
		synctest.Wait()
		if s, _ := l.State(); looks > 2 || d.count() == before || !s.Drivers[0].Ready {
			t.Fatalf("%d looks, %d applies, %+v", looks, d.count()-before, s.Drivers[0])
		}
	})
}

// TestNothingIsAwaitedTwiceAfterAFailureInAFight checks that a loop does not turn round and round where a plan
// fails and the time to look again comes before that to try again.
func TestNothingIsAwaitedTwiceAfterAFailureInAFight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		w := &worker{pause: time.Minute, retryAt: now.Add(time.Minute), fight: fight{doubted: true, lookAt: now.Add(-time.Second)}}
		if d := nextRetry([]*worker{w}); d != time.Minute {
			t.Errorf("what is to be done in a minute is tried after %v", d)
		}
		w.pause = 0
		if d := nextRetry([]*worker{w}); d != 0 {
			t.Errorf("a look that is due is taken after %v", d)
		}
	})
}

func TestAWatchThatBreaksIsBegunAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, l, _ := startWatched(t)
		d.broken <- errors.New("no buffer")
		changed := <-d.watching
		d.tamper(changed)
		synctest.Wait()
		if s, _ := l.State(); s.Drivers[0].Repairs != 1 {
			t.Fatalf("%+v", s.Drivers[0])
		}
	})
}
