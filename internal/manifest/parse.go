package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/yaml"
)

// Declared is an object with the place in a file that it came from.
type Declared struct {
	Object
	Faulty bool // validation found a fault

	doc  int // index of the document in its file
	item int // index in the List that the document is; -1: it is none
}

// File is what one file holds.
type File struct {
	Objects []Declared
	Faults  []model.Fault // of documents that are no object, and what validation says

	path  string
	data  []byte
	docs  []document
	known Known
	parts []document // the items of Lists that were read one by one; the first has the number len(docs)
	at    *located

	taken, decoded int                                                  // documents and items, and the bytes of their JSON, so far
	judge          func(d *Declared, tree map[string]any) []model.Fault // nil: nothing is judged
}

// Known are objects by the SHA-256 of the document that declares each, alone and without a fault.
type Known map[[sha256.Size]byte]Object

// Parse reads the documents of a file, and judges none.
func Parse(path string, data []byte) *File {
	p := &File{path: path, data: data, at: &located{}}
	p.each(p.object)
	return p
}

// Check reads the documents of a file and validates every object: against the one of the same key that is in force, if
// there is one, else as a new one. What is in force needs no second look. No document that is known is decoded: a file of
// many documents, of which one was changed, costs little.
func Check(path string, data []byte, known Known, v Validator, inForce func(Key) *Object) *File {
	p := &File{path: path, data: data, known: known, at: &located{}}
	p.judge = func(d *Declared, tree map[string]any) []model.Fault {
		old := inForce(d.Key)
		if old != nil && bytes.Equal(old.JSON, d.JSON) {
			return nil
		}
		if tree == nil { // it is known: it was made of a tree
			tree, _ = d.Map()
		}
		return check(v, tree, old)
	}
	p.each(p.object)
	return p
}

// manyDocuments is how many a file has for it to be worth knowing them.
const manyDocuments = 16

// Known is what another version of the file may have unchanged; nil: the file is too short for it to be worth while.
func (p *File) Known() Known {
	if len(p.docs) < manyDocuments {
		return nil
	}
	out := make(Known, len(p.Objects))
	for i := range p.Objects {
		if d := &p.Objects[i]; d.item < 0 {
			out[p.sum(d.doc)] = d.Object
		}
	}
	return out
}

func (p *File) sum(doc int) [sha256.Size]byte { return sha256.Sum256(p.docs[doc].text(p.data)) }

// each hands every document to take, and those of a List one by one.
func (p *File) each(take func(v any, doc, item int)) {
	var err error
	if p.docs, err = split(p.data); err != nil {
		p.Faults = []model.Fault{{File: p.path, Message: err.Error()}}
		return
	}
	for i := range p.docs {
		if p.over() != "" {
			break
		}
		if len(p.known) > 0 {
			if o, ok := p.known[p.sum(i)]; ok {
				o.File, o.Line = p.path, p.docs[i].line
				p.add(Declared{Object: o, doc: i, item: -1}, nil)
				continue
			}
		}
		p.document(i, take)
	}
	if why := p.over(); why != "" {
		// What is not read must not count as removed: nothing of the file is taken, as if it could not be read.
		p.Objects, p.Faults = nil, append(p.Faults[:min(len(p.Faults), shownFaults)], model.Fault{File: p.path, Message: why})
	}
	*p.at = located{}
}

// What a file may hold, which bounds the time that it takes: a fault is looked for in the text, and aliases repeat values.
const (
	maxFaults   = 1000
	shownFaults = 100
	maxDecoded  = 4 * MaxFileSize // bytes of all objects as JSON
)

// over says why a file holds too much to be read, or "".
func (p *File) over() string {
	switch {
	case len(p.Faults) > maxFaults:
		return fmt.Sprintf("has more than %d faults, of which the first are shown: nothing in it is taken until they are fixed", maxFaults)
	case p.taken > maxDocuments:
		return errTooManyDocuments.Error()
	case p.decoded > maxDecoded:
		return fmt.Sprintf("stands for more than %d bytes, since aliases repeat long values: write them out, in several files", maxDecoded)
	}
	return ""
}

// document hands what the i-th document holds to take.
func (p *File) document(i int, take func(v any, doc, item int)) {
	d := &p.docs[i]
	if d.stop-d.body > MaxDocumentSize {
		p.large(i, take)
		return
	}
	v, err := p.decode(i)
	if err != nil {
		p.unread(d, err)
		return
	}
	if v == nil {
		return // "null": as good as empty
	}
	tree, _ := v.(map[string]any)
	kind, _ := tree["kind"].(string)
	if !strings.HasSuffix(kind, "List") {
		take(v, i, -1)
		return
	}
	value, there := tree["items"]
	items, ok := value.([]any)
	if !there || !ok && value != nil {
		p.fault(Declared{doc: i, item: -1}, model.Fault{Kind: kind, Field: "items", Message: "must be a list of objects"})
	}
	for j, item := range items {
		if p.over() != "" {
			return
		}
		take(item, i, j)
	}
}

// decode reads the i-th document, of which the lines are known then, until the next one is read.
func (p *File) decode(i int) (any, error) {
	*p.at = located{}
	d := p.doc(i)
	v, root, err := decode(d.text(p.data), d.json)
	if root != nil {
		*p.at = located{p, i, root}
	}
	return v, err
}

// unread adds the fault of a document that cannot be decoded.
func (p *File) unread(d *document, err error) {
	f := model.Fault{File: p.path, Line: d.line, Message: err.Error()}
	if e := (*yaml.Error)(nil); errors.As(err, &e) && e.Line > 0 {
		f.Line += min(e.Line-1, bytes.Count(p.data[d.body:d.stop], []byte("\n")))
	}
	p.Faults = append(p.Faults, f)
}

// doc is a document, or an item of a List that was read by itself.
func (p *File) doc(i int) *document {
	if i < len(p.docs) {
		return &p.docs[i]
	}
	return &p.parts[i-len(p.docs)]
}

// object adds one object, or the fault that makes it none.
func (p *File) object(v any, doc, item int) {
	p.taken++
	m := Declared{doc: doc, item: item, Object: Object{File: p.path, Line: p.doc(doc).line}}
	if item >= 0 && doc < len(p.docs) {
		m.Line = p.line(&m, "")
	}
	tree, ok := v.(map[string]any)
	if !ok {
		p.fault(m, model.Fault{Message: "not an object: a manifest begins with apiVersion and kind"})
		return
	}
	key, fault := normalise(tree)
	if fault != nil {
		p.fault(m, *fault)
		return
	}
	raw, err := json.Marshal(tree)
	if err != nil {
		p.fault(m, model.Fault{Kind: key.Kind, Name: key.Name, Message: err.Error()})
		return
	}
	m.Key, m.JSON = key, raw
	p.decoded += len(raw)
	p.add(m, tree)
}

// add adds an object, and what is wrong with it. The tree may be nil: the JSON says the same.
func (p *File) add(m Declared, tree map[string]any) {
	if p.judge != nil {
		for _, f := range p.judge(&m, tree) {
			m.Faulty = true
			f.Kind, f.Name = m.Kind, m.Name
			p.fault(m, f)
		}
	}
	p.Objects = append(p.Objects, m)
}

// fault adds a fault, with the place that is to blame.
func (p *File) fault(m Declared, f model.Fault) {
	f.File, f.Line = p.path, p.line(&m, f.Field)
	p.Faults = append(p.Faults, f)
}

// line is the line of the file on which a field of an object stands.
func (p *File) line(m *Declared, field string) int {
	if m.item >= 0 && m.doc < len(p.docs) {
		field = fmt.Sprintf("items[%d].%s", m.item, field)
	}
	first := p.doc(m.doc).line
	if line := lineOf(p.at.tree(p, m.doc), field); line > 0 {
		return first + line - 1
	}
	return first
}

// Blame adds a fault of an object of the file.
func (p *File) Blame(d *Declared, message string) {
	d.Faulty = true
	p.Faults = append(p.Faults, model.Fault{File: p.path, Line: d.Line, Kind: d.Kind, Name: d.Name, Message: message})
}

// check says what is wrong with an object as the successor of old, which may be nil. A pool whose cidr
// differs is no successor: the old one goes and a new one comes.
func check(v Validator, tree map[string]any, old *Object) []model.Fault {
	if old == nil {
		return v.Create(tree)
	}
	was, err := old.Map()
	if err != nil || (old.Kind == model.KindIPPool && cidrOf(was) != cidrOf(tree)) {
		return v.Create(tree)
	}
	return v.Update(tree, was)
}

// cidrOf is the range of a pool, or "".
func cidrOf(tree map[string]any) string {
	spec, _ := tree["spec"].(map[string]any)
	cidr, _ := spec["cidr"].(string)
	return cidr
}
