package manifest

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

// Manifests is what was read of a directory, or of the paths that a user names.
type Manifests struct {
	files  []*File
	ids    []Identity    // of the files
	unread []model.Fault // of files that cannot be read
}

// ReadDir reads the manifests of a directory, and validates every object as a new one; with a nil Validator, none. It fails
// where the directory cannot be listed.
func ReadDir(path string, v Validator) (*Manifests, error) { return readDir(path, v, nil) }

// readDir is ReadDir without what others has of the directory.
func readDir(path string, v Validator, others Others) (*Manifests, error) {
	names, _, err := List(path)
	if err != nil {
		return nil, fmt.Errorf("the directory of manifests %s %s", path, Explain(path, err))
	}
	c := &Manifests{}
	for _, name := range names {
		if others.unchanged(path, name) {
			continue
		}
		file := filepath.Join(path, name)
		data, id, err := ReadFile(file, true)
		if err != nil {
			c.unread = append(c.unread, model.Fault{File: file, Message: Explain(file, err)})
			continue
		}
		c.files = append(c.files, parse(file, data, v))
		c.ids = append(c.ids, id)
	}
	return c, nil
}

// All is every object, in the order of files.
func (m *Manifests) All() []*Declared {
	var out []*Declared
	for _, p := range m.files {
		for i := range p.Objects {
			out = append(out, &p.Objects[i])
		}
	}
	return out
}

// parse reads a file, and validates its objects unless v is nil.
func parse(path string, data []byte, v Validator) *File {
	if v == nil {
		return Parse(path, data)
	}
	return Check(path, data, nil, v, func(Key) *Object { return nil })
}

// Faults is everything that is wrong with what was read: with files, documents and, where they were validated, objects.
func (m *Manifests) Faults() []model.Fault {
	out := m.Unreadable()
	seen := map[Key]*Declared{}
	for _, d := range m.All() {
		if first := seen[d.Key]; first != nil {
			out = append(out, Twice(&d.Object, &first.Object))
			continue
		}
		seen[d.Key] = d
	}
	return out
}

// Twice is the fault of an object that stands in two places.
func Twice(o, first *Object) model.Fault {
	return model.Fault{File: o.File, Line: o.Line, Kind: o.Kind, Name: o.Name,
		Message: fmt.Sprintf("is declared already in %s:%d; remove one of the two", first.File, first.Line)}
}

// SortFaults orders faults by file and line.
func SortFaults(f []model.Fault) {
	slices.SortStableFunc(f, func(a, b model.Fault) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
}

// Read reads what -f names: files, directories (their manifests, without subdirectories), or "-" for
// stdin. Objects are validated as new ones, unless v is nil. An error is a path that cannot be read.
func Read(paths []string, stdin io.Reader, v Validator) (*Manifests, error) {
	out := &Manifests{}
	for _, path := range paths {
		if err := out.read(path, stdin, v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *Manifests) read(path string, stdin io.Reader, v Validator) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		c, err := ReadDir(path, v)
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
	m.files = append(m.files, parse(path, data, v))
	return nil
}

// readNamed reads the file that a user names, or standard input for "-".
func readNamed(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		return readStream("standard input", stdin)
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() { // a pipe, such as that of <(command)
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("%s %s", path, Explain(path, err))
		}
		defer f.Close()
		return readStream(path, f)
	}
	data, _, err := ReadFile(path, true)
	if errors.Is(err, fs.ErrNotExist) && !IsLink(path) {
		return nil, fmt.Errorf("%s does not exist: check the path", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s", path, Explain(path, err))
	}
	return data, nil
}

// readStream reads what has no length, up to the limit of a file.
func readStream(name string, from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("%s is longer than the limit of %d bytes: spread it over several files", name, MaxFileSize)
	}
	return data, nil
}

// Objects is every object that was read, in the order of the documents.
func (m *Manifests) Objects() []Object {
	var out []Object
	for _, d := range m.All() {
		out = append(out, d.Object)
	}
	return out
}

// Unreadable says which files and documents hold no object that can be read or, where they were validated, none that is valid.
func (m *Manifests) Unreadable() []model.Fault {
	out := slices.Clone(m.unread)
	for _, p := range m.files {
		out = append(out, p.Faults...)
	}
	return out
}
