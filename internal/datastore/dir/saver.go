package dir

import (
	"context"
	"errors"
	"log/slog"
	"maps"
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
	err     error

	// The rest belongs to run's goroutine while that lasts.
	db   *bbolt.DB // nil: it could not be opened
	anew bool      // what the file holds was never loaded, so that differences to it are not known
}

func newSaver(stateDir string, db *bbolt.DB, loaded bool, err error, log *slog.Logger) *saver {
	return &saver{stateDir: stateDir, log: log, db: db, anew: !loaded, err: err, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
}

// add hands over changes; an empty list says that the state is good as it is. They are written once run is
// woken.
func (s *saver) add(changes []change) {
	s.mu.Lock()
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
	batch := s.pending
	s.pending = nil
	s.mu.Unlock()
	if batch == nil {
		return
	}
	err := s.write(batch)
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

// write opens the file where that failed before, and saves.
func (s *saver) write(batch map[Key]*record) error {
	if s.db == nil {
		db, err := openDB(s.stateDir)
		if err != nil {
			return err
		}
		s.db = db
	}
	err := saveDB(s.db, batch, s.anew)
	s.anew = s.anew && err != nil
	return err
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
