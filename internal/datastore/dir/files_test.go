package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/manifest"
)

func TestFaultsKeepEverything(t *testing.T) {
	t.Parallel()
	two := pool("b", "10.2.0.0/24") + "---\n" + pool("c", "10.3.0.0/24")
	for _, test := range []struct {
		name, file, text string
		line             int
		fault            string
	}{
		{"not YAML", "b.yaml", pool("b", "10.2.0.0/24") + "  x: [\n", 0, "not valid YAML"},
		{"a key twice", "b.yaml", pool("b", "10.2.0.0/24", "natOutgoing: true", "natOutgoing: false"), 8, "already set"},
		{"a key twice in JSON", "b.yaml", `{"kind":"IPPool","kind":"IPPool"}`, 1, "duplicate"},
		{"a field that is wrong", "b.yaml", "# one\n" + pool("b", "10.2.0.0/24") + "---\n" + pool("c", "10.3.0.1/24"), 14, "spec.cidr"},
		{"a field that is unknown", "b.yaml", pool("b", "10.2.0.0/24", "natOutgoin: true"), 7, "spec.natOutgoin"},
		{"no name", "b.yaml", "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {}\nspec: {cidr: 10.2.0.0/24}\n", 3, "metadata.name"},
		{"a name that is a bool", "b.yaml", strings.Replace(pool("b", "10.2.0.0/24"), "name: b", "name: n", 1), 4, "in quotes"},
		{"no kind", "b.yaml", "apiVersion: v1\n", 1, "kind"},
		{"an unknown kind", "b.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n", 1, "not known"},
		{"no object", "b.yaml", "- a\n", 1, "not an object"},
		{"an item of a List", "b.yaml", "kind: List\napiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n1}\n- apiVersion: projectcalico.org/v3\n  kind: IPPool\n  metadata: {name: b}\n  spec:\n    cidr: nonsense\n", 11, "spec.cidr"},
		{"two documents as one", "b.yaml", pool("b", "10.2.0.0/24") + "\r---\r" + "x: y\n", 0, "YAML"},
		{"a directive", "b.yaml", "%YAML 1.1\n---\n" + pool("b", "10.2.0.0/24"), 1, "directives"},
		{"not text", "b.yaml", "a: \xff\n", 0, "UTF-8"},
		{"emptied by a write that failed", "a.yaml", "", 0, "is empty"},
		{"nothing but space", "a.yaml", "\n \n", 0, "is empty"},
		{"a List without items", "b.yaml", "apiVersion: v1\nkind: List\nitem: []\n", 1, "items"},
		{"an indent by tab", "b.yaml", "kind: IPPool\nmetadata:\n\tname: b\n", 3, "spaces"},
		{"a kind in lower case", "b.yaml", strings.Replace(pool("b", "10.2.0.0/24"), "kind: IPPool", "kind: ippool", 1), 2, "did you mean IPPool"},
		{"twice in one file", "b.yaml", two + "---\n" + pool("b", "10.2.0.0/24"), 15, "b.yaml:1"},
		{"twice in two files", "b.yaml", pool("a", "10.1.0.0/24"), 1, "a.yaml:1"},
		{"twice under two groups", "b.yaml", strings.Replace(pool("a", "10.9.0.0/24"), "projectcalico.org/v3", "crd.projectcalico.org/v1", 1), 1, "a.yaml:1"},
		{"an immutable field", "a.yaml", pool("a", "10.1.0.0/24", "blockSize: 28"), 7, "spec.blockSize"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")})
			h.untilPools("a=10.1.0.0/24")
			write(t, filepath.Join(h.dir, test.file), test.text)
			s := h.untilFault(test.fault)
			f := s.Faults[0]
			if f.File != filepath.Join(h.dir, test.file) || (test.line > 0 && f.Line != test.line) {
				t.Errorf("blamed %s:%d, want %s:%d: %s", f.File, f.Line, test.file, test.line, f)
			}
			if got := pools(s); len(got) != 1 || got[0] != "a=10.1.0.0/24" {
				t.Errorf("in force: %v", got)
			}
			// A change elsewhere does not get past the fault either.
			write(t, filepath.Join(h.dir, "z.yaml"), pool("z", "10.26.0.0/24")+"---\nbad\n")
			s = h.until("two faults", func(s State) bool { return len(s.Faults) == 2 })
			must(t, os.Remove(filepath.Join(h.dir, "z.yaml")))
			write(t, filepath.Join(h.dir, test.file), pool("a", "10.1.0.0/24"))
			if test.file != "a.yaml" {
				must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
			}
			if got := h.untilPools("a=10.1.0.0/24"); got.Version != s.Version {
				t.Errorf("version %d became %d, though nothing changed in the end", s.Version, got.Version)
			}
		})
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		make  func(path string) error
		fault string
	}{
		{"directory", func(p string) error { return os.Mkdir(p, 0o755) }, "is a directory"},
		{"dangling link", func(p string) error { return os.Symlink("nowhere", p) }, "does not exist"},
		{"link to itself", func(p string) error { return os.Symlink(filepath.Base(p), p) }, "leads to itself"},
		{"link through a file", func(p string) error { return os.Symlink("a.yaml/x", p) }, "not a directory"},
		{"FIFO", func(p string) error { return unix.Mkfifo(p, 0o644) }, "no regular file"},
		{"too long", func(p string) error { return truncated(p, manifest.MaxFileSize+1) }, "the limit is"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")})
			h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
			path := filepath.Join(h.dir, "b.yaml")
			must(t, os.Remove(path))
			must(t, test.make(path))
			h.untilFault(test.fault)
			must(t, os.Remove(path))
			write(t, path, pool("b", "10.3.0.0/24"))
			h.untilPools("a=10.1.0.0/24", "b=10.3.0.0/24")
			h.never("b vanished", func(s State) bool { return len(pools(s)) != 2 })
		})
	}
}

func truncated(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func TestHalfWrittenFiles(t *testing.T) {
	t.Parallel()
	whole := pool("a", "10.1.0.0/24") + "---\n" + pool("b", "10.2.0.0/24")
	half := whole[:len(pool("a", "10.1.0.0/24"))+8]
	bad := func(s State) bool { return len(s.Faults) > 0 || len(pools(s)) != 2 }
	for _, test := range []struct {
		name  string
		write func(t *testing.T, h *harness, path string)
	}{
		{"truncated, then written slowly", func(t *testing.T, h *harness, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteString(half)
			must(t, err)
			// The writer takes longer than any time after which one could guess that it is done.
			touchUntil(t, h, 2*writeSettle)
			_, err = f.WriteString(strings.Replace(whole[len(half):], "10.2.0.0", "10.3.0.0", 1))
			must(t, err)
		}},
		{"made anew, then written slowly", func(t *testing.T, h *harness, path string) {
			must(t, os.Remove(path))
			f, err := os.Create(path)
			must(t, err)
			defer f.Close()
			_, err = f.WriteString(half)
			must(t, err)
			touchUntil(t, h, removeSettle/2)
			_, err = f.WriteString(strings.Replace(whole[len(half):], "10.2.0.0", "10.3.0.0", 1))
			must(t, err)
		}},
		{"moved away and written anew, as editors do", func(t *testing.T, h *harness, path string) {
			must(t, os.Rename(path, path+"~"))
			write(t, path, strings.Replace(whole, "10.2.0.0", "10.3.0.0", 1))
			must(t, os.Remove(path+"~"))
		}},
		{"replaced by rename", func(t *testing.T, h *harness, path string) {
			write(t, filepath.Join(h.dir, ".tmp"), strings.Replace(whole, "10.2.0.0", "10.3.0.0", 1))
			must(t, os.Rename(filepath.Join(h.dir, ".tmp"), path))
		}},
		{"renamed, then changed", func(t *testing.T, h *harness, path string) {
			must(t, os.Rename(path, filepath.Join(h.dir, "other.yaml")))
			write(t, filepath.Join(h.dir, "other.yaml"), strings.Replace(whole, "10.2.0.0", "10.3.0.0", 1))
		}},
		{"replaced by a hard link", func(t *testing.T, h *harness, path string) {
			write(t, filepath.Join(h.dir, "..", "elsewhere"), strings.Replace(whole, "10.2.0.0", "10.3.0.0", 1))
			must(t, os.Remove(path))
			must(t, os.Link(filepath.Join(h.dir, "..", "elsewhere"), path))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, map[string]string{"f.yaml": whole})
			h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
			test.write(t, h, filepath.Join(h.dir, "f.yaml"))
			h.untilPools("a=10.1.0.0/24", "b=10.3.0.0/24")
			h.never("something half-written was read", bad)
		})
	}
}

// touchUntil makes the Store run for a while on events of another file.
func touchUntil(t *testing.T, h *harness, d time.Duration) {
	t.Helper()
	end := time.Now().Add(d)
	for i := 0; time.Now().Before(end); i++ {
		write(t, filepath.Join(h.dir, "n.yaml"), fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {i: %q}}\n", fmt.Sprint(i)))
		want := fmt.Sprint(i)
		h.until("node "+want, func(s State) bool {
			return s.Snapshot != nil && len(s.Snapshot.Nodes) == 1 && s.Snapshot.Nodes[0].Labels["i"] == want
		})
		time.Sleep(10 * time.Millisecond) // paces a writer; nothing waits for it
	}
}

func TestRemoval(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")})
	h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
	must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
	h.untilPools("b=10.2.0.0/24")
	// An object that moves to another file never vanishes and is never there twice.
	h.mu.Lock()
	h.states = h.states[len(h.states)-1:]
	h.mu.Unlock()
	must(t, os.Rename(filepath.Join(h.dir, "b.yaml"), filepath.Join(h.dir, "c.yaml")))
	write(t, filepath.Join(h.dir, "d.yaml"), pool("d", "10.4.0.0/24"))
	h.untilPools("b=10.2.0.0/24", "d=10.4.0.0/24")
	h.never("b vanished or was there twice", func(s State) bool {
		return len(s.Faults) > 0 || find(s, "b").Name == ""
	})
}

func TestAMoveWhileAnotherFileIsWritten(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"b.yaml": pool("b", "10.2.0.0/24")})
	h.untilPools("b=10.2.0.0/24")
	f, err := os.Create(filepath.Join(h.dir, "d.yaml"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(pool("d", "10.4.0.0/24"))
	must(t, err)
	must(t, os.Rename(filepath.Join(h.dir, "b.yaml"), filepath.Join(h.dir, "c.yaml")))
	write(t, filepath.Join(h.dir, "e.yaml"), pool("e", "10.5.0.0/24"))
	h.untilPools("b=10.2.0.0/24", "e=10.5.0.0/24")
	must(t, f.Close())
	h.untilPools("b=10.2.0.0/24", "d=10.4.0.0/24", "e=10.5.0.0/24")
	h.never("b vanished or was there twice", func(s State) bool {
		return len(s.Faults) > 0 || find(s, "b").Name == ""
	})
}

// Whoever asks right after a change must not be told the old state as if nothing were to come.
func TestWhatIsPendingIsSaid(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")})
	h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
	look := func() State {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		must(t, h.store.Look(ctx))
		return h.last()
	}
	if s := look(); len(s.Pending) > 0 {
		t.Fatalf("pending: %v", s.Pending)
	}
	must(t, os.Remove(filepath.Join(h.dir, "a.yaml")))
	f, err := os.OpenFile(filepath.Join(h.dir, "b.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	defer f.Close()
	if s := look(); !slices.Equal(s.Pending, []string{"a.yaml", "b.yaml"}) || !slices.Equal(pools(s), []string{"a=10.1.0.0/24", "b=10.2.0.0/24"}) {
		t.Fatalf("pending: %v, pools: %v", s.Pending, pools(s))
	}
	_, err = f.WriteString(pool("c", "10.2.0.0/24"))
	must(t, err)
	must(t, f.Close())
	h.until("nothing to be pending", func(s State) bool { return len(s.Pending) == 0 })
	h.untilPools("c=10.2.0.0/24")
	write(t, filepath.Join(h.dir, "d.yaml"), pool("d", "10.3.0.0/24"))
	if s := look(); !slices.Equal(pools(s), []string{"c=10.2.0.0/24", "d=10.3.0.0/24"}) && !slices.Contains(s.Pending, "d.yaml") {
		t.Fatalf("after a file was written and closed: pools %v, pending %v", pools(s), s.Pending)
	}
}

func TestConfigMapMount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	version := func(n int, files map[string]string) string {
		name := fmt.Sprintf("..2026_%d", n)
		must(t, os.Mkdir(filepath.Join(h.dir, name), 0o755))
		for file, text := range files {
			write(t, filepath.Join(h.dir, name, file), text)
		}
		return name
	}
	swap := func(name string) {
		must(t, os.Symlink(name, filepath.Join(h.dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(h.dir, "..data_tmp"), filepath.Join(h.dir, "..data")))
	}
	swap(version(1, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")}))
	for _, f := range []string{"a.yaml", "b.yaml"} {
		must(t, os.Symlink("..data/"+f, filepath.Join(h.dir, f)))
	}
	h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
	for n := 2; n < 6; n++ {
		swap(version(n, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", fmt.Sprintf("10.%d.0.0/24", n+1))}))
		must(t, os.RemoveAll(filepath.Join(h.dir, fmt.Sprintf("..2026_%d", n-1))))
		h.untilPools("a=10.1.0.0/24", fmt.Sprintf("b=10.%d.0.0/24", n+1))
	}
	swap(version(6, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")}))
	must(t, os.Remove(filepath.Join(h.dir, "b.yaml")))
	h.untilPools("a=10.1.0.0/24")
}

func TestLinksToElsewhere(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	far := filepath.Join(t.TempDir(), "far")
	must(t, os.Mkdir(far, 0o755))
	write(t, filepath.Join(far, "real"), pool("a", "10.1.0.0/24"))
	must(t, os.Symlink("real", filepath.Join(far, "hop")))
	must(t, os.Symlink(filepath.Join(far, "hop"), filepath.Join(h.dir, "a.yaml")))
	h.untilPools("a=10.1.0.0/24")

	write(t, filepath.Join(far, "real"), pool("a", "10.2.0.0/24"))
	h.untilPools("a=10.2.0.0/24")

	write(t, filepath.Join(far, "next"), pool("a", "10.3.0.0/24"))
	must(t, os.Symlink("next", filepath.Join(far, "hop2")))
	must(t, os.Rename(filepath.Join(far, "hop2"), filepath.Join(far, "hop")))
	h.untilPools("a=10.3.0.0/24")

	must(t, os.Remove(filepath.Join(far, "next")))
	h.untilFault("does not exist")
	write(t, filepath.Join(far, "next"), pool("a", "10.4.0.0/24"))
	h.untilPools("a=10.4.0.0/24")

	must(t, os.Rename(far, far+"2"))
	h.untilFault("does not exist")
	must(t, os.Rename(far+"2", far))
	h.untilPools("a=10.4.0.0/24")
}

func TestDirectoryMissingReplacedAndBack(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "etc", "resources")
	h := start(t, dir, filepath.Join(base, "state"))
	if s := h.untilFault("does not exist"); s.Snapshot != nil {
		t.Error("a snapshot out of nothing")
	}
	must(t, os.MkdirAll(dir, 0o755))
	write(t, filepath.Join(dir, "a.yaml"), pool("a", "10.1.0.0/24"))
	h.untilPools("a=10.1.0.0/24")

	must(t, os.Rename(dir, dir+".old"))
	h.untilFault("does not exist")
	must(t, os.Rename(dir+".old", dir))
	h.untilPools("a=10.1.0.0/24")
	write(t, filepath.Join(dir, "a.yaml"), pool("a", "10.2.0.0/24"))
	h.untilPools("a=10.2.0.0/24")

	must(t, os.Mkdir(dir+".new", 0o755))
	write(t, filepath.Join(dir+".new", "b.yaml"), pool("b", "10.3.0.0/24"))
	must(t, unix.Renameat2(unix.AT_FDCWD, dir+".new", unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE))
	h.untilFault(lacksA)
	must(t, h.forget("a"))
	h.untilPools("b=10.3.0.0/24")
	write(t, filepath.Join(dir, "b.yaml"), pool("b", "10.4.0.0/24"))
	h.untilPools("b=10.4.0.0/24")

	must(t, os.RemoveAll(dir))
	h.untilFault("does not exist")
	if got := pools(h.last()); len(got) != 1 {
		t.Errorf("in force without a directory: %v", got)
	}
	write(t, dir, "a file")
	h.untilFault("not a directory")
	must(t, os.Remove(dir))
	must(t, os.RemoveAll(filepath.Dir(dir)))
	must(t, os.MkdirAll(dir, 0o755))
	write(t, filepath.Join(dir, "c.yaml"), pool("c", "10.5.0.0/24"))
	h.untilFault(`(IPPool "b")`)
	write(t, filepath.Join(dir, "b.yaml"), pool("b", "10.4.0.0/24"))
	h.untilPools("b=10.4.0.0/24", "c=10.5.0.0/24")
	had := false
	h.never("all pools were gone", func(s State) bool {
		had = had || len(pools(s)) > 0
		return had && len(pools(s)) == 0
	})
}

func TestDirectoryThroughLinks(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	for i, cidr := range []string{"10.1.0.0/24", "10.2.0.0/24"} {
		d := filepath.Join(base, fmt.Sprintf("v%d", i), "res")
		must(t, os.MkdirAll(d, 0o755))
		write(t, filepath.Join(d, "a.yaml"), pool("a", cidr))
	}
	must(t, os.Symlink("v0", filepath.Join(base, "current")))
	h := start(t, filepath.Join(base, "current", "res"), filepath.Join(base, "state"))
	h.untilPools("a=10.1.0.0/24")
	must(t, os.Symlink("v1", filepath.Join(base, "next")))
	must(t, os.Rename(filepath.Join(base, "next"), filepath.Join(base, "current")))
	h.untilPools("a=10.2.0.0/24")
	write(t, filepath.Join(base, "v1", "res", "a.yaml"), pool("a", "10.3.0.0/24"))
	h.untilPools("a=10.3.0.0/24")
}

// A file that is being written while the agent starts was declared before: it must not count as empty.
func TestStartWhileAFileIsWritten(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24")})
	h.untilPools("a=10.1.0.0/24", "b=10.2.0.0/24")
	h.stop()
	f, err := os.OpenFile(filepath.Join(h.dir, "a.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	write(t, filepath.Join(h.dir, "b.yaml"), pool("b", "10.3.0.0/24"))
	h = start(t, h.dir, h.state)
	_, err = f.WriteString(pool("a", "10.4.0.0/24"))
	must(t, err)
	must(t, f.Close())
	h.untilPools("a=10.4.0.0/24", "b=10.3.0.0/24")
	h.never("a vanished", func(s State) bool { return len(pools(s)) != 2 || len(s.Faults) > 0 })
}

// Many changes in a row end in what the files say, and so does an emptied directory.
func TestManyChangesAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("p%03d", i)
		for range 3 {
			write(t, filepath.Join(h.dir, name+".yaml"), pool(name, fmt.Sprintf("10.0.%d.0/28", i%256), "disabled: true"))
		}
		want = append(want, name+"="+fmt.Sprintf("10.0.%d.0/28", i%256))
	}
	h.untilPools(want...)
	for _, p := range want {
		name, _, _ := strings.Cut(p, "=")
		must(t, os.Remove(filepath.Join(h.dir, name+".yaml")))
	}
	h.untilPools()
}
