package dir

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/manifest"
)

func TestLastGoodStateSurvives(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")})
	h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
	h.stop()
	write(t, filepath.Join(h.dir, "a.yaml"), "[")
	write(t, filepath.Join(h.dir, "b.yaml"), pool("b", "10.3.0.0/24"))
	again := start(t, h.dir, h.state)
	s := again.untilFault("not valid YAML")
	if got := fmt.Sprint(pools(s)); got != "[a=10.1.0.0/24 b=10.2.0.0/24]" {
		t.Errorf("in force after a restart: %s", got)
	}
	if !s.Conditions["a"].Allocatable || !find(s, "a").WasAllocatable {
		t.Error("the condition was not kept")
	}
	again.stop()
	must(t, os.RemoveAll(h.dir))
	third := start(t, h.dir, h.state)
	if s := third.untilFault("does not exist"); len(pools(s)) != 2 {
		t.Errorf("in force without a directory: %v", pools(s))
	}
	must(t, os.Mkdir(h.dir, 0o755))
	write(t, filepath.Join(h.dir, "c.yaml"), pool("c", "10.4.0.0/24"))
	third.untilFault("lacks 2 of the 2")
	must(t, third.forget("a", "b"))
	third.untilPools("c=10.4.0.0/24")
	third.stop()
	fourth := start(t, h.dir, h.state)
	if s := fourth.untilPools("c=10.4.0.0/24"); s.Version != 1 {
		t.Errorf("version %d: an unchanged directory was taken for a change", s.Version)
	}
}

func TestWithoutLastGoodState(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"a.yaml": "[", "b.yaml": pool("b", "10.2.0.0/24")})
	if s := h.untilFault("not valid YAML"); s.Snapshot != nil || s.Version != 0 || s.Holds(datastore.KindIPPool, "b", "") {
		t.Errorf("a snapshot of a faulty directory: %v", pools(s))
	}
	must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
	h.untilPools("b=10.2.0.0/24")
}

func TestRanksAndConditions(t *testing.T) {
	t.Parallel()
	// Seen together, the file name decides which is older, and of overlapping pools the older wins.
	h := newHarness(t, map[string]string{"1.yaml": pool("z", "10.0.0.0/16"), "2.yaml": pool("m", "10.0.0.0/24")})
	s := h.untilPools("m=10.0.0.0/24", "z=10.0.0.0/16")
	if !s.Conditions["z"].Allocatable || s.Conditions["m"].Allocatable || find(s, "z").Rank >= find(s, "m").Rank {
		t.Fatalf("conditions %+v", s.Conditions)
	}
	// A newcomer comes last, whatever its name, also after a restart.
	write(t, filepath.Join(h.dir, "0.yaml"), pool("a", "10.0.0.0/20"))
	h.untilPools("a=10.0.0.0/20", "m=10.0.0.0/24", "z=10.0.0.0/16")
	h.stop()
	h = start(t, h.dir, h.state)
	s = h.untilPools("a=10.0.0.0/20", "m=10.0.0.0/24", "z=10.0.0.0/16")
	if a, m, z := find(s, "a"), find(s, "m"), find(s, "z"); z.Rank >= m.Rank || m.Rank >= a.Rank || !z.WasAllocatable || a.WasAllocatable {
		t.Errorf("ranks z %d, m %d, a %d", z.Rank, m.Rank, a.Rank)
	}
	// Once the winner makes room, the older of the rest gets its turn, and keeps it.
	write(t, filepath.Join(h.dir, "1.yaml"), pool("z", "10.0.0.0/16", "disabled: true"))
	s = h.until("m to win", func(s State) bool { return s.Conditions["m"].Allocatable })
	if !find(s, "m").WasAllocatable || find(s, "z").WasAllocatable {
		t.Error("the snapshot says otherwise than the conditions")
	}
	write(t, filepath.Join(h.dir, "1.yaml"), pool("z", "10.0.0.0/16"))
	s = h.until("z to be enabled", func(s State) bool { return !find(s, "z").Disabled })
	if !s.Conditions["m"].Allocatable || s.Conditions["z"].Allocatable {
		t.Errorf("the pool that was allocatable lost against an older one: %+v", s.Conditions)
	}
	// Another cidr is another pool: what is immutable may change with it, and it is the youngest.
	before := find(s, "m").Rank
	write(t, filepath.Join(h.dir, "2.yaml"), pool("m", "10.0.1.0/24", "blockSize: 28"))
	s = h.untilPools("a=10.0.0.0/20", "m=10.0.1.0/24", "z=10.0.0.0/16")
	if m := find(s, "m"); m.Rank <= before || m.Rank <= find(s, "a").Rank || m.BlockSize != 28 || s.Conditions["m"].Allocatable || !s.Conditions["z"].Allocatable {
		t.Errorf("after a change of cidr: %+v, %+v", m, s.Conditions)
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	text := pool("a", "10.1.0.0/24")
	h := newHarness(t, map[string]string{"a.yaml": text})
	s := h.untilPools("a=10.1.0.0/24")
	digestOf := func(text string) string { return manifest.Parse("-", []byte(text)).Objects[0].Digest() }
	digest, other := digestOf("# the same\n"+text+"status: {}\n"), digestOf(pool("a", "10.1.0.0/24", "disabled: true"))
	for _, test := range []struct {
		name, digest string
		want         bool
	}{{"a", digest, true}, {"a", other, false}, {"a", "", false}, {"b", "", true}, {"b", digest, false}} {
		if got := s.Holds(datastore.KindIPPool, test.name, test.digest); got != test.want {
			t.Errorf("Holds(%q, %q) = %v", test.name, test.digest, got)
		}
	}
}

func TestDamagedStateIsSetAside(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"garbage":   func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("garbage "), 4096), 0o600) },
		"short":     func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
		"truncated": func(p string) error { return os.Truncate(p, 8192) },
		"pages": func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt(bytes.Repeat([]byte{0xff}, 8*4096), 2*4096)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")})
			h.untilPools("a=10.1.0.0/24")
			h.stop()
			must(t, damage(filepath.Join(h.state, dbName)))
			h = start(t, h.dir, h.state)
			h.untilPools("a=10.1.0.0/24")
			h.stop()
			found, err := filepath.Glob(filepath.Join(h.state, dbName+".damaged*"))
			if err != nil || len(found) != 1 {
				t.Errorf("set aside: %v, %v", found, err)
			}
			write(t, filepath.Join(h.dir, "a.yaml"), "[")
			if s := start(t, h.dir, h.state).untilFault("YAML"); len(pools(s)) != 1 {
				t.Error("nothing was saved after that")
			}
		})
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	_, err := Open(Options{Dir: h.dir, StateDir: h.state, Log: slog.New(slog.DiscardHandler), Validator: validator()})
	if err == nil || !strings.Contains(err.Error(), "another sallyport agent") {
		t.Errorf("error %v", err)
	}
}

func TestStateThatCannotBeSaved(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.stop()
	must(t, os.RemoveAll(h.state))
	write(t, h.state, "in the way")
	h = start(t, h.dir, h.state)
	write(t, filepath.Join(h.dir, "a.yaml"), pool("a", "10.1.0.0/24"))
	if s := h.untilPools("a=10.1.0.0/24"); len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0].Message, "cannot be saved") {
		t.Errorf("warnings %v", s.Warnings)
	}
	must(t, os.Remove(h.state))
	h.until("the state to be saved", func(s State) bool { return len(s.Warnings) == 0 })
	h.stop()
	write(t, filepath.Join(h.dir, "a.yaml"), "[")
	if s := start(t, h.dir, h.state).untilFault("YAML"); len(pools(s)) != 1 {
		t.Error("nothing was saved")
	}
}

func TestMain(m *testing.M) { labtest.Main(m) }

func TestDiskFullAndReadOnly(t *testing.T) {
	t.Parallel()
	labtest.Need(t) // whose mounts are its own
	base := t.TempDir()
	dir, state := filepath.Join(base, "resources"), filepath.Join(base, "state")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Mkdir(state, 0o755))
	must(t, unix.Mount("tmpfs", state, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { must(t, unix.Unmount(state, unix.MNT_DETACH)) })
	write(t, filepath.Join(dir, "a.yaml"), pool("a", "10.1.0.0/24"))
	h := start(t, dir, state)
	h.untilPools("a=10.1.0.0/24")
	var many strings.Builder
	for i := range 600 {
		fmt.Fprintf(&many, "---\napiVersion: v1\nkind: Node\nmetadata: {name: n%d, annotations: {x: %s}}\n", i, strings.Repeat("y", 500))
	}
	write(t, filepath.Join(dir, "n.yaml"), many.String())
	h.until("a full disk", func(s State) bool {
		return len(s.Snapshot.Nodes) == 600 && len(s.Faults) == 0 && len(s.Warnings) == 1
	})
	write(t, filepath.Join(dir, "a.yaml"), pool("a", "10.2.0.0/24"))
	h.untilPools("a=10.2.0.0/24")
	must(t, unix.Mount("tmpfs", state, "tmpfs", unix.MS_REMOUNT, "size=16m"))
	h.until("the state to be saved", func(s State) bool { return len(s.Warnings) == 0 })
	h.stop()

	must(t, unix.Mount("tmpfs", state, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	write(t, filepath.Join(dir, "n.yaml"), "[")
	h = start(t, dir, state)
	s := h.untilFault("YAML")
	if len(s.Warnings) != 1 || len(pools(s)) != 1 || len(s.Snapshot.Nodes) != 600 {
		t.Errorf("from a file that can only be read: %v, %v, %d nodes", s.Warnings, pools(s), len(s.Snapshot.Nodes))
	}
}

// What the watcher decides by time, without waiting for it.
func TestWriterThatNeverCloses(t *testing.T) {
	t.Parallel()
	w := newWatcher(t.TempDir(), nil)
	w.rootDir = w.path
	w.wds[1] = []string{w.path}
	begin := time.Unix(1000, 0)
	w.take([]event{{wd: 1, mask: unix.IN_MODIFY, name: "a.yaml"}}, begin)
	if due := w.ready(begin.Add(writeSettle - 1)); len(due) > 0 {
		t.Errorf("due at once: %v", due)
	}
	if due := w.ready(begin.Add(writeSettle)); len(due) != 1 || due["a.yaml"] {
		t.Errorf("once quiet: %v", due)
	}
	w.hold("a.yaml", begin.Add(writeLimit-1))
	if due := w.ready(begin.Add(writeLimit + writeSettle)); !due["a.yaml"] {
		t.Errorf("at the limit: %v, want it read whoever has it open", due)
	}
	// The end of the writing ends the wait, and a new beginning begins it.
	w.take([]event{{wd: 1, mask: unix.IN_CLOSE_WRITE, name: "a.yaml"}}, begin)
	if due := w.ready(begin); len(due) != 1 {
		t.Errorf("closed: %v", due)
	}
	w.take([]event{{wd: 1, mask: unix.IN_DELETE, name: "a.yaml"}, {wd: 1, mask: unix.IN_MODIFY, name: "a.yaml"}}, begin)
	if due := w.ready(begin); len(due) > 0 {
		t.Errorf("taken away and being written anew: %v", due)
	}
}

func TestOverflowRescans(t *testing.T) {
	t.Parallel()
	w := newWatcher(t.TempDir(), nil)
	w.take([]event{{wd: -1, mask: unix.IN_Q_OVERFLOW}}, time.Unix(1000, 0))
	if !w.rescan {
		t.Error("an overflow was ignored")
	}
}

func TestParseEvents(t *testing.T) {
	t.Parallel()
	if got := parseEvents([]byte{1, 2, 3}); got != nil {
		t.Errorf("%v out of a fragment", got)
	}
}

// The state file may be another one by the time that it can be written: an administrator mends the disk, or
// removes what is there. What is saved then must be all that is in force, not what changed since.
func TestTheWholeStateIsSavedToANewFile(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	for _, test := range []struct {
		name string
		lose func(t *testing.T, dir, state string) *harness // a running agent whose state file is another one than it began with
	}{
		{"read-only at the start", func(t *testing.T, dir, state string) *harness {
			must(t, unix.Mount(state, state, "", unix.MS_BIND, ""))
			must(t, unix.Mount("", state, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			h := start(t, dir, state)
			h.until("a warning", func(s State) bool { return len(s.Warnings) == 1 })
			must(t, unix.Unmount(state, unix.MNT_DETACH))
			must(t, os.Remove(filepath.Join(state, dbName)))
			return h
		}},
		{"removed meanwhile", func(t *testing.T, dir, state string) *harness {
			h := start(t, dir, state)
			must(t, os.Remove(filepath.Join(state, dbName)))
			return h
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")})
			h.untilPools("a=10.1.0.0/24")
			h.stop()
			h = test.lose(t, h.dir, h.state)
			write(t, filepath.Join(h.dir, "b.yaml"), pool("b", "10.2.0.0/24"))
			h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
			h.until("the state to be saved", func(s State) bool { return len(s.Warnings) == 0 })
			h.stop()
			write(t, filepath.Join(h.dir, "c.yaml"), "[")
			h = start(t, h.dir, h.state)
			if s := h.untilFault("YAML"); len(pools(s)) != 2 {
				t.Errorf("the last good state has pools %v", pools(s))
			}
		})
	}
}
