package dir

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/manifest"
)

// How long the watcher waits where the kernel does not say that something is complete.
const (
	// writeSettle is how long after its last change a file that nobody closed is read.
	writeSettle = 500 * time.Millisecond
	// writeLimit is how long such a file is left unread while a process still has it open for writing.
	writeLimit = 10 * time.Second
	// removeSettle is how long the directory is quiet before files that are gone count as removed: editors
	// and git take a file away and put it back, and pools must not vanish in between.
	removeSettle = 200 * time.Millisecond
	// removeLimit bounds that while other changes go on.
	removeLimit = 2 * time.Second
)

// rootName stands for the directory itself among those that depend on places.
const rootName = ""

// watcher turns the kernel's events into files to look at. It belongs to one goroutine; time is handed in.
type watcher struct {
	path string    // of the directory, absolute
	note *notifier // nil: there is no inotify, the rescans must do

	dirs    map[string]int                // descriptors of the watched directories
	refs    map[string]int                // how many depend on a directory
	wds     map[int][]string              // paths by descriptor; nearly always one
	users   map[place]map[string]struct{} // who depends on a place: names of files, or rootName
	places  map[string][]place            // the places that a file or the root depends on
	rootDir string                        // where path leads; empty: nowhere

	due     map[string]bool     // files to read now; true: also while somebody has them open for writing
	writing map[string]*writing // files that somebody may be in the middle of writing
	rescan  bool                // events were lost: look at everything
	reopen  bool                // path may lead elsewhere now
	last    time.Time           // of the last event that mattered
	err     error               // why a directory is not watched; nil: all are
}

type writing struct{ first, last time.Time }

func newWatcher(path string, note *notifier) *watcher {
	return &watcher{path: path, note: note,
		dirs: map[string]int{}, refs: map[string]int{}, wds: map[int][]string{}, users: map[place]map[string]struct{}{}, places: map[string][]place{},
		due: map[string]bool{}, writing: map[string]*writing{}}
}

// open finds out where the directory is and watches it, and what leads there.
func (w *watcher) open() error {
	w.reopen, w.err = false, nil
	real, err := w.follow(rootName, w.path, watchNames)
	if real != w.rootDir {
		if real != "" {
			w.refs[real]++
		}
		if w.rootDir != "" {
			w.release(w.rootDir)
		}
		w.rootDir = real
	}
	if err != nil {
		return err
	}
	// Watched anew even where the path is the same: it may be another directory now.
	w.watch(real, watchContents)
	return nil
}

// follow resolves a path on behalf of a file or the root and watches the places on which it depends.
func (w *watcher) follow(user, path string, mask uint32) (string, error) {
	for try := 0; ; try++ {
		real, places, err := resolve(path)
		w.depend(user, places, mask)
		// What changed between looking and watching was not reported: look again.
		again, after, errAfter := resolve(path)
		if try == 3 || (again == real && slices.Equal(places, after) && (err == nil) == (errAfter == nil)) {
			return real, err
		}
	}
}

// depend replaces the places that a user depends on.
func (w *watcher) depend(user string, places []place, mask uint32) {
	old := w.places[user]
	for i, p := range places {
		w.watch(p.dir, mask) // also a known one: the path may lead to another directory now
		if slices.Contains(old, p) || slices.Contains(places[:i], p) {
			continue
		}
		if w.users[p] == nil {
			w.users[p] = map[string]struct{}{}
		}
		w.users[p][user] = struct{}{}
		w.refs[p.dir]++
	}
	for i, p := range old {
		if slices.Contains(places, p) || slices.Contains(old[:i], p) {
			continue
		}
		if delete(w.users[p], user); len(w.users[p]) == 0 {
			delete(w.users, p)
		}
		w.release(p.dir)
	}
	if w.places[user] = places; len(places) == 0 {
		delete(w.places, user)
	}
}

// watch asks for the events of a directory.
func (w *watcher) watch(dir string, mask uint32) {
	if w.note == nil {
		return
	}
	wd, err := w.note.add(dir, mask)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			w.err = err
		}
		return
	}
	if was, ok := w.dirs[dir]; ok && was != wd {
		w.forget(was, dir)
	}
	w.dirs[dir] = wd
	if !slices.Contains(w.wds[wd], dir) {
		w.wds[wd] = append(w.wds[wd], dir)
	}
}

// release gives up one dependency on a directory; with the last one, its watch ends.
func (w *watcher) release(dir string) {
	if w.refs[dir]--; w.refs[dir] > 0 {
		return
	}
	delete(w.refs, dir)
	if wd, ok := w.dirs[dir]; ok {
		w.forget(wd, dir)
		delete(w.dirs, dir)
	}
}

// forget takes a path from a descriptor, and ends the watch when it was the last.
func (w *watcher) forget(wd int, dir string) {
	w.wds[wd] = slices.DeleteFunc(w.wds[wd], func(d string) bool { return d == dir })
	if len(w.wds[wd]) == 0 {
		delete(w.wds, wd)
		w.note.remove(wd)
	}
}

// take notes what events say.
func (w *watcher) take(events []event, now time.Time) {
	for _, e := range events {
		if e.mask&unix.IN_Q_OVERFLOW != 0 {
			w.rescan, w.reopen, w.last = true, true, now
			continue
		}
		for _, dir := range slices.Clone(w.wds[e.wd]) {
			w.event(dir, e, now)
		}
		if e.mask&unix.IN_IGNORED != 0 { // the kernel ended the watch itself
			for _, dir := range w.wds[e.wd] {
				if w.dirs[dir] == e.wd {
					delete(w.dirs, dir)
				}
			}
			delete(w.wds, e.wd)
		}
	}
}

func (w *watcher) event(dir string, e event, now time.Time) {
	if e.mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0 {
		w.lost(dir, now)
		return
	}
	if dir == w.rootDir && manifest.IsManifest(e.name) {
		w.file(e.name, e, filepath.Join(dir, e.name), now)
	}
	for user := range w.users[place{dir, e.name}] {
		switch {
		case user != rootName:
			w.file(user, e, filepath.Join(dir, e.name), now)
		case e.mask&(unix.IN_MODIFY|unix.IN_CLOSE_WRITE) == 0:
			w.reopen, w.last = true, now
		}
	}
}

// lost notes that a watched directory was removed or moved: whoever depends on a place in it looks again.
func (w *watcher) lost(dir string, now time.Time) {
	w.last = now
	if dir == w.rootDir {
		w.reopen = true
	}
	for p, users := range w.users {
		if p.dir != dir {
			continue
		}
		for user := range users {
			if user == rootName {
				w.reopen = true
			} else {
				w.due[user] = false
			}
		}
	}
}

// file notes an event of a file: one that says that it is complete, or one after which more may come.
func (w *watcher) file(name string, e event, path string, now time.Time) {
	w.last = now
	switch {
	case e.mask&(unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_DELETE) != 0:
	case e.mask&unix.IN_CREATE != 0 && complete(path):
	case e.mask&unix.IN_ATTRIB != 0:
		if w.writing[name] != nil {
			return
		}
	default:
		if w.writing[name] == nil {
			w.writing[name] = &writing{first: now}
		}
		w.writing[name].last = now
		delete(w.due, name)
		return
	}
	delete(w.writing, name)
	w.due[name] = false
}

// complete says whether a name that was just made needs no writing: a link to elsewhere, a second name of a
// file, or no file at all.
func complete(path string) bool {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return true
	}
	return st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1
}

// ready is the files to read now. Files that somebody writes are kept back until they are closed, or quiet
// for long enough.
func (w *watcher) ready(now time.Time) map[string]bool {
	for name, wr := range w.writing {
		if now.Sub(wr.last) >= writeSettle {
			w.due[name] = now.Sub(wr.first) >= writeLimit
		}
	}
	due := w.due
	w.due = map[string]bool{}
	return due
}

// settled notes that a file was read.
func (w *watcher) settled(name string) { delete(w.writing, name) }

// hold keeps a file back for a while: somebody has it open for writing, or it changed while it was read.
func (w *watcher) hold(name string, now time.Time) {
	if w.writing[name] == nil {
		w.writing[name] = &writing{first: now}
	}
	w.writing[name].last = now
}

// wake is when ready has something to say without any event; zero: never.
func (w *watcher) wake() time.Time {
	var at time.Time
	for _, wr := range w.writing {
		if t := wr.last.Add(writeSettle); at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}

// link watches where a file leads if it is a link, and forgets what it depended on if it is not.
func (w *watcher) link(name string) {
	path := filepath.Join(w.path, name)
	if !manifest.IsLink(path) {
		if w.places[name] != nil {
			w.depend(name, nil, 0)
		}
		return
	}
	_, _ = w.follow(name, path, watchContents) // what is wrong with the link, reading says
}
