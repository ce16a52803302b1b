package lastgood

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/waiting"
)

// Options say which file keeps a state. All are required.
type Options struct {
	Dir     string // made where it is missing
	Name    string // of the file in it
	Version string // of this program
	Log     *slog.Logger
}

// saveRetry is how long after a failure the next attempt is made.
const saveRetry = 5 * time.Second

// Saver keeps the last good state, apart from the path on which a change reaches the kernel. It writes
// differences, one transaction for all that gathered while the one before ran.
type Saver struct {
	opts Options
	wake chan struct{} // there is something to save
	// Changed has a token when what Failure says has changed.
	Changed chan struct{}

	mu      sync.Mutex
	pending map[datastore.Key][]byte         // what is to be saved; nil values are deletions
	all     iter.Seq2[datastore.Key, []byte] // everything in force, pending included
	note    []byte
	err     error
	lost    bool

	// The rest belongs to Run's goroutine while that lasts.
	db    *bbolt.DB // nil: it could not be opened
	file  os.FileInfo
	known bool // what the file holds is what was in force before the pending changes
}

// Open loads the last good state, each object by decode; ok is false where there is none. It fails where another
// process uses the directory (ErrLocked), and where a version of the program that is too far from this one wrote
// the state (skew.Error). That nothing can be saved is no error: Failure says so.
func Open[T any](o Options, decode func(datastore.Key, []byte) (T, error)) (s *Saver, records []T, ok bool, err error) {
	db, l, lost, err := load(&o, decode)
	if final(err) {
		return nil, nil, false, err
	}
	if err != nil {
		o.Log.Error("the last good state of the resources cannot be saved; it will be tried again", "state-dir", o.Dir, "error", err)
	}
	s = &Saver{opts: o, err: err, note: l.note, lost: lost, wake: make(chan struct{}, 1), Changed: make(chan struct{}, 1)}
	if db != nil {
		s.hold(db, l.ok)
	}
	return s, l.records, l.ok, nil
}

// Peek loads the last good state as Open does, and changes nothing. What it returns is not for Run.
func Peek[T any](o Options, decode func(datastore.Key, []byte) (T, error)) (s *Saver, records []T, ok bool, err error) {
	l, err := peek(&o, decode)
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, nil, false, fmt.Errorf("state directory %s: %w", o.Dir, ErrLocked)
	case final(err):
		return nil, nil, false, err
	}
	_, asideErr := os.Lstat(o.path() + damagedSuffix)
	lost := !l.ok && (asideErr == nil || err != nil && !errors.Is(err, fs.ErrNotExist))
	return &Saver{opts: o, err: err, note: l.note, lost: lost}, l.records, l.ok, nil
}

// hold takes an open file, and notes which one it is.
func (s *Saver) hold(db *bbolt.DB, known bool) {
	s.db, s.known = db, known
	s.file, _ = os.Stat(db.Path()) // one that is gone by now is replaced with the first change
}

// Add hands over changes, with everything that is in force after them, which must stay as it is; no change at all
// says that the state is good as it is. They are written once Wake is called.
func (s *Saver) Add(changes iter.Seq2[datastore.Key, []byte], all iter.Seq2[datastore.Key, []byte]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = all
	if s.pending == nil {
		s.pending = map[datastore.Key][]byte{}
	}
	maps.Insert(s.pending, changes)
}

// Note is what SetNote kept beside the state; nil: nothing.
func (s *Saver) Note() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.note
}

// SetNote keeps a few bytes of the user's with the state, in the transaction of the next Add.
func (s *Saver) SetNote(note []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note = note
}

// Lost says that a state was kept and could not be read, and that none was saved since: what is in force is not known.
// A damaged file that was set aside says so as long as no state is saved, also where that was removed since.
func (s *Saver) Lost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Wake has Run write what was added.
func (s *Saver) Wake() { waiting.Signal(s.wake) }

// Failure is why the last attempt failed, or nil.
func (s *Saver) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Run saves until the context ends, and then what is left.
func (s *Saver) Run(ctx context.Context) {
	for {
		var retry <-chan time.Time
		if s.Failure() != nil && s.waiting() {
			retry = time.After(saveRetry)
		}
		select {
		case <-ctx.Done():
			s.save()
			return
		case <-s.wake:
		case <-retry:
		}
		s.save()
	}
}

func (s *Saver) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending != nil
}

// save writes what is pending; after a failure that stays so.
func (s *Saver) save() {
	s.mu.Lock()
	batch, all, note := s.pending, s.all, s.note
	s.pending = nil
	s.mu.Unlock()
	if batch == nil {
		return
	}
	err := s.write(batch, all, note)
	s.mu.Lock()
	before := s.err
	s.err = err
	s.lost = s.lost && err != nil
	if err != nil { // what came meanwhile is newer
		maps.Copy(batch, s.pending)
		s.pending = batch
	}
	s.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		s.opts.Log.Error("the last good state of the resources cannot be saved; it will be tried again", "state-dir", s.opts.Dir, "error", err)
	case err == nil && before != nil:
		s.opts.Log.Info("the last good state of the resources is saved again", "state-dir", s.opts.Dir)
	}
	if (err == nil) != (before == nil) || (err != nil && err.Error() != before.Error()) {
		waiting.Signal(s.Changed)
	}
}

// write opens the file where that failed before, or where it is another one by now, and saves the changes: to a
// file that holds who knows what, everything.
func (s *Saver) write(batch map[datastore.Key][]byte, all iter.Seq2[datastore.Key, []byte], note []byte) error {
	if s.db != nil && s.replaced() {
		s.opts.Log.Warn("the file of the last good state was removed or replaced; it is written again", "file", s.db.Path())
		if err := s.Close(); err != nil {
			return err
		}
	}
	if s.db == nil {
		db, err := s.opts.open()
		if err != nil {
			return err
		}
		s.hold(db, false)
	}
	if !s.known {
		batch = maps.Collect(all)
	}
	err := save(s.db, s.opts.Version, note, batch, !s.known)
	s.known = s.known || err == nil
	return err
}

// replaced says whether another file, or none, stands where the open one did.
func (s *Saver) replaced() bool {
	now, err := os.Stat(s.db.Path())
	return err != nil || !os.SameFile(now, s.file)
}

// Close lets go of the file. It must not be called while Run lasts.
func (s *Saver) Close() error {
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	if err != nil {
		return errors.Join(errors.New("closing the state file"), err)
	}
	return nil
}
