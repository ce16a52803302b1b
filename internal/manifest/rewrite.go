package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/internal/yaml"
)

// rewrite is a file with some documents changed to say what these objects say, or removed where that is nil. No byte
// outside of these documents changes; inside, see patch.
func rewrite(p *File, edits map[int]*Object) ([]byte, error) {
	out := slices.Clone(p.data)
	for i := range slices.Backward(p.docs) {
		to, ok := edits[i]
		switch {
		case !ok:
		case to == nil:
			from, to := p.removal(i)
			out = slices.Delete(out, from, to)
		default:
			var err error
			if out, err = p.change(out, i, to); err != nil {
				return nil, fmt.Errorf("%s:%d: %s %w", p.path, p.docs[i].line, to.Key, err)
			}
		}
	}
	if err := p.confirm(out, edits); err != nil {
		return nil, fmt.Errorf("%s cannot be edited safely; edit it by hand: %w", p.path, err)
	}
	return out, nil
}

// change makes the i-th document of data, which is the file up to there, say what an object says.
func (p *File) change(data []byte, i int, to *Object) ([]byte, error) {
	d := p.docs[i]
	was := p.Objects[slices.IndexFunc(p.Objects, func(o Declared) bool { return o.doc == i })]
	old, err := was.Map()
	if err != nil {
		return nil, err
	}
	tree, err := to.Map()
	if err != nil {
		return nil, err
	}
	if d.json {
		text, err := renderJSON(tree, bytes.IndexByte(data[d.body:d.bodyEnd], '\n') >= 0)
		return slices.Replace(data, d.body, d.bodyEnd, text...), err
	}
	text := d.text(p.data)
	patched, err := patch(text, old, tree)
	if err == nil && says(patched, to) {
		return slices.Replace(data, d.body, d.stop, patched...), nil
	}
	if doc, err := yaml.Parse(text); err != nil || doc.Commented() {
		return nil, errors.New("cannot be changed without losing comments: edit it by hand")
	}
	whole, err := p.render(to, i)
	return slices.Replace(data, d.body, d.bodyEnd, whole...), err
}

// says says whether a text declares an object, and nothing but that.
func says(text []byte, o *Object) bool {
	p := Parse("", text)
	return len(p.Objects) == 1 && len(p.Faults) == 0 && bytes.Equal(p.Objects[0].JSON, o.JSON)
}

// removal is the bytes that go with a document: its separators too, but for the one that keeps its
// neighbours apart.
func (p *File) removal(i int) (from, to int) {
	d := p.docs[i]
	from, to = d.start, d.end
	rest := p.data[to:]
	if d.json || d.stop == d.end || isMarker(rest, "---") {
		return from, to
	}
	return from, d.stop // the "..." line: what follows has no "---" of its own
}

// render is the text of an object in place of the i-th document.
func (p *File) render(to *Object, i int) ([]byte, error) {
	text, err := yaml.Encode(json.RawMessage(to.JSON))
	if err != nil {
		return nil, err
	}
	text = bytes.TrimRight(text, "\n")
	d := p.docs[i]
	if d.body > 0 && p.data[d.body-1] != '\n' && !bytes.Equal(p.data[:d.body], utf8BOM) {
		text = append([]byte("\n"), text...) // the old one began behind "---"
	}
	if bytes.Contains(p.data, []byte("\r\n")) {
		text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	}
	return text, nil
}

func renderJSON(tree map[string]any, indent bool) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if indent {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(tree); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// confirm reads an edited file back and checks that it says what it should: the new objects where the old
// ones stood, and all else as before.
func (p *File) confirm(data []byte, edits map[int]*Object) error {
	now := Parse(p.path, data)
	var want, got [][]byte
	for _, m := range p.Objects {
		to, edited := edits[m.doc]
		if !edited {
			want = append(want, m.JSON)
		}
		if to != nil {
			want = append(want, to.JSON)
		}
	}
	for _, m := range now.Objects {
		got = append(got, m.JSON)
	}
	if !slices.EqualFunc(want, got, bytes.Equal) {
		return errors.New("read back, it would not say the same")
	}
	return nil
}

// blank says whether a file holds nothing but white space and separators.
func blank(data []byte) bool {
	for line := range bytes.Lines(bytes.TrimPrefix(data, utf8BOM)) {
		switch string(bytes.TrimSpace(line)) {
		case "", "---", "...":
		default:
			return false
		}
	}
	return true
}
