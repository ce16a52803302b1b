package dir

import (
	"maps"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// record is an object that is in force, with what is remembered of it. It is never changed once made.
type record struct {
	*object
	rank        uint64 // of pools
	allocatable bool   // of pools: the Allocatable condition
}

// change is a record that comes or, where it is nil, one that goes.
type change struct {
	key    Key
	record *record
}

// tables are the objects in force in the forms that others ask for. They are immutable: with makes new
// ones, in time linear in the number of objects but without looking into those that stay.
type tables struct {
	records    []*record // sorted by key
	snapshot   *model.Snapshot
	conditions map[string]compile.Condition
}

// Digest makes tables a datastore.Holder.
func (t *tables) Digest(k Key) string {
	if r := t.find(k); r != nil {
		return r.Object.Digest()
	}
	return ""
}

// Objects are those of a kind, in the order of names; of the names given, where there are any.
func (t *tables) Objects(kind string, names []string) (out []Object) {
	if len(names) > 0 {
		for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
			if r := t.find(Key{Kind: kind, Name: name}); r != nil {
				out = append(out, r.Object)
			}
		}
		return out
	}
	for _, r := range t.records {
		if r.Kind == kind {
			out = append(out, r.Object)
		}
	}
	return out
}

// find is the record of a key, or nil.
func (t *tables) find(k Key) *record {
	i, ok := slices.BinarySearchFunc(t.records, k, func(r *record, k Key) int { return r.Key.Compare(k) })
	if !ok {
		return nil
	}
	return t.records[i]
}

// with is the tables after the changes, of which there is at most one for each key, and the changes with
// those that follow from them: records whose Allocatable condition is another one now.
func (t tables) with(changes []change) (tables, []change) {
	changes = slices.Clone(changes)
	slices.SortFunc(changes, func(a, b change) int { return a.key.Compare(b.key) })
	old := t.snapshot
	if old == nil {
		old = &model.Snapshot{}
	}
	out := tables{
		records:    mergeRecords(t.records, changes),
		conditions: t.conditions,
		snapshot: &model.Snapshot{
			Pools:             merge(old.Pools, changes, datastore.KindIPPool, func(p **model.Pool) string { return (*p).Name }, poolOf),
			NATConfigurations: merge(old.NATConfigurations, changes, datastore.KindNATConfiguration, func(c *model.NATConfiguration) string { return c.Name }, valueOf[model.NATConfiguration]),
			Nodes:             merge(old.Nodes, changes, datastore.KindNode, func(n *model.Node) string { return n.Name }, valueOf[model.Node]),

			Reservations: merge(old.Reservations, changes, datastore.KindIPReservation, func(r *model.Reservation) string { return r.Name }, valueOf[model.Reservation]),
			NodeNetworkConfigurations: merge(old.NodeNetworkConfigurations, changes, datastore.KindNodeNetworkConfiguration,
				func(c *model.NodeNetworkConfiguration) string { return c.Name }, valueOf[model.NodeNetworkConfiguration]),
			BGPPeers: merge(old.BGPPeers, changes, datastore.KindBGPPeer, func(p *model.BGPPeer) string { return p.Name }, valueOf[model.BGPPeer]),
			BGPConfigurations: merge(old.BGPConfigurations, changes, datastore.KindBGPConfiguration,
				func(c *model.BGPConfiguration) string { return c.Name }, valueOf[model.BGPConfiguration]),
			BGPFilters: merge(old.BGPFilters, changes, datastore.KindBGPFilter, func(f *model.BGPFilter) string { return f.Name }, valueOf[model.BGPFilter]),
		},
	}
	if t.conditions == nil || slices.ContainsFunc(changes, t.movesConditions) {
		changes = out.judge(changes)
	}
	return out, changes
}

// movesConditions says whether a change can alter which pools are allocatable.
func (t *tables) movesConditions(c change) bool {
	if c.key.Kind != datastore.KindIPPool {
		return false
	}
	was := t.find(c.key)
	if was == nil || c.record == nil {
		return true
	}
	p, q := was.value.(*model.Pool), c.record.value.(*model.Pool)
	return p.CIDR != q.CIDR || p.Disabled != q.Disabled || was.rank != c.record.rank
}

// judge computes the conditions anew and notes them in pools and records, both of which are not yet shared.
func (t *tables) judge(changes []change) []change {
	t.conditions = compile.Allocatable(t.snapshot.Pools)
	var moved map[Key]*record
	for i, p := range t.snapshot.Pools {
		if is := t.conditions[p.Name].Allocatable; is != p.WasAllocatable {
			next := *p
			next.WasAllocatable = is
			t.snapshot.Pools[i] = &next
			if moved == nil {
				moved = map[Key]*record{}
			}
			moved[Key{Kind: datastore.KindIPPool, Name: p.Name}] = nil
		}
	}
	if moved == nil {
		return changes
	}
	for i, r := range t.records {
		if _, ok := moved[r.Key]; ok {
			next := *r
			next.allocatable = !next.allocatable
			t.records[i], moved[r.Key] = &next, &next
		}
	}
	for i := range changes {
		if r := moved[changes[i].key]; r != nil {
			changes[i].record = r
			delete(moved, changes[i].key)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(moved), Key.Compare) {
		changes = append(changes, change{key: k, record: moved[k]})
	}
	return changes
}

func poolOf(r *record) *model.Pool {
	p := *r.value.(*model.Pool)
	p.Rank, p.WasAllocatable = r.rank, r.allocatable
	return &p
}

func valueOf[T any](r *record) T { return r.value.(T) }

// mergeRecords is the sorted records after sorted changes.
func mergeRecords(old []*record, changes []change) []*record {
	out := make([]*record, 0, len(old)+len(changes))
	for _, c := range changes {
		n, found := slices.BinarySearchFunc(old, c.key, func(r *record, k Key) int { return r.Key.Compare(k) })
		out = append(out, old[:n]...)
		if found {
			n++
		}
		old = old[n:]
		if c.record != nil {
			out = append(out, c.record)
		}
	}
	return append(out, old...)
}

// merge is the sorted values of one kind after sorted changes; the old slice itself where there are none.
func merge[T any](old []T, changes []change, kind string, name func(*T) string, value func(*record) T) []T {
	first := slices.IndexFunc(changes, func(c change) bool { return c.key.Kind == kind })
	if first < 0 {
		return old
	}
	out := make([]T, 0, len(old)+len(changes))
	for _, c := range changes[first:] {
		if c.key.Kind != kind {
			break
		}
		n, found := 0, false
		n, found = slices.BinarySearchFunc(old, c.key.Name, func(v T, want string) int { return strings.Compare(name(&v), want) })
		out = append(out, old[:n]...)
		if found {
			n++
		}
		old = old[n:]
		if c.record != nil {
			out = append(out, value(c.record))
		}
	}
	return append(out, old...)
}
