package selector

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// expression is a selector as a test sees it: one way to write it, and what it means.
type expression struct {
	text    string
	holds   func(labels map[string]string) bool
	binding int // 0: ||, 1: &&, 2: anything else
}

// space draws what may stand between two tokens.
func space(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", " ", "  ", "\t"}).Draw(t, "space")
}

// gap draws space that parts two words.
func gap(t *rapid.T) string { return " " + space(t) }

func value(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "a", "b", "ab", "ba"}).Draw(t, "value")
}

func quoted(t *rapid.T, v string) string {
	q := rapid.SampledFrom([]string{"'", `"`}).Draw(t, "quote")
	return q + v + q
}

// drawExpression draws a selector with at most this many levels of operators.
func drawExpression(t *rapid.T, depth int) expression {
	choices := []string{"all", "has", "compare", "set"}
	if depth > 0 {
		choices = append(choices, "not", "and", "or", "and", "or")
	}
	switch rapid.SampledFrom(choices).Draw(t, "form") {
	case "all":
		return expression{"all(" + space(t) + ")", func(map[string]string) bool { return true }, 2}
	case "has":
		label := drawLabel(t)
		return expression{"has(" + space(t) + label + space(t) + ")", func(l map[string]string) bool { _, ok := l[label]; return ok }, 2}
	case "compare":
		return drawComparison(t)
	case "set":
		return drawSet(t)
	case "not":
		inner := drawExpression(t, depth-1)
		return expression{"!" + space(t) + within(t, inner, 2), func(l map[string]string) bool { return !inner.holds(l) }, 2}
	case "and":
		return drawJoined(t, depth, "&&", 1, func(x, y bool) bool { return x && y })
	default:
		return drawJoined(t, depth, "||", 0, func(x, y bool) bool { return x || y })
	}
}

func drawLabel(t *rapid.T) string {
	return rapid.SampledFrom([]string{"x", "y.io/z", "in", "not", "all"}).Draw(t, "label")
}

// within writes an expression as an operand, in parentheses where precedence needs them.
func within(t *rapid.T, e expression, binding int) string {
	if e.binding < binding || rapid.Bool().Draw(t, "parentheses") {
		return "(" + space(t) + e.text + space(t) + ")"
	}
	return e.text
}

func drawJoined(t *rapid.T, depth int, operator string, binding int, join func(x, y bool) bool) expression {
	left, right := drawExpression(t, depth-1), drawExpression(t, depth-1)
	return expression{
		within(t, left, binding) + space(t) + operator + space(t) + within(t, right, binding),
		func(l map[string]string) bool { return join(left.holds(l), right.holds(l)) },
		binding,
	}
}

func drawComparison(t *rapid.T) expression {
	label, want := drawLabel(t), value(t)
	type test struct {
		spelling string
		missing  bool
		holds    func(string, string) bool
	}
	c := rapid.SampledFrom([]test{
		{"==", false, func(got, want string) bool { return got == want }},
		{"!=", true, func(got, want string) bool { return got != want }},
		{"contains", false, strings.Contains},
		{"starts with", false, strings.HasPrefix},
		{"startswith", false, strings.HasPrefix},
		{"ends  with", false, strings.HasSuffix},
	}).Draw(t, "operator")
	return expression{label + gap(t) + c.spelling + space(t) + quoted(t, want), func(l map[string]string) bool {
		got, ok := l[label]
		if !ok {
			return c.missing
		}
		return c.holds(got, want)
	}, 2}
}

func drawSet(t *rapid.T) expression {
	label, negated := drawLabel(t), rapid.Bool().Draw(t, "negated")
	var values, texts []string
	for range rapid.IntRange(0, 3).Draw(t, "size") {
		v := value(t)
		values, texts = append(values, v), append(texts, space(t)+quoted(t, v)+space(t))
	}
	inside := strings.Join(texts, ",")
	if len(values) > 0 && rapid.Bool().Draw(t, "comma") {
		inside += ","
	}
	operator := "in"
	if negated {
		operator = "not" + space(t) + "in"
	}
	return expression{label + gap(t) + operator + space(t) + "{" + inside + "}", func(l map[string]string) bool {
		got, ok := l[label]
		return (ok && slices.Contains(values, got)) != negated
	}, 2}
}

// TestAgainstMeaning draws selectors together with what they mean, and compares.
func TestAgainstMeaning(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawExpression(t, 4)
		s, err := Parse(space(t) + e.text + space(t))
		if err != nil {
			t.Fatalf("Parse(%q): %v", e.text, err)
		}
		again, err := Parse(s.String())
		if err != nil {
			t.Fatalf("Parse(%q), rendered from %q: %v", s, e.text, err)
		}
		if again.String() != s.String() {
			t.Fatalf("%q renders as %q, then as %q", e.text, s, again)
		}
		for range 8 {
			labels := map[string]string{}
			for range rapid.IntRange(0, 4).Draw(t, "labels") {
				labels[drawLabel(t)] = value(t)
			}
			want := e.holds(labels)
			if got := s.Matches(labels); got != want {
				t.Fatalf("%q on %v: %v, want %v", e.text, labels, got, want)
			}
			if got := again.Matches(labels); got != want {
				t.Fatalf("%q, rendered from %q, on %v: %v, want %v", again, e.text, labels, got, want)
			}
		}
	})
}

// FuzzParse looks for inputs that panic, that render as something else, or whose error points outside.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "all()", "has(a) && !has(b)", "a == 'b' || c != \"d\"", "a in {'b', 'c',} && !(d not in {})",
		"a starts with 'b' && c endswith 'd' || e contains ''", "((((", "!!!", "a == 'ä' ö", "has( a )&&global()",
	} {
		f.Add(seed)
	}
	labelSets := []map[string]string{{}, {"a": "b"}, {"a": "", "b": "c"}, {"a": "c", "c": "d", "d": "e", "e": "f"}}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Position < 1 || e.Position > len(text)+1 || e.Expected == "" || e.Found == "" {
				t.Fatalf("Parse(%q): %#v", text, err)
			}
			return
		}
		rendered := s.String()
		if len(rendered) > MaxLength {
			return
		}
		again, err := Parse(rendered)
		if err != nil {
			t.Fatalf("%q renders as %q: %v", text, rendered, err)
		}
		if again.String() != rendered {
			t.Fatalf("%q renders as %q, then as %q", text, rendered, again)
		}
		for _, labels := range labelSets {
			if s.Matches(labels) != again.Matches(labels) {
				t.Fatalf("%q and its rendering %q differ on %s", text, rendered, fmt.Sprint(slices.Sorted(maps.Keys(labels))))
			}
		}
	})
}
