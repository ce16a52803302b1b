package kube

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// stored is a pool of which the API has a form, from 1; a form below 0 is one that cannot be used.
func stored(name string, form, version int) *entry {
	e := &entry{Name: name, UID: types.UID(name), Generation: int64(max(form, -form)), ResourceVersion: strconv.Itoa(version)}
	e.Kind = datastore.KindIPPool
	if form < 0 {
		e.fault = errors.New("spec.cidr: is nonsense")
		return e
	}
	e.value, e.json = &model.Pool{Name: name, BlockSize: form}, fmt.Append(nil, form)
	return e
}

// forms are the forms in force, by name.
func forms(v *view) map[string]int {
	out := map[string]int{}
	for _, e := range v.entries() {
		out[e.Name] = e.value.(*model.Pool).BlockSize
	}
	return out
}

// TestRemadeDefinition: the documentation promises ten minutes, in which the manifests can be applied again.
func TestRemadeDefinition(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	v := newView(datastore.KindIPPool)
	v.absorb(map[string]*entry{"a": stored("a", 1, 1)}, true)
	v.remade("new", now)
	v.absorb(map[string]*entry{}, true) // by the new definition there is nothing yet
	v.expire(now.Add(10*time.Minute - time.Second))
	if got := forms(v); len(got) != 1 {
		t.Errorf("in force a second before ten minutes are over: %v", got)
	}
	v.expire(now.Add(10 * time.Minute))
	if got := forms(v); len(got) != 0 {
		t.Errorf("in force after ten minutes: %v", got)
	}
}

// TestView leads a view through what may be heard and found out.
func TestView(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	later := now.Add(lostGrace)
	news := func(all bool, entries ...*entry) func(*view) {
		return func(v *view) {
			m := map[string]*entry{}
			for _, e := range entries {
				m[e.Name] = e
			}
			v.absorb(m, all)
		}
	}
	gone := func(names ...string) func(*view) {
		return func(v *view) {
			m := map[string]*entry{}
			for _, n := range names {
				m[n] = nil
			}
			v.absorb(m, false)
		}
	}
	confirm := func(v *view) { v.confirmAll() }
	anew := func(v *view) { v.lose("new", later) }
	expire := func(at time.Time) func(*view) { return func(v *view) { v.expire(at) } }
	a1, b1 := stored("a", 1, 1), stored("b", 1, 2)
	for _, test := range []struct {
		name  string
		steps []func(*view)
		want  map[string]int
		bad   []string
		lost  []string
		seen  uint64
	}{
		{"created", []func(*view){news(true, a1), news(false, b1)}, map[string]int{"a": 1, "b": 1}, nil, nil, 2},
		{"changed", []func(*view){news(true, a1), news(false, stored("a", 2, 7))}, map[string]int{"a": 2}, nil, nil, 7},
		{"gone is not dropped", []func(*view){news(true, a1), gone("a")}, map[string]int{"a": 1}, nil, nil, 1},
		{"nor expired", []func(*view){news(true, a1), gone("a"), expire(later)}, map[string]int{"a": 1}, nil, nil, 1},
		{"gone and confirmed", []func(*view){news(true, a1, b1), gone("a"), confirm}, map[string]int{"b": 1}, nil, nil, 2},
		{"gone while nobody watched", []func(*view){news(true, a1, b1), news(true, b1), confirm}, map[string]int{"b": 1}, nil, nil, 2},
		{"gone and there again", []func(*view){news(true, a1), gone("a"), news(false, stored("a", 3, 9)), confirm}, map[string]int{"a": 3}, nil, nil, 9},
		{"never there and gone", []func(*view){news(true, a1), gone("x"), confirm}, map[string]int{"a": 1}, nil, nil, 1},
		{"cannot be used", []func(*view){news(true, stored("a", -1, 4), b1)}, map[string]int{"b": 1}, []string{"a"}, nil, 4},
		{"its earlier form stays", []func(*view){news(true, a1), news(false, stored("a", -2, 4))}, map[string]int{"a": 1}, []string{"a"}, nil, 4},
		{"mended", []func(*view){news(true, a1), news(false, stored("a", -2, 4)), news(false, stored("a", 3, 5))}, map[string]int{"a": 3}, nil, nil, 5},
		{"deleted unusable", []func(*view){news(true, a1), news(false, stored("a", -2, 4)), gone("a"), confirm}, map[string]int{}, nil, nil, 4},
		{"deleted unusable while nobody watched", []func(*view){news(true, a1, stored("b", -1, 4)), news(true, a1), confirm}, map[string]int{"a": 1}, nil, nil, 4},
		{"definition made anew", []func(*view){news(true, a1, b1), gone("a", "b"), anew, news(true)}, map[string]int{"a": 1, "b": 1}, nil, []string{"a", "b"}, 2},
		{"unnoticed", []func(*view){news(true, a1, b1), anew, news(true, stored("b", 2, 9)), confirm}, map[string]int{"a": 1, "b": 2}, nil, []string{"a"}, 9},
		{"nothing confirms what is lost", []func(*view){news(true, a1), gone("a"), anew, news(true), confirm, gone("a"), confirm}, map[string]int{"a": 1}, nil, []string{"a"}, 1},
		{"lost and expired", []func(*view){news(true, a1, b1), gone("a", "b"), anew, news(true, stored("b", 2, 9)), expire(later)}, map[string]int{"b": 2}, nil, nil, 9},
		{"lost for less than that", []func(*view){news(true, a1), gone("a"), anew, news(true), expire(later.Add(-1))}, map[string]int{"a": 1}, nil, []string{"a"}, 1},
		{"lost and declared again", []func(*view){news(true, a1), gone("a"), anew, news(true), news(false, stored("a", 5, 9)), expire(later)}, map[string]int{"a": 5}, nil, nil, 9},
		{"declared again and deleted", []func(*view){news(true, a1), gone("a"), anew, news(true), news(false, stored("a", 5, 9)), gone("a"), confirm}, map[string]int{}, nil, nil, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := newView(datastore.KindIPPool)
			for _, step := range test.steps {
				step(v)
			}
			if got := forms(v); !maps.Equal(got, test.want) {
				t.Errorf("in force are %v, want %v", got, test.want)
			}
			if got := slices.Sorted(maps.Keys(v.bad)); !slices.Equal(got, test.bad) {
				t.Errorf("not to be used are %v, want %v", got, test.bad)
			}
			if got := slices.Sorted(maps.Keys(v.lost)); !slices.Equal(got, test.lost) {
				t.Errorf("lost are %v, want %v", got, test.lost)
			}
			if v.followed.Seen != test.seen {
				t.Errorf("followed up to %d, want %d", v.followed.Seen, test.seen)
			}
		})
	}
}

// TestStaleConfirmation answers a question about what was gone after it has come back and gone again.
func TestStaleConfirmation(t *testing.T) {
	t.Parallel()
	v := newView(datastore.KindIPPool)
	v.absorb(map[string]*entry{"a": stored("a", 1, 1)}, true)
	v.absorb(map[string]*entry{"a": nil}, false)
	asked := maps.Clone(v.gone)
	v.absorb(map[string]*entry{"a": stored("a", 1, 3)}, false)
	v.absorb(map[string]*entry{"a": nil}, false)
	v.confirm(asked)
	if len(forms(v)) != 1 {
		t.Error("an answer from before dropped it")
	}
	v.confirm(v.gone)
	if len(forms(v)) != 0 {
		t.Error("it was not dropped")
	}
}

// TestKeptDefinition makes sure that what is lost is lost again after a restart.
func TestKeptDefinition(t *testing.T) {
	t.Parallel()
	v := newView(datastore.KindIPPool)
	v.uid = "first"
	v.absorb(map[string]*entry{"a": stored("a", 1, 1)}, true)
	step := func(what string, settles bool, uid string) {
		t.Helper()
		if got := v.settle(); got != settles || v.keptUID() != uid {
			t.Errorf("%s: it settles %t, and %q is kept; want %t and %q", what, got, v.keptUID(), settles, uid)
		}
	}
	step("at first", false, "first")
	v.lose("second", time.Now())
	step("before the new one was read", false, "first")
	v.absorb(map[string]*entry{}, true)
	step("while something is lost", false, "first")
	v.lose("third", time.Now())
	v.absorb(map[string]*entry{}, true)
	step("while something of the first is lost", false, "first")
	v.absorb(map[string]*entry{"a": stored("a", 2, 2)}, false)
	step("declared again", true, "third")
	step("a moment later", false, "third")
}

// history is an API whose pools change at random, and a view that hears of it late, at times twice, and at times not at
// all until it lists everything.
type history struct {
	api      map[string]int // the form of each pool there is
	version  int
	lastGood map[string]int // the last form of each that could be used
	view     *view
	asked    map[string]uint64 // what was gone when it was last asked
}

// TestViewConverges makes sure that whatever was heard in between, the view ends with what the API has, and that it
// never lets go of a pool without an answer to a question that was asked after it was gone.
func TestViewConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := &history{api: map[string]int{}, lastGood: map[string]int{}, view: newView(datastore.KindIPPool)}
		h.list(rapid.Bool().Draw(t, "definition made anew"))
		names := rapid.SampledFrom([]string{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"set":    func(t *rapid.T) { h.version++; h.api[names.Draw(t, "name")] = h.version },
			"break":  func(t *rapid.T) { h.version++; h.api[names.Draw(t, "name")] = -h.version },
			"delete": func(t *rapid.T) { h.version++; delete(h.api, names.Draw(t, "name")) },
			"hear":   func(t *rapid.T) { h.hear(names.Draw(t, "name")) },
			"list":   func(*rapid.T) { h.list(false) },
			"ask":    func(*rapid.T) { h.asked = maps.Clone(h.view.gone) },
			"answer": func(t *rapid.T) { h.answer(t) },
		})
		h.list(false)
		h.view.confirmAll()
		want, digest := map[string]int{}, uint64(0)
		for name, form := range h.api {
			digest += datastore.GenerationDigest(name, int64(max(form, -form)))
			if form < 0 {
				form = h.lastGood[name]
			}
			if form > 0 {
				want[name] = form
			}
		}
		if got := forms(h.view); !maps.Equal(got, want) {
			t.Fatalf("in force are %v, want %v of %v", got, want, h.api)
		}
		if got := h.view.followed.Digest; got != digest {
			t.Fatalf("the digest is %x, want %x, of %v", got, digest, h.api)
		}
	})
}

// hear lets the view hear how one pool is now.
func (h *history) hear(name string) {
	h.absorb(map[string]*entry{name: h.entry(name)}, false)
}

// list lets the view hear of everything.
func (h *history) list(anew bool) {
	if anew {
		h.view.lose("new", time.Now())
	}
	news := map[string]*entry{}
	for name := range h.api {
		news[name] = h.entry(name)
	}
	h.absorb(news, true)
}

func (h *history) entry(name string) *entry {
	form := h.api[name]
	if form == 0 {
		return nil
	}
	return stored(name, form, max(form, -form))
}

func (h *history) absorb(news map[string]*entry, all bool) {
	before := forms(h.view)
	for name, e := range news {
		if e != nil && e.fault == nil {
			h.lastGood[name] = h.api[name]
		}
	}
	h.view.absorb(news, all)
	after := forms(h.view)
	for name := range before {
		if after[name] == 0 {
			panic("news alone dropped " + name)
		}
	}
}

// answer says that the definition is as it was: what was gone then may go, and nothing else.
func (h *history) answer(t *rapid.T) {
	before, gone := forms(h.view), maps.Clone(h.view.gone)
	h.view.confirm(h.asked)
	after := forms(h.view)
	for name := range before {
		if after[name] != 0 {
			continue
		}
		delete(h.lastGood, name)
		if number := h.asked[name]; number == 0 || number != gone[name] {
			t.Fatalf("%s was dropped; asked was about %v, and gone were %v", name, h.asked, gone)
		}
	}
	h.asked = nil
}

// TestDigestIsOfWhatWasHeard: what was kept of an earlier run says nothing about what the API has.
func TestDigestIsOfWhatWasHeard(t *testing.T) {
	t.Parallel()
	v := newView(datastore.KindIPPool)
	a, b := stored("a", 1, 1), stored("b", 1, 2)
	a.ResourceVersion, b.ResourceVersion = "", ""
	v.force = map[string]*entry{"a": a, "b": b}
	v.absorb(map[string]*entry{"a": stored("a", 2, 3)}, true)
	if got, want := v.followed.Digest, datastore.GenerationDigest("a", 2); got != want {
		t.Errorf("the digest is %x, want %x", got, want)
	}
}

// TestMadeByTheNewDefinition: what was created after a definition was made anew did not go with the old one.
func TestMadeByTheNewDefinition(t *testing.T) {
	t.Parallel()
	v := newView(datastore.KindIPPool)
	before, after := stored("before", 1, 1), stored("after", 1, 2)
	before.created, after.created = 99, 100
	v.absorb(map[string]*entry{"before": before, "after": after}, true)
	v.absorb(map[string]*entry{"before": nil, "after": nil}, false)
	v.confirm(v.since(maps.Clone(v.gone), 100))
	v.lose("new", time.Now())
	if got := forms(v); len(got) != 1 || got["before"] != 1 || len(v.lost) != 1 {
		t.Errorf("in force are %v, lost %v", got, v.lost)
	}
}
