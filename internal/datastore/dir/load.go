package dir

import (
	"github.com/sallyport/sallyport/internal/datastore"
	"slices"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// Load reads and validates a directory. Faults in it are no error; that it cannot be listed is one.
func Load(path string, v manifest.Validator) (*datastore.Loaded, error) {
	c, err := manifest.ReadDir(path)
	if err != nil {
		return nil, err
	}
	out := &datastore.Loaded{}
	bad := map[Key]bool{}
	for _, f := range c.Validate(v) {
		out.Faults = append(out.Faults, f)
		bad[Key{Kind: f.Kind, Name: f.Name}] = true
	}
	var t tables
	var good []change
	for _, m := range c.All() {
		if bad[m.Key] {
			continue
		}
		o, err := convert(m.Object)
		if err != nil {
			out.Faults = append(out.Faults, model.Fault{File: m.File, Line: m.Line, Kind: m.Kind, Name: m.Name, Message: err.Error()})
			continue
		}
		out.Objects = append(out.Objects, m.Object)
		good = append(good, change{key: m.Key, record: &record{object: o}})
	}
	manifest.SortFaults(out.Faults)
	slices.SortFunc(out.Objects, func(a, b Object) int { return a.Key.Compare(b.Key) })
	t, _ = t.with(good)
	out.Snapshot, out.Conditions = t.snapshot, t.conditions
	return out, nil
}
