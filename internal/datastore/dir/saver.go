package dir

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// saveRetry is how long after a failure the next attempt is made.
const saveRetry = 5 * time.Second

// saver keeps the last good state, apart from the path on which a change reaches the kernel. It writes
// differences, one transaction for all that gathered while the one before ran.
type saver struct {
	stateDir string
	log      *slog.Logger
	wake     chan struct{} // there is something to save
	changed  chan struct{} // err changed

	mu      sync.Mutex
	pending map[Key]*record // what is to be saved; nil values are deletions
	all     []*record       // everything in force, pending included
	err     error

	// The rest belongs to run's goroutine while that lasts.
	db    *bbolt.DB // nil: it could not be opened
	file  os.FileInfo
	known bool // what the file holds is what was in force before the pending changes
}

func newSaver(stateDir string, db *bbolt.DB, loaded bool, err error, log *slog.Logger) *saver {
	s := &saver{stateDir: stateDir, log: log, err: err, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	if db != nil {
		s.hold(db, loaded)
	}
	return s
}

// hold takes an open file, and notes which one it is.
func (s *saver) hold(db *bbolt.DB, known bool) {
	s.db, s.known = db, known
	s.file, _ = os.Stat(db.Path()) // one that is gone by now is replaced with the first change
}

// add hands over changes, with everything that is in force after them; an empty list says that the state is good
// as it is. They are written once run is woken.
func (s *saver) add(changes []change, all []*record) {
	s.mu.Lock()
	s.all = all
	if s.pending == nil {
		s.pending = map[Key]*record{}
	}
	for _, c := range changes {
		s.pending[c.key] = c.record
	}
	s.mu.Unlock()
}

// failure is why the last attempt failed, or nil.
func (s *saver) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// run saves until the context ends, and then what is left.
func (s *saver) run(ctx context.Context) {
	for {
		var retry <-chan time.Time
		if s.failure() != nil && s.waiting() {
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

func (s *saver) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending != nil
}

// save writes what is pending; after a failure that stays so.
func (s *saver) save() {
	s.mu.Lock()
	batch, all := s.pending, s.all
	s.pending = nil
	s.mu.Unlock()
	if batch == nil {
		return
	}
	err := s.write(batch, all)
	s.mu.Lock()
	before := s.err
	s.err = err
	if err != nil { // what came meanwhile is newer
		maps.Copy(batch, s.pending)
		s.pending = batch
	}
	s.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		s.log.Error("the last good state of the resources cannot be saved; it will be tried again", "state-dir", s.stateDir, "error", err)
	case err == nil && before != nil:
		s.log.Info("the last good state of the resources is saved again", "state-dir", s.stateDir)
	}
	if (err == nil) != (before == nil) || (err != nil && err.Error() != before.Error()) {
		signal(s.changed)
	}
}

// write opens the file where that failed before, or where it is another one by now, and saves the changes: to a
// file that holds who knows what, everything.
func (s *saver) write(batch map[Key]*record, all []*record) error {
	if s.db != nil && s.replaced() {
		s.log.Warn("the file of the last good state was removed or replaced; it is written anew", "file", s.db.Path())
		if err := s.close(); err != nil {
			return err
		}
	}
	if s.db == nil {
		db, err := openDB(s.stateDir)
		if err != nil {
			return err
		}
		s.hold(db, false)
	}
	if !s.known {
		batch = make(map[Key]*record, len(all))
		for _, r := range all {
			batch[r.Key] = r
		}
	}
	err := saveDB(s.db, batch, !s.known)
	s.known = s.known || err == nil
	return err
}

// replaced says whether another file, or none, stands where the open one did.
func (s *saver) replaced() bool {
	now, err := os.Stat(s.db.Path())
	return err != nil || !os.SameFile(now, s.file)
}

// close lets go of the file. It must not be called while run lasts.
func (s *saver) close() error {
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

// signal wakes whoever waits on a channel of length one, without waiting itself.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
