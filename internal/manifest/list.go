package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
)

// MaxDocumentSize bounds a document, and an item of a List, in bytes. No object of an API server is larger: etcd takes
// requests of 1.5 MiB. Decoded, text takes about a hundred times its length in memory.
const MaxDocumentSize = 3 << 19

// large hands on what a document over MaxDocumentSize holds, which must be a List: item by item, so that no more of it
// is decoded at once.
func (p *File) large(i int, take func(v any, doc, item int)) {
	d := p.docs[i]
	text := d.text(p.data)
	find := listItems
	if d.json {
		find = listItemsJSON
	}
	items, ok := find(text)
	if !ok {
		p.Faults = append(p.Faults, model.Fault{File: p.path, Line: d.line, Message: fmt.Sprintf("a document of %d bytes, the limit is %d (1.5 MiB): "+
			`divide it into several, with "---" on a line of its own between them`, len(text), MaxDocumentSize)})
		return
	}
	line, counted := d.line, 0
	for j, item := range items {
		if p.over() != "" {
			return
		}
		line += bytes.Count(text[counted:item.start], []byte("\n"))
		counted = item.start
		part := document{start: d.body + item.start, end: d.body + item.end, body: d.body + item.start, bodyEnd: d.body + item.end,
			stop: d.body + item.end, line: line, json: d.json, item: !d.json}
		p.parts = append(p.parts, part)
		if size := item.end - item.start; size > MaxDocumentSize {
			p.Faults = append(p.Faults, model.Fault{File: p.path, Line: line, Message: fmt.Sprintf("an item of %d bytes, the limit is %d (1.5 MiB)", size, MaxDocumentSize)})
			continue
		}
		v, err := p.decode(len(p.docs) + len(p.parts) - 1)
		if err != nil {
			p.unread(&part, err)
			continue
		}
		take(v, len(p.docs)+len(p.parts)-1, j)
	}
}

// span is a part of a text.
type span struct{ start, end int }

// listItemsJSON finds the items of a List in JSON; false: the text is none.
func listItemsJSON(text []byte) (items []span, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	kind, listed := "", false
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		key, isKey := t.(string)
		if err != nil || !isKey || seen[key] {
			return nil, false
		}
		seen[key] = true
		if key != "items" {
			var v any
			if dec.Decode(&v) != nil {
				return nil, false
			}
			if key == "kind" {
				kind, _ = v.(string)
			}
			continue
		}
		if t, err := dec.Token(); err != nil || t != json.Delim('[') {
			return nil, false
		}
		for dec.More() {
			var v json.RawMessage
			if dec.Decode(&v) != nil {
				return nil, false
			}
			end := int(dec.InputOffset())
			items = append(items, span{end - len(v), end})
		}
		if _, err := dec.Token(); err != nil {
			return nil, false
		}
		listed = true
	}
	return items, listed && strings.HasSuffix(kind, "List")
}

var itemsLine = regexp.MustCompile(`(?m)^items:[ \t]*(?:#.*)?\r?$`)

// listItems finds the items of a List in YAML, which is a block mapping at the start of lines, with the items as a block
// sequence; false: the text is none, or is not written so.
func listItems(text []byte) (items []span, ok bool) {
	found := itemsLine.FindAllIndex(text, 2)
	if len(found) != 1 || bytes.IndexByte([]byte("{&!"), text[0]) >= 0 || oddBreaks(text) {
		return nil, false
	}
	begin := found[0][1] + 1
	indent, end := -1, min(begin, len(text))
	for off := end; off < len(text); {
		next := len(text)
		if i := bytes.IndexByte(text[off:], '\n'); i >= 0 {
			next = off + i + 1
		}
		line := bytes.TrimRight(text[off:next], " \t\r\n")
		content := bytes.TrimLeft(line, " ")
		column := len(line) - len(content)
		isItem := len(content) > 0 && content[0] == '-' && (len(content) == 1 || content[1] == ' ')
		switch {
		case len(content) == 0 || content[0] == '#' && column <= indent: // belongs to what is before
		case isItem && (indent < 0 || column == indent):
			indent = column
			items = append(items, span{off, next})
		case indent < 0 || column <= indent:
			next = -1
		}
		if next < 0 {
			break
		}
		if len(items) > 0 {
			items[len(items)-1].end = next
		}
		off, end = next, next
	}
	if !listWithoutItems(text, found[0], end) {
		return nil, false
	}
	return items, true
}

// oddBreaks says whether lines of a text end otherwise than by "\n" or "\r\n", which YAML 1.1 allows and nothing writes.
func oddBreaks(text []byte) bool {
	for _, odd := range []string{"\u0085", "\u2028", "\u2029"} {
		if bytes.Contains(text, []byte(odd)) {
			return true
		}
	}
	return bytes.Count(text, []byte("\r")) != bytes.Count(text, []byte("\r\n"))
}

// listWithoutItems says whether a text without its items, which end at end, is a List whose key items stands on the line
// found and has no value: then nothing that was taken for an item, or for that key, stands in a scalar.
func listWithoutItems(text []byte, found []int, end int) bool {
	rest := append(bytes.Clone(text[:min(found[1]+1, len(text))]), text[end:]...)
	if len(rest) > MaxDocumentSize {
		return false
	}
	v, root, err := decode(rest, false)
	tree, _ := v.(map[string]any)
	kind, _ := tree["kind"].(string)
	value, there := tree["items"]
	at := 1 + bytes.Count(text[:found[0]], []byte("\n"))
	return err == nil && strings.HasSuffix(kind, "List") && there && value == nil && lineOf(root, "items") == at
}
