package dir

import (
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// file is what was read of one file, last time. It is never changed once made.
type file struct {
	objects []*object      // every object that has a name, also those with faults (without a value)
	faults  []model.Fault  // what is wrong with it
	known   manifest.Known // what a next version may have unchanged
	id      manifest.Identity
	racy    bool // it was read so soon after its last change that another would look the same
}

// ref is an object with the name of the file that holds it.
type ref struct {
	file   string
	object *object
}

// index knows every file and which objects they declare. A change costs time in proportion to the file, not to
// the directory.
type index struct {
	files  map[string]*file
	gone   map[string]struct{} // files that went away and may come back: their objects stand until others declare them
	refs   map[Key][]ref
	twice  map[Key]struct{}    // objects that more than one file declares, or one file twice
	faulty map[string]struct{} // files with faults
	dirty  map[Key]struct{}    // objects that may differ from what is in force
}

func newIndex() *index {
	return &index{files: map[string]*file{}, gone: map[string]struct{}{}, refs: map[Key][]ref{},
		twice: map[Key]struct{}{}, faulty: map[string]struct{}{}, dirty: map[Key]struct{}{}}
}

// set notes what a file holds now; nil: it is no more.
func (x *index) set(name string, f *file) {
	old := x.files[name]
	delete(x.gone, name)
	delete(x.faulty, name)
	if old != nil {
		for _, o := range old.objects {
			x.refs[o.Key] = slices.DeleteFunc(x.refs[o.Key], func(r ref) bool { return r.file == name })
		}
	}
	if f == nil {
		delete(x.files, name)
	} else {
		x.files[name] = f
		for _, o := range f.objects {
			x.refs[o.Key] = append(x.refs[o.Key], ref{name, o})
		}
		if len(f.faults) > 0 {
			x.faulty[name] = struct{}{}
		}
	}
	x.touch(old)
	x.touch(f)
}

// leave notes that a file went away.
func (x *index) leave(name string) {
	if f := x.files[name]; f != nil {
		x.gone[name] = struct{}{}
		x.touch(f)
	}
}

// touch brings what is known of a file's objects up to date.
func (x *index) touch(f *file) {
	if f == nil {
		return
	}
	seen := make(map[Key]struct{}, len(f.objects)) // a file may declare one object many times
	for _, o := range f.objects {
		k := o.Key
		if _, again := seen[k]; again {
			continue
		}
		seen[k] = struct{}{}
		x.dirty[k] = struct{}{}
		if len(x.refs[k]) == 0 {
			delete(x.refs, k)
		}
		if len(x.live(k)) > 1 {
			x.twice[k] = struct{}{}
		} else {
			delete(x.twice, k)
		}
	}
}

// live is the declarations of an object in files that are there, in the order of files.
func (x *index) live(k Key) []ref {
	refs := x.refs[k]
	if len(refs) < 2 && len(x.gone) == 0 {
		return refs
	}
	var out []ref
	for _, r := range refs {
		if _, gone := x.gone[r.file]; !gone {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b ref) int { return strings.Compare(a.file, b.file) })
	return out
}

// wanted is what the files say of an object, or nil: where a file that went away declared it and nobody else
// does, what that file said.
func (x *index) wanted(k Key) *object {
	if live := x.live(k); len(live) > 0 {
		return live[0].object
	}
	if refs := x.refs[k]; len(refs) > 0 {
		return refs[0].object
	}
	return nil
}

// faults is everything that is wrong with the files, in their order.
func (x *index) faults() []model.Fault {
	var out []model.Fault
	for name := range x.faulty {
		out = append(out, x.files[name].faults...)
	}
	for k := range x.twice {
		live := x.live(k)
		for _, r := range live[1:] {
			out = append(out, manifest.Twice(&r.object.Object, &live[0].object.Object))
		}
	}
	manifest.SortFaults(out)
	return out
}
