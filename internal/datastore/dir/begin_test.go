package dir

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// stepper is a Store whose steps a test takes itself, with the time that it says, and without any event.
type stepper struct {
	*Store
	t    *testing.T
	now  time.Time
	last State
}

// newStepper opens a Store on what a stopped harness left.
func newStepper(h *harness) *stepper {
	h.t.Helper()
	s, err := Open(Options{Dir: h.dir, StateDir: h.state, Log: slog.New(slog.DiscardHandler), Validator: validator()})
	must(h.t, err)
	h.t.Cleanup(func() { must(h.t, s.Close()) })
	s.watcher = newWatcher(s.path, nil)
	s.watcher.reopen, s.stale = true, true
	return &stepper{Store: s, t: h.t, now: time.Now()}
}

// after takes a step some time later.
func (s *stepper) after(d time.Duration) {
	s.now = s.now.Add(d)
	s.step(s.now, func(state State) { s.last = state })
}

// has compares what was published last.
func (s *stepper) has(when string, pending bool, want ...string) {
	s.t.Helper()
	if got := pools(s.last); !slices.Equal(got, want) || len(s.last.Faults) > 0 || len(s.last.Pending) > 0 != pending {
		s.t.Errorf("%s: in force %v, want %v; faults %v, pending %v", when, got, want, s.last.Faults, s.last.Pending)
	}
}

// stopped is a directory with one pool, whose state was saved.
func stopped(t *testing.T) *harness {
	t.Helper()
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")})
	h.untilPools("a=10.1.0.0/24")
	h.stop()
	return h
}

// A file that is listed at the start, and not there when it is read: an editor or git is about to put it back.
func TestAFileVanishesBeforeItIsReadFirst(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	file := filepath.Join(h.dir, "a.yaml")
	s := newStepper(h)
	s.scan(s.now)
	must(t, os.Remove(file))
	s.after(0)
	s.has("gone before it was read", true, "a=10.1.0.0/24")
	s.after(removeSettle - 1)
	s.has("not long enough", true, "a=10.1.0.0/24")
	write(t, file, pool("a", "10.2.0.0/24"))
	s.after(1)
	s.has("back", false, "a=10.2.0.0/24")
}

// The same where no state was kept: an empty one would take everything out of the kernel.
func TestAFileVanishesBeforeItIsReadFirstWithoutAState(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	file := filepath.Join(h.dir, "a.yaml")
	must(t, os.Remove(filepath.Join(h.state, dbName)))
	s := newStepper(h)
	s.scan(s.now)
	must(t, os.Remove(file))
	s.after(0)
	if s.last.Version != 0 || len(s.last.Pending) == 0 {
		t.Errorf("version %d, pending %v: a directory that is not read yet counts as empty", s.last.Version, s.last.Pending)
	}
	write(t, file, pool("a", "10.2.0.0/24"))
	s.after(removeSettle)
	s.has("back", false, "a=10.2.0.0/24")
}

// A file between unlink and create when the directory is listed first.
func TestAFileIsMissingAtTheStart(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	file := filepath.Join(h.dir, "a.yaml")
	must(t, os.Remove(file))
	write(t, filepath.Join(h.dir, "b.yaml"), pool("b", "10.3.0.0/24"))

	s := newStepper(h)
	s.after(0)
	s.has("other files are in force at once", true, "a=10.1.0.0/24", "b=10.3.0.0/24")
	s.after(removeSettle - 1)
	s.has("not long enough", true, "a=10.1.0.0/24", "b=10.3.0.0/24")
	write(t, file, pool("a", "10.2.0.0/24"))
	s.after(1) // no event says so
	s.has("back", false, "a=10.2.0.0/24", "b=10.3.0.0/24")
}

// A file that was removed while no agent ran stays so.
func TestAFileThatWasRemovedBeforeTheStart(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
	write(t, filepath.Join(h.dir, "b.yaml"), pool("b", "10.3.0.0/24"))
	s := newStepper(h)
	s.after(0)
	if at := s.wake(); at.After(s.now.Add(removeSettle)) {
		t.Errorf("it wakes only after %v", at.Sub(s.now))
	}
	s.after(removeSettle)
	s.has("gone for good", false, "b=10.3.0.0/24")
}

// A mount that hides the directory between the look and the reading, or before what was removed counts as removed.
func TestAMountHidesTheDirectoryAtTheStart(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	for _, listed := range []bool{true, false} {
		h := stopped(t)
		s := newStepper(h)
		if listed {
			s.scan(s.now)
		} else {
			must(t, os.Rename(filepath.Join(h.dir, "a.yaml"), filepath.Join(h.dir, "a")))
			s.after(0)
			must(t, os.Rename(filepath.Join(h.dir, "a"), filepath.Join(h.dir, "a.yaml")))
		}
		unmount := mount(t, h.dir)
		s.after(0)
		s.has("hidden", true, "a=10.1.0.0/24")
		for range 3 {
			s.after(removeSettle)
			if got := pools(s.last); len(got) != 1 {
				t.Errorf("hidden for longer: %v in force", got)
			}
		}
		if len(s.last.Faults) != 1 {
			t.Errorf("faults %v", s.last.Faults)
		}
		unmount()
		s.after(identityPeriod)
		s.has("back", false, "a=10.1.0.0/24")
	}
}

// Files that are put back into an empty directory on a file system that reports no events.
func TestFilesArePutBackWithoutAnEvent(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	remake(h)
	s := newStepper(h)
	note, err := newNotifier()
	must(t, err)
	t.Cleanup(func() { _ = note.close() })
	s.watcher.note = note // the test takes none of its events
	s.after(0)
	s.has("not long enough", true, "a=10.1.0.0/24")
	s.after(removeSettle)
	if len(s.last.Faults) != 1 {
		t.Fatalf("faults %v", s.last.Faults)
	}
	write(t, filepath.Join(h.dir, "a.yaml"), pool("a", "10.2.0.0/24"))
	s.after(pollPeriod)
	s.has("back", false, "a=10.2.0.0/24")
}

// A file that is gone counts as removed once the directory is quiet, and after 2 seconds where other changes go on.
func TestRemovalIsBounded(t *testing.T) {
	t.Parallel()
	const limit, between = 2 * time.Second, 100 * time.Millisecond
	s := newStepper(stopped(t))
	write(t, filepath.Join(s.path, "b.yaml"), pool("b", "10.3.0.0/24"))
	s.after(0)
	s.has("both are there", false, "a=10.1.0.0/24", "b=10.3.0.0/24")
	must(t, os.Remove(filepath.Join(s.path, "a.yaml")))
	s.after(pollPeriod) // no event says so
	for range limit/between - 1 {
		s.watcher.last = s.now // another file changes
		s.after(between)
		s.has("other changes go on", true, "a=10.1.0.0/24", "b=10.3.0.0/24")
	}
	s.watcher.last = s.now
	s.after(between)
	s.has("for 2 seconds", false, "b=10.3.0.0/24")
}
