package yaml

import "unicode/utf8"

// lineBreak is the length of the line break at the start of a text, or 0.
func lineBreak(text []byte) int {
	switch {
	case text[0] == '\n':
		return 1
	case text[0] == '\r':
		if len(text) > 1 && text[1] == '\n' {
			return 2
		}
		return 1
	case text[0] == 0xc2 && len(text) > 1 && text[1] == 0x85:
		return 2
	case text[0] == 0xe2 && len(text) > 2 && text[1] == 0x80 && (text[2] == 0xa8 || text[2] == 0xa9):
		return 3
	}
	return 0
}

// Places finds where nodes begin in their text. Nodes that are asked for in their order cost one walk over the text, however
// long its lines are.
type Places struct {
	text  []byte
	lines []int // where each begins, as YAML 1.1 ends lines: the nodes' lines count so

	line, column, at int // where the last one was found; line 0: there was none
}

// PlacesOf finds the nodes of a text.
func PlacesOf(text []byte) *Places {
	p := &Places{text: text, lines: []int{0}}
	for i := 0; i < len(text); {
		n := lineBreak(text[i:])
		if n == 0 {
			i++
			continue
		}
		i += n
		p.lines = append(p.lines, i)
	}
	return p
}

// Offset is where a node begins in the text: with its anchor and tag.
func (p *Places) Offset(n *Node) int {
	if n.Line < 1 || n.Line > len(p.lines) {
		return len(p.text)
	}
	if n.Line != p.line || n.Column < p.column {
		p.line, p.column, p.at = n.Line, 1, p.lines[n.Line-1]
	}
	for ; p.column < n.Column; p.column++ {
		_, size := utf8.DecodeRune(p.text[p.at:])
		p.at += size
	}
	return p.at
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
