package dir

import (
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/lastgood"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// Load reads and validates a directory. Faults in it are no error; that it cannot be listed is one.
func Load(path string, v manifest.Validator) (*datastore.Loaded, error) {
	c, err := manifest.ReadDir(path, v)
	if err != nil {
		return nil, err
	}
	faults := c.Faults()
	bad := map[Key]bool{}
	for _, f := range faults {
		bad[Key{Kind: f.Kind, Name: f.Name}] = true
	}
	var valid []Object
	for _, m := range c.All() {
		if !bad[m.Key] {
			valid = append(valid, m.Object)
		}
	}
	out := Assemble(valid)
	out.Faults = append(out.Faults, faults...)
	manifest.SortFaults(out.Faults)
	return out, nil
}

// Foresee is the state that a Store would come to which is opened now, if the directory stays as it is. It changes nothing, and
// fails as Open does: with lastgood.ErrLocked where an agent uses the state.
func Foresee(o Options) (state State, err error) {
	s, err := open(o, lastgood.Peek)
	if err != nil {
		return State{}, err
	}
	s.watcher = newWatcher(s.path, nil)
	s.watcher.reopen, s.stale = true, true
	now := time.Now()
	for range 3 { // read; read what is being written as it is; remove what is gone
		s.step(now, func(next State) { state = next })
		now = now.Add(writeLimit)
	}
	return state, nil
}

// Assemble makes what Load makes of a directory with these objects, which are valid. One that cannot be converted is a
// fault.
func Assemble(objects []Object) *datastore.Loaded {
	out := &datastore.Loaded{}
	var t tables
	var good []change
	for _, o := range objects {
		converted, err := convert(o)
		if err != nil {
			out.Faults = append(out.Faults, model.Fault{File: o.File, Line: o.Line, Kind: o.Kind, Name: o.Name, Message: err.Error()})
			continue
		}
		out.Objects = append(out.Objects, o)
		good = append(good, change{key: o.Key, record: &record{object: converted}})
	}
	slices.SortFunc(out.Objects, func(a, b Object) int { return a.Key.Compare(b.Key) })
	t, _ = t.with(good)
	out.Snapshot, out.Conditions = t.snapshot, t.conditions
	return out
}
