package kube

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
)

// add makes c stand for both.
func (c *changes) add(d changes) {
	c.keys = append(c.keys, d.keys...)
	c.differ, c.moves, c.followed = c.differ || d.differ, c.moves || d.moves, c.followed || d.followed
}

// apply puts the views in force, as far as they have changed, and saves them.
func (s *Store) apply(c changes) {
	s.stale = s.stale || c.followed
	if !s.complete() {
		return
	}
	first := s.snapshot == nil
	if c.differ || first {
		s.build(c)
	}
	if len(c.keys) > 0 || first {
		s.saver.Add(s.kept(c.keys), s.keptAll())
		s.saver.Wake()
	}
}

// build puts the views in force.
func (s *Store) build(c changes) {
	first := s.snapshot == nil
	kinds := map[string]bool{}
	for _, k := range c.keys {
		kinds[k.Kind] = true
	}
	changed := func(kind string) bool { return first || kinds[kind] }
	next := snapshotOf(func(kind string) []*entry {
		switch k := s.kindOf(kind); {
		case !changed(kind):
			return nil
		case k != nil:
			return k.entries()
		case kind == datastore.KindNode:
			return s.nodes()
		}
		return nil
	})
	keep(next, s.snapshot, changed)
	s.snapshot = next
	if c.moves || first {
		s.conditions = compile.Allocatable(s.snapshot.Pools)
		s.heedController()
	}
	s.number++
	s.stale = true
	level := slog.LevelInfo
	if !first && !slices.ContainsFunc(c.keys, func(k datastore.Key) bool { return k.Kind != datastore.KindIPBlock && k.Kind != datastore.KindNode }) {
		level = slog.LevelDebug // where a cluster starts there are thousands of them, and on each node
	}
	s.log.Log(context.Background(), level, "resources changed", "version", s.number, "changed", len(c.keys), "pools", len(s.snapshot.Pools),
		"nat-configurations", len(s.snapshot.NATConfigurations), "nodes", len(s.snapshot.Nodes), "blocks", len(s.snapshot.Blocks))
}

// heedController makes those pools not allocatable that the controller refuses, or has not judged as they are. It alone knows
// of blocks that pools of others still have.
func (s *Store) heedController() {
	if !s.network {
		return
	}
	for _, e := range s.kindOf(datastore.KindIPPool).entries() {
		if c := s.conditions[e.Name]; c.Allocatable {
			s.conditions[e.Name] = e.judged.heed(c, e.Generation)
		}
	}
}

// nodes are this node and those others that matter, by name.
func (s *Store) nodes() []*entry {
	self := s.self.force[s.node]
	if self == nil {
		return s.others.entries()
	}
	out := slices.Clone(s.others.entries())
	at, _ := slices.BinarySearchFunc(out, self, order)
	return slices.Insert(out, at, self)
}

// kept are objects as they are saved; nil for those that are not in force.
func (s *Store) kept(keys []datastore.Key) iter.Seq2[datastore.Key, []byte] {
	return func(yield func(datastore.Key, []byte) bool) {
		for _, key := range keys {
			var b []byte
			if e := s.find(key); e != nil {
				b = e.json
			}
			if !yield(key, b) {
				return
			}
		}
	}
}

// keptAll is everything in force as it is saved. It stays as it is.
func (s *Store) keptAll() iter.Seq2[datastore.Key, []byte] {
	all := [][]*entry{s.self.entries(), s.others.entries(), s.definitions()}
	for _, k := range s.kinds {
		all = append(all, k.entries())
	}
	return func(yield func(datastore.Key, []byte) bool) {
		for _, entries := range all {
			for _, e := range entries {
				if !yield(e.key(), e.json) {
					return
				}
			}
		}
	}
}

func (s *Store) find(key datastore.Key) *entry {
	if k := s.kindOf(key.Kind); k != nil {
		return k.force[key.Name]
	}
	if key.Kind == kindDefinition {
		for _, e := range s.definitions() {
			if e.Name == key.Name {
				return e
			}
		}
		return nil
	}
	if key.Name == s.node {
		return s.self.force[key.Name]
	}
	return s.others.force[key.Name]
}

// definitions are entries that remember by which definitions the views were made.
func (s *Store) definitions() []*entry {
	var out []*entry
	for _, k := range s.kinds {
		uid := types.UID(k.keptUID())
		if uid == "" {
			continue
		}
		b, err := json.Marshal(kept{Kind: kindDefinition, Metadata: keptMeta{Name: k.kind, UID: uid}})
		if err != nil {
			continue // text always encodes
		}
		out = append(out, &entry{Kind: kindDefinition, Name: k.kind, UID: uid, json: b})
	}
	return out
}
