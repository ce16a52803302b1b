package manifest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBeingWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	must(t, err)
	r, err := os.Open(path)
	must(t, err)
	defer r.Close()
	if !beingWritten(int(r.Fd())) {
		t.Error("a file that is open for writing counts as complete")
	}
	must(t, f.Close())
	if beingWritten(int(r.Fd())) {
		t.Error("a closed file counts as being written")
	}
}
