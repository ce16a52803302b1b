package manifest

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/sallyport/sallyport/internal/yaml"
)

func (p *patcher) offset(n *yaml.Node) int { return p.places.Offset(n) }

// lineStart is where the line begins that holds an offset.
func (p *patcher) lineStart(at int) int { return bytes.LastIndexByte(p.text[:at], '\n') + 1 }

// lineEnd is where that line ends, before its break.
func (p *patcher) lineEnd(at int) int {
	if i := bytes.IndexByte(p.text[at:], '\n'); i >= 0 {
		return p.withoutBreak(at + i + 1)
	}
	return len(p.text)
}

// nextLine is where the line after that begins.
func (p *patcher) nextLine(at int) int {
	if i := bytes.IndexByte(p.text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(p.text)
}

// withoutBreak is an offset behind a line break, moved before it.
func (p *patcher) withoutBreak(at int) int {
	return len(bytes.TrimSuffix(bytes.TrimSuffix(p.text[:at], []byte("\n")), []byte("\r")))
}

// beginsLine says whether only blanks stand before an offset on its line.
func (p *patcher) beginsLine(at int) bool {
	return len(bytes.TrimLeft(p.text[p.lineStart(at):at], " ")) == 0
}

// withComments is where the comments begin that stand right above an offset, as far in as that, but not before floor; or
// the line of the offset.
func (p *patcher) withComments(at, floor int) int {
	depth := at - p.lineStart(at)
	at = p.lineStart(at)
	for at > floor {
		above := p.lineStart(at - 1)
		line := p.text[above:at]
		if above < floor || depthOf(line) != depth || line[depth] != '#' {
			break
		}
		at = above
	}
	return at
}

// depthOf is how many blanks a line begins with.
func depthOf(line []byte) int { return len(line) - len(bytes.TrimLeft(line, " ")) }

// entriesOf is what stands in a block mapping that ends before end, and the name of each; "" for one that merges.
func (p *patcher) entriesOf(n *yaml.Node, end int) (entries []entry, names []string, err error) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		start, after, ok := p.oneLine(key)
		if !ok {
			return nil, nil, errForm
		}
		for after < len(p.text) && (p.text[after] == ' ' || p.text[after] == '\t') {
			after++
		}
		if after == len(p.text) || p.text[after] != ':' {
			return nil, nil, errForm // "? key"
		}
		e := entry{key: true, start: start, after: after + 1, value: n.Content[i+1], limit: end, depth: key.Column - 1}
		if i+2 < len(n.Content) {
			next := p.offset(n.Content[i+2])
			if e.limit = p.lineStart(next); !p.beginsLine(next) || e.limit < e.after {
				return nil, nil, errForm
			}
		}
		if e.end, err = p.contentEnd(e); err != nil {
			return nil, nil, err
		}
		name, _ := p.doc.Key(key)
		entries, names = append(entries, e), append(names, name)
	}
	return entries, names, nil
}

// itemsOf is what stands in a block sequence that ends before end.
func (p *patcher) itemsOf(n *yaml.Node, end int) ([]entry, error) {
	depth := n.Column - 1
	if n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		return nil, errForm
	}
	dashes := []int{p.offset(n)} // the first one may stand behind something
	for at := p.nextLine(dashes[0]); at < end; at = p.nextLine(at) {
		line := p.text[at:p.lineEnd(at)]
		if in := depthOf(line); in == depth && isDash(line[in:]) {
			dashes = append(dashes, at+in)
		}
	}
	if len(dashes) != len(n.Content) { // one that is the beginning of a text, or none where there should be one
		return nil, errForm
	}
	var err error
	entries := make([]entry, len(dashes))
	for i, start := range dashes {
		e := entry{start: start, after: start + 1, value: n.Content[i], limit: end, depth: depth}
		if i+1 < len(dashes) {
			e.limit = p.lineStart(dashes[i+1])
		}
		if e.end, err = p.contentEnd(e); err != nil {
			return nil, err
		}
		entries[i] = e
	}
	return entries, nil
}

// isDash says whether a line begins with the dash of an item.
func isDash(line []byte) bool {
	return len(line) > 0 && line[0] == '-' && (len(line) == 1 || line[1] == ' ' || line[1] == '\t')
}

// indentation is the head of a block of text that says how far its lines are indented.
var indentation = regexp.MustCompile(`^(?:[&!]\S*\s+)*[|>][-+]?[1-9]`)

// contentEnd is where the last line of an entry ends that is neither empty nor a comment of its own.
func (p *patcher) contentEnd(e entry) (int, error) {
	last := e.value
	for len(last.Content) > 0 && last.Style&yaml.FlowStyle == 0 {
		last = last.Content[len(last.Content)-1]
	}
	at, end := p.nextLine(e.after), p.nextLine(e.after)
	depth := -1
	if last.Kind == yaml.ScalarNode && last.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		head := p.offset(last)
		if indentation.Match(p.text[head:p.lineEnd(head)]) {
			return 0, errForm // the indentation is not that of its first line
		}
		at, end, depth = p.nextLine(head), p.nextLine(head), 0
	}
	for ; at < e.limit; at = p.nextLine(at) {
		line := bytes.TrimSpace(p.text[at:p.lineEnd(at)])
		switch {
		case len(line) == 0:
			continue
		case depth >= 0: // in a block of text, where "#" begins no comment
			if depth == 0 {
				depth = max(1, depthOf(p.text[at:]))
			}
			if depthOf(p.text[at:]) < depth {
				return end, nil
			}
		case line[0] == '#':
			continue
		}
		end = p.nextLine(at)
	}
	return end, nil
}

// noteOf is the comment on the line of a key or dash that stays when its value is replaced as a whole.
func (p *patcher) noteOf(e entry) string {
	from, eol := e.after, p.lineEnd(e.after)
	if at := p.offset(e.value); at >= from && at < eol {
		if _, to, err := p.flowSpan(e.value); err == nil {
			from = min(to, eol)
		} else if e.value.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			from = at + len(bytes.TrimRight(p.text[at:eol], "#"))
			if i := bytes.Index(p.text[at:eol], []byte(" #")); i >= 0 {
				from = at + i
			}
		} else {
			return ""
		}
	}
	note := strings.TrimSpace(string(p.text[from:eol]))
	if !strings.HasPrefix(note, "#") {
		return ""
	}
	return note
}

// oneLine is the text of a scalar in quotes or on one line, or of an alias, with its anchor and tag; false: it is neither.
func (p *patcher) oneLine(n *yaml.Node) (from, to int, ok bool) {
	from = p.offset(n)
	at := from
	for at < len(p.text) && (p.text[at] == '&' || p.text[at] == '!') {
		for at < len(p.text) && bytes.IndexByte([]byte(" \t\r\n"), p.text[at]) < 0 {
			at++
		}
		for at < len(p.text) && (p.text[at] == ' ' || p.text[at] == '\t') {
			at++
		}
	}
	rest := p.text[at:]
	const blocks, quotes = yaml.LiteralStyle | yaml.FoldedStyle, yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle
	switch {
	case n.Kind == yaml.AliasNode:
		return from, at + 1 + len(n.Value), bytes.HasPrefix(rest, []byte("*"+n.Value))
	case n.Kind != yaml.ScalarNode || n.Style&blocks != 0:
		return from, from, false
	case n.Style&quotes != 0:
		length := quotedLength(rest)
		return from, at + length, length > 0
	}
	return from, at + len(n.Value), n.Value != "" && bytes.HasPrefix(rest, []byte(n.Value))
}

// quotedLength is how long the scalar in quotes is with which a text begins; 0: it has no end.
func quotedLength(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && text[0] == '"':
			i++
		case text[i] != text[0]:
		case text[0] == '\'' && i+1 < len(text) && text[i+1] == '\'':
			i++
		default:
			return i + 1
		}
	}
	return 0
}

// layoutOf is how a tree is indented, as far as that can be seen.
func layoutOf(n *yaml.Node) yaml.Layout {
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if value.Style&yaml.FlowStyle != 0 || len(value.Content) == 0 {
			continue
		}
		if by := value.Column - key.Column; value.Kind == yaml.SequenceNode && by > 0 {
			return yaml.Layout{Hanging: max(2, by)}
		}
		if l := layoutOf(value); l != (yaml.Layout{}) {
			return l
		}
	}
	return yaml.Layout{}
}
