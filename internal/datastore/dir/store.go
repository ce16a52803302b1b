package dir

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/lastgood"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// How often the directory is looked over without any event: for file systems that report none (some network
// and FUSE ones), and where inotify is not to be had at all.
const (
	rescanPeriod = time.Minute
	pollPeriod   = 2 * time.Second
)

// What every store has, by the names that it has here.
type (
	// Key names an object.
	Key = datastore.Key
	// Object is one object as a manifest declares it.
	Object = datastore.Object
	// State is what a Store holds at one moment.
	State = datastore.State
)

// Options say what a Store reads and where it keeps its last good state. All but PasswordDir are required.
type Options struct {
	Dir       string // of manifests; it may be missing, which is a fault until it appears
	StateDir  string // made where it is missing
	Version   string // of this program
	Boot      string // of this machine, as the kernel names it
	Log       *slog.Logger
	Validator manifest.Validator
	// Translates says whether the kernel, as an earlier agent has left it, translates anything. It is asked where no state
	// was saved and the directory is empty. An error counts as yes. Nil: the kernel translates nothing.
	Translates func() (bool, error)
	// PasswordDir has the files that Password reads.
	PasswordDir string
}

// Store reads and watches a directory of manifests. Its fields belong to the goroutine of Run.
type Store struct {
	path       string
	log        *slog.Logger
	validator  manifest.Validator
	translates func() (bool, error) // see Options
	stateDir   string
	boot       string

	passwordDir string // never changed

	saver    *lastgood.Saver
	watcher  *watcher
	index    *index
	asks     chan ask
	decoding *semaphore.Weighted // bytes of files; see decodedAtOnce

	tables    tables // in force
	version   uint64 // of tables; 0: there is no good state
	rank      uint64 // the highest that was given
	rootFault *model.Fault
	lack      *model.Fault         // objects in force are absent from the directory, which is another one; see origin.go
	root      manifest.DirIdentity // the directory that was looked over last
	empty     bool                 // it had no manifest
	origin    origin               // the one from which the state in force was read; see origin.go
	goneSince time.Time            // when the first of the files that are gone went, or the directory was found
	vanished  time.Time            // when a file that was listed was not there to be read, at the start; zero: never
	scanned   time.Time            // when everything was looked over last

	identified time.Time // when the path was last seen to lead to root
	begun      bool      // every file was read once
	keeping    bool      // the saved records that no file declares stand: their files may be on their way back
	stale      bool      // what was published is not what holds now
	large      bool      // a large file was read
	reported   map[model.Fault]bool
	warned     []model.Fault
	pending    []string
}

// Saved says whether a state directory holds what an earlier Store has saved, whether or not that can be read.
func Saved(stateDir string) bool {
	_, err := os.Stat(filepath.Join(stateDir, dbName))
	return err == nil
}

// Open loads the last good state. It reads no manifest yet. It fails as lastgood.Open does; that nothing can be
// saved there is a warning in every State instead.
func Open(o Options) (*Store, error) {
	return open(o, lastgood.Open)
}

// opener loads a last good state.
type opener func(lastgood.Options, func(Key, []byte) (*record, error)) (*lastgood.Saver, []*record, bool, error)

func open(o Options, load opener) (*Store, error) {
	path, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("finding the directory of manifests: %w", err)
	}
	saver, records, ok, err := load(lastgood.Options{Dir: o.StateDir, Name: dbName, Version: o.Version, Log: o.Log}, decodeRecord)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, log: o.Log, validator: o.Validator, translates: o.Translates, index: newIndex(), asks: make(chan ask), decoding: semaphore.NewWeighted(decodedAtOnce),
		stateDir: o.StateDir, passwordDir: o.PasswordDir, boot: o.Boot, saver: saver, origin: decodeOrigin(saver.Note()), reported: map[model.Fault]bool{}}
	if ok {
		s.adopt(records)
	}
	return s, nil
}

// adopt makes the saved records the state in force.
func (s *Store) adopt(records []*record) {
	changes := make([]change, len(records))
	for i, r := range records {
		changes[i] = change{r.Key, r}
		s.rank = max(s.rank, r.rank)
		s.index.dirty[r.Key] = struct{}{} // until a file declares it
	}
	s.tables, _ = s.tables.with(changes)
	s.version, s.keeping = 1, true
}

// Close lets go of the state directory. Call it after Run has returned.
func (s *Store) Close() error { return s.saver.Close() }

// Run reads the directory, publishes the first State, and from then on one for every change, until the
// context ends. It calls publish from one goroutine at a time; publish should return at once. It can be called
// once.
func (s *Store) Run(ctx context.Context, publish func(State)) error {
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	background.Go(func() { s.saver.Run(ctx) })

	note, err := newNotifier()
	if err != nil {
		s.log.Warn("changes of manifests are noticed late", "dir", s.path, "error", err)
	}
	queue := newEventQueue()
	if note != nil {
		background.Go(func() { queue.fill(note) })
		defer note.close()
	}
	s.watcher = newWatcher(s.path, note)
	s.watcher.reopen, s.watcher.err, s.stale = true, err, true
	var asked ask
	for {
		s.step(time.Now(), publish)
		if s.large {
			s.large = false
			debug.FreeOSMemory()
		}
		if asked.do != nil {
			asked.do()
			s.step(time.Now(), publish)
			close(asked.done)
			asked = ask{}
		}
		timer := time.NewTimer(time.Until(s.wake()))
		select {
		case <-ctx.Done():
		case <-queue.ready:
		case <-s.saver.Changed:
		case asked = <-s.asks:
			s.watcher.rescan = true
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
		s.watcher.take(queue.drain(), time.Now())
	}
}

// Contact names the directory.
func (s *Store) Contact() datastore.Contact { return datastore.Contact{Where: s.path} }

// Look has Run look the directory over, and returns when what it found is published: what was changed before the
// call is then in force, faulty or pending. The error is that of the context.
func (s *Store) Look(ctx context.Context) error { return s.ask(ctx, func() {}) }

// ask is something to be done by Run's goroutine once it has looked the directory over.
type ask struct {
	do   func()
	done chan struct{} // closed when it is done, and its effect published
}

// ask has Run look the directory over, and then do something. The error is that of the context: then it may still be done,
// at any time.
func (s *Store) ask(ctx context.Context, do func()) error {
	a := ask{do, make(chan struct{})}
	select {
	case s.asks <- a:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// step does what is due: looks at files, puts a good state in force, publishes.
func (s *Store) step(now time.Time, publish func(State)) {
	w := s.watcher
	filled := s.rootFault != nil && len(w.due) > 0 // what was empty may have a manifest now
	back := !s.vanished.IsZero() && now.Sub(s.vanished) >= removeSettle
	if w.reopen || w.rescan || filled || back || now.Sub(s.scanned) >= s.period() || now.Sub(s.identified) >= identityPeriod && s.swapped(now) {
		s.scan(now)
	}
	s.read(w.ready(now), now)
	// At the start, a file that is being written or replaced was never read: what it declares must not count as removed.
	s.begun = s.begun || s.rootFault == nil && len(w.writing) == 0 && s.vanished.IsZero()
	s.weigh(now)
	s.expire(now)
	if s.begun && s.rootFault == nil && len(s.index.faulty) == 0 && len(s.index.twice) == 0 && !s.moving() && len(s.absent()) == 0 {
		s.advance()
		if !s.keeping {
			s.settle()
		}
	}
	s.tell(publish)
}

// tell publishes how things stand, if that is news, and has a good state saved.
func (s *Store) tell(publish func(State)) {
	warnings, pending := s.warnings(), s.unsettled()
	if !s.stale && slices.Equal(warnings, s.warned) && slices.Equal(pending, s.pending) {
		return
	}
	s.stale, s.warned, s.pending = false, warnings, pending
	state := State{Dir: s.root, Snapshot: s.tables.snapshot, Version: s.version, Conditions: s.tables.conditions, Faults: s.faults(), Warnings: warnings, Pending: pending}
	if s.version > 0 {
		t := s.tables
		state.Holder = &t
	}
	s.report(state.Faults)
	publish(state)
	if s.version > 0 && len(state.Faults) == 0 {
		s.saver.Wake()
	}
}

func (s *Store) period() time.Duration {
	if s.watcher.note == nil || s.watcher.err != nil || s.rootFault != nil || s.lack != nil { // what ends a fault may come without an event
		return pollPeriod
	}
	return rescanPeriod
}

// wake is when step has something to do without any event.
func (s *Store) wake() time.Time {
	at := s.scanned.Add(s.period())
	var back time.Time
	if !s.vanished.IsZero() {
		back = s.vanished.Add(removeSettle)
	}
	for _, t := range []time.Time{s.identified.Add(identityPeriod), s.watcher.wake(), s.expiry(), back} {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	return at
}

// faults is everything that keeps the directory from being in force.
func (s *Store) faults() []model.Fault {
	out := s.index.faults()
	for _, f := range []*model.Fault{s.lack, s.rootFault} {
		if f != nil {
			out = append([]model.Fault{*f}, out...)
		}
	}
	return out
}

// unsettled is the files whose change is not in force yet; the directory stands for files that are not known by name.
func (s *Store) unsettled() []string {
	names := slices.Collect(maps.Keys(s.watcher.writing))
	if s.lack == nil { // which says of them what there is to say
		names = slices.AppendSeq(names, maps.Keys(s.index.gone))
		if s.rootFault == nil && (s.keeping || !s.vanished.IsZero()) {
			names = append(names, s.path)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *Store) warnings() []model.Fault {
	var out []model.Fault
	if err := s.saver.Failure(); err != nil {
		out = append(out, model.Fault{File: s.stateDir,
			Message: fmt.Sprintf("the last good state cannot be saved, so that a restart while a manifest is faulty would find none: %v", err)})
	}
	if err := s.watcher.err; err != nil {
		out = append(out, model.Fault{File: s.path, Message: fmt.Sprintf("changes are noticed only every %s: %v", pollPeriod, err)})
	}
	return out
}

// faultsLogged bounds the log lines about one change: a directory may hold thousands of faults of one cause.
const faultsLogged = 10

// report logs the faults that are new and that the last one is mended.
func (s *Store) report(faults []model.Fault) {
	now := make(map[model.Fault]bool, len(faults))
	fresh := 0
	for _, f := range faults {
		if !s.reported[f] && !now[f] {
			fresh++
		}
		if now[f] = true; !s.reported[f] && fresh <= faultsLogged {
			s.log.Error("a fault in the manifests; the last good state stays in force", "file", f.File, "line", f.Line,
				"kind", f.Kind, "name", f.Name, "field", f.Field, "fault", f.Message)
		}
	}
	if more := fresh - faultsLogged; more > 0 {
		s.log.Error("there are more faults in the manifests; sallyport status lists them", "more", more)
	}
	if len(now) == 0 && len(s.reported) > 0 {
		s.log.Info("the manifests have no fault any more", "dir", s.path)
	}
	s.reported = now
}
