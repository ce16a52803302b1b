package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
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

// TestPipesAreRead reads from a FIFO, and from a pipe by the name that a shell gives it for <(command).
func TestPipesAreRead(t *testing.T) {
	t.Parallel()
	const text = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/8}\n"
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	go func() {
		if err := os.WriteFile(fifo, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	_, err = w.WriteString(text)
	must(t, errors.Join(err, w.Close()))
	for _, path := range []string{fifo, fmt.Sprintf("/dev/fd/%d", r.Fd())} {
		m, err := Read([]string{path}, nil, nil)
		must(t, err)
		if o := m.Objects(); len(o) != 1 || o[0].Name != "p" || o[0].File != path {
			t.Errorf("%s holds %+v, %v", path, o, m.Unreadable())
		}
	}
}

// TestAPipeInADirectory must not be waited for.
func TestAPipeInADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo.yaml"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("kind: Pod\n"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700))
	docs, faults, err := ReadDocuments([]string{dir}, nil)
	if err != nil || len(docs) != 1 || len(faults) != 2 {
		t.Fatalf("%v, %v, %v", docs, faults, err)
	}
	if got, want := faults[0].String(), filepath.Join(dir, "fifo.yaml")+": is no regular file"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
