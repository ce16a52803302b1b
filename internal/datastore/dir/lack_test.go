package dir

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// A directory that is filled file by file, where another one stood: while the agent runs, and before it starts.
func TestADirectoryThatIsFilledFileByFile(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")})
		h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
		if stopped {
			h.stop()
		}
		must(t, os.Rename(h.dir, h.dir+".old"))
		must(t, os.Mkdir(h.dir, 0o755))
		write(t, filepath.Join(h.dir, "a.yaml"), pool("a", "10.5.0.0/24"))
		for range 2 {
			if stopped {
				h = start(t, h.dir, h.state)
			}
			if s := h.untilFault(lacksHalf); len(pools(s)) != 2 || find(s, "a").CIDR.String() != "10.1.0.0/24" || len(s.Pending) > 0 {
				t.Errorf("in force: %v, pending %v", pools(s), s.Pending)
			}
			if stopped { // a second start knows no less
				h.stop()
			}
		}
		if stopped {
			h = start(t, h.dir, h.state)
			h.untilFault(lacksHalf)
		}
		write(t, filepath.Join(h.dir, "b.yaml"), pool("b", "10.2.0.0/24"))
		h.untilPools("a=10.5.0.0/24", "b=10.2.0.0/24")
		h.never("b was gone", func(s State) bool { return s.Snapshot != nil && find(s, "b").Name == "" })
		must(t, os.Remove(filepath.Join(h.dir, "b.yaml")))
		h.untilPools("a=10.5.0.0/24")
		h.stop()
	}
}

// A file of the same name that declares something else, so that none is gone.
func TestAnotherDirectoryWithTheSameNames(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	s := newStepper(h)
	s.after(0)
	remake(h)
	write(t, filepath.Join(h.dir, "a.yaml"), pool("z", "10.9.0.0/24"))
	s.after(identityPeriod)
	s.after(removeLimit)
	if got := pools(s.last); len(got) != 1 || got[0] != "a=10.1.0.0/24" || len(s.last.Faults) != 1 {
		t.Errorf("in force %v, faults %v", got, s.last.Faults)
	}
	if at := s.wake(); !at.After(s.now) {
		t.Error("it never sleeps")
	}
}

// The old directory comes back with a file that is being written: what that declares is not gone.
func TestTheOldDirectoryComesBackWhileAFileIsWritten(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	s := newStepper(h)
	s.after(0)
	remake(h)
	s.after(identityPeriod)
	s.after(removeLimit)
	if len(s.last.Faults) != 1 {
		t.Fatalf("faults %v", s.last.Faults)
	}
	s.after(writeLimit)
	f, err := os.OpenFile(filepath.Join(h.dir+".old", "a.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	defer f.Close()
	must(t, os.Remove(h.dir))
	must(t, os.Rename(h.dir+".old", h.dir))
	s.after(identityPeriod)
	s.has("back, and being written", true, "a=10.1.0.0/24")
	_, err = f.WriteString(pool("a", "10.2.0.0/24"))
	must(t, err)
	must(t, f.Close())
	s.after(writeSettle)
	s.has("written", false, "a=10.2.0.0/24")
}

// Only what the directory lacks is forgotten, all or nothing, and what is gone does not come back by itself.
func TestForget(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24"), "c.yaml": pool("c", "10.3.0.0/24")})
	h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24", "c=10.3.0.0/24")
	if err := h.forget("a"); err == nil {
		t.Error("forgotten, though it is declared")
	}
	remake(h)
	write(t, filepath.Join(h.dir, "c.yaml"), pool("c", "10.3.0.0/24"))
	h.untilFault("lacks 2 of the 3")
	for _, names := range [][]string{{"a", "c"}, {"a", "never"}} {
		if err := h.forget(names...); err == nil || len(pools(h.last())) != 3 {
			t.Errorf("%v: %v, in force %v", names, err, pools(h.last()))
		}
	}
	must(t, h.forget("a", "a"))
	if s := h.untilFault("lacks 1 of the 2"); len(pools(s)) != 2 {
		t.Errorf("in force %v", pools(s))
	}
	write(t, filepath.Join(h.dir, "b.yaml"), pool("b", "10.4.0.0/24"))
	h.untilPools("b=10.4.0.0/24", "c=10.3.0.0/24")
	seen := false
	h.never("a came back", func(s State) bool {
		is := s.Snapshot != nil && find(s, "a").Name != ""
		seen = seen || !is
		return seen && is
	})
	h.stop()
	start(t, h.dir, h.state).untilPools("b=10.4.0.0/24", "c=10.3.0.0/24")
}

// What a directory declares that cannot be read, or not yet, is not known to be absent from it.
func TestForgetOfWhatWasNotRead(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	a := []Key{{Kind: model.KindIPPool, Name: "a"}}
	must(t, os.Rename(h.dir, h.dir+".old"))
	s := newStepper(h)
	s.after(0)
	if err := s.forget(a); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("without a directory: %v", err)
	}
	must(t, os.Mkdir(h.dir, 0o755))
	f, err := os.Create(filepath.Join(h.dir, "a.yaml"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(pool("a", "10.1.0.0/24"))
	must(t, err)
	s.after(pollPeriod)
	if err := s.forget(a); err == nil || !strings.Contains(err.Error(), "is being written") {
		t.Errorf("while its file is written: %v", err)
	}
	must(t, f.Close())
	s.after(writeSettle)
	s.has("written", false, "a=10.1.0.0/24")
}

// A deletion that was given up while the Store was busy is not done later.
func TestForgetThatWasGivenUp(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	remake(h)
	s := newStepper(h)
	s.after(0)
	s.after(removeLimit)
	ctx, cancel := context.WithCancel(t.Context())
	taken := make(chan ask)
	go func() {
		a := <-s.asks
		cancel()
		taken <- a
	}()
	if err := s.Forget(ctx, []Key{{Kind: model.KindIPPool, Name: "a"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	(<-taken).do()
	s.after(removeLimit)
	if got := pools(s.last); len(got) != 1 {
		t.Errorf("in force: %v", got)
	}
}

// A link that leads elsewhere replaces the directory at once: what is not in the new one is removed.
func TestALinkThatLeadsElsewhereRemoves(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		h := linked(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")})
		h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
		if stopped {
			h.stop()
		}
		relink(h, pool("b", "10.3.0.0/24"))
		if stopped {
			h = start(t, h.dir, h.state)
		}
		h.untilPools("b=10.3.0.0/24")
		base := filepath.Dir(h.dir)
		must(t, os.Mkdir(filepath.Join(base, "empty"), 0o755))
		must(t, os.Symlink("empty", h.dir+"~"))
		must(t, os.Rename(h.dir+"~", h.dir))
		h.untilFault("is empty, and so lacks 1 of the 1")
	}
}

// The state of an earlier version has no path beside the numbers.
func TestOriginsOfEarlierVersions(t *testing.T) {
	t.Parallel()
	full := origin{manifest.DirIdentity{Dev: 1, Ino: 2, Birth: 3}, "boot", "/a"}
	if got := decodeOrigin(full.encode()); got != full {
		t.Errorf("%+v became %+v", full, got)
	}
	old := full.encode()
	if got := decodeOrigin(old[:originNumbers+len("boot")]); got.path != "" || !got.is(full) {
		t.Errorf("without a path: %+v", got)
	}
}

// What a Store would come to, without one.
func TestForesee(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")})
	h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
	h.stop()
	foresee := func(when, fault string, want ...string) {
		t.Helper()
		s, err := Foresee(Options{Dir: h.dir, StateDir: h.state, Log: slog.New(slog.DiscardHandler), Validator: validator()})
		must(t, err)
		if got := pools(s); !slices.Equal(got, want) || (fault == "") != (len(s.Faults) == 0) || fault != "" && !strings.Contains(s.Faults[0].Message, fault) {
			t.Errorf("%s: %v, faults %v", when, got, s.Faults)
		}
	}
	must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
	foresee("a file was removed", "", "b=10.2.0.0/24")
	f, err := os.OpenFile(filepath.Join(h.dir, "c.yaml"), os.O_CREATE|os.O_WRONLY, 0o644)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(pool("c", "10.3.0.0/24"))
	must(t, err)
	foresee("one is being written", "", "b=10.2.0.0/24", "c=10.3.0.0/24")
	remake(h)
	foresee("another directory", "is empty, and so lacks 2 of the 2", "a=10.1.0.0/24", "b=10.2.0.0/24")
	start(t, h.dir, h.state).untilFault("is empty, and so lacks 2 of the 2") // nothing was changed
}
