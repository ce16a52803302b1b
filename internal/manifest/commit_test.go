package manifest

import (
	"path/filepath"
	"strings"
	"testing"
)

// An edit that was computed from what another process has replaced since must not be put in its place.
func TestAnEditOfWhatHasChangedIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.yaml")
	for _, mine := range []string{"# mine\n", ""} { // replaced, and removed
		write(t, path, "# read\n")
		was, err := Stat(path)
		must(t, err)
		write(t, path, "# another's, and longer\n")
		err = commit([]fileWrite{{path: path, data: []byte(mine), was: &was}})
		if err == nil || !strings.Contains(err.Error(), "try again") {
			t.Errorf("%q: %v", mine, err)
		}
		if got := contentsOf(t, filepath.Dir(path)); len(got) != 1 || got["a.yaml"] != "# another's, and longer\n" {
			t.Errorf("%q: the directory has %q", mine, got)
		}
	}
}
