package dir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
)

// manifest is an object with the place in a file that it came from.
type manifest struct {
	Object
	tree map[string]any // the object, until it is validated
	doc  int            // index of the document in its file
	item int            // index in the List that the document is; -1: it is none
	same *record        // what is in force where that says the same
	bad  bool           // validation found a fault
}

// parsed is what one file holds.
type parsed struct {
	file      string
	data      []byte
	docs      []document
	locators  map[int]*locator // by document
	manifests []manifest
	faults    []model.Fault // of documents that are no object, and what validation says
}

// parse reads the documents of a file. It does not validate.
func parse(file string, data []byte) *parsed {
	p := &parsed{file: file, data: data}
	p.each(p.object)
	return p
}

// each hands every document to take, and those of a List one by one.
func (p *parsed) each(take func(v any, doc, item int)) {
	var err error
	if p.docs, err = split(p.data); err != nil {
		p.faults = []model.Fault{{File: p.file, Message: err.Error()}}
		return
	}
	for i := range p.docs {
		p.document(i, take)
	}
}

// document hands what the i-th document holds to take.
func (p *parsed) document(i int, take func(v any, doc, item int)) {
	d := &p.docs[i]
	text := d.text(p.data)
	v, err := decode(text, d.json)
	if err != nil {
		f := model.Fault{File: p.file, Line: d.line, Message: err.Error()}
		if e := (*syntaxError)(nil); errors.As(err, &e) && e.line > 0 {
			f.Line += min(e.line-1, bytes.Count(text, []byte("\n")))
		}
		p.faults = append(p.faults, f)
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
		p.fault(manifest{doc: i, item: -1}, model.Fault{Kind: kind, Field: "items", Message: "must be a list of objects"})
	}
	for j, item := range items {
		take(item, i, j)
	}
}

// object adds one object, or the fault that makes it none.
func (p *parsed) object(v any, doc, item int) {
	m := manifest{doc: doc, item: item, Object: Object{File: p.file, Line: p.docs[doc].line}}
	if item >= 0 {
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
	m.Key, m.tree, m.JSON = key, tree, raw
	p.manifests = append(p.manifests, m)
}

// fault adds a fault, with the place that is to blame.
func (p *parsed) fault(m manifest, f model.Fault) {
	f.File, f.Line = p.file, p.line(&m, f.Field)
	p.faults = append(p.faults, f)
}

// line is the line of the file on which a field of an object stands.
func (p *parsed) line(m *manifest, field string) int {
	if m.item >= 0 {
		field = fmt.Sprintf("items[%d].%s", m.item, field)
	}
	l := p.locators[m.doc]
	if l == nil {
		l = &locator{text: p.docs[m.doc].text(p.data)}
		if p.locators == nil {
			p.locators = map[int]*locator{}
		}
		p.locators[m.doc] = l
	}
	first := p.docs[m.doc].line
	if line := l.line(field); line > 0 {
		return first + line - 1
	}
	return first
}

// validate checks every object: against the one of the same key that is in force, if there is one, else as
// a new one. What is in force needs no second look.
func (p *parsed) validate(v Validator, inForce func(Key) *record) {
	for i := range p.manifests {
		m := &p.manifests[i]
		var old *Object
		if r := inForce(m.Key); r != nil {
			if old = &r.Object; bytes.Equal(old.JSON, m.JSON) {
				m.same = r
				continue
			}
		}
		for _, f := range check(v, m.tree, old) {
			m.bad = true
			f.Kind, f.Name = m.Kind, m.Name
			p.fault(*m, f)
		}
	}
}

// check says what is wrong with an object as the successor of old, which may be nil. A pool whose cidr
// differs is no successor: the old one goes and a new one comes.
func check(v Validator, tree map[string]any, old *Object) []model.Fault {
	if old == nil {
		return v.Create(tree)
	}
	was, err := old.Map()
	if err != nil || (old.Kind == KindIPPool && cidrOf(was) != cidrOf(tree)) {
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
