package lastgood

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/skew"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

type entry struct {
	key   datastore.Key
	value string
}

func open(dir, version string) (*Saver, []entry, bool, error) {
	return Open(Options{Dir: dir, Name: "test.db", Version: version, Log: slog.New(slog.DiscardHandler)},
		func(k datastore.Key, b []byte) (entry, error) { return entry{k, string(b)}, nil })
}

// keep writes a state as a version of the program does.
func keep(t *testing.T, dir, version string, all map[datastore.Key][]byte) {
	t.Helper()
	s, _, _, err := open(dir, version)
	if err != nil {
		t.Fatal(err)
	}
	s.Add(maps.All(all), maps.All(all))
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it saves what is left
	s.Run(ctx)
	if err := errors.Join(s.Failure(), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestStateSurvives(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	key := datastore.Key{Kind: "IPPool", Name: "a/b"}
	keep(t, dir, "1.2.0", map[datastore.Key][]byte{key: []byte("x")})
	s, got, ok, err := open(dir, "1.3.0")
	if err != nil || !ok || len(got) != 1 || got[0] != (entry{key, "x"}) {
		t.Fatalf("%v %v %v", got, ok, err)
	}
	if _, _, _, err := open(dir, "1.3.0"); !errors.Is(err, ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestVersionsTooFarApart: a program that does not know the state must not guess, and must not lose it.
func TestVersionsTooFarApart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	keep(t, dir, "1.5.0", map[datastore.Key][]byte{{Kind: "IPPool", Name: "a"}: []byte("x")})
	for _, version := range []string{"1.3.9", "1.7.0", "2.5.0"} {
		_, _, _, err := open(dir, version)
		var far *skew.Error
		if !errors.As(err, &far) || far.Theirs != "1.5.0" || far.Mine != version {
			t.Errorf("version %s: %v", version, err)
		}
	}
	if s, got, ok, err := open(dir, "1.4.0"); err != nil || !ok || len(got) != 1 {
		t.Errorf("afterwards: %v %v %v", got, ok, err)
	} else if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestAFailedSaveKeepsTheNewer: what comes while a save fails must not be overwritten by what failed.
func TestAFailedSaveKeepsTheNewer(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	key, bad := datastore.Key{Kind: "IPPool", Name: "a"}, datastore.Key{Kind: "IPPool", Name: strings.Repeat("x", bbolt.MaxKeySize)}
	keep(t, dir, "1.0.0", map[datastore.Key][]byte{key: []byte("first")})
	s, _, _, err := open(dir, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	add := func(changes map[datastore.Key][]byte) { s.Add(maps.All(changes), maps.All(changes)) }
	add(map[datastore.Key][]byte{key: []byte("older"), bad: []byte("the file refuses this key")})
	before, err := s.db.Begin(true) // holds the save up
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.save() }()
	for s.waiting() {
		runtime.Gosched()
	}
	add(map[datastore.Key][]byte{key: []byte("newer")})
	if err := before.Rollback(); err != nil {
		t.Fatal(err)
	}
	<-done
	if s.Failure() == nil {
		t.Fatal("nothing failed")
	}
	add(map[datastore.Key][]byte{bad: nil})
	s.save()
	if err := errors.Join(s.Failure(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, got, _, err := open(dir, "1.0.0"); err != nil || len(got) != 1 || got[0].value != "newer" {
		t.Errorf("kept %v, %v", got, err)
	}
}

// TestDamagedFilesDoNotPileUp: each start on a disk that spoils files would leave one more.
func TestDamagedFilesDoNotPileUp(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	for range 3 {
		keep(t, dir, "1.0.0", map[datastore.Key][]byte{{Kind: "IPPool", Name: "a"}: []byte("x")})
		if err := os.WriteFile(filepath.Join(dir, "test.db"), []byte("spoilt"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, _, ok, err := open(dir, "1.0.0")
	if err != nil || ok || !s.Lost() {
		t.Fatalf("ok %v, lost %v, %v", ok, s.Lost(), err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if found, err := os.ReadDir(dir); err != nil || len(found) != 2 {
		t.Errorf("the state directory has %v, %v", found, err)
	}
}

// TestLostUntilSaved: the damaged file is kept for people to look at, and says no more once a good state was saved.
func TestLostUntilSaved(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	all := map[datastore.Key][]byte{{Kind: "IPPool", Name: "a"}: []byte("x")}
	lost := func(when string, want bool) *Saver {
		t.Helper()
		s, _, _, err := open(dir, "1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		if s.Lost() != want {
			t.Errorf("%s: lost %v", when, !want)
		}
		return s
	}
	keep(t, dir, "1.0.0", all)
	if err := os.WriteFile(filepath.Join(dir, "test.db"), []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := lost("damaged", true)
	s.Add(maps.All(all), maps.All(all))
	s.save()
	if s.Lost() {
		t.Error("lost after a state was saved")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := lost("opened again", false).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "test.db")); err != nil {
		t.Fatal(err)
	}
	lost("the good one was removed", true)
}

// TestAFileWithoutContent: a loss of power may leave one. It must not pass for the state of a node without pools.
func TestAFileWithoutContent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	keep(t, dir, "1.0.0", map[datastore.Key][]byte{{Kind: "IPPool", Name: "a"}: []byte("x")})
	if err := os.Truncate(filepath.Join(dir, "test.db"), 0); err != nil {
		t.Fatal(err)
	}
	s, _, ok, err := open(dir, "1.0.0")
	if err != nil || ok || !s.Lost() {
		t.Fatalf("ok %v, lost %v, %v", ok, s.Lost(), err)
	}
	t.Cleanup(func() { _ = s.Close() })
}

func TestMain(m *testing.M) { labtest.Main(m) } // which may mount

// TestFullDisk makes the file on a disk that is full: nothing of it is left that would be taken for a damaged one.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	dir := t.TempDir()
	labtest.Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	o := Options{Dir: dir, Name: "test.db", Version: "1.0.0", Log: slog.New(slog.DiscardHandler)}
	if _, err := o.open(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v, want %v", err, unix.ENOSPC)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	db, err := o.open()
	if err != nil {
		t.Fatal("once the disk has room:", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestPeekChangesNothing looks at a state that is there, in use, damaged or missing.
func TestPeekChangesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	peek := func() (bool, int, bool, error) {
		s, got, ok, err := Peek(Options{Dir: dir, Name: "test.db", Version: "1.0.0"}, func(k datastore.Key, b []byte) (entry, error) { return entry{k, string(b)}, nil })
		return ok, len(got), err == nil && s.Lost(), err
	}
	if ok, _, lost, err := peek(); ok || lost || err != nil {
		t.Errorf("without a state: %v, lost %v, %v", ok, lost, err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it made the directory")
	}
	keep(t, dir, "1.0.0", map[datastore.Key][]byte{{Kind: "IPPool", Name: "a"}: []byte("x")})
	if ok, n, lost, err := peek(); !ok || n != 1 || lost || err != nil {
		t.Errorf("a state: %v, %d, lost %v, %v", ok, n, lost, err)
	}
	s, _, _, err := open(dir, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := peek(); !errors.Is(err, ErrLocked) {
		t.Errorf("in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "test.db"), []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, _, lost, err := peek(); ok || !lost || err != nil {
		t.Errorf("damaged: %v, lost %v, %v", ok, lost, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "test.db")); err != nil || string(b) != "spoilt" {
		t.Errorf("it changed the file: %q, %v", b, err)
	}
}
