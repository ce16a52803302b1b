package kube

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// TestEntries changes, adds and removes objects, and looks at the order and at what each is.
func TestEntries(t *testing.T) {
	v := newView(datastore.KindIPPool)
	version := 0
	made := func(name string) *entry {
		version++
		return &entry{Kind: datastore.KindIPPool, Name: name, ResourceVersion: fmt.Sprint(version), Generation: int64(version), value: &model.Pool{Name: name}}
	}
	var given, copies [][]*entry
	expect := func(when string, want ...string) {
		t.Helper()
		given, copies = append(given, v.entries()), append(copies, slices.Clone(v.entries()))
		for i := range given {
			if !slices.Equal(given[i], copies[i]) {
				t.Errorf("%s: what was given out before is another", when)
			}
		}
		var got []string
		for _, e := range v.entries() {
			if v.force[e.Name] != e {
				t.Errorf("%s: %s is an older one", when, e.Name)
			}
			got = append(got, e.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	take := func(all bool, entries ...*entry) {
		news := map[string]*entry{}
		for _, e := range entries {
			news[e.Name] = e
		}
		v.absorb(news, all)
	}
	expect("empty")
	take(true, made("c"), made("a"), made("b"))
	expect("first", "a", "b", "c")
	before := v.force["b"]
	take(false, made("b"), made("c"))
	expect("two changed", "a", "b", "c")
	if v.force["b"] == before {
		t.Error("b is as it was before")
	}
	take(false, made("aa"))
	expect("one came", "a", "aa", "b", "c")
	v.absorb(map[string]*entry{"b": nil}, false)
	v.confirmAll()
	expect("one went", "a", "aa", "c")
}
