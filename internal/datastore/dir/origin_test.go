package dir

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

const (
	isEmpty   = "is empty, and is not the directory" // and what was in force is not known
	lacksA    = "lacks 1 of the 1 resources in force (IPPool \"a\")"
	lacksHalf = "lacks 1 of the 2 resources in force (IPPool \"b\")"
)

// forget says of objects that they are to go.
func (h *harness) forget(names ...string) error {
	var keys []Key
	for _, n := range names {
		keys = append(keys, Key{Kind: model.KindIPPool, Name: n})
	}
	return h.store.Forget(h.t.Context(), keys)
}

// mount puts an empty file system over a directory until unmounted or the test ends.
func mount(t *testing.T, dir string) (unmount func()) {
	t.Helper()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			must(t, unix.Unmount(dir, unix.MNT_DETACH))
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// keeps says that pool a was in force all the time since it was for the first time.
func (h *harness) keeps() {
	h.t.Helper()
	had := false
	h.never("pool a was gone", func(s State) bool {
		had = had || len(pools(s)) > 0
		return had && len(pools(s)) == 0
	})
}

// An empty file system over the directory of a running agent, of which nobody tells it: by itself, and when it looks
// because somebody asks for its status.
func TestAMountThatHidesTheDirectory(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	for _, look := range []bool{false, true} {
		h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")})
		h.untilPools("a=10.1.0.0/24")
		unmount := mount(t, h.dir)
		if look {
			must(t, h.store.Look(t.Context()))
		}
		h.untilFault(lacksA)
		unmount()
		h.untilPools("a=10.1.0.0/24")
		write(t, filepath.Join(h.dir, "a.yaml"), pool("a", "10.2.0.0/24"))
		h.untilPools("a=10.2.0.0/24")
		// Other manifests change nothing as long as one is missing; then the mount is the directory.
		mount(t, h.dir)
		write(t, filepath.Join(h.dir, "b.yaml"), pool("b", "10.3.0.0/24"))
		if s := h.untilFault(lacksA); len(pools(s)) != 1 {
			t.Errorf("in force: %v", pools(s))
		}
		write(t, filepath.Join(h.dir, "a.yaml"), pool("a", "10.2.0.0/24"))
		h.untilPools("a=10.2.0.0/24", "b=10.3.0.0/24")
		h.keeps()
		must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
		h.untilPools("b=10.3.0.0/24")
		must(t, os.Remove(filepath.Join(h.dir, "b.yaml")))
		h.untilPools()
		h.stop()
	}
}

// mounted is a stopped Store of a directory on a mount of its own, with pool a.
func mounted(t *testing.T) (h *harness, unmount func()) {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "resources")
	must(t, os.Mkdir(dir, 0o755))
	unmount = mount(t, dir)
	write(t, filepath.Join(dir, "a.yaml"), pool("a", "10.1.0.0/24"))
	h = start(t, dir, filepath.Join(base, "state"))
	h.untilPools("a=10.1.0.0/24")
	h.stop()
	return h, unmount
}

// A mount that comes only after the agent was started, as at a boot.
func TestAMountThatComesLate(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	h, unmount := mounted(t)
	dir, state := h.dir, h.state
	unmount()
	for range 2 { // a second start knows no less
		h = start(t, dir, state)
		if s := h.untilFault(lacksA); len(pools(s)) != 1 {
			t.Errorf("in force without the mount: %v", pools(s))
		}
		h.keeps()
		h.stop()
	}
	h = start(t, dir, state)
	h.untilFault(lacksA)
	mount(t, dir)
	write(t, filepath.Join(dir, "a.yaml"), pool("a", "10.2.0.0/24"))
	h.untilPools("a=10.2.0.0/24")
	h.keeps()
}

// A file system that is made and mounted again may have the numbers of the one before.
func TestANewEmptyFileSystemInTheSamePlace(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	h, unmount := mounted(t)
	dir := h.dir
	before, err := manifest.IdentifyDir(dir)
	must(t, err)
	unmount()
	mount(t, dir)
	if now, err := manifest.IdentifyDir(dir); err != nil || now == before {
		t.Skipf("kernel feature missing: tmpfs keeps no time of birth here, so that one cannot be told from the next (%+v, %v)", now, err)
	}
	start(t, dir, h.state).untilFault(lacksA)
}

// What is emptied on purpose is empty, whether or not an agent sees it.
func TestADirectoryEmptiedOnPurpose(t *testing.T) {
	t.Parallel()
	remove := func(h *harness) { must(h.t, os.Remove(filepath.Join(h.dir, "a.yaml"))) }
	for name, empty := range map[string]func(h *harness){
		"by hand":                               remove,
		"by hand, while stopped":                func(h *harness) { h.stop(); remove(h) },
		"by delete, while stopped":              func(h *harness) { h.stop(); deleteA(h) },
		"by delete":                             deleteA,
		"and made again":                        func(h *harness) { remake(h); h.untilFault(lacksA); must(h.t, h.forget("a")); h.untilPools() },
		"another one, by a link":                func(h *harness) { relink(h); comment(h); h.untilPools() },
		"another one, by a link, while stopped": func(h *harness) { h.stop(); relink(h); comment(h) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := linked(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")})
			h.untilPools("a=10.1.0.0/24")
			empty(h)
			h.stop()
			h = start(t, h.dir, h.state)
			h.untilPools()
			_ = os.Remove(filepath.Join(h.dir, "none.yaml"))
			must(t, h.store.Look(t.Context()))
			h.stop()
			start(t, h.dir, h.state).untilPools()
		})
	}
}

func deleteA(h *harness) {
	_, err := manifest.Delete(h.t.Context(), h.dir, validator(), []Key{{Kind: model.KindIPPool, Name: "a"}}, nil, false)
	must(h.t, err)
}

// remake puts a new, empty directory in the place of the old one.
func remake(h *harness) {
	h.t.Helper()
	real, err := filepath.EvalSymlinks(h.dir)
	must(h.t, err)
	must(h.t, os.Rename(real, real+".old"))
	must(h.t, os.Mkdir(real, 0o755))
}

// linked runs a Store on a directory to which a link leads.
func linked(t *testing.T, files map[string]string) *harness {
	t.Helper()
	base := t.TempDir()
	must(t, os.Mkdir(filepath.Join(base, "first"), 0o755))
	for name, text := range files {
		write(t, filepath.Join(base, "first", name), text)
	}
	must(t, os.Symlink("first", filepath.Join(base, "resources")))
	return start(t, filepath.Join(base, "resources"), filepath.Join(base, "state"))
}

// relink has the link lead to a new directory with these files, at once.
func relink(h *harness, files ...string) {
	h.t.Helper()
	base := filepath.Dir(h.dir)
	must(h.t, os.Mkdir(filepath.Join(base, "next"), 0o755))
	write(h.t, filepath.Join(base, "next", "none.yaml"), "# nothing\n")
	for _, text := range files {
		write(h.t, filepath.Join(base, "next", "some.yaml"), text)
	}
	must(h.t, os.Symlink("next", h.dir+"~"))
	must(h.t, os.Rename(h.dir+"~", h.dir))
}

// comment is the remedy that the fault names.
func comment(h *harness) {
	write(h.t, filepath.Join(h.dir, "none.yaml"), "# nothing is to be in force\n")
}

// Without the last good state, nobody knows whether an empty directory is meant.
func TestAnEmptyDirectoryAfterADamagedState(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")})
	h.untilPools("a=10.1.0.0/24")
	h.stop()
	write(t, filepath.Join(h.state, dbName), "x")
	must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
	for range 2 {
		h = start(t, h.dir, h.state)
		if s := h.untilFault(isEmpty); s.Snapshot != nil {
			t.Errorf("in force: %v", pools(s))
		}
		h.stop()
	}
	write(t, filepath.Join(h.dir, "none.yaml"), "# nothing\n")
	start(t, h.dir, h.state).untilPools()
}

// A damaged state that a good one has replaced says nothing about an empty directory any more.
func TestADamagedStateIsReplaced(t *testing.T) {
	t.Parallel()
	h := stopped(t)
	write(t, filepath.Join(h.state, dbName), "x")
	s := newStepper(h)
	s.after(0)
	s.has("read again", false, "a=10.1.0.0/24")
	must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
	s.after(pollPeriod)
	s.after(removeSettle)
	s.has("emptied on purpose", false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.saver.Run(ctx) // it saves
	remake(h)
	s.after(pollPeriod)
	s.has("made again", false)
	must(t, s.Close())
	// Without the good one, the damaged one is all that is known.
	must(t, os.Remove(filepath.Join(h.state, dbName)))
	h = start(t, h.dir, h.state)
	h.untilFault(isEmpty)
	comment(h)
	h.untilPools()
}

// Where a file system keeps no time of birth, the numbers of a directory hold for one boot.
func TestNumbersWithoutBirthHoldForABoot(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		birth int64
		boot  string
		fault bool
	}{{0, "one", false}, {0, "two", true}, {7, "two", false}} {
		h := stopped(t)
		s := newStepper(h)
		root := manifest.DirIdentity{Dev: 1, Ino: 2, Birth: test.birth}
		s.boot, s.root = "one", root
		s.settle()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.saver.Run(ctx) // it saves
		must(t, s.Close())

		s = newStepper(h)
		s.boot, s.root = test.boot, root
		if got := s.absent(); (got != nil) != test.fault {
			t.Errorf("born %d, in boot %s: %v", test.birth, test.boot, got)
		}
	}
}

// Where the state is gone, an empty directory is one that is missing if the kernel translates by an earlier agent's rules,
// or may.
func TestAnEmptyDirectoryWithoutAState(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		yes   bool
		err   error
		fault bool
	}{
		{"a new node", false, nil, false},
		{"rules of an earlier agent", true, nil, true},
		{"a kernel that does not say", false, unix.EPERM, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			h := startWith(t, base, filepath.Join(base, "state"), func() (bool, error) { return tc.yes, tc.err })
			if !tc.fault {
				h.until("an empty state", func(s State) bool { return s.Snapshot != nil && len(s.Faults) == 0 })
				return
			}
			if s := h.untilFault(isEmpty); s.Snapshot != nil {
				t.Errorf("in force is %+v", s.Snapshot)
			}
			write(t, filepath.Join(base, "none.yaml"), "# nothing is to be in force\n")
			h.until("an empty state", func(s State) bool { return s.Snapshot != nil && len(s.Faults) == 0 })
		})
	}
}
