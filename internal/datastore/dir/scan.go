package dir

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// racyFor is how long after a change of a file a second one may leave the same time stamp: a few ticks of the
// kernel's coarse clock.
const racyFor = 50 * time.Millisecond

// largeFile is the size in bytes from which what reading a file took is given back to the system.
const largeFile = 4 << 20

// decodedAtOnce bounds, in bytes, the files that are read at the same time; one that is larger is read alone. A document may
// take 300 times its length in memory, and a node may have many cores. Files as people write them are small, and do not wait.
const decodedAtOnce = manifest.MaxDocumentSize

// scan finds the directory anew and marks every file that is not as it was.
func (s *Store) scan(now time.Time) {
	w := s.watcher
	s.scanned, s.identified, w.rescan = now, now, false
	before, was := s.rootFault, s.root
	s.rootFault = nil
	err := w.open()
	var names []string
	if err == nil {
		names, s.root, err = manifest.List(s.path)
	}
	if err == nil {
		s.empty = len(names) == 0
		s.rootFault = s.missing()
	} else {
		s.rootFault = &model.Fault{File: s.path, Message: "the directory of manifests " + manifest.Explain(s.path, err)}
	}
	if (before == nil) != (s.rootFault == nil) || (before != nil && *before != *s.rootFault) || s.root != was {
		s.stale = true
	}
	if s.rootFault != nil {
		return // what was read of it stands until it is back
	}
	if before != nil || s.root != was { // also at the first look
		s.goneSince = now
	}
	if now.Sub(s.vanished) >= removeSettle {
		s.vanished = time.Time{}
	}
	for name := range s.index.files {
		if _, there := slices.BinarySearch(names, name); !there {
			w.due[name] = false
		}
	}
	for _, name := range names {
		if w.writing[name] == nil && s.differs(name) {
			w.due[name] = false
		}
	}
}

// differs says whether a file may hold something else than what was read of it.
func (s *Store) differs(name string) bool {
	f := s.index.files[name]
	if _, gone := s.index.gone[name]; f == nil || f.racy || gone || s.watcher.places[name] != nil {
		return true
	}
	id, err := manifest.Stat(filepath.Join(s.path, name))
	return err != nil || id != f.id
}

// read looks at files. Many are read, parsed and validated on all cores.
func (s *Store) read(due map[string]bool, now time.Time) {
	if len(due) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(due))
	for _, name := range names {
		s.watcher.link(name)
	}
	files, errs := make([]*file, len(names)), make([]error, len(names))
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; int(i) < len(names); i = next.Add(1) - 1 {
			files[i], errs[i] = s.readFile(names[i], due[names[i]])
		}
	}
	var helpers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(names)) - 1 {
		helpers.Go(work)
	}
	work()
	helpers.Wait()
	for i, name := range names {
		s.large = s.large || files[i] != nil && files[i].id.Size() > largeFile
		if errors.Is(errs[i], manifest.ErrBusy) {
			s.watcher.hold(name, now)
			continue
		}
		if s.watcher.settled(name); files[i] != nil {
			s.put(name, files[i])
		} else {
			s.leave(name, now)
		}
	}
}

// put notes what a file holds.
func (s *Store) put(name string, f *file) {
	old := s.index.files[name]
	s.index.set(name, f)
	if len(f.faults) > 0 || (old != nil && len(old.faults) > 0) || len(s.index.twice) > 0 || len(s.reported) > 0 {
		s.stale = true
	}
}

// readFile reads, parses and validates one file; nil if there is none. It only reads the Store.
func (s *Store) readFile(name string, insist bool) (*file, error) {
	path := filepath.Join(s.path, name)
	defer s.turn(path)()
	began := time.Now()
	data, id, err := manifest.ReadFile(path, insist)
	switch {
	case errors.Is(err, manifest.ErrBusy):
		return nil, err
	case errors.Is(err, fs.ErrNotExist) && !manifest.IsLink(path):
		return nil, nil
	case err != nil:
		return &file{id: id, racy: true, faults: []model.Fault{{File: path, Message: manifest.Explain(path, err)}}}, nil
	}
	var known manifest.Known
	if old := s.index.files[name]; old != nil {
		known = old.known
	}
	p := manifest.Check(path, data, known, s.validator, s.inForce)
	f := &file{id: id, known: p.Known(), racy: id.Changed(began) < racyFor, objects: make([]*object, 0, len(p.Objects))}
	for i := range p.Objects {
		f.objects = append(f.objects, s.object(p, &p.Objects[i]))
	}
	f.faults = p.Faults
	return f, nil
}

// turn waits until a file may be read beside those that are being read.
func (s *Store) turn(path string) (done func()) {
	var weight int64
	if id, err := manifest.Stat(path); err == nil {
		weight = min(id.Size(), decodedAtOnce)
	}
	_ = s.decoding.Acquire(context.Background(), weight) // without an end, since the others come to theirs
	return func() { s.decoding.Release(weight) }
}

// inForce is the object of a key that is in force, or nil.
func (s *Store) inForce(k Key) *Object {
	if r := s.tables.find(k); r != nil {
		return &r.Object
	}
	return nil
}

// object is what is kept of an object of a file. It shares what is in force and says the same; one that is faulty has
// no value.
func (s *Store) object(p *manifest.File, d *manifest.Declared) *object {
	o := &object{Object: d.Object}
	if r := s.tables.find(d.Key); r != nil && bytes.Equal(r.JSON, d.JSON) {
		o.JSON, o.value = r.JSON, r.value
	} else if !d.Faulty {
		good, err := convert(d.Object)
		if err == nil {
			return good
		}
		p.Blame(d, err.Error())
	}
	return o
}

// leave notes that a file is not there. It stands until the directory is quiet, since editors, git and
// ConfigMap updates take files away and put them back.
func (s *Store) leave(name string, now time.Time) {
	if s.index.files[name] == nil {
		if !s.begun || s.keeping { // it may declare what is in force, and come back
			s.vanished = now
		}
		return
	}
	if len(s.index.gone) == 0 {
		s.goneSince = now
	}
	s.index.leave(name)
	s.stale = s.stale || len(s.reported) > 0
}

// expiry is when the files that are gone, and the saved records that no file declares, count as removed; zero: there
// are none.
func (s *Store) expiry() time.Time {
	if len(s.index.gone) == 0 && !s.keeping || s.rootFault != nil || s.lack != nil || !s.begun || !s.vanished.IsZero() {
		return time.Time{}
	}
	since := s.goneSince
	if s.watcher.last.After(since) {
		since = s.watcher.last
	}
	quiet, limit := since.Add(removeSettle), s.goneSince.Add(removeLimit)
	if at := s.watcher.wake(); !at.IsZero() { // a file is being written: what is gone may come back, there or elsewhere
		limit = s.goneSince.Add(writeLimit)
		if at.After(quiet) {
			quiet = at
		}
	}
	if limit.Before(quiet) {
		return limit
	}
	return quiet
}

// moving says whether an object of a file that is gone stands in one that is being written: what was read of that
// one is out of date, and must not take the object's place.
func (s *Store) moving() bool {
	if len(s.watcher.writing) == 0 {
		return false
	}
	for name := range s.index.gone {
		for _, o := range s.index.files[name].objects {
			for _, r := range s.index.live(o.Key) {
				if s.watcher.writing[r.file] != nil {
					return true
				}
			}
		}
	}
	return false
}

// expired says whether it is time to remove what is gone.
func (s *Store) expired(now time.Time) bool {
	at := s.expiry()
	return !at.IsZero() && !now.Before(at)
}

// expire removes the files that are gone for good.
func (s *Store) expire(now time.Time) {
	if !s.expired(now) {
		return
	}
	if s.swapped(now) { // the files may stand where they stood, hidden by a mount
		s.watcher.rescan = true
		return
	}
	if s.keeping { // a file of which nothing was read yet may be back without an event
		s.scan(now)
		s.read(s.watcher.ready(now), now)
		if !s.expired(now) {
			return
		}
		s.keeping = false
	}
	for name := range s.index.gone {
		s.index.set(name, nil)
	}
	s.stale = s.stale || len(s.reported) > 0
}
