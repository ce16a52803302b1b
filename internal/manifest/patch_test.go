package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestPatch: what stays the same keeps its form and its comments. Each text is the part of a document below "spec:".
func TestPatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, before, applied, after string }{
		{"one scalar", "# of a\n\na:   1   # one\nb: 2 # two\n\n# tail\n", "{a: 3, b: 2}", "# of a\n\na:   3   # one\nb: 2 # two\n\n# tail\n"},
		{"quotes stay", "a: 'x' # one\nb: \"y\"\nc: z\n", "{a: u, b: v, c: 'yes'}", "a: 'u' # one\nb: \"v\"\nc: \"yes\"\n"},
		{"a text that needs quotes", "a: x # one\n", "{a: 'b # c'}", "a: 'b # c' # one\n"},
		{"a text that would be something else", "a: x\n", `{a: "0777"}`, "a: \"0777\"\n"},
		{"an entry goes with its comments", "a: 1\n# two\n# of them\nb: 2 # two\n# three\nc: 3\n", "{a: 1, c: 3}", "a: 1\n# three\nc: 3\n"},
		{"a comment behind a blank line stays", "a: 1\n# apart\n\nb: 2\nc: 3\n", "{a: 1, c: 3}", "a: 1\n# apart\n\nc: 3\n"},
		{"the last entry goes", "a: 1\n\n# two\nb:\n  - 1 # x\n  # y\n# tail\n", "{a: 1}", "a: 1\n\n  # y\n# tail\n"},
		{"an entry comes", "a: 1 # one\n\n# tail\n", "{a: 1, b: {c: [1, 2]}}", "a: 1 # one\nb:\n  c:\n  - 1\n  - 2\n\n# tail\n"},
		{"an entry comes where lists hang", "a:\n    b:\n        - 1 # x\n", "{a: {b: [1], c: [2]}}", "a:\n    b:\n        - 1 # x\n    c:\n        - 2\n"},
		{"without a last newline", "a: 1", "{a: 1, b: 2}", "a: 1\nb: 2"},
		{"an item changes", "a:\n- x # one\n# two\n- 'y'   # two\n- z\n", "{a: [x, w, z]}", "a:\n- x # one\n# two\n- 'w'   # two\n- z\n"},
		{"items go and come", "a:\n  # one\n  - x # 1\n  # two\n  - y # 2\n  - z # 3\n", "{a: [y, u, v, z]}", "a:\n  # two\n  - y # 2\n  - u\n  - v\n  - z # 3\n"},
		{"items come first and last", "a:\n# one\n- x # 1\n# foot\n", "{a: [u, x, v]}", "a:\n- u\n# one\n- x # 1\n- v\n# foot\n"},
		{"a list of mappings", "a:\n- b: 1 # x\n  # of c\n  c: 2\n- b: 3\n", "{a: [{b: 1, c: 4}, {b: 3, d: 5}]}", "a:\n- b: 1 # x\n  # of c\n  c: 4\n- b: 3\n  d: 5\n"},
		{"the first key of an item goes", "a:\n- b: 1\n  c: 2 # two\n", "{a: [{c: 2}]}", "a:\n- c: 2 # two\n"},
		{"lists in lists", "a:\n- - 1 # x\n  - 2\n- - 3\n", "{a: [[1, 4], [3]]}", "a:\n- - 1 # x\n  - 4\n- - 3\n"},
		{"nothing is left", "a: # why\n  b: 1\nc: 2\n", "{a: {}, c: 2}", "a: {} # why\nc: 2\n"},
		{"a list becomes empty", "a:\n- 1\n- 2\n# tail\n", "{a: []}", "a: []\n# tail\n"},
		{"a scalar becomes a mapping", "a: 1 # why\nb: 2\n", "{a: {x: 1}, b: 2}", "a: # why\n  x: 1\nb: 2\n"},
		{"a mapping becomes a scalar", "a:\n  x: 1\n\n# two\nb: 2\n", "{a: 1, b: 2}", "a: 1\n\n# two\nb: 2\n"},
		{"no value", "a: # why\nb:\n", "{a: 1, b: {c: 1}}", "a: 1 # why\nb:\n  c: 1\n"},
		{"a text of several lines comes", "a: x # why\nb: 1\n", `{a: "p\nq\n", b: 1}`, "a: | # why\n  p\n  q\nb: 1\n"},
		{"a text of several lines goes", "a: |\n  # no comment\n  x\n\nb: 1\n", "{a: z, b: 1}", "a: z\n\nb: 1\n"},
		{"an entry comes behind a text of several lines", "b:\n  a: |\n    x\n    # no comment\n\n# tail\n", `{b: {a: "x\n# no comment\n", c: 1}}`, "b:\n  a: |\n    x\n    # no comment\n  c: 1\n\n# tail\n"},
		{"a plain text over two lines", "a: x\n  y # why\nb: 1\n", "{a: z, b: 1}", "a: z\nb: 1\n"},
		{"in braces", "a: {b: 1, 'c': [x, y]} # why\n", "{a: {b: 2, c: [x, z]}}", "a: {b: 2, 'c': [x, z]} # why\n"},
		{"in braces, entries go and come", "a: { b: 1, 'c': \"2\", d: [ x, y ] } # why\n", "{a: {c: '2', d: [x, y], e: [1]}}", "a: { 'c': \"2\", d: [ x, y ], e: [1] } # why\n"},
		{"in brackets, items go and come", "a: [ 'x', y ] # why\n", "{a: [y, 'u,v', w]}", "a: [ y, 'u,v', w ] # why\n"},
		{"in braces on many lines", "a: {\n  b: 1, # one\n  c: 2 # two\n}\n", "{a: {b: 3, c: 2}}", "a: {\n  b: 3, # one\n  c: 2 # two\n}\n"},
		{"what a server writes stays as it is", "a: 1\nnothing: null\n", "{a: 2}", "a: 2\nnothing: null\n"},
		{"an alias is replaced", "a: &x 1\nb: *x # why\n", "{a: 1, b: 2}", "a: &x 1\nb: 2 # why\n"},
		{"an entry beside a merge", "a: &x {p: 1}\nb:\n  <<: *x\n  q: 2 # two\n", "{a: {p: 1}, b: {p: 1, q: 3}}", "a: &x {p: 1}\nb:\n  <<: *x\n  q: 3 # two\n"},
		{"what an anchor names is refused", "a: &x 1 # why\nb: *x\n", "{a: 2, b: 1}", ""},
		{"what is merged is refused", "a: &x {p: 1} # why\nb:\n  <<: *x\n", "{a: {p: 1}, b: {p: 2}}", ""},
		{"a comment in braces is refused", "a: {b: 1, # one\n c: 2}\n", "{a: {c: 2}}", ""},
		{"what looks like a comment in braces", "a: {b: [x, 'y # z'], c: 3} # why\n", "{a: {b: [5]}}", "a: {b: [5]} # why\n"},
		{"a comment deeper in braces is refused", "a: {b: [1, # one\n  2], c: 3}\n", "{a: {b: [5, 2]}}", ""},
		{"a comment deeper in brackets is refused", "a: [{b: 1, # one\n  c: 2}, 3]\n", "{a: [{b: 1, c: 5}]}", ""},
		{"what an anchor names above a last comment is refused", "a: &x 1\nb: *x\n\n  # tail\n", "{a: 2, b: 1}", ""},
		{"a hash in quotes in brackets is no comment", "a: [x, ['# no']] # why\n", "{a: [[]]}", "a: [[]] # why\n"},
		{"a comment behind a brace is refused", "a: { # 1st\n b: 1}\n", "{a: {b: 1, c: 2}}", ""},
		{"a comment behind a bracket is refused", "a: [# 1st\n b]\n", "{a: [b, c]}", ""},
		{"a comment with a digit on the head of a text", "a: &x2 |- # of 2024\n  x\nb: 1\n", "{a: x, b: 2}", "a: &x2 |- # of 2024\n  x\nb: 2\n"},
		{"a text that says how far it is indented is refused", "a: |-1 # why\n  x\nb: 1\n", "{a: ' x', b: 2}", ""},
		{"an explicit key is refused", "? a # why\n: 1\n", "{a: 2}", ""},
	} {
		for _, crlf := range []bool{false, true} {
			for _, deep := range []bool{false, true} {
				t.Run(fmt.Sprint(c.name, crlf, deep), func(t *testing.T) {
					t.Parallel()
					form := func(s string) string {
						if deep {
							s = "apiVersion: v1 # version\nkind: Node\nmetadata: {name: x} # name\nspec:\n    " + strings.TrimSuffix(strings.ReplaceAll(strings.ReplaceAll(s, "\n", "\n    "), "\n    \n", "\n\n"), "    ")
						} else {
							s = "kind: Node\napiVersion: v1\nmetadata: {name: x}\n" + s
						}
						if crlf {
							s = strings.ReplaceAll(s, "\n", "\r\n")
						}
						return "# head\n---\n" + s
					}
					object := "{apiVersion: v1, kind: Node, metadata: {name: x}, spec: " + c.applied + "}"
					if !deep {
						object = "{apiVersion: v1, kind: Node, metadata: {name: x}, " + c.applied[1:]
					}
					p, to := Parse("f", []byte(form(c.before))), Parse("-", []byte(object))
					if len(p.Objects) != 1 || len(to.Objects) != 1 {
						t.Fatalf("%v, %v", p.Faults, to.Faults)
					}
					out, err := rewrite(p, map[int]*Object{0: &to.Objects[0].Object})
					if c.after == "" {
						if err == nil || !strings.Contains(err.Error(), "without losing comments: edit it by hand") {
							t.Errorf("%v; written: %s", err, out)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if want := form(c.after); string(out) != want {
						t.Errorf("got:\n%q\nwant:\n%q", out, want)
					}
				})
			}
		}
	}
}

// However many items come before those that stay, these keep their comments.
func TestManyItemsCome(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: v1\nkind: Node\nmetadata: {name: x}\nspec:\n"
	old, comes := "- a # one\n- b # two\n", strings.Repeat("- c\n", 3000)
	p, to := Parse("f", []byte(head+old)), Parse("-", []byte(head+comes+old))
	out, err := rewrite(p, map[int]*Object{0: &to.Objects[0].Object})
	if err != nil || string(out) != head+comes+old {
		t.Errorf("%v, %.200q", err, out)
	}
}

// A part that was missing comes where people look for it.
func TestOrderOfParts(t *testing.T) {
	t.Parallel()
	p := Parse("f", []byte("# v\napiVersion: v1\nkind: Node\nmetadata: {name: x} # m\n\n# s\nstatus: {addresses: []}\n"))
	to := Parse("-", []byte("{apiVersion: v1, kind: Node, metadata: {name: x}, other: 1, spec: {a: 1}, status: {addresses: []}}"))
	out, err := rewrite(p, map[int]*Object{0: &to.Objects[0].Object})
	want := "# v\napiVersion: v1\nkind: Node\nmetadata: {name: x} # m\nspec:\n  a: 1\n\n# s\nstatus: {addresses: []}\nother: 1\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, %q, want %q", err, out, want)
	}
}

// A document without comments that cannot be changed in part is written whole.
func TestWhatIsWrittenWhole(t *testing.T) {
	t.Parallel()
	p := Parse("f", []byte("apiVersion: v1\nkind: Node\nmetadata: {name: x}\na: &x 1\nb: *x\n"))
	to := Parse("-", []byte("{apiVersion: v1, kind: Node, metadata: {name: x}, a: 2, b: 1}"))
	out, err := rewrite(p, map[int]*Object{0: &to.Objects[0].Object})
	if want := "a: 2\napiVersion: v1\nb: 1\nkind: Node\nmetadata:\n  name: x\n"; err != nil || string(out) != want {
		t.Errorf("%v, %q, want %q", err, out, want)
	}
}

// drawn is a value, in a text with a comment at every place where one can stand.
type drawn struct {
	t    *rapid.T
	text strings.Builder
	n    int               // of comments
	of   map[string]string // by comment: the path of what it is about
	hang int
}

func (d *drawn) comment(path string) string {
	if !rapid.Bool().Draw(d.t, "comment") {
		return ""
	}
	d.n++
	c := fmt.Sprintf("# c%d.", d.n)
	d.of[c] = path
	return c
}

func (d *drawn) head(path, indent string) {
	if c := d.comment(path); c != "" {
		d.text.WriteString(indent + c + "\n")
	}
}

func (d *drawn) scalar(v any) string {
	s := inline(nil, v)
	if text, ok := v.(string); ok {
		switch rapid.IntRange(0, 2).Draw(d.t, "quotes") {
		case 0:
			s = "'" + strings.ReplaceAll(text, "'", "''") + "'"
		case 1:
			quoted, _ := json.Marshal(text)
			s = string(quoted)
		}
	}
	return s
}

// value writes a value behind a key or a dash.
func (d *drawn) value(v any, path, indent string, inList bool) {
	empty := reflect.ValueOf(v).Kind() != reflect.Bool && reflect.ValueOf(v).Kind() != reflect.Int64 && reflect.ValueOf(v).Kind() != reflect.String && reflect.ValueOf(v).Len() == 0
	collection := reflect.ValueOf(v).Kind() == reflect.Map || reflect.ValueOf(v).Kind() == reflect.Slice
	switch {
	case !collection:
		d.text.WriteString(" " + d.scalar(v))
	case empty || rapid.IntRange(0, 4).Draw(d.t, "flow") == 0:
		d.text.WriteString(" " + flowText(nil, v))
	default:
		d.line(path)
		if m, ok := v.(map[string]any); ok {
			d.mapping(m, path, indent+strings.Repeat(" ", rapid.IntRange(1, 4).Draw(d.t, "indent")))
		} else {
			d.list(v.([]any), path, indent+strings.Repeat(" ", map[bool]int{false: d.hang, true: 2}[inList]))
		}
		return
	}
	d.line(path)
}

func (d *drawn) line(path string) {
	if c := d.comment(path); c != "" {
		d.text.WriteString(" " + c)
	}
	d.text.WriteString("\n" + strings.Repeat("\n", rapid.IntRange(0, 1).Draw(d.t, "blank")))
}

func (d *drawn) mapping(m map[string]any, path, indent string) {
	for _, k := range rapid.Permutation(slices.Sorted(maps.Keys(m))).Draw(d.t, "order") {
		d.head(path+"/"+k, indent)
		d.text.WriteString(indent + k + ":")
		d.value(m[k], path+"/"+k, indent, false)
	}
}

func (d *drawn) list(l []any, path, indent string) {
	for i, v := range l {
		at := fmt.Sprintf("%s/%d", path, i)
		d.head(at, indent)
		d.text.WriteString(indent + "-")
		d.value(v, at, indent, true)
	}
}

func anyValue(t *rapid.T, depth int) any {
	switch kind := rapid.IntRange(0, 5).Draw(t, "kind"); {
	case depth == 0 || kind < 2:
		return rapid.SampledFrom([]any{"x", "y", "a b", "yes", "0777", "# no", "it's", int64(1), int64(2), true, false}).Draw(t, "scalar")
	case kind < 4:
		out := make([]any, rapid.IntRange(0, 4).Draw(t, "items"))
		for i := range out {
			out[i] = anyValue(t, depth-1)
		}
		return out
	default:
		return anyMapping(t, depth)
	}
}

func anyMapping(t *rapid.T, depth int) map[string]any {
	out := map[string]any{}
	for _, k := range []string{"a", "b", "c", "d"} {
		if rapid.Bool().Draw(t, k) {
			out[k] = anyValue(t, depth-1)
		}
	}
	return out
}

// change is a value with some parts of it changed.
func change(t *rapid.T, v any, depth int) any {
	switch v := v.(type) {
	case map[string]any:
		if rapid.IntRange(0, 5).Draw(t, "anew") == 0 {
			break
		}
		out := map[string]any{}
		for _, k := range []string{"a", "b", "c", "d"} {
			was, had := v[k]
			switch what := rapid.IntRange(0, 5).Draw(t, "what"); {
			case had && what == 0, !had && what > 0:
			case had && what == 1:
				out[k] = change(t, was, depth-1)
			case had:
				out[k] = was
			default:
				out[k] = anyValue(t, depth-1)
			}
		}
		return out
	case []any:
		out := []any{}
		for _, item := range v {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
			case 1:
				out = append(out, change(t, item, depth-1))
			case 2:
				out = append(out, anyValue(t, depth-1), item)
			default:
				out = append(out, item)
			}
		}
		return out
	}
	return anyValue(t, max(0, depth))
}

// at is the value at a path of keys; false: there is none.
func at(v any, path []string) (any, bool) {
	for _, step := range path {
		switch tree := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = tree[step]; !ok {
				return nil, false
			}
		default:
			return nil, false
		}
	}
	return v, true
}

// Whatever is applied to whatever document: it then says the object, the comments of what is unchanged are there, in their
// order, and no byte of its neighbours changes.
func TestApplyKeepsComments(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := &drawn{t: t, of: map[string]string{}, hang: rapid.IntRange(0, 4).Draw(t, "hang")}
		spec := anyMapping(t, 4)
		d.text.WriteString("apiVersion: v1\nkind: Node\nmetadata: {name: x}\n")
		if len(spec) > 0 {
			d.text.WriteString("spec:\n")
			d.mapping(spec, "", "  ")
		}
		before, after := "# head\n--- # first\n"+pool("p", "10.0.0.0/24")+"\n# between\n---\n", "--- # last\n"+pool("q", "10.0.1.0/24")+"# tail"
		data := before + d.text.String() + after
		if rapid.Bool().Draw(t, "crlf") {
			data, before, after = strings.ReplaceAll(data, "\n", "\r\n"), strings.ReplaceAll(before, "\n", "\r\n"), strings.ReplaceAll(after, "\n", "\r\n")
		}
		p := Parse("f", []byte(data))
		if len(p.Objects) != 3 || len(p.Faults) > 0 {
			t.Fatalf("%v, in %s", p.Faults, data)
		}
		now, _ := change(t, any(spec), 4).(map[string]any)
		text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "x"}, "spec": now})
		if err != nil {
			t.Fatal(err)
		}
		to := Parse("-", text).Objects[0]
		out, err := rewrite(p, map[int]*Object{1: &to.Object})
		if err != nil {
			t.Fatalf("%v\n%s\napplied: %s", err, data, text)
		}
		got, ok := strings.CutPrefix(string(out), before)
		if got, ok2 := strings.CutSuffix(got, after); !ok || !ok2 {
			t.Fatalf("the neighbours changed:\n%s\n%s", data, got)
		}
		if read := Parse("f", out).Objects[1]; string(read.JSON) != string(to.JSON) {
			t.Fatalf("it says %s, want %s", read.JSON, to.JSON)
		}
		for c, path := range d.of {
			steps := strings.Split(path, "/")[1:]
			for n := range len(steps) { // what holds it, or itself
				was, ok := at(spec, steps[:n+1])
				is, still := at(now, steps[:n+1])
				if ok && still && reflect.DeepEqual(was, is) && strings.Count(got, c) != 1 {
					t.Fatalf("the comment %q of %s is gone:\n%s\napplied: %s\ngot:\n%s", c, path, data, text, got)
				}
			}
			if strings.Count(got, c) > 1 {
				t.Fatalf("the comment %q stands twice", c)
			}
		}
	})
}

// FuzzApply: whatever the form of a document, an edit is right or refused, and changes nothing around it.
func FuzzApply(f *testing.F) {
	const head = "apiVersion: v1\nkind: Node\nmetadata: {name: x}\n"
	for _, text := range []string{
		"spec: # a\n  b: 1 # c\n  # d\n  e: [f, {g: 'h'}] # i\n\n# j\n", "spec:\n- a: |+\n    b\n\n  c: >2\n     d\n- - e\n  - f\n", "? spec\n: &x\n  - !!str 1\n  - *x\n", "spec: {a: , b, \"c\":d, ? e}\n",
		"spec:\n  a: 'b\n\n    c' # d\n  \"e\\\n  f\": g\n", "spec: &a {<<: {b: c}}\nd:\n  <<: *a\n  b: e\n", "spec:\r\n  a:\r\n  - b\r\n", "spec:\n\ta: b\n", "spec: |\n # a\n", "spec:\n  - # a\n    b: c\n  -\n", "spec: \u2028\n  a: \u0085 b\n",
	} {
		f.Add([]byte(head+text), []byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"x"},"spec":{"a":"b\nc","b":2,"e":["f",{"g":[1]}]}}`))
		f.Add([]byte("# a\n--- # b\n"+head+text+"---\n# c\n"+head), []byte(head+"spec: [{a: x, c: z}, [e, g, h]]\nd: {b: 1}\n"))
	}
	f.Fuzz(func(t *testing.T, data, applied []byte) {
		p, to := Parse("f", data), Parse("-", applied)
		if len(p.Objects) == 0 || len(to.Objects) == 0 || p.Objects[0].item >= 0 {
			return
		}
		i := p.Objects[0].doc
		out, err := rewrite(p, map[int]*Object{i: &to.Objects[0].Object})
		if err != nil {
			if !strings.Contains(err.Error(), "by hand") {
				t.Fatal(err)
			}
			return
		}
		d := p.docs[i]
		if !bytes.HasPrefix(out, data[:d.body]) || !bytes.HasSuffix(out, data[d.stop:]) {
			t.Fatalf("%q became %q", data, out)
		}
	})
}
