package dir

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// advance puts what the files say in force. There is no fault in them.
func (s *Store) advance() {
	if s.version > 0 && len(s.index.dirty) == 0 {
		s.keeping = false
		return
	}
	first := s.version == 0
	changes, kept := s.changes()
	clear(s.index.dirty)
	for _, k := range kept {
		s.index.dirty[k] = struct{}{}
	}
	s.keeping = len(kept) > 0
	if len(changes) == 0 && !first {
		return
	}
	s.enforce(changes)
}

// enforce puts changes in force.
func (s *Store) enforce(changes []change) {
	var all []change
	s.tables, all = s.tables.with(changes)
	s.version++
	s.stale = true
	s.saver.Add(entriesOf(all), entries(s.tables.records))
	s.log.Info("resources changed", "version", s.version, "changed", len(changes), "pools", len(s.tables.snapshot.Pools),
		"nat-configurations", len(s.tables.snapshot.NATConfigurations), "nodes", len(s.tables.snapshot.Nodes))
}

// changes is what differs between the files and what is in force. New pools get the next ranks, in the
// order of files and documents. The second is the saved objects that no file declares and that are kept for now.
func (s *Store) changes() (changes []change, kept []Key) {
	for k := range s.index.dirty {
		want, have := s.index.wanted(k), s.tables.find(k)
		switch {
		case want == nil && have == nil:
		case want == nil && s.keeping:
			kept = append(kept, k)
		case want == nil:
			changes = append(changes, change{key: k})
		case have == nil && len(s.index.live(k)) == 0: // it was not in force, and its file is gone
		case have != nil && bytes.Equal(want.JSON, have.JSON):
		default:
			changes = append(changes, change{key: k, record: &record{object: want}})
		}
	}
	slices.SortFunc(changes, byPlace)
	for _, c := range changes {
		if c.record == nil || c.key.Kind != datastore.KindIPPool {
			continue
		}
		have := s.tables.find(c.key)
		if have != nil && have.value.(*model.Pool).CIDR == c.record.value.(*model.Pool).CIDR {
			c.record.rank, c.record.allocatable = have.rank, have.allocatable
			continue
		}
		s.rank++
		c.record.rank = s.rank
	}
	return changes, kept
}

// byPlace orders changes by the file and line that bring them; what goes comes first.
func byPlace(a, b change) int {
	switch {
	case a.record == nil && b.record == nil:
		return a.key.Compare(b.key)
	case a.record == nil:
		return -1
	case b.record == nil:
		return 1
	}
	return cmp.Or(cmp.Compare(a.record.File, b.record.File), cmp.Compare(a.record.Line, b.record.Line), a.key.Compare(b.key))
}
