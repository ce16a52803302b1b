package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// allocated is how many bytes a function allocates, and never less than what it holds at once.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestALargeDocumentIsRefused: 16 MB of one document took 1.6 GB. Not parallel: it counts what the process allocates.
func TestALargeDocumentIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	label := strings.Repeat("    k%d: value\n", 1)
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: Node\nmetadata:\n  name: a\n  annotations:\n")
	for i := 0; text.Len() < MaxFileSize-100; i++ {
		fmt.Fprintf(&text, label, i)
	}
	must(t, os.WriteFile(path, []byte(text.String()), 0o600))
	var m *Manifests
	var err error
	took := allocated(func() { m, err = Read([]string{path}, nil, nil) })
	must(t, err)
	faults := m.Unreadable()
	if len(faults) != 1 || !strings.Contains(faults[0].Message, "1.5 MiB") || faults[0].Line != 1 {
		t.Errorf("faults %v", faults)
	}
	if took > 4*MaxFileSize {
		t.Errorf("refusing a file of %d bytes took %d bytes of memory", MaxFileSize, took)
	}
}

// A List over the limit says what the same List in parts says, with the same lines.
func TestALargeListIsReadItemByItem(t *testing.T) {
	t.Parallel()
	filler := strings.Repeat("x", 60<<10)
	const n = 40
	for name, form := range map[string]struct{ head, item, tail string }{
		"yaml":           {"# head\nkind: List\napiVersion: v1\nitems:\n", "- apiVersion: v1\n  kind: Node\n  # inside\n  metadata:\n    name: n%d\n    annotations: {x: %s}\n\n", "metadata: {}\n"},
		"yaml, indented": {"apiVersion: v1\nitems: # these\n", "  -\n    kind: Node\n    apiVersion: v1\n    metadata: {name: n%d, annotations: {x: %s}}\n  # between\n", "kind: List\n"},
		"json":           {"{\"kind\": \"List\", \"items\": [\n", "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\n\"metadata\":{\"name\":\"n%d\",\"annotations\":{\"x\":%q}}},\n", "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"last\"}}],\n\"apiVersion\":\"v1\"}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			build := func(filler string) string {
				var b strings.Builder
				b.WriteString(form.head)
				for i := range n {
					fmt.Fprintf(&b, form.item, i, filler)
				}
				return b.String() + form.tail
			}
			want, got := Parse("f", []byte(build("z"))), Parse("f", []byte(build(filler)))
			if len(want.Faults)+len(got.Faults) > 0 || len(want.Objects) < n || len(got.Objects) != len(want.Objects) {
				t.Fatalf("faults %v, %v; %d objects, want %d", want.Faults, got.Faults, len(got.Objects), len(want.Objects))
			}
			if len(want.parts) != 0 || len(got.parts) == 0 {
				t.Fatal("the large one was not read item by item, or the small one was")
			}
			for i := range got.Objects {
				g, w := &got.Objects[i], &want.Objects[i]
				if json := strings.Replace(string(g.JSON), filler, "z", 1); g.Key != w.Key || json != string(w.JSON) || g.item < 0 {
					t.Errorf("%s: %.80s, want %s %s", g.Key, g.JSON, w.Key, w.JSON)
				}
				if a, b := got.line(g, "metadata.name"), want.line(w, "metadata.name"); a != b && name != "json" {
					t.Errorf("%s: the name is on line %d, want %d", g.Key, a, b)
				}
			}
		})
	}
}

// What only looks like the items of a List is not taken for them.
func TestWhatIsNoList(t *testing.T) {
	t.Parallel()
	item := "- apiVersion: v1\n  kind: Node\n"
	for _, text := range []string{
		"kind: List\nmetadata: \"x\nitems:\n" + item + "y\"\n",
		"kind: List\n\"items\":\nmetadata: \"x\nitems:\n" + item + "y\"\n",
		"kind: List\nitems:\n" + item + "items:\n" + item,
		"kind: List\nitems: []\n",
		"kind: Pool\nitems:\n" + item,
		"kind: List\nkind: List\nitems:\n" + item,
		"{kind: List,\nitems:\n}",
		"kind: List\nitems:\n- \r-",
		"kind: List\nitems:\n- a\u2028- b\n",
	} {
		if items, ok := listItems([]byte(text)); ok {
			t.Errorf("%q has items %v", text, items)
		}
	}
	if items, ok := listItems([]byte("kind: List\nitems:\n" + item + item)); !ok || len(items) != 2 {
		t.Errorf("a List has items %v, %v", items, ok)
	}
}

// FuzzListItems: what is taken for the items of a List is what decoding all of it yields; or the text is not taken for one,
// or an item cannot be read.
func FuzzListItems(f *testing.F) {
	item := "- a: 1\n  b: [2] # x\n"
	for _, text := range []string{
		"kind: List\nitems:\n" + item + item, "kind: List\nitems: # x\n  # y\n\n  -\n    a: |\n      - b\n\n  - c\nmetadata: {}\n", "kind: List\nitems:\n- 'a\n- b'\n",
		"kind: List\nitems:\n- a: \"\n- b\"\n", "kind: List\nitems:\n- - a\n  - b\n- &x {c: d}\n", "kind: List\nitems:\n- a: &x 1\n- b: *x\n", "kind: List\nitems:\n- {a: [\n1]}\n", "kind: List\nitems:\n- |\n a\n- >\n b\n", "items:\n-\n-\nkind: AList\n", "kind: List\nitems:\r\n- a\r\n- b\r\n",
		`{"kind": "List", "items": [1, {"a": [2]}, "]"]}`, `{"items": [], "kind": "List"}`, `{"kind": "List", "items": [1], "items": [2]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, err := split(text)
		if err != nil || len(docs) != 1 {
			return
		}
		d := docs[0]
		body := d.text(text)
		find := listItems
		if d.json {
			find = listItemsJSON
		}
		items, ok := find(body)
		whole, _, err := decode(body, d.json)
		if !ok || err != nil { // one item that cannot be read is no fault of the others
			return
		}
		var got []any
		for _, item := range items {
			part := document{body: item.start, stop: item.end, json: d.json, item: !d.json}
			v, _, err := decode(part.text(body), d.json)
			if err != nil { // a fault: nothing is lost in silence
				return
			}
			got = append(got, v)
		}
		tree, _ := whole.(map[string]any)
		want, _ := tree["items"].([]any)
		if kind, _ := tree["kind"].(string); !strings.HasSuffix(kind, "List") || len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %#v, want the items of %#v", body, got, whole)
		}
	})
}
