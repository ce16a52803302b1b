package compile

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/model"
)

// TestNextEqualsCompile: whatever changes, the plan that is made of the one before it is that which is made of nothing.
func TestNextEqualsCompile(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, l := drawBGP(t)
		p := Compile(s, l)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			next := *s
			other, otherLocal := drawBGP(t)
			switch rapid.SampledFrom([]string{"blocks", "blocks", "blocks", "own blocks", "own address", "own tunnel", "nodes", "pools", "configurations", "translation", "BGP", "local", "all"}).Draw(t, "step") {
			case "blocks":
				next.Blocks = someOf(t, s.Blocks, other.Blocks)
			case "own blocks":
				l.Blocks = nil
				for _, b := range someOf(t, nil, other.Blocks) {
					l.Blocks = append(l.Blocks, model.Block{CIDR: b.CIDR, Pool: b.Pool, Node: l.Name})
				}
			case "own address":
				l.Interfaces = otherAddress(l.Interfaces)
			case "own tunnel":
				l.Tunnels = otherLocal.Tunnels
			case "configurations":
				mtu := rapid.IntRange(1000, 2000).Draw(t, "mtu")
				next.NodeNetworkConfigurations = []model.NodeNetworkConfiguration{{Name: "c", NodeSelector: "all()", MTU: &mtu}}
			case "translation":
				to := rapid.SampledFrom(addrs("192.0.2.1", "192.0.2.3")).Draw(t, "to")
				next.NATConfigurations = []model.NATConfiguration{{Name: "c", NodeSelector: "all()", Addresses: []netip.Addr{to}}}
			case "BGP":
				next.BGPPeers, next.BGPConfigurations, next.BGPFilters = other.BGPPeers, other.BGPConfigurations, other.BGPFilters
			case "nodes":
				next.Nodes = other.Nodes
			case "pools":
				next.Pools = other.Pools
			case "local":
				otherLocal.Blocks = l.Blocks
				l = otherLocal
			case "all":
				next, l = *other, otherLocal
			}
			s = &next
			if p = p.Next(s, l); !samePlan(t, p, Compile(s, l)) {
				t.Fatalf("of %+v", l)
			}
		}
	})
}

// drawBGP is a random cluster that may speak BGP.
func drawBGP(t *rapid.T) (*model.Snapshot, model.Local) {
	s, l := drawNetwork(t)
	if rapid.Bool().Draw(t, "router") {
		s.BGPPeers = []model.BGPPeer{{Name: "r", NodeSelector: "all()", Address: netip.MustParseAddr("192.0.2.9"), ASN: 65001, Filters: []string{"f"}}}
	}
	if rapid.Bool().Draw(t, "filter") {
		s.BGPFilters = []model.BGPFilter{{Name: "f", Import4: []model.BGPFilterRule{{Accept: rapid.Bool().Draw(t, "accept")}}}}
	}
	if rapid.Bool().Draw(t, "mesh") {
		s.BGPConfigurations = []model.BGPConfiguration{{Name: "default", ASN: rapid.Uint32Range(1, 3).Draw(t, "asn")}}
	}
	return s, l
}

// otherAddress is another address of this node than that which it has.
func otherAddress(now []netip.Prefix) []netip.Prefix {
	if now[0].Addr() == netip.MustParseAddr("192.0.2.1") {
		return prefixes("192.0.2.3/24")
	}
	return prefixes("192.0.2.1/24")
}

// someOf are some of two sets of blocks, in the order of their CIDRs; of those with the same CIDR, which no definition
// allows, both.
func someOf(t *rapid.T, a, b []*model.Block) []*model.Block {
	var out []*model.Block
	for _, block := range slices.Concat(a, b) {
		if rapid.IntRange(0, 3).Draw(t, "kept") > 0 {
			out = append(out, block)
		}
	}
	slices.SortStableFunc(out, func(a, b *model.Block) int { return a.CIDR.Compare(b.CIDR) })
	return out
}

func samePlan(t *rapid.T, got, want *Plan) bool {
	parts := func(p *Plan) (out []any) {
		for field, v := range reflect.ValueOf(*p).Fields() {
			if field.IsExported() {
				out = append(out, v.Interface())
			}
		}
		return out
	}
	diff := cmp.Diff(parts(want), parts(got), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Exporter(func(reflect.Type) bool { return true }))
	if diff != "" {
		t.Log(diff)
	}
	for i := range 64 {
		a := netip.AddrFrom4([4]byte{10, 1, 0, byte(4 * i)})
		r, ok := got.RouteOf(a)
		if w, there := want.RouteOf(a); r != w || ok != there {
			t.Fatalf("%s: %+v, want %+v", a, r, w)
		}
	}
	return diff == ""
}

// TestNextHeedsAllButBlocks: where a field of what a plan is made of has changed, the next is made of nothing.
func TestNextHeedsAllButBlocks(t *testing.T) {
	t.Parallel()
	free := []string{"Snapshot.Blocks", "Snapshot.Reservations", "Local.Blocks"}
	for _, of := range []any{model.Snapshot{}, model.Local{}} {
		for field := range reflect.TypeOf(of).Fields() {
			var s model.Snapshot
			var l model.Local
			changed := reflect.ValueOf(&l).Elem()
			if reflect.TypeOf(of) == reflect.TypeFor[model.Snapshot]() {
				changed = reflect.ValueOf(&s).Elem()
			}
			name := changed.Type().Name() + "." + field.Name
			switch f := changed.FieldByIndex(field.Index); f.Kind() {
			case reflect.Slice:
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			case reflect.String:
				f.SetString("x")
			case reflect.Bool:
				f.SetBool(true)
			default:
				t.Fatalf("%s is of a type that this test does not know", name)
			}
			same := sameButBlocks(&model.Snapshot{}, &s) && localSameButBlocks(&model.Local{}, &l)
			if same != slices.Contains(free, name) {
				t.Errorf("where %s differs, Plan.Next takes what was made of it before for the same: %t", name, same)
			}
		}
	}
}

// TestNextKeeps: where a block comes among ten thousand, no other is decided again.
func TestNextKeeps(t *testing.T) {
	t.Parallel()
	s, l := manyBlocks()
	p := Compile(s, l)
	q := p.Next(withBlock(s), l)
	fresh := 0
	for _, r := range q.Routes.Routes {
		if !slices.Contains(p.Routes.Routes, r) {
			fresh++
		}
	}
	if fresh != 1 || len(q.Routes.Routes) != len(p.Routes.Routes)+1 || &q.Routes.Devices[0].Peers[0] != &p.Routes.Devices[0].Peers[0] {
		t.Errorf("%d of %d routes were made", fresh, len(q.Routes.Routes))
	}
}

// withBlock is a snapshot with one more block.
func withBlock(s *model.Snapshot) *model.Snapshot {
	next := *s
	next.Blocks = slices.Insert(slices.Clone(s.Blocks), 5000, &model.Block{CIDR: netip.MustParsePrefix("10.200.0.0/26"), Pool: "p", Node: "node-4711"})
	return &next
}

// BenchmarkNextBlock has a block come and go among ten thousand.
func BenchmarkNextBlock(b *testing.B) {
	s, l := manyBlocks()
	p, next := Compile(s, l), withBlock(s)
	b.ReportAllocs()
	for b.Loop() {
		p = p.Next(next, l)
		s, next = next, s
	}
}
