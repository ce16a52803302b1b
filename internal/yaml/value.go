package yaml

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// maxRepeated is how many bytes the values that aliases repeat may come to. Aliases let a text of a few KB stand for
// gigabytes; what no alias repeats is as long as its text.
const maxRepeated = 6 << 20

// maxDepth bounds how deep values nest, as it is bounded in JSON. Each alias may add as much as a text can nest.
const maxDepth = 10_000

// Value is what the document says, in maps, slices, strings, bools, int64 and float64. Its errors are of type Error.
func (d *Document) Value() (any, error) {
	if d.Root == nil {
		return nil, nil
	}
	r := d.reader()
	return r.value(d.Root, 0)
}

// Key is the name that a key of a mapping stands for; false: the key merges another mapping, or can be none.
func (d *Document) Key(n *Node) (string, bool) {
	r := d.reader()
	if r.merges(n) {
		return "", false
	}
	key, err := r.key(n)
	return key, err == nil
}

func (d *Document) reader() *reader { return &reader{document: d, repeated: maxRepeated} }

// reader turns nodes into values.
type reader struct {
	document *Document
	open     map[*Node]bool // nodes that an alias stands for, while they are read
	repeated int            // bytes that are left for what aliases repeat
}

func (r *reader) value(n *Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, faultf(n.Line, "is nested more than %d deep", maxDepth)
	}
	if len(r.open) > 0 {
		if r.repeated -= 16 + len(n.Value); r.repeated < 0 {
			return nil, faultf(n.Line, "aliases repeat more than %d bytes: write the values out, in several documents", maxRepeated)
		}
	}
	switch n.Kind {
	case MappingNode:
		out := make(map[string]any, len(n.Content)/2)
		if err := r.mapping(n, out, depth); err != nil {
			return nil, err
		}
		return out, nil
	case SequenceNode:
		out := make([]any, len(n.Content))
		for i, item := range n.Content {
			var err error
			if out[i], err = r.value(item, depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case AliasNode:
		var out any
		err := r.within(n, func() (err error) {
			out, err = r.value(n.Alias, depth+1)
			return err
		})
		return out, err
	default:
		v, err := r.scalar(n)
		if err != nil {
			return nil, err
		}
		return jsonValue(v, n)
	}
}

// within reads what an alias stands for, which must not hold the alias.
func (r *reader) within(alias *Node, read func() error) error {
	if r.open[alias.Alias] {
		return faultf(alias.Line, "the value of anchor %q contains itself", alias.Value)
	}
	if r.open == nil {
		r.open = map[*Node]bool{}
	}
	r.open[alias.Alias] = true
	defer delete(r.open, alias.Alias)
	return read()
}

// mapping adds the entries of a mapping to out, where no key may stand yet.
func (r *reader) mapping(n *Node, out map[string]any, depth int) error {
	if depth > maxDepth {
		return faultf(n.Line, "is nested more than %d deep", maxDepth)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if r.merges(name) {
			if err := r.merge(value, out, depth+1); err != nil {
				return err
			}
			continue
		}
		key, err := r.key(name)
		if err != nil {
			return err
		}
		v, err := r.value(value, depth+1)
		if err != nil {
			return err
		}
		if _, twice := out[key]; twice {
			return faultf(name.Line, "key %q is already set in its mapping: keep one of them", key)
		}
		out[key] = v
	}
	return nil
}

// merges says whether a key is "<<", which merges other mappings into its own.
func (r *reader) merges(n *Node) bool {
	return n.Kind == ScalarNode && n.Value == "<<" && n.Tag == "!!merge"
}

// merge adds what stands behind "<<": a mapping, or a list of them.
func (r *reader) merge(n *Node, out map[string]any, depth int) error {
	switch {
	case n.Kind == MappingNode:
		return r.mapping(n, out, depth)
	case n.Kind == AliasNode && n.Alias.Kind == MappingNode:
		return r.within(n, func() error { return r.mapping(n.Alias, out, depth) })
	case n.Kind == SequenceNode:
		for _, item := range n.Content {
			if item.Kind == SequenceNode {
				return faultf(item.Line, wantMappings)
			}
			if err := r.merge(item, out, depth); err != nil {
				return err
			}
		}
		return nil
	default:
		return faultf(n.Line, wantMappings)
	}
}

const wantMappings = `"<<" must have a mapping, or a list of mappings, as its value`

// key makes a key a string, as kubectl does.
func (r *reader) key(n *Node) (string, error) {
	at := n
	if n.Kind == AliasNode {
		n = n.Alias
	}
	if n.Kind == ScalarNode {
		v, err := r.scalar(n)
		if err != nil {
			return "", err
		}
		if len(r.open) > 0 {
			r.repeated -= len(n.Value)
		}
		switch v := v.(type) {
		case string:
			return valid(v), nil
		case bool:
			return strconv.FormatBool(v), nil
		case int64:
			return strconv.FormatInt(v, 10), nil
		case float64:
			switch s := strconv.FormatFloat(v, 'g', -1, 32); s {
			case "+Inf":
				return ".inf", nil
			case "-Inf":
				return "-.inf", nil
			case "NaN":
				return ".nan", nil
			default:
				return s, nil
			}
		}
	}
	return "", faultf(at.Line, "a key must be text: put it in quotes")
}

// valid is a string as JSON can hold it.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// scalar is the value of a scalar.
func (r *reader) scalar(n *Node) (any, error) {
	tag := ""
	switch {
	case n.Style&TaggedStyle != 0:
		tag = n.Tag
	case n.Style != 0 || r.document.untyped(n):
		return n.Value, nil // in quotes, or a block
	}
	v, err := resolve(tag, n.Value)
	if err != nil {
		return nil, faultf(n.Line, "%v", err)
	}
	return v, nil
}

// untyped says whether the tag "!" stands before a scalar, which makes it text; the library forgets it.
func (d *Document) untyped(n *Node) bool {
	if d.marked == nil {
		d.marked = map[*Node]bool{}
		if bytes.IndexByte(d.text, '!') >= 0 {
			d.mark(PlacesOf(d.text), d.Root)
		}
	}
	return d.marked[n]
}

// mark looks for the tag "!" before each scalar of a tree, in their order.
func (d *Document) mark(p *Places, n *Node) {
	if n.Kind == ScalarNode && n.Style == 0 && p.untyped(n) {
		d.marked[n] = true
	}
	for _, child := range n.Content {
		d.mark(p, child)
	}
}

func (p *Places) untyped(n *Node) bool {
	// Where an anchor stands before the tag, the node begins with it.
	at, text := p.Offset(n), p.text
	if at < len(text) && text[at] == '&' {
		at += 1 + len(n.Anchor)
		for at < len(text) && blank(text[at]) && (n.Value != "" || lineBreak(text[at:]) == 0) { // behind an empty one stands another
			at++
		}
	}
	return at < len(text) && text[at] == '!'
}
