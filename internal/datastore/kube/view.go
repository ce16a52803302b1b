package kube

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
)

// lostGrace is how long objects whose definition was deleted and made anew stay in force, unless they are declared
// again.
const lostGrace = 10 * time.Minute

// view is what of one kind is in force, and why that is not just what the API has. It does no I/O and knows no
// clock.
type view struct {
	kind  string
	force map[string]*entry
	bad   map[string]*entry // that the API has and that cannot be used; force may have an older one
	gone  map[string]uint64 // in force, and not in the API: nobody knows yet whether they were deleted; and their number
	lost  map[string]time.Time
	uid   string // of the definition by which they were read; empty: not known, or there is none
	older string // of the definition that what is lost was read by; empty: nothing is

	// replaced is until when that stays in force which the first news of a new watch lack: the definition was made anew
	// since. Zero: it was not.
	replaced time.Time

	went     uint64   // how often something has gone: what comes back and goes again has another number
	sorted   []*entry // force in order; nil: to be made
	given    bool     // sorted was given out, and must not be changed any more
	followed datastore.Followed
	fresh    bool // the API was read once
}

func newView(kind string) *view {
	return &view{kind: kind, force: map[string]*entry{}, bad: map[string]*entry{}, gone: map[string]uint64{}, lost: map[string]time.Time{}}
}

// changes are the keys of what is to be saved, and whether a node goes by something else now.
type changes struct {
	keys     []datastore.Key
	differ   bool
	moves    bool // which pools are allocatable may have changed
	followed bool // only how far the API was followed has changed
}

// mostPlaced is how many objects that come at once are put into their places one by one.
const mostPlaced = 100

// absorb takes what was heard of the API. The first news of a watch are all that there is.
func (v *view) absorb(news map[string]*entry, all bool) changes {
	var c changes
	if all {
		for name := range v.force {
			if news[name] == nil {
				news[name] = nil // not there any more
			}
		}
		for name := range v.bad {
			if news[name] == nil {
				news[name] = nil
			}
		}
	}
	if len(news) > mostPlaced {
		v.sorted = nil // to sort once is less
	}
	before := v.followed
	for name, e := range news {
		v.one(&c, name, e)
	}
	if all && !v.replaced.IsZero() {
		v.lose(v.uid, v.replaced)
		v.replaced = time.Time{}
	}
	if !v.fresh {
		v.fresh, c.followed = true, true
	}
	if v.kind != datastore.KindNode { // of Nodes nobody asks how far they were followed, and each is heard of all the time
		c.followed = c.followed || v.followed != before
	}
	return c
}

// one takes one object; nil: the API has it no more.
func (v *view) one(c *changes, name string, e *entry) {
	was := v.force[name]
	v.followed.Digest += v.digest(e) - v.digest(v.heard(name))
	c.followed = c.followed || v.bad[name] != nil // it is not what is said of it any more
	if e == nil {
		delete(v.bad, name)
		if was != nil && v.lost[name].IsZero() {
			v.goes(name)
		}
		return
	}
	delete(v.gone, name)
	delete(v.lost, name)
	delete(v.bad, name)
	version, numbered := datastore.VersionNumber(e.ResourceVersion)
	v.followed.Unclear = v.followed.Unclear || !numbered
	v.followed.Seen = max(v.followed.Seen, version)
	if e.fault != nil {
		v.bad[name] = e
	}
	if e.value == nil {
		if old := was; old == nil || old.Generation != e.Generation || old.UID != e.UID {
			v.followed.Changed = max(v.followed.Changed, version)
			c.followed = true
		}
		return
	}
	v.use(c, was, e, version)
}

// use takes one object that can be used.
func (v *view) use(c *changes, was, e *entry, version uint64) {
	name := e.Name
	judged := was != nil && (!sameJudgement(was, e) || e.judged != nil && was.Generation != e.Generation)
	c.differ = c.differ || was == nil || judged || !same(was.value, e.value)
	if was == nil || was.UID != e.UID || was.Generation != e.Generation || !same(was.value, e.value) {
		v.followed.Changed = max(v.followed.Changed, version)
	}
	if was == nil || !slices.Equal(was.json, e.json) {
		c.keys = append(c.keys, e.key())
	}
	c.moves = c.moves || was == nil || judged || movesConditions(was.value, e.value)
	v.force[name] = e
	v.place(was, e)
}

// heard is what the API was last heard to have of an object; nil: nothing, or there is only what was kept of an earlier run.
func (v *view) heard(name string) *entry {
	if e := v.bad[name]; e != nil {
		return e
	}
	if v.gone[name] != 0 || !v.lost[name].IsZero() {
		return nil
	}
	return v.force[name]
}

// digest is that of the generation of an entry, which may be nil. The digest of Nodes is not used, and an entry that comes from the state file has no version.
func (v *view) digest(e *entry) uint64 {
	if e == nil || e.ResourceVersion == "" || v.kind == datastore.KindNode {
		return 0
	}
	return datastore.GenerationDigest(string(e.UID), e.Generation)
}

// place keeps the order where an object is new, or takes the place of its older self: of ten thousand pools one has changed.
func (v *view) place(was, e *entry) {
	if v.sorted == nil {
		return
	}
	if was != nil && order(was, e) != 0 {
		v.sorted = nil
		return
	}
	at, there := slices.BinarySearchFunc(v.sorted, e, order)
	v.own()
	if there {
		v.sorted[at] = e
	} else {
		v.sorted = slices.Insert(v.sorted, at, e)
	}
}

// leave takes an entry that goes out of the order.
func (v *view) leave(e *entry) {
	if v.sorted == nil {
		return
	}
	at, there := slices.BinarySearchFunc(v.sorted, e, order)
	if !there || v.sorted[at].Name != e.Name {
		v.sorted = nil
		return
	}
	v.own()
	v.sorted = slices.Delete(v.sorted, at, at+1)
}

// own makes the order one that may be changed, with room for one more.
func (v *view) own() {
	if v.given {
		v.sorted, v.given = append(make([]*entry, 0, len(v.sorted)+1), v.sorted...), false
	}
}

// movesConditions says whether a change of a pool can alter which ones are allocatable.
func movesConditions(a, b any) bool {
	p, ok1 := a.(*model.Pool)
	q, ok2 := b.(*model.Pool)
	if !ok1 || !ok2 {
		return false
	}
	return p.CIDR != q.CIDR || p.Disabled != q.Disabled || p.Terminating != q.Terminating || p.Rank != q.Rank ||
		p.NodeSelector != q.NodeSelector || p.NamespaceSelector != q.NamespaceSelector
}

// goes notes that an object is not in the API any more.
func (v *view) goes(name string) {
	if v.gone[name] == 0 {
		v.went++
		v.gone[name] = v.went
	}
}

// confirm says that objects which were gone when their definition was asked for were deleted as such: it is there, and
// was before. What has come back since and gone again may have gone otherwise.
func (v *view) confirm(gone map[string]uint64) changes {
	var c changes
	for name, number := range gone {
		if v.gone[name] == number {
			v.drop(&c, name)
		}
	}
	return c
}

// free drops those that were guarded and deleted. Even if they went with their definition, their owner has let them go, with
// nothing of them in use. So the agents of a cluster do not ask for the definition each time that one of them gives back a block.
func (v *view) free(names []string) changes {
	var c changes
	for _, name := range names {
		if v.gone[name] != 0 {
			v.drop(&c, name)
		}
	}
	return c
}

// since are those of the objects that are gone which were created at a time, in seconds, or later.
func (v *view) since(gone map[string]uint64, created int64) map[string]uint64 {
	out := map[string]uint64{}
	for name, number := range gone {
		if e := v.force[name]; e != nil && e.created >= created {
			out[name] = number
		}
	}
	return out
}

// confirmAll drops all that is gone.
func (v *view) confirmAll() changes {
	return v.confirm(maps.Clone(v.gone))
}

// remade notes that the definition was deleted and made anew, with this uid.
func (v *view) remade(uid string, now time.Time) { v.lose(uid, now.Add(lostGrace)) }

// lose says that a definition was made anew: what is gone went with the old one, and so did what the first news of
// the next watch lack.
func (v *view) lose(uid string, until time.Time) {
	if v.older == "" {
		v.older = v.uid
	}
	v.uid, v.replaced = uid, until
	for name := range v.gone {
		v.lost[name] = until
	}
	clear(v.gone)
}

// settle says whether nothing is lost any more, once.
func (v *view) settle() bool {
	if v.older == "" || len(v.lost) > 0 || !v.replaced.IsZero() {
		return false
	}
	v.older = ""
	return true
}

// keptUID is the definition to be kept on disk: while something is lost, that by which it was read, so that it is lost
// again after a restart and not taken for deleted.
func (v *view) keptUID() string {
	if v.older != "" {
		return v.older
	}
	return v.uid
}

// expire drops what was lost and not declared again.
func (v *view) expire(now time.Time) changes {
	var c changes
	for name, until := range v.lost {
		if !now.Before(until) {
			v.drop(&c, name)
		}
	}
	return c
}

func (v *view) drop(c *changes, name string) {
	c.keys = append(c.keys, v.force[name].key())
	c.differ, c.moves = true, true
	v.leave(v.force[name])
	delete(v.force, name)
	delete(v.gone, name)
	delete(v.lost, name)
}

// entries are what is in force, in order. They stay as they are.
func (v *view) entries() []*entry {
	if v.sorted == nil {
		v.sorted = slices.SortedFunc(maps.Values(v.force), order)
	}
	v.given = true
	return v.sorted
}

// exceptions are the objects that are not in force as they are.
func (v *view) exceptions() (out []datastore.Exception, warnings []model.Fault) {
	for _, name := range slices.Sorted(maps.Keys(v.bad)) {
		e := v.bad[name]
		field, message, found := strings.Cut(e.fault.Error(), ": ")
		if !found {
			field, message = "", e.fault.Error()
		}
		held := "it is left out"
		switch {
		case e.value != nil:
			held = "it is ignored"
		case v.force[name] != nil:
			held = "what it said before stays in force"
		}
		out = append(out, datastore.Exception{Key: e.key(), Generation: e.Generation, Reason: e.fault.Error() + ": " + held})
		warnings = append(warnings, model.Fault{Kind: v.kind, Name: name, Field: field, Message: message + ": " + held})
	}
	return out, warnings
}

// lostWarning says what is in force without being in the API, or "".
func (v *view) lostWarning() string {
	if len(v.lost) == 0 {
		return ""
	}
	names := slices.Sorted(maps.Keys(v.lost))
	until := v.lost[names[0]]
	return fmt.Sprintf("%d of the %ss in force went with their CustomResourceDefinition, which was deleted and made again; declare them again, or they go at %s: %s",
		len(names), v.kind, until.UTC().Format(time.RFC3339), text.Few(names))
}

func equal(a, b any) bool { return reflect.DeepEqual(a, b) }
