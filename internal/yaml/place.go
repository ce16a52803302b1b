package yaml

import (
	"bytes"
	"unicode/utf8"
)

// Lines is where each line of a text begins, as YAML 1.1 ends lines: the nodes' lines count so.
func Lines(text []byte) []int {
	out := []int{0}
	for i := 0; i < len(text); {
		n := lineBreak(text[i:])
		if n == 0 {
			i++
			continue
		}
		i += n
		out = append(out, i)
	}
	return out
}

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

// Offset is where a node begins in the text, of which lines are the Lines: with its anchor and tag.
func Offset(text []byte, lines []int, n *Node) int {
	if n.Line < 1 || n.Line > len(lines) {
		return len(text)
	}
	at := lines[n.Line-1]
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return at
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func indexBang(text []byte) bool { return bytes.IndexByte(text, '!') >= 0 }
