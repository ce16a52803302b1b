package selector

import "strings"

// String renders the selector in one fixed form, with no more parentheses than are needed. It parses to
// an equal selector, unless the spaces that it adds make it longer than MaxLength.
func (s *Selector) String() string {
	var b strings.Builder
	s.root.render(&b, opOr)
	return b.String()
}

// render writes a node where only what binds at least as strongly as within may stand without parentheses.
func (n *node) render(b *strings.Builder, within op) {
	switch n.op {
	case opAll:
		b.WriteString("all()")
	case opGlobal:
		b.WriteString("global()")
	case opHas:
		b.WriteString("has(" + n.label + ")")
	case opNot:
		b.WriteString("!")
		n.operands[0].render(b, opNot)
	case opAnd:
		n.renderOperands(b, within, " && ")
	case opOr:
		n.renderOperands(b, within, " || ")
	case opIn, opNotIn:
		b.WriteString(n.label + " " + n.op.spelling() + " {")
		for i, value := range n.values {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quote(value))
		}
		b.WriteString("}")
	default:
		b.WriteString(n.label + " " + n.op.spelling() + " " + quote(n.values[0]))
	}
}

func (n *node) renderOperands(b *strings.Builder, within op, between string) {
	if n.op > within { // binds less
		b.WriteString("(")
		defer b.WriteString(")")
	}
	for i := range n.operands {
		if i > 0 {
			b.WriteString(between)
		}
		n.operands[i].render(b, n.op)
	}
}

// quote puts a value in quotes that it does not contain. It cannot contain both kinds, since there are no
// escapes.
func quote(value string) string {
	if strings.Contains(value, `"`) {
		return "'" + value + "'"
	}
	return `"` + value + `"`
}

// spelling is how each operator between a label and its value is written.
func (o op) spelling() string {
	switch o {
	case opEqual:
		return "=="
	case opNotEqual:
		return "!="
	case opIn:
		return "in"
	case opNotIn:
		return "not in"
	case opContains:
		return "contains"
	case opStartsWith:
		return "starts with"
	default:
		return "ends with"
	}
}
