package manifest

import (
	"io"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/internal/model"
)

// Document is one document as it was written, of whatever kind: decoded, and nothing else. Those of a List are
// documents of their own.
type Document struct {
	File  string // its path; "-" for standard input
	Value any    // maps, slices, strings, bools, int64 and float64

	parsed    *File
	doc, item int
}

// Line is the line of the file on which a field stands, such as spec.cidr, or the nearest that is there.
func (d *Document) Line(field string) int {
	return d.parsed.line(&Declared{doc: d.doc, item: d.item}, field)
}

// ReadDocuments reads what Read would, for those who look for other kinds. Faults are of files and
// documents that cannot be read. An error is a path that cannot be read.
func ReadDocuments(paths []string, stdin io.Reader) ([]Document, []model.Fault, error) {
	var docs []Document
	var faults []model.Fault
	at := &located{}
	for _, path := range paths {
		files := []string{path}
		st, err := os.Stat(path)
		inDir := err == nil && st.IsDir()
		if inDir {
			names, _, err := List(path)
			if err != nil {
				return nil, nil, err
			}
			files = files[:0]
			for _, name := range names {
				files = append(files, filepath.Join(path, name))
			}
		}
		for _, file := range files {
			var data []byte
			if inDir { // as ReadDir does: a FIFO in it would wait for a writer
				data, _, err = ReadFile(file, true)
			} else if data, err = readNamed(file, stdin); err != nil {
				return nil, nil, err
			}
			if err != nil {
				faults = append(faults, model.Fault{File: file, Message: Explain(file, err)})
				continue
			}
			found, wrong := documents(file, data, at)
			docs, faults = append(docs, found...), append(faults, wrong...)
		}
	}
	return docs, faults, nil
}

// Documents takes the text of a file apart.
func Documents(file string, data []byte) ([]Document, []model.Fault) {
	return documents(file, data, &located{})
}

func documents(file string, data []byte, at *located) ([]Document, []model.Fault) {
	p := &File{path: file, data: data, at: at}
	var docs []Document
	p.each(func(v any, doc, item int) {
		docs = append(docs, Document{File: file, Value: v, parsed: p, doc: doc, item: item})
	})
	return docs, p.Faults
}
