package nodes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestSweep: what a killed run has left goes with the next one, and a run that lives keeps what it has.
func TestSweep(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	alive := newCgroups(t)
	dirs, err := alive.add("n1")
	labtest.Must(t, err)
	killed := &cgroups{run: "killed-" + alive.run, hierarchies: alive.hierarchies}
	left, err := killed.add("n1")
	labtest.Must(t, err)
	labtest.Must(t, os.Mkdir(filepath.Join(left[0], "kubepods"), 0o755))

	newCgroups(t)
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("of a run that lives: %v", err)
		}
	}
	for _, dir := range left {
		if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of a run that was killed there is still %s (%v)", dir, err)
		}
	}
	held, err := lock(filepath.Join(alive.hierarchies[0].dir, cgroupFolder, alive.run), unix.LOCK_EX|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a run that lives can be locked by others: %v %v", held, err)
	}
}

// TestHierarchies reads the mounts of machines that differ.
func TestHierarchies(t *testing.T) {
	t.Parallel()
	got := parseHierarchies([]byte(`tmpfs /sys/fs/cgroup tmpfs ro,mode=755 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
`))
	want := []hierarchy{{"/sys/fs/cgroup/systemd", "name=systemd"}, {"/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"}}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("hierarchies %v, want %v", got, want)
	}
}
