package manifest

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/yaml"
)

// flowEntry is an entry of a mapping in braces, or of a list in brackets.
type flowEntry struct {
	start, end int
	value      *yaml.Node
}

// flowMapping changes a mapping in braces.
func (p *patcher) flowMapping(n *yaml.Node, old, new map[string]any) error {
	var entries []flowEntry
	index := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := p.doc.Key(n.Content[i])
		_, end, err := p.flowSpan(n.Content[i+1])
		if err != nil || !ok {
			return errForm
		}
		index[name] = len(entries)
		entries = append(entries, flowEntry{p.offset(n.Content[i]), end, n.Content[i+1]})
	}
	var texts []string
	same, lost := true, false
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, _ := p.doc.Key(n.Content[i])
		now, has := new[name]
		_, had := old[name]
		e := entries[i/2]
		switch {
		case had && !has:
			same = false
		case has && !reflect.DeepEqual(now, old[name]):
			lost = lost || p.commented(e)
			texts = append(texts, string(p.text[e.start:p.offset(e.value)])+flowText(e.value, now))
		default:
			texts = append(texts, string(p.text[e.start:e.end]))
		}
	}
	for _, name := range sortedKeys(new) {
		if _, there := index[name]; !there {
			same = false
			text := flowText(nil, map[string]any{name: new[name]})
			texts = append(texts, strings.TrimSuffix(strings.TrimPrefix(text, "{"), "}"))
		}
	}
	if !same && lost {
		return errForm
	}
	if !same {
		return p.rebuild(n, entries, texts)
	}
	for name, i := range index {
		if now, has := new[name]; has {
			if err := p.flowValue(entries[i].value, old[name], now); err != nil {
				return err
			}
		}
	}
	return nil
}

// flowSequence changes a list in brackets.
func (p *patcher) flowSequence(n *yaml.Node, old, new []any) error {
	var entries []flowEntry
	for _, item := range n.Content {
		start, end, err := p.flowSpan(item)
		if err != nil {
			return err
		}
		entries = append(entries, flowEntry{start, end, item})
	}
	if len(old) == len(new) {
		for i, e := range entries {
			if err := p.flowValue(e.value, old[i], new[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if slices.ContainsFunc(entries, p.commented) {
		return errForm
	}
	var texts []string
	i := 0
	for _, v := range new {
		if at := slices.IndexFunc(old[i:], func(o any) bool { return reflect.DeepEqual(o, v) }); at >= 0 {
			i += at
			texts = append(texts, string(p.text[entries[i].start:entries[i].end]))
			i++
			continue
		}
		texts = append(texts, flowText(nil, v))
	}
	return p.rebuild(n, entries, texts)
}

// commented says whether comments stand in the value of an entry, which would go with it where it is written again.
func (p *patcher) commented(e flowEntry) bool { return p.commentIn(e.value, e.end) }

// commentIn looks for a comment between the parts of a collection that ends before end: "#" in a text is none.
func (p *patcher) commentIn(n *yaml.Node, end int) bool {
	at := p.offset(n)
	for _, child := range n.Content {
		from, to, err := p.flowSpan(child)
		if err != nil || from < at || bytes.IndexByte(p.text[at:from], '#') >= 0 || p.commentIn(child, to) {
			return true
		}
		at = to
	}
	return len(n.Content) > 0 && bytes.IndexByte(p.text[at:end], '#') >= 0
}

// rebuild puts a collection together of the texts of its entries, with what separates them.
func (p *patcher) rebuild(n *yaml.Node, entries []flowEntry, texts []string) error {
	at, to, err := p.flowSpan(n)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return errWhole
	}
	for _, e := range append(entries, flowEntry{start: to}) {
		if bytes.IndexByte(p.text[at:e.start], '#') >= 0 { // a comment, of which it is not known what it is about
			return errForm
		}
		at = e.end
	}
	between := ", "
	if len(entries) > 1 {
		between = string(p.text[entries[0].end:entries[1].start])
	}
	p.replace(entries[0].start, entries[len(entries)-1].end, strings.ReplaceAll(strings.Join(texts, between), "\r\n", "\n"))
	return nil
}

// flowValue changes a value in braces or brackets.
func (p *patcher) flowValue(n *yaml.Node, old, new any) error {
	if reflect.DeepEqual(old, new) {
		return nil
	}
	was, isMap := old.(map[string]any)
	if now, ok := new.(map[string]any); ok && isMap && n.Kind == yaml.MappingNode && len(now) > 0 && len(was) > 0 {
		return p.flowMapping(n, was, now)
	}
	list, isList := old.([]any)
	if now, ok := new.([]any); ok && isList && n.Kind == yaml.SequenceNode && len(now) > 0 && len(list) > 0 && len(list) == len(n.Content) {
		return p.flowSequence(n, list, now)
	}
	from, to, err := p.flowSpan(n)
	if err != nil || from == to {
		return errForm
	}
	p.replace(from, to, flowText(n, new))
	return nil
}

// flowSpan is the text of a value in braces, brackets or quotes, or on one line.
func (p *patcher) flowSpan(n *yaml.Node) (from, to int, err error) {
	if n.Kind == yaml.ScalarNode || n.Kind == yaml.AliasNode {
		from, to, ok := p.oneLine(n)
		if !ok && (n.Value != "" || n.Style != 0 || n.Anchor != "") {
			return 0, 0, errForm
		}
		return from, max(from, to), nil
	}
	from = p.offset(n)
	if n.Style&yaml.FlowStyle == 0 || from == len(p.text) || p.text[from] != '{' && p.text[from] != '[' {
		return 0, 0, errForm
	}
	to = from + 1
	for _, child := range n.Content {
		_, end, err := p.flowSpan(child)
		if err != nil {
			return 0, 0, err
		}
		to = max(to, end)
	}
	for ; to < len(p.text); to++ {
		switch c := p.text[to]; c {
		case '}', ']':
			return from, to + 1, nil
		case '#':
			to = p.lineEnd(to)
		case ' ', '\t', '\r', '\n', ',', ':', '?':
		default:
			return 0, 0, errForm
		}
	}
	return 0, 0, errForm
}

// flowText is a value as it stands in braces or brackets, in the quotes of the node that it replaces.
func flowText(old *yaml.Node, v any) string {
	n := yaml.ToNode(v)
	inFlow(n)
	quoteLike(n, old)
	text, err := yaml.EncodeNode(&yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: []*yaml.Node{n}}, yaml.Layout{})
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(text), "["), "]\n")
}

func inFlow(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		n.Style |= yaml.FlowStyle
	} else if n.Style&yaml.LiteralStyle != 0 {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, child := range n.Content {
		inFlow(child)
	}
}

// inline is a scalar as it stands behind a key or a dash, in the quotes of the node that it replaces.
func inline(old *yaml.Node, v any) string {
	n := yaml.ToNode(v)
	quoteLike(n, old)
	text, err := yaml.EncodeNode(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{n}}, yaml.Layout{})
	if err != nil {
		return "\n"
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(text), "- "), "\n")
}

// quoteLike gives a text the quotes of what it replaces, unless it needs others.
func quoteLike(n, old *yaml.Node) {
	const quotes = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle
	if old != nil && n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Style == 0 && old.Kind == yaml.ScalarNode {
		n.Style = old.Style & quotes
	}
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
