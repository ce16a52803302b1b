package nodes

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// cgroupFolder is the folder of all that this package makes, in each hierarchy of cgroups.
const cgroupFolder = "sallyport-tests"

// hierarchy is a mounted hierarchy of cgroups, of version 1.
type hierarchy struct {
	dir     string // where it is mounted
	options string // with which it is: "cpu", "cpu,cpuacct", "name=systemd"
}

// cgroups are those of a run: a folder in each hierarchy, which is locked as long as the run lives.
type cgroups struct {
	run         string
	hierarchies []hierarchy
	lock        *os.File
}

// newCgroups makes the cgroups of a run, which the end of the test removes, and removes those that killed runs have left.
func newCgroups(t labtest.TB) *cgroups {
	t.Helper()
	c := &cgroups{run: rand.Text()}
	mounts, err := os.ReadFile("/proc/self/mounts")
	labtest.Must(t, err)
	c.hierarchies = parseHierarchies(mounts)
	if len(c.hierarchies) == 0 {
		t.Skip("kernel feature missing: cgroups of version 1, with which the nodes of these tests are made")
	}
	first := filepath.Join(c.hierarchies[0].dir, cgroupFolder)
	err = os.Mkdir(first, 0o755)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		t.Skip("kernel feature missing: cgroups that this user may make: " + err.Error())
	}
	if !errors.Is(err, fs.ErrExist) {
		labtest.Must(t, err)
	}
	// Nobody makes or removes the cgroups of a run meanwhile.
	guard, err := lock(first, unix.LOCK_EX)
	labtest.Must(t, err)
	defer guard.Close()
	labtest.Must(t, c.sweep(first))
	labtest.Must(t, os.Mkdir(filepath.Join(first, c.run), 0o755))
	c.lock, err = lock(filepath.Join(first, c.run), unix.LOCK_EX)
	labtest.Must(t, err)
	t.Cleanup(func() {
		if err := errors.Join(c.removeRun(c.run), c.lock.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// parseHierarchies reads which hierarchies of cgroups are mounted.
func parseHierarchies(mounts []byte) []hierarchy {
	var found []hierarchy
	for line := range bytes.Lines(mounts) {
		f := strings.Fields(string(line))
		if len(f) < 4 || f[2] != "cgroup" || slices.ContainsFunc(found, func(h hierarchy) bool { return h.dir == f[1] }) {
			continue
		}
		common := []string{"rw", "ro", "nosuid", "nodev", "noexec", "noatime", "relatime", "seclabel", "xattr", "clone_children"}
		options := slices.DeleteFunc(strings.Split(f[3], ","), func(o string) bool {
			return slices.Contains(common, o) || strings.HasPrefix(o, "release_agent=")
		})
		found = append(found, hierarchy{dir: f[1], options: strings.Join(options, ",")})
	}
	return found
}

// lock opens a directory and locks it, until it is closed or its process ends.
func lock(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// sweep removes the cgroups of runs that live no more. Their processes died with them.
func (c *cgroups) sweep(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		held, err := lock(filepath.Join(folder, e.Name()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(c.removeRun(e.Name()), held.Close()); err != nil {
			return err
		}
	}
	return nil
}

// removeRun removes the cgroups of a run: in the first hierarchy, where it is locked, at last.
func (c *cgroups) removeRun(run string) error {
	var failed []error
	for _, h := range slices.Backward(c.hierarchies) {
		failed = append(failed, removeCgroups(filepath.Join(h.dir, cgroupFolder, run)))
	}
	return errors.Join(failed...)
}

// add makes the cgroups of a node and returns their directories, one a hierarchy.
func (c *cgroups) add(node string) ([]string, error) {
	var dirs []string
	for _, h := range c.hierarchies {
		dir := h.dir
		for _, name := range []string{cgroupFolder, c.run, node} {
			dir = filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			if err := inheritCPUs(dir); err != nil {
				return nil, err
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// inheritCPUs fills in what a new cgroup of the hierarchy cpuset lacks before a process may enter it.
func inheritCPUs(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		above, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), above, 0); err != nil { //nolint:gosec // below the mounted hierarchies
			return err
		}
	}
	return nil
}

// goneAtMost is how long the kernel may take to end processes that were killed.
const goneAtMost = 30 * time.Second

// removeCgroups removes a cgroup and those below it, once no process is in them any more.
func removeCgroups(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		err := unix.Rmdir(dir)
		for start := time.Now(); errors.Is(err, unix.EBUSY) && time.Since(start) < goneAtMost; err = unix.Rmdir(dir) {
			time.Sleep(pollInterval)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing the cgroup %s: %w", dir, err)
		}
	}
	return nil
}
