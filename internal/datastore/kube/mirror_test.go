package kube

import (
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sallyport/sallyport/internal/datastore"
)

// TestMirror does what a reflector does: it lists, watches, and lists again where a watch could not go on.
func TestMirror(t *testing.T) {
	t.Parallel()
	object := func(name, version string) any {
		return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": name, "resourceVersion": version}}}
	}
	var heard []string
	news := 0
	m := &Mirror[*entry]{live: map[string]*entry{}, news: func() { news++ },
		turn: func(o any) (any, error) { return slimmed(datastore.KindIPPool, o, keeping{}) },
		heard: func(e *entry, gone bool) {
			said := e.Name + e.ResourceVersion
			if gone {
				said = "no " + e.Name
			}
			heard = append(heard, said)
		}}
	expect := func(step string, err error, ok bool, live, said string) {
		t.Helper()
		all, synced := m.Objects()
		var names []string
		for _, e := range all {
			names = append(names, e.Name+e.ResourceVersion)
		}
		slices.Sort(names)
		slices.Sort(heard)
		if err != nil || synced != ok || strings.Join(names, " ") != live || strings.Join(heard, " ") != said || news != 1 && step != "nothing yet" {
			t.Errorf("%s: %v; %q, all %t, heard %q, %d times news; want %q, %t, %q, once", step, err, names, synced, heard, news, live, ok, said)
		}
		heard, news = nil, 0
	}
	expect("nothing yet", nil, false, "", "")
	slim, err := m.Transformer()(object("b", "2")) // as a list that is streamed does
	if err != nil {
		t.Fatal(err)
	}
	expect("a first list", m.Replace([]any{object("a", "1"), slim}, "2"), true, "a1 b2", "a1 b2")
	expect("one more", m.Add(object("c", "3")), true, "a1 b2 c3", "c3")
	expect("one changed", m.Update(object("a", "4")), true, "a4 b2 c3", "a4")
	expect("one deleted", m.Delete(object("b", "5")), true, "a4 c3", "no b")
	expect("listed again", m.Replace([]any{object("a", "4"), object("d", "6")}, "7"), true, "a4 d6", "a4 d6 no c")
	if err := m.Add(&metav1.Status{}); err == nil {
		t.Error("what is no object is taken for one")
	}
	if len(slices.Collect(maps.Keys(m.live))) != 2 {
		t.Errorf("there are %v", m.live)
	}
}

// TestMirrorLearns: what was just written is known before its watch brings it, and not after it is gone.
func TestMirrorLearns(t *testing.T) {
	t.Parallel()
	object := func(name, version string) *entry { return &entry{Name: name, ResourceVersion: version} }
	newMirror := func() *Mirror[*entry] {
		return &Mirror[*entry]{live: map[string]*entry{}, news: func() {}, heard: func(*entry, bool) {}, turn: func(o any) (any, error) { return o, nil }}
	}
	for _, test := range []struct {
		name string
		run  func(m *Mirror[*entry]) error
		want string
	}{
		{"ahead of the watch", func(m *Mirror[*entry]) error { m.learn(object("b", "7"), "7"); return nil }, "a1 b7"},
		{"then heard of", func(m *Mirror[*entry]) error {
			m.learn(object("b", "7"), "7")
			return m.Add(object("b", "7"))
		}, "a1 b7"},
		{"then gone", func(m *Mirror[*entry]) error {
			m.learn(object("b", "7"), "7")
			return m.Delete(object("b", "8"))
		}, "a1"},
		{"then gone, and an older list", func(m *Mirror[*entry]) error {
			m.learn(object("b", "7"), "7")
			if err := m.Delete(object("b", "8")); err != nil {
				return err
			}
			return m.Replace([]any{object("a", "1")}, "6")
		}, "a1"},
		{"gone before", func(m *Mirror[*entry]) error {
			err := m.Delete(object("b", "8"))
			m.learn(object("b", "7"), "7")
			return err
		}, "a1"},
		{"after an older list", func(m *Mirror[*entry]) error {
			m.learn(object("b", "7"), "7")
			return m.Replace([]any{object("a", "1")}, "6")
		}, "a1 b7"},
		{"after a newer list", func(m *Mirror[*entry]) error {
			m.learn(object("b", "7"), "7")
			return m.Replace([]any{object("a", "1")}, "9")
		}, "a1"},
		{"after an older and a newer list", func(m *Mirror[*entry]) error {
			m.learn(object("b", "7"), "7")
			if err := m.Replace([]any{object("a", "1")}, "6"); err != nil {
				return err
			}
			return m.Replace([]any{object("a", "1")}, "7")
		}, "a1"},
	} {
		m := newMirror()
		if err := m.Replace([]any{object("a", "1")}, "5"); err != nil {
			t.Fatal(err)
		}
		if err := test.run(m); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range slices.Sorted(maps.Keys(m.live)) {
			got = append(got, name+m.live[name].ResourceVersion)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	m := newMirror()
	if m.learn(object("b", "7"), "7"); len(m.live) > 0 {
		t.Error("before all was heard, something was learned: the objects heard so far would count as all")
	}
}
