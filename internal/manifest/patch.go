package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/yaml"
)

// errForm is a text in a form that patch does not change.
var errForm = errors.New("is written in a form that is not edited")

// patch changes the text of a document that says old to say new, and leaves what stays the same: order, quotes,
// indentation, blank lines and comments. A removed entry takes the comment right above it along, and those on its lines; a
// changed value keeps both. It changes the text, since a tree that is written again loses blank lines and indentation.
//
// It is no parser: the tree says where each node begins, and where one ends is found in the lines. So its result must be
// read back before it is used. What old lacks though the text has it, such as a status, counts as not there.
func patch(text []byte, old, new map[string]any) ([]byte, error) {
	doc, err := yaml.Parse(text)
	if err != nil {
		return nil, err
	}
	p := &patcher{text: text, places: yaml.PlacesOf(text), doc: doc}
	p.layout = layoutOf(doc.Root)
	if err := p.value(doc.Root, len(text), old, new); err != nil {
		return nil, err
	}
	return p.apply(), nil
}

// patcher collects the changes of one text.
type patcher struct {
	text   []byte
	places *yaml.Places
	doc    *yaml.Document
	layout yaml.Layout
	edits  []textEdit
}

// textEdit puts a text in place of another; from == to: it is inserted.
type textEdit struct {
	from, to int
	with     string
}

func (p *patcher) replace(from, to int, with string) {
	p.edits = append(p.edits, textEdit{from, to, with})
}

// apply is the changed text. The edits do not overlap; those at the same place stand in their order, insertions first.
func (p *patcher) apply() []byte {
	newline := "\n"
	if bytes.Contains(p.text, []byte("\r\n")) {
		newline = "\r\n"
	}
	slices.SortStableFunc(p.edits, func(a, b textEdit) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	var out []byte
	at := 0
	for _, e := range p.edits {
		if e.from < at {
			return nil // it cannot be read back
		}
		out = append(append(out, p.text[at:e.from]...), strings.ReplaceAll(e.with, "\n", newline)...)
		at = e.to
	}
	return append(out, p.text[at:]...)
}

// value changes the value of a node, whose text ends before end, from old to new, which differ.
func (p *patcher) value(n *yaml.Node, end int, old, new any) error {
	switch new := new.(type) {
	case map[string]any:
		was, _ := old.(map[string]any)
		if n.Kind != yaml.MappingNode || len(new) == 0 {
			break
		}
		if n.Style&yaml.FlowStyle != 0 {
			return p.flowMapping(n, was, new)
		}
		return p.mapping(n, end, was, new)
	case []any:
		was, ok := old.([]any)
		if n.Kind != yaml.SequenceNode || len(new) == 0 || !ok || len(was) != len(n.Content) {
			break
		}
		if n.Style&yaml.FlowStyle != 0 {
			return p.flowSequence(n, was, new)
		}
		return p.sequence(n, end, was, new)
	default:
		if from, to, ok := p.oneLine(n); ok && !strings.Contains(inline(n, new), "\n") {
			p.replace(from, to, inline(n, new))
			return nil
		}
	}
	return errWhole
}

// errWhole is a value that only its parent can replace, as a whole.
var errWhole = errors.New("must be replaced as a whole")

// entry is what stays or goes together in a block: a key with its value, or an item.
type entry struct {
	key   bool
	start int // of the key, or of the dash
	after int // behind the colon, or the dash
	value *yaml.Node
	end   int // of the last line that belongs to it, with its line break
	limit int // where the next one begins, with the comments before it
	depth int // column of the key or dash, from 0
}

// change changes the value of an entry.
func (p *patcher) change(e entry, old, new any) error {
	if reflect.DeepEqual(old, new) {
		return nil
	}
	err := p.value(e.value, e.limit, old, new)
	if !errors.Is(err, errWhole) {
		return err
	}
	var whole any = []any{new}
	if e.key {
		whole = map[string]any{"": new} // written as "":
	}
	form, err := yaml.EncodeNode(yaml.ToNode(whole), p.layout)
	if err != nil {
		return err
	}
	form = bytes.TrimPrefix(bytes.TrimPrefix(form, []byte("-")), []byte(`"":`))
	text := indented(strings.TrimRight(string(form), "\n"), e.depth)
	if note := p.noteOf(e); note != "" {
		first, rest, more := strings.Cut(text, "\n")
		text = strings.TrimRight(first, " ") + " " + note
		if more {
			text += "\n" + rest
		}
	}
	p.replace(e.after, p.withoutBreak(e.end), text)
	return nil
}

// mapping changes a block mapping.
func (p *patcher) mapping(n *yaml.Node, end int, old, new map[string]any) error {
	entries, names, err := p.entriesOf(n, end)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, e := range entries {
		name := names[i]
		if name == "" { // "<<", or a key that is no text
			continue
		}
		seen[name] = true
		was, had := old[name]
		now, has := new[name]
		switch {
		case has:
			err = p.change(e, was, now)
		case had:
			err = p.remove(entries, i)
		}
		if err != nil {
			return err
		}
	}
	for name, was := range old {
		if now, has := new[name]; !seen[name] && (!has || !reflect.DeepEqual(was, now)) {
			return errForm // it comes from "<<"
		}
	}
	for _, name := range sortedKeys(new) {
		if _, merged := old[name]; seen[name] || merged {
			continue
		}
		after := len(entries) - 1
		for n == p.doc.Root && after > 0 && rank(names[after]) > rank(name) {
			after--
		}
		text, err := yaml.EncodeNode(yaml.ToNode(map[string]any{name: new[name]}), p.layout)
		if err != nil {
			return err
		}
		p.insert(entries[after].end, string(text), entries[after].depth)
	}
	return nil
}

// rank is where a field of an object stands among the others.
func rank(name string) int {
	if i := slices.Index([]string{"apiVersion", "kind", "metadata", "spec"}, name); i >= 0 {
		return i
	}
	return 4
}

// sequence changes a block sequence.
func (p *patcher) sequence(n *yaml.Node, end int, old, new []any) error {
	entries, err := p.itemsOf(n, end)
	if err != nil {
		return err
	}
	return align(old, new, func(i, j int) error {
		return p.change(entries[i], old[i], new[j])
	}, func(i int) error {
		return p.remove(entries, i)
	}, func(before, j int) error {
		text, err := yaml.EncodeNode(yaml.ToNode([]any{new[j]}), p.layout)
		if err != nil {
			return err
		}
		at := p.withComments(entries[0].start, 0)
		if before > 0 {
			at = entries[before-1].end
		} else if !p.beginsLine(entries[0].start) {
			return errForm
		}
		p.insert(at, string(text), entries[0].depth)
		return nil
	})
}

// remove removes the i-th entry, with the comments right above it.
func (p *patcher) remove(entries []entry, i int) error {
	e := entries[i]
	if p.beginsLine(e.start) {
		floor := 0
		if i > 0 {
			floor = entries[i-1].end
		}
		p.replace(p.withComments(e.start, floor), e.end, "")
		return nil
	}
	// It stands behind a dash, whose place the next one takes.
	if i+1 == len(entries) || p.lineStart(entries[i+1].start) != e.end {
		return errForm
	}
	p.replace(e.start, entries[i+1].start, "")
	return nil
}

// insert puts lines in at the start of a line.
func (p *patcher) insert(at int, text string, depth int) {
	text = strings.Repeat(" ", depth) + indented(strings.TrimRight(text, "\n"), depth)
	if at > 0 && lastByte(p.text[:at]) != '\n' {
		p.replace(at, at, "\n"+text) // behind a last line without a break
		return
	}
	p.replace(at, at, text+"\n")
}

func lastByte(b []byte) byte {
	if len(b) == 0 {
		return '\n'
	}
	return b[len(b)-1]
}

// indented moves all lines but the first.
func indented(text string, by int) string {
	lines := strings.Split(text, "\n")
	for i := 1; i < len(lines); i++ {
		if lines[i] != "" {
			lines[i] = strings.Repeat(" ", by) + lines[i]
		}
	}
	return strings.Join(lines, "\n")
}
