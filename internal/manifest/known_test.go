package manifest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/model"
)

// What is known of one version of a file changes nothing of what the next one says: objects, places and faults.
func TestKnownDocumentsChangeNothing(t *testing.T) {
	t.Parallel()
	pieces := []string{pool("a", "10.1.0.0/24"), pool("a", "10.1.0.0/25"), pool("b", "10.2.0.0/24", "vxlanMode: Sometimes"), pool("c", "10.3.0.7/24"),
		"a: [", "# nothing\n", "kind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(pool("d", "10.4.0.0/24")), "\n", "\n  ") + "\n", "kind: Pod\napiVersion: v1\n", "null\n"}
	rapid.Check(t, func(t *rapid.T) {
		draw := func() []byte {
			parts := rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 24).Draw(t, "documents")
			return []byte(strings.Join(parts, rapid.SampledFrom([]string{"---\n", "\n---\n# more\n"}).Draw(t, "between")))
		}
		old := Parse("f", draw())
		old.docs = append(old.docs, make([]document, manyDocuments)...) // however short it is
		data := draw()
		inForce := func(k Key) *Object {
			if k.Name == "a" {
				return &Object{Key: k, JSON: []byte(`{"kind":"IPPool"}`)}
			}
			return nil
		}
		want, got := Check("f", data, nil, validator(), inForce), Check("f", data, old.Known(), validator(), inForce)
		if !reflect.DeepEqual(want.Faults, got.Faults) && len(want.Faults)+len(got.Faults) > 0 {
			t.Fatalf("faults %v, want %v", got.Faults, want.Faults)
		}
		place := func(p *File) (out []string) {
			for _, d := range p.Objects {
				out = append(out, fmt.Sprint(d.Key, d.File, d.Line, d.doc, d.item, d.Faulty, string(d.JSON)))
			}
			return out
		}
		if w, g := place(want), place(got); !reflect.DeepEqual(w, g) {
			t.Fatalf("objects %v, want %v", g, w)
		}
	})
}

// One document changed among many costs a part of what all cost. Not parallel: it counts what the process allocates.
func TestOneDocumentOfMany(t *testing.T) {
	text := func(more string) []byte {
		var b strings.Builder
		for i := range 2000 {
			b.WriteString("---\n" + pool(fmt.Sprintf("p%d", i), fmt.Sprintf("10.%d.%d.0/28", i/256, i%256)))
		}
		return []byte(b.String() + more)
	}
	var old *File
	all := allocated(func() { old = Parse("f", text("")) })
	known := old.Known()
	more := "---\n" + pool("q", "10.99.0.0/24")
	next := text(more)
	inForce := map[Key]*Object{}
	for i := range old.Objects {
		inForce[old.Objects[i].Key] = &old.Objects[i].Object
	}
	find := func(k Key) *Object { return inForce[k] }
	Check("f", []byte(more), nil, validator(), find) // the rules are compiled
	var p *File
	one := allocated(func() { p = Check("f", next, known, validator(), find) })
	if len(p.Objects) != 2001 || p.Objects[2000].Key != (Key{Kind: model.KindIPPool, Name: "q"}) || len(p.Faults) > 0 {
		t.Fatalf("%d objects, %v", len(p.Objects), p.Faults)
	}
	if one > all/10 {
		t.Errorf("one changed document took %d bytes of memory, all took %d", one, all)
	}
}
