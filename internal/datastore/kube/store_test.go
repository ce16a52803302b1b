package kube

import (
	"log/slog"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// openStore opens the store of a node that has saved nothing. It asks no server for anything.
func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(Options{Config: &rest.Config{Host: "https://127.0.0.1:1"}, Node: "n", StateDir: t.TempDir(), Version: "1.0.0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestFirstSnapshotWaitsForNodes: where other nodes' addresses are exempt, nothing is published that lacks them.
func TestFirstSnapshotWaitsForNodes(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	var got datastore.State
	look := func() datastore.State {
		s.stale = true
		s.publish(func(st datastore.State) { got = st })
		return got
	}
	hosts := model.ExcludeIPPoolsAndHostIPs
	settings := &entry{Kind: datastore.KindNATConfiguration, Name: "default", ResourceVersion: "3", value: model.NATConfiguration{Name: "default", NodeSelector: "all()", Exclusions: &hosts}}
	node := func(name string) *entry {
		return &entry{Kind: datastore.KindNode, Name: name, ResourceVersion: "1", value: model.Node{Name: name}}
	}
	s.apply(s.kindOf(datastore.KindIPPool).absorb(map[string]*entry{"a": stored("a", 1, 2)}, true))
	s.apply(s.self.absorb(map[string]*entry{"n": node("n")}, true))
	if st := look(); st.Snapshot != nil || st.Fresh {
		t.Errorf("before settings were heard of: %+v", st)
	}
	s.apply(s.kindOf(datastore.KindNATConfiguration).absorb(map[string]*entry{"default": settings}, true))
	s.othersWatch = &watch{} // as watchOthers does
	if st := look(); st.Snapshot != nil || st.Version != 0 || st.Fresh {
		t.Errorf("before other nodes were heard of: %+v", st)
	}
	s.apply(s.others.absorb(map[string]*entry{"other": node("other")}, true))
	if st := look(); st.Snapshot == nil || len(st.Snapshot.Nodes) != 2 || !st.Fresh {
		t.Errorf("with all nodes: %+v", st)
	}
	s.others.fresh = false // a setting goes, and comes back
	if st := look(); st.Snapshot == nil || st.Fresh {
		t.Errorf("what was published once is taken back: %+v", st)
	}
}

// TestDefinitionIsAskedFor goes through the reasons to ask for a definition, and how soon that is.
func TestDefinitionIsAskedFor(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	watched := func(change func(*kind)) *kind {
		k := newKind(sourceOf(datastore.KindIPPool))
		k.watch = &watch{}
		change(k)
		return k
	}
	for _, test := range []struct {
		name   string
		kind   *kind
		served int // how the last list was answered; 0: there was none
		want   bool
		due    time.Duration // from now
	}{
		{"all is well", watched(func(*kind) {}), 200, false, time.Hour},
		{"there is no watch", watched(func(k *kind) { k.watch = nil }), 0, true, time.Hour},
		{"it is asked for already", watched(func(k *kind) { k.watch, k.asking = nil, true }), 0, false, time.Hour},
		{"it was not found", watched(func(k *kind) { k.askAt, k.lookAt = now.Add(time.Second), now.Add(time.Second) }), 404, false, time.Second},
		{"it was not found, a while ago", watched(func(k *kind) { k.askAt, k.lookAt = now, now }), 200, true, 0},
		{"it is served again", watched(func(k *kind) { k.missing, k.asked, k.askAt = true, now.Add(-askMin), now.Add(time.Minute) }), 200, true, time.Hour},
		{"it is said to be served, just after it was not found", watched(func(k *kind) { k.missing, k.asked, k.askAt = true, now, now.Add(time.Minute) }), 200, false, askMin},
		{"an object is gone while it is to be looked at later", watched(func(k *kind) { k.gone["a"], k.lookAt = 1, now.Add(time.Minute) }), 200, true, time.Minute},
		{"it is to be looked at later", watched(func(k *kind) { k.lookAt = now.Add(time.Minute) }), 200, false, time.Minute},
		{"it is to be looked at now", watched(func(k *kind) { k.lookAt = now }), 200, true, 0},
	} {
		c := newContact()
		if test.served > 0 {
			c.answer(request{test.kind.resource(), verbList}, test.served, "")
		}
		if got := test.kind.asks(now, c); got != test.want {
			t.Errorf("%s: asks %t", test.name, got)
		}
		if got := test.kind.due(now.Add(time.Hour)).Sub(now); got != test.due {
			t.Errorf("%s: there is something to do in %s, want %s", test.name, got, test.due)
		}
	}
}
