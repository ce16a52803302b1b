package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/yaml"
)

// Action is what an edit did to an object.
type Action string

// The actions, in kubectl's words.
const (
	Created    Action = "created"
	Configured Action = "configured"
	Unchanged  Action = "unchanged"
	Deleted    Action = "deleted"
)

// Result is what was done to one object.
type Result struct {
	Key
	Action Action
	File   string // the file that holds it, or held it
	Digest string // of the object as it is now (see Object.Digest); empty: it is gone
}

// FaultsError is an edit that was refused. Nothing was written.
type FaultsError struct {
	Reason string
	Faults []model.Fault
}

func (e *FaultsError) Error() string {
	lines := []string{e.Reason + ":"}
	for _, f := range e.Faults {
		lines = append(lines, "  "+f.String())
	}
	return strings.Join(lines, "\n")
}

// NotFoundError is an object that the directory does not declare.
type NotFoundError struct{ Key }

func (e *NotFoundError) Error() string { return e.Key.String() + " not found" }

// edit is a change of a directory in the making: nothing is written before all is known to be right.
type edit struct {
	dir      string
	contents *Manifests
	current  map[Key]*Declared
	file     map[*Declared]int       // index in contents
	bad      map[Key]bool            // declared, with faults
	changes  map[int]map[int]*Object // by file and document; nil: remove it
	created  map[string]*Object      // by file name
}

// Others are files of a directory, by name and with their identity, that declare none of the objects that an edit concerns,
// and in which whoever read them found no fault, nor in any other file. An edit reads none of them that is still as it was then.
type Others map[string]string

// unchanged says whether a file needs no look.
func (o Others) unchanged(dir, name string) bool {
	was, known := o[name]
	if !known {
		return false
	}
	id, err := Stat(filepath.Join(dir, name))
	return err == nil && id.String() == was
}

// Apply makes the directory declare these objects as well: each changes the document that declares it now, where what
// stays the same keeps its form and its comments, or gets a file of its own, named by its kind and name
// (ippool_default.yaml). Either all are valid, or nothing is
// written. It refuses while another document of the directory is faulty, and where an object stands inside a List.
// With dryRun nothing is written. The results are in the order of the objects. Others may be nil: every file is read then.
//
// Each file is replaced at once, but several files are not one transaction: an error while writing says
// which were written.
func Apply(ctx context.Context, dir string, v Validator, m *Manifests, others Others, dryRun bool) ([]Result, error) {
	unlock, err := lock(ctx, dir, lockPatience)
	if err != nil {
		return nil, err
	}
	defer unlock()
	keys := map[Key]bool{}
	for _, o := range m.All() {
		keys[o.Key] = true
	}
	e, err := begin(dir, v, keys, others)
	if err != nil {
		return nil, err
	}
	if faults := e.check(m, v); len(faults) > 0 {
		return nil, &FaultsError{"nothing was applied, since not everything is valid", faults}
	}
	results := make([]Result, 0, len(keys))
	for _, o := range m.All() {
		r, err := e.put(o)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, e.write(dryRun)
}

// Delete makes the directory declare these objects no more. A file of which nothing but white space would be left
// is removed. Objects that are not declared are errors of type NotFoundError, joined; the others are deleted all
// the same. It refuses as Apply does.
func Delete(ctx context.Context, dir string, v Validator, keys []Key, others Others, dryRun bool) ([]Result, error) {
	unlock, err := lock(ctx, dir, lockPatience)
	if err != nil {
		return nil, err
	}
	defer unlock()
	set := map[Key]bool{}
	for _, k := range keys {
		set[k] = true
	}
	e, err := begin(dir, v, set, others)
	if err != nil {
		return nil, err
	}
	var results []Result
	var missing []error
	for _, k := range keys {
		m := e.current[k]
		if m == nil {
			missing = append(missing, &NotFoundError{k})
			continue
		}
		if m.item >= 0 {
			return nil, insideList(m)
		}
		e.change(m, nil)
		results = append(results, Result{Key: k, Action: Deleted, File: m.File})
	}
	if err := e.write(dryRun); err != nil {
		return nil, err
	}
	return results, errors.Join(missing...)
}

// begin reads the directory and refuses if anything beside the given objects is faulty.
func begin(dir string, v Validator, keys map[Key]bool, others Others) (*edit, error) {
	c, err := readDir(dir, v, others)
	if err != nil {
		return nil, err
	}
	e := &edit{dir: dir, contents: c, current: map[Key]*Declared{}, file: map[*Declared]int{}, bad: map[Key]bool{},
		changes: map[int]map[int]*Object{}, created: map[string]*Object{}}
	var faults []model.Fault
	for _, f := range c.Faults() {
		k := Key{Kind: f.Kind, Name: f.Name}
		e.bad[k] = true
		if !keys[k] {
			faults = append(faults, f)
		}
	}
	for i, p := range c.files {
		for j := range p.Objects {
			m := &p.Objects[j]
			if first := e.current[m.Key]; first != nil && keys[m.Key] {
				faults = append(faults, Twice(&m.Object, &first.Object))
			}
			e.current[m.Key], e.file[m] = m, i
		}
	}
	if len(faults) > 0 {
		SortFaults(faults)
		return nil, &FaultsError{"nothing was changed, since the directory has faults; fix them first", faults}
	}
	return e, nil
}

// check is what is wrong with objects that are to be applied: as successors of those that are declared now,
// unless these are faulty themselves.
func (e *edit) check(m *Manifests, v Validator) []model.Fault {
	faults := slices.Clone(m.unread)
	seen := map[Key]*Declared{}
	for _, p := range m.files {
		p.Faults = slices.Clone(p.Faults)
		for i := range p.Objects {
			o := &p.Objects[i]
			if first := seen[o.Key]; first != nil {
				faults = append(faults, Twice(&o.Object, &first.Object))
			}
			seen[o.Key] = o
			var old *Object
			if d := e.current[o.Key]; d != nil && !e.bad[o.Key] {
				old = &d.Object
			}
			found, err := succeeds(v, &o.Object, old)
			if err != nil {
				found = []model.Fault{{Kind: o.Kind, Name: o.Name, Message: err.Error()}}
			}
			for _, f := range found {
				p.fault(*o, f)
			}
		}
		*p.at = located{}
		faults = append(faults, p.Faults...)
	}
	return faults
}

// succeeds says what is wrong with an object as the successor of old; nil: as a new one.
func succeeds(v Validator, o, old *Object) ([]model.Fault, error) {
	tree, err := o.Map()
	if err != nil || old == nil {
		return v.Create(tree), err
	}
	was, err := old.Map()
	if err != nil {
		return nil, err
	}
	return v.Update(tree, was), nil
}

// put notes what applying one object means.
func (e *edit) put(o *Declared) (Result, error) {
	r := Result{Key: o.Key, Action: Unchanged, Digest: o.Digest()}
	old := e.current[o.Key]
	switch {
	case old == nil:
		name, err := e.newName(o.Key)
		if err != nil {
			return r, err
		}
		e.created[name] = &o.Object
		r.Action, r.File = Created, filepath.Join(e.dir, name)
		return r, nil
	case bytes.Equal(old.JSON, o.JSON):
	case old.item >= 0:
		return r, insideList(old)
	default:
		e.change(old, &o.Object)
		r.Action = Configured
	}
	r.File = old.File
	return r, nil
}

func (e *edit) change(m *Declared, to *Object) {
	i := e.file[m]
	if e.changes[i] == nil {
		e.changes[i] = map[int]*Object{}
	}
	e.changes[i][m.doc] = to
}

func insideList(m *Declared) error {
	return fmt.Errorf("%s stands inside a List in %s:%d, which is not edited: make it a document of its own, or change it there by hand", m.Key, m.File, m.Line)
}

// newName is the name of the file for a new object. A name that is taken, by a file that declares something else
// by now, gets a number.
func (e *edit) newName(k Key) (string, error) {
	if k.Name != filepath.Base(k.Name) {
		return "", fmt.Errorf("%s: the name cannot be that of a file", k)
	}
	base := strings.ToLower(k.Kind) + "_" + k.Name
	const longest = 255 - len("-999.yaml") // NAME_MAX of Linux
	if len(base) > longest {
		base = base[:longest]
	}
	for n := 1; n < 1000; n++ {
		name := base + ".yaml"
		if n > 1 {
			name = fmt.Sprintf("%s-%d.yaml", base, n)
		}
		if _, taken := e.created[name]; taken {
			continue
		}
		if _, err := os.Lstat(filepath.Join(e.dir, name)); errors.Is(err, os.ErrNotExist) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s: there are too many files named %s-N.yaml", k, base)
}

// write computes every new file first and then puts them in place.
func (e *edit) write(dryRun bool) error {
	var writes []fileWrite
	for _, i := range slices.Sorted(maps.Keys(e.changes)) {
		p := e.contents.files[i]
		data, err := rewrite(p, e.changes[i])
		if err != nil {
			return err
		}
		writes = append(writes, fileWrite{path: p.path, data: data, was: &e.contents.ids[i]})
	}
	for _, name := range slices.Sorted(maps.Keys(e.created)) {
		data, err := yaml.Encode(json.RawMessage(e.created[name].JSON))
		if err != nil {
			return err
		}
		writes = append(writes, fileWrite{path: filepath.Join(e.dir, name), data: data})
	}
	if dryRun {
		return nil
	}
	return commit(writes)
}
