package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v2"
)

// rewrite is a file with some documents replaced by objects, or removed where the object is nil. Every other
// byte stays: comments outside the documents and before their content, separators, line ends. What stands inside
// a replaced document is written anew.
func rewrite(p *File, edits map[int]map[string]any) ([]byte, error) {
	out := slices.Clone(p.data)
	for i, d := range slices.Backward(p.docs) {
		tree, ok := edits[i]
		switch {
		case !ok:
		case tree == nil:
			from, to := p.removal(i)
			out = slices.Delete(out, from, to)
		default:
			text, err := render(tree, p.data, d)
			if err != nil {
				return nil, err
			}
			out = slices.Replace(out, d.body, d.bodyEnd, text...)
		}
	}
	if err := p.confirm(out, edits); err != nil {
		return nil, fmt.Errorf("%s cannot be edited safely; edit it by hand: %w", p.path, err)
	}
	return out, nil
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

// render is the text of an object in the form of the document that it replaces.
func render(tree map[string]any, data []byte, d document) ([]byte, error) {
	old := data[d.body:d.bodyEnd]
	if d.json {
		return renderJSON(tree, bytes.IndexByte(old, '\n') >= 0)
	}
	text, err := renderYAML(tree)
	if err != nil {
		return nil, err
	}
	text = bytes.TrimRight(text, "\n")
	if d.body > 0 && data[d.body-1] != '\n' && !bytes.Equal(data[:d.body], utf8BOM) {
		text = append([]byte("\n"), text...) // the old one began behind "---"
	}
	if bytes.Contains(data, []byte("\r\n")) {
		text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	}
	return text, nil
}

func renderYAML(tree map[string]any) ([]byte, error) {
	text, err := yaml.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
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
func (p *File) confirm(data []byte, edits map[int]map[string]any) error {
	now := Parse(p.path, data)
	var want, got [][]byte
	for _, m := range p.Objects {
		tree, edited := edits[m.doc]
		if !edited {
			want = append(want, m.JSON)
		}
		if tree != nil {
			text, err := json.Marshal(tree)
			if err != nil {
				return err
			}
			want = append(want, text)
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
