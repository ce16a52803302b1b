package yaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
	kjson "sigs.k8s.io/json"
	oracle "sigs.k8s.io/yaml"
	goyaml "sigs.k8s.io/yaml/goyaml.v2"
)

// theirs is what kubectl reads in a text.
func theirs(text []byte) (any, error) {
	data, err := oracle.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	// It ignores what follows the first document, be it faulty.
	dec := goyaml.NewDecoder(bytes.NewReader(text))
	var first, rest any
	_ = dec.Decode(&first)
	if err := dec.Decode(&rest); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var v any
	return v, kjson.UnmarshalCaseSensitivePreserveInts(data, &v)
}

// same compares what we read with what kubectl reads.
func same(text []byte) error {
	got, err := Decode(text)
	want, their := theirs(text)
	switch {
	case (err == nil) != (their == nil):
		return fmt.Errorf("we say %#v, %w; kubectl %#v, %w", got, err, want, their)
	case err == nil && !reflect.DeepEqual(got, want):
		return fmt.Errorf("we say %#v, kubectl %#v", got, want)
	}
	return nil
}

// scalars are texts whose meaning readers of YAML differ on.
func scalars() []string {
	out := []string{"", "~", "null", "Null", "NULL", "nULL", "=", "<<", "!", "! 5", "! yes", "!!str 5", "!!str", "!!int 5", "!!int '5'", "!!int 5.5", "!!float 5", "!!float 0x10",
		"!!bool yes", "!!bool 1", "!!null x", "!!null ''", "!!binary aGVsbG8=", "!!binary /w==", "!!binary ???", "!custom 5", "!!map {a: 1}", "!!seq [1]", "!!str [a]",
		"0", "-0", "+0", "00", "0777", "0o777", "08", "09.5", "0x1F", "0X1f", "0xg", "0b101", "0b102", "-0b11", "0b-1", "0b+1", "-0b-1", "1_000", "_1", "1__0_", "0x_f", "1e3", "1E3", "1e+3", "-1e-3", "1e400", "1e", "1.",
		".5", "-.5", "+.5", ".", "..", "...5", ".e5", "1.5.2", "1_0.5", ".1_0", "1e1_0", ".inf", ".Inf", "-.INF", "+.inf", ".nan", "inf", "nan", "NaN", "Infinity", ".5p3", "0x1p-2", "0x1.8p1", "1p3",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616", "9007199254740993", "9007199254740993.0", "4611686018427387904.0", "1e18", "1e20", "1e21", "123456789012345678901234567890",
		"2001-01-01", "2001-1-1", "2001-12-14t21:59:43.10-05:00", "2001-12-15 2:59:43.10", "12:30:45", "1:2", "10.0.0.0/8", "fd00::/8", "1.2.3.4", "10.0.0.1-2", "+", "-", "--", "+x", "-x",
		"'5'", "\"yes\"", "'<<'", "|\n  5", ">\n  yes", "|-\n  0777", "*x", "&x 5", "&x ! 5", "! &x 5", "&x", "&x !!str 5"}
	for _, w := range []string{"y", "n", "yes", "no", "on", "off", "true", "false"} {
		out = append(out, w, strings.ToUpper(w), strings.ToUpper(w[:1])+w[1:], w+"x", w[:1]+strings.ToUpper(w[1:]))
	}
	return out
}

// A scalar means what it means to kubectl, as a value, as a key and in a list.
func TestScalars(t *testing.T) {
	t.Parallel()
	for _, s := range scalars() {
		for _, form := range []string{"%s\n", "a: %s\n", "%s: a\n", "- %s\n", "[%s]\n", "{%s: 1}\n", "? %s\n: 1\n", "a: &x 1\nb: %s\n"} {
			text := fmt.Sprintf(form, s)
			if err := same([]byte(text)); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "\n", "# only\n", "a: b", "a: b\n...\n", "--- a: b\n", "---\na: b\n", "a: b\na: c\n", "{a: b, a: c}",
		"a: &x {b: 1}\nc: *x\n", "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n", "a: &x {b: 1}\nc:\n  <<: *x\n  b: 2\n", "c:\n  <<: {b: 1}\n", "c:\n  <<: [{b: 1}, {d: 1}]\n",
		"c:\n  <<: [{b: 1}, [{d: 1}]]\n", "c:\n  <<: 5\n", "c:\n  <<: []\n", "c:\n  '<<': {b: 1}\n", "c:\n  !!merge <<: {b: 1}\n", "c:\n  ! <<: {b: 1}\n", "c:\n  <<: {b: 1}\n  <<: {d: 1}\n", "c: <<\n",
		"a: &x [*x]\n", "a: &x {b: *x}\n", "a: *y\n", "a: &x 1\n*x : 2\n", "&x a: *x\n", "[a]: 1\n", "{a: 1}: 1\n", "? [a]\n: 1\n",
		"a:\n\tb: 1\n", "a: b: c\n", "a: 'x\n\n  y'\n", "a: \"x\\\n  y\\u0085\\x41\\/\"\n", "a: |+\n  x\n\n\nb: >-\n  y\n  z\n", "a: |2\n    x\n", "- a\n-\n- - b\n  - c\n", "-\n", "[a, , b]\n", "{a, b: }\n", "[a: b, c]\n", "? a\n: b\n", "?\n", ":\n", "a:\n- b\n# c\n- d # e\n#f\n",
		"a: b # c\n", "a: b# c\n", "# h\n\na: b\n# f\n", "a:\n  # h\n  b: c # l\n  # f\n\nd: e\n", "[a, # x\n b]\n", "{a: 1, # x\n # y\n}\n", "a: # x\n  b\n", "a: | # x\n  b\n", "- # x\n  a\n", "a:\n  - # x\n    b: c\n",
		"\ufeffa: b\n", "a: \u0085b\n", "a: \u2028b\n", "a: x\u2029\n  y\n", "a: \x00\n", "a: \x7f\n", "a: \u009f\n", "a: \xff\n", "a\r\nb: c\r\n", "a: 1\rb: 2\r", "@a\n", "`a\n", "a: %b\n", "a: @b\n", "a: 'b\n", "a: [b\n", "a: b]\n",
		"a: &x\n  b: 1\nc: *x\n", "!!map\na: b\n", "--- !!set {a, b}\n", "a: !<tag:yaml.org,2002:int> 5\n", "!foo!a b\n", "a: !!omap [b: 1]\n",
	} {
		if err := same([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What we refuse and kubectl takes, for one answer must be the right one.
func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 5000)
	for _, c := range []struct{ text, says string }{
		{"%YAML 1.1\n---\na: b\n", "directives"},
		{"a: b\n---\nc: d\n", "more than one YAML document"},
		{"a: b\r---\r[c]\r", "more than one YAML document"},
		{"a: b\r---\rc: &c [*c]\r", "more than one YAML document"},
		{"a: b\r--- c", "more than one YAML document"},
		{"1: a\n'1': b\n", "already set"},
		{"a: &a " + deep + strings.Repeat("]", 5000) + "\nb: &b " + deep + "*a" + strings.Repeat("]", 5000) + "\nc: " + deep + "*b" + strings.Repeat("]", 5000), "deep"},
		{"a: .nan\n", "is not a number that JSON can hold"},
	} {
		if v, err := Decode([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q: %v, %v; want an error with %q", c.text, v, err, c.says)
		}
	}
}

// A fault names the line that is to blame, or where what is not closed begins.
func TestLinesOfFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		line int
	}{
		{"a: 1\nb: @x\n", 2},
		{"a:\n  b: 1\n c: 2\n", 3},
		{"a: 1\nb:\n  c: [1\n  d: 2\n", 3},
		{"a: 1\nb:\n  c: {d: 1}}\n", 3},
		{"a: 1\nb:\n  c: 'd\n", 3},
		{"a: 1\nb:\n\tc: 1\n", 3},
		{"a: 1\nb: !!int x\n", 2},
		{"a: 1\nb: 2\na: 3\n", 3},
		{"a: &x\n  b: *x\n", 2},
	} {
		var e *Error
		if _, err := Decode([]byte(c.text)); !errors.As(err, &e) || e.Line != c.line {
			t.Errorf("%q: %v on line %d, want %d", c.text, err, e.Line, c.line)
		}
	}
}

// oddStrings are texts that some reader of YAML would take for something else, or a terminal for a command.
func oddStrings() *rapid.Generator[string] {
	pieces := append(scalars(), "\n", " ", "\t", "#", " # ", ": ", ":", "- ", "\x1b[2J", "\x7f", "\u0085", "\u009b", "\u202e", "\u2066", "\u2028", "\u200f", "\ufeff", "\r", "\x00", "ä", "日本", "🙂", "{", "}", "[", "]", ",", "&", "*", "!", "|", ">", "'", "\"", "%", "@", "`", "\\", "---", "...", strings.Repeat("long ", 40), "\ufffd", "\U0010ffff", "\ufffe")
	return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 4), func(s []string) string { return strings.Join(s, "") })
}

func values() *rapid.Generator[any] {
	leaf := rapid.OneOf(rapid.Map(oddStrings(), func(s string) any { return s }), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }), rapid.Map(rapid.Float64(), func(f float64) any { return f }), rapid.Just[any](nil))
	return rapid.Custom(func(t *rapid.T) any { return draw(t, leaf, 3) })
}

func draw(t *rapid.T, leaf *rapid.Generator[any], depth int) any {
	switch kind := rapid.IntRange(0, 3).Draw(t, "kind"); {
	case depth == 0 || kind < 2:
		return leaf.Draw(t, "leaf")
	case kind == 2:
		out := make([]any, rapid.IntRange(0, 3).Draw(t, "n"))
		for i := range out {
			out[i] = draw(t, leaf, depth-1)
		}
		return out
	default:
		out := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			out[oddStrings().Draw(t, "key")] = draw(t, leaf, depth-1)
		}
		return out
	}
}

// What we write, kubectl and we read as it was, whatever the layout; and no terminal obeys it.
func TestWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := values().Draw(t, "value")
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var want any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &want); err != nil {
			t.Fatal(err)
		}
		for _, l := range []Layout{{}, {Hanging: 2}, {Hanging: 3}, {Hanging: 4}} {
			text, err := EncodeNode(ToNode(want), l)
			if err != nil {
				t.Fatalf("%#v: %v", want, err)
			}
			if got, err := theirs(text); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: kubectl reads %#v, %v; want %#v", text, got, err, want)
			}
			if got, err := Decode(text); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: we read %#v, %v; want %#v", text, got, err, want)
			}
			if strings.ContainsFunc(string(text), func(r rune) bool { return r != '\n' && unsafe(r) && r != '\ufffd' }) {
				t.Fatalf("%q has what must be escaped", text)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, s := range scalars() {
		f.Add([]byte("a: " + s + "\n" + s + ": a\n"))
	}
	f.Add([]byte("a: &x {b: 1} # c\nc:\n  <<: *x\n  d: [e, 'f']\n# g\nh: |\n  i\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if expected(text) {
			return
		}
		if err := same(text); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// expected are the texts that we read otherwise than kubectl, on purpose.
func expected(text []byte) bool {
	_, err := Decode(text)
	if err == nil {
		return false
	}
	for _, says := range []string{"directives", "more than one YAML document", "already set", "JSON can hold", "aliases repeat"} {
		if strings.Contains(err.Error(), says) {
			return true
		}
	}
	return false
}
