package dir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
)

// Load reads and validates a directory. Faults in it are no error; that it cannot be listed is one.
func Load(path string, v Validator) (*Loaded, error) {
	c, err := readDir(path)
	if err != nil {
		return nil, err
	}
	out := &Loaded{}
	bad := map[Key]bool{}
	for _, f := range c.faults(v) {
		out.Faults = append(out.Faults, f)
		bad[Key{Kind: f.Kind, Name: f.Name}] = true
	}
	var t tables
	var good []change
	for _, m := range c.all() {
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
	sortFaults(out.Faults)
	slices.SortFunc(out.Objects, func(a, b Object) int { return a.Key.Compare(b.Key) })
	t, _ = t.with(good)
	out.Snapshot, out.Conditions = t.snapshot, t.conditions
	return out, nil
}

// contents is every file of a directory, parsed.
type contents struct {
	files  []*parsed
	ids    []identity    // of the files
	unread []model.Fault // of files that cannot be read
}

// readDir reads the manifests of a directory.
func readDir(path string) (*contents, error) {
	names, err := list(path)
	if err != nil {
		return nil, fmt.Errorf("the directory of manifests %s %s", path, explain(path, err))
	}
	c := &contents{}
	for _, name := range names {
		file := filepath.Join(path, name)
		data, id, err := readFile(file, true)
		if err != nil {
			c.unread = append(c.unread, model.Fault{File: file, Message: explain(file, err)})
			continue
		}
		c.files = append(c.files, parse(file, data))
		c.ids = append(c.ids, id)
	}
	return c, nil
}

// all is every object, in the order of files.
func (c *contents) all() []*manifest {
	var out []*manifest
	for _, p := range c.files {
		for i := range p.manifests {
			out = append(out, &p.manifests[i])
		}
	}
	return out
}

// faults is everything that is wrong, with every object judged as a new one.
func (c *contents) faults(v Validator) []model.Fault {
	out := slices.Clone(c.unread)
	seen := map[Key]*manifest{}
	for _, p := range c.files {
		p.validate(v, func(Key) *record { return nil })
		out = append(out, p.faults...)
	}
	for _, m := range c.all() {
		if first := seen[m.Key]; first != nil {
			out = append(out, twice(&m.Object, &first.Object))
			continue
		}
		seen[m.Key] = m
	}
	return out
}

// twice is the fault of an object that stands in two places.
func twice(o, first *Object) model.Fault {
	return model.Fault{File: o.File, Line: o.Line, Kind: o.Kind, Name: o.Name,
		Message: fmt.Sprintf("is declared already in %s:%d; remove one of the two", first.File, first.Line)}
}

func sortFaults(f []model.Fault) {
	slices.SortStableFunc(f, func(a, b model.Fault) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
}

// ReadManifests reads what -f names: files, directories (their manifests, without subdirectories), or "-" for
// stdin. Faults are of documents that are no objects; objects are not validated. An error is a path that
// cannot be read.
func ReadManifests(paths []string, stdin io.Reader) (*Manifests, error) {
	out := &Manifests{}
	for _, path := range paths {
		if err := out.read(path, stdin); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Manifests is what was read from the paths that a user names.
type Manifests struct {
	contents
}

func (m *Manifests) read(path string, stdin io.Reader) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		c, err := readDir(path)
		if err != nil {
			return err
		}
		m.files = append(m.files, c.files...)
		m.unread = append(m.unread, c.unread...)
		return nil
	}
	data, err := readNamed(path, stdin)
	if err != nil {
		return err
	}
	m.files = append(m.files, parse(path, data))
	return nil
}

// readNamed reads the file that a user names, or standard input for "-".
func readNamed(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		data, err := io.ReadAll(io.LimitReader(stdin, maxFileSize+1))
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		if len(data) > maxFileSize {
			return nil, fmt.Errorf("standard input is longer than the limit of %d bytes: spread it over several files", maxFileSize)
		}
		return data, nil
	}
	data, _, err := readFile(path, true)
	if errors.Is(err, fs.ErrNotExist) && !isLink(path) {
		return nil, fmt.Errorf("%s does not exist: check the path", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s", path, explain(path, err))
	}
	return data, nil
}

// Objects is every object that was read, in the order of the documents.
func (m *Manifests) Objects() []Object {
	var out []Object
	for _, f := range m.all() {
		out = append(out, f.Object)
	}
	return out
}

// Unreadable says which files and documents hold no object that can be read.
func (m *Manifests) Unreadable() []model.Fault {
	out := slices.Clone(m.unread)
	for _, p := range m.files {
		out = append(out, p.faults...)
	}
	return out
}

// Validate says what is wrong with any document, as something new.
func (m *Manifests) Validate(v Validator) []model.Fault { return m.faults(v) }
