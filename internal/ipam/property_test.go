package ipam

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go4.org/netipx"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/model"
)

// world is a cluster of two nodes, and what a model knows of it.
type world struct {
	t       *rapid.T
	now     time.Time
	cluster Cluster
	owners  map[netip.Prefix]string // of blocks
	spaces  map[string]*Space
	used    map[netip.Addr]string    // by node/workload
	back    map[netip.Addr]time.Time // when an address was given back
	serial  int
}

var nodes = []string{"a", "b"}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, now: time.Unix(1e9, 0), owners: map[netip.Prefix]string{}, spaces: map[string]*Space{}, used: map[netip.Addr]string{}, back: map[netip.Addr]time.Time{}}
	seed := rapid.Uint64().Draw(t, "seed")
	for i, n := range nodes {
		w.spaces[n] = NewSpace(rand.New(rand.NewPCG(seed, uint64(i))).Uint64)
	}
	w.cluster = Cluster{Owners: maps.All(w.owners), Pools: []Pool{
		pool("four", "10.0.0.0/28", 30), pool("other", "10.1.0.0/30", 31), pool("six", "fd00::/124", 126)}}
	w.cluster.Pools[1].NamespaceSelector = "has(team)" // so that it comes first where it serves
	var b netipx.IPSetBuilder
	for _, r := range []string{"10.0.0.0/30", "10.0.0.5/32", "fd00::4/127"} {
		if rapid.Bool().Draw(t, "reserved "+r) {
			b.AddPrefix(netip.MustParsePrefix(r))
		}
	}
	var err error
	if w.cluster.Reserved, err = b.IPSet(); err != nil {
		t.Fatal(err)
	}
	return w
}

func pool(name, cidr string, blockSize int) Pool {
	return Pool{Pool: &model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), BlockSize: blockSize, AllowedUses: model.UseWorkload}}
}

// assign serves a request as an agent does: it claims what must be claimed, and asks again. Another node may come first.
func (w *world) assign() {
	node := rapid.SampledFrom(nodes).Draw(w.t, "node")
	w.serial++
	r := &Request{Workload: fmt.Sprintf("%s/%d", node, w.serial), Pod: "p", V4: rapid.Bool().Draw(w.t, "v4"), V6: rapid.Bool().Draw(w.t, "v6"), Wish: Wish{Use: model.UseWorkload, Node: node}}
	if rapid.Bool().Draw(w.t, "team") {
		r.Wish.Namespace, r.Wish.NamespaceLabels = "n", map[string]string{"team": "a"}
	}
	if rapid.IntRange(0, 3).Draw(w.t, "very") == 0 {
		r.Addresses = []netip.Addr{nth(netip.MustParsePrefix("10.0.0.0/28"), rapid.Uint64Range(0, 15).Draw(w.t, "address"))}
	}
	cooled := maps.Clone(w.back)
	for range 100 {
		before := w.spaces[node].shortened
		got, err := w.spaces[node].Assign(w.now, r, &w.cluster)
		switch {
		case err != nil:
			w.exhausted(node, r, err)
			return
		case got.Claim.CIDR.IsValid():
			if owner, ok := w.owners[got.Claim.CIDR]; ok {
				w.t.Fatalf("%s belongs to %s, and was to be claimed", got.Claim.CIDR, owner)
			}
			by := rapid.SampledFrom(nodes).Draw(w.t, "first") // the other node may be faster
			w.owners[got.Claim.CIDR] = by
			w.spaces[by].Own(got.Claim)
			continue
		}
		w.check(node, r, got.Addresses, w.spaces[node].shortened-before, cooled)
		return
	}
	w.t.Fatal("a request did not come to an end")
}

// check compares what was given with the model.
func (w *world) check(node string, r *Request, got []netip.Addr, shortened uint64, cooled map[netip.Addr]time.Time) {
	want := 0
	for _, asked := range []bool{r.V4, r.V6} {
		if asked {
			want++
		}
	}
	if len(r.Addresses) > 0 {
		if want = 1; !slices.Equal(got, r.Addresses) {
			w.t.Fatalf("%v were given, want %v", got, r.Addresses)
		}
	}
	if len(got) != want {
		w.t.Fatalf("%d addresses for %+v", len(got), r)
	}
	early := uint64(0)
	for _, a := range got {
		if by, twice := w.used[a]; twice {
			w.t.Fatalf("%s was given to %s, and %s has it", a, r.Workload, by)
		}
		if w.cluster.Reserved.Contains(a) {
			w.t.Fatalf("%s is reserved", a)
		}
		if owner := w.owner(a); owner != node {
			w.t.Fatalf("%s of node %q was given by node %s", a, owner, node)
		}
		if at, ok := cooled[a]; ok && w.now.Sub(at) < CoolDown {
			if len(r.Addresses) == 0 {
				early++
				w.mustBeLast(node, r, a, at)
			}
		} else if len(r.Addresses) == 0 {
			w.mustBeFirst(node, r, a, cooled)
		}
		w.used[a] = r.Workload
		delete(w.back, a)
	}
	if len(r.Addresses) == 0 && early != shortened {
		w.t.Fatalf("%d addresses had not cooled down, and %d were counted", early, shortened)
	}
}

func (w *world) owner(a netip.Addr) string {
	for cidr, node := range w.owners {
		if cidr.Contains(a) {
			return node
		}
	}
	return ""
}

// mustBeLast checks that nothing better than an address that has not cooled down was there: no free one, and none that
// was given back before.
func (w *world) mustBeLast(node string, r *Request, got netip.Addr, at time.Time) {
	for a := range w.serves(node, r, got.Is6()) {
		back, ok := w.back[a]
		if w.used[a] == "" && a != got && (!ok || back.Before(at)) {
			w.t.Fatalf("%s was given %s after it came back, and %s was free", got, w.now.Sub(at), a)
		}
	}
}

// mustBeFirst checks that an address of a pool for all namespaces was given only where none of a narrower pool was free.
func (w *world) mustBeFirst(node string, r *Request, got netip.Addr, cooled map[netip.Addr]time.Time) {
	narrow := w.cluster.Pools[1].CIDR
	if narrow.Contains(got) {
		return
	}
	for a := range w.serves(node, r, got.Is6()) {
		at, ok := cooled[a]
		if narrow.Contains(a) && w.used[a] == "" && (!ok || w.now.Sub(at) >= CoolDown) {
			w.t.Fatalf("%s was given, and %s of a pool for that namespace was free", got, a)
		}
	}
}

// serves is all addresses of a family that a node could give to a request now: those of its blocks, and of blocks without an owner.
func (w *world) serves(node string, r *Request, v6 bool) func(func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		for _, p := range w.cluster.Pools {
			if p.CIDR.Addr().Is6() != v6 || p.Why != "" || p.NamespaceSelector != "" && r.Wish.Namespace == "" {
				continue
			}
			for i := range size(p.CIDR) {
				a := nth(p.CIDR, i)
				if owner := w.owner(a); (owner == node || owner == "") && !w.cluster.Reserved.Contains(a) && !yield(a) {
					return
				}
			}
		}
	}
}

// exhausted checks that a request that was refused could not be served.
func (w *world) exhausted(node string, r *Request, err error) {
	if unavailable := (*UnavailableError)(nil); errors.As(err, &unavailable) {
		a := r.Addresses[0]
		owner := w.owner(a)
		if w.used[a] == "" && !w.cluster.Reserved.Contains(a) && (owner == "" || owner == node) && w.cluster.Pools[0].Why == "" {
			w.t.Fatalf("%s is free: %v", a, err)
		}
		return
	}
	e := (*ExhaustedError)(nil)
	if !errors.As(err, &e) {
		w.t.Fatal(err)
	}
	for a := range w.serves(node, r, e.V6) {
		if w.used[a] == "" {
			w.t.Fatalf("%s is free: %v", a, err)
		}
	}
}

// release gives back what some workload has.
func (w *world) release() {
	if len(w.used) == 0 {
		return
	}
	a := rapid.SampledFrom(slices.SortedFunc(maps.Keys(w.used), netip.Addr.Compare)).Draw(w.t, "released")
	w.spaces[w.used[a][:1]].Release(a, w.used[a], "p", w.now)
	delete(w.used, a)
	w.back[a] = w.now
}

// giveBack lets nodes give back what they can spare.
func (w *world) giveBack() {
	for n, s := range w.spaces {
		kept := map[bool]bool{}
		spare := s.Spare(w.now, func(string) bool { return true })
		for _, b := range spare {
			for a, by := range w.used {
				if b.CIDR.Contains(a) {
					w.t.Fatalf("%s goes back, and %s has %s", b.CIDR, by, a)
				}
			}
			s.Disown(b.CIDR)
			delete(w.owners, b.CIDR)
		}
		for _, u := range s.Usage(w.now) {
			kept[u.CIDR.Addr().Is6()] = true
		}
		for _, b := range spare {
			if !kept[b.CIDR.Addr().Is6()] {
				w.t.Fatalf("node %s has no block left in the family of %s", n, b.CIDR)
			}
		}
	}
}

// restart lets a node learn again what the kernel holds, in any order.
func (w *world) restart() {
	node := rapid.SampledFrom(nodes).Draw(w.t, "restarted")
	s := NewSpace(rand.New(rand.NewPCG(1, uint64(w.serial))).Uint64)
	links := func() {
		for a, by := range w.used {
			if by[:1] == node {
				if other := s.Use(a, by); other != "" {
					w.t.Fatalf("%s and %s have %s", by, other, a)
				}
			}
		}
	}
	blocks := func() {
		for cidr, n := range w.owners {
			if n == node {
				i := slices.IndexFunc(w.cluster.Pools, func(p Pool) bool { return p.CIDR.Overlaps(cidr) })
				s.Own(Block{cidr, w.cluster.Pools[i].Name})
			}
		}
	}
	if rapid.Bool().Draw(w.t, "blocks first") {
		blocks()
		links()
	} else {
		links()
		blocks()
	}
	w.spaces[node] = s
	for a := range w.back { // what was cooling is not remembered
		if w.owner(a) == node {
			delete(w.back, a)
		}
	}
}

// TestSpace lets two nodes give out addresses of the same pools, and compares them with a model.
func TestSpace(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"assign":  func(t *rapid.T) { w.t = t; w.assign() },
			"release": func(t *rapid.T) { w.t = t; w.release() },
			"wait": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 45).Draw(t, "seconds")) * time.Second)
			},
			"spare":   func(t *rapid.T) { w.t = t; w.giveBack() },
			"restart": func(t *rapid.T) { w.t = t; w.restart() },
			"pool": func(t *rapid.T) {
				p := &w.cluster.Pools[rapid.IntRange(0, 2).Draw(t, "pool")]
				if p.Why = ""; rapid.Bool().Draw(t, "disabled") {
					p.Why = "the pool is disabled"
				}
			},
		})
	})
}
