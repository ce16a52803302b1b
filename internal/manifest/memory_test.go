package manifest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
)

// watched is a Validator that finds a fault in every object, so that a line is asked for, and notes what lives in memory
// while it looks at some of them.
type watched struct {
	seen int
	at   map[int]uint64 // by number of the object, from 1: bytes
}

func (w *watched) Create(map[string]any) []model.Fault {
	w.seen++
	if _, ask := w.at[w.seen]; ask {
		w.at[w.seen] = live()
	}
	return []model.Fault{{Field: "spec.cidr", Message: "wrong"}}
}

func (w *watched) Update(obj, _ map[string]any) []model.Fault { return w.Create(obj) }

// live is how many bytes live.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemoryOfManyFaults: of documents that were read, their objects are left and their faults: no tree of nodes, and no
// decoded object. Not parallel: it measures what lives in the process.
func TestMemoryOfManyFaults(t *testing.T) {
	small := func(i int) string { return pool(fmt.Sprint("p", i), "10.0.0.1/24") }
	list := func(i int) string {
		return "- " + strings.ReplaceAll(strings.TrimSpace(small(i)), "\n", "\n  ") + "\n"
	}
	dense := func(i int) string { return small(i) + "  x: [" + strings.Repeat("{a: [1]},", 10_000) + "]\n" }
	many := func(n int, head, between string, doc func(i int) string) []byte {
		var b strings.Builder
		b.WriteString(head)
		for i := range n {
			b.WriteString(doc(i) + between)
		}
		return []byte(b.String())
	}
	for _, c := range []struct {
		what string
		data []byte
		n    int
		each uint64 // bytes that an object may leave, beside its JSON
	}{
		{"large documents", many(12, "", "---\n", dense), 12, 1 << 20}, // its tree has 8 MB
		{"small documents", many(maxFaults, "", "---\n", small), maxFaults, 1500},
		{"the items of a List", many(maxFaults, "kind: List\nitems:\n", "", list), maxFaults, 1500},
		{"the items of a large List", many(maxFaults, "kind: List\nmetadata: {annotations: {x: "+strings.Repeat("y", 1<<20)+"}}\nitems:\n", "", func(i int) string { return strings.TrimSuffix(list(i), "\n") + " # " + strings.Repeat("z", 500) + "\n" }), maxFaults, 1500},
	} {
		w := &watched{at: map[int]uint64{c.n / 4: 0, c.n: 0}}
		before := live()
		p := Check("f", c.data, nil, w, func(Key) *Object { return nil })
		after := live()
		if w.seen != c.n || len(p.Faults) != c.n || p.Faults[c.n-1].Line < c.n {
			t.Fatalf("%s: %d seen, %d faults, the last %v", c.what, w.seen, len(p.Faults), p.Faults[len(p.Faults)-1])
		}
		size := uint64(len(p.Objects[0].JSON))
		if grown := (w.at[c.n] - w.at[c.n/4]) / uint64(c.n-c.n/4); w.at[c.n] > w.at[c.n/4] && grown > size+c.each {
			t.Errorf("%s: each keeps %d bytes while the rest is read; its JSON has %d", c.what, grown, size)
		}
		if kept := (after - before) / uint64(c.n); after > before && kept > size+c.each {
			t.Errorf("%s: each keeps %d bytes in the end; its JSON has %d", c.what, kept, size)
		}
		runtime.KeepAlive(c.data)
		runtime.KeepAlive(p)
	}

	// The same of files, of which the last document is like the others.
	var files []*File
	before := live()
	for i := range 12 {
		files = append(files, Parse("f", []byte(dense(i))))
	}
	m := &Manifests{files: files}
	if faults := (&edit{}).check(m, &watched{}); len(faults) != len(files) {
		t.Fatalf("%d faults", len(faults))
	}
	if after := live(); after > before && (after-before)/uint64(len(files)) > 1<<20 {
		t.Errorf("each of several files keeps %d bytes", (after-before)/uint64(len(files)))
	}
	runtime.KeepAlive(files)
}
