package workload

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// TestBlockThatIsTaken has another node own all blocks but the last, of which the API has not told yet: the node tries each once.
func TestBlockThatIsTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := poolOf("p", "10.0.0.0/28", 30, model.UseWorkload)
		shared := &api{blocks: map[netip.Prefix]model.Block{}, fail: map[string]int{}}
		for i := range 3 {
			cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(4 * i)}), 30)
			shared.blocks[cidr] = model.Block{CIDR: cidr, Pool: "p", Node: "other"}
		}
		s := newSingle(t, Options{Claims: claims{shared, "n", func(string) *model.Pool { return p }}}, p)
		if a, last := s.add("a"), netip.MustParsePrefix("10.0.0.12/30"); !last.Contains(a) {
			t.Errorf("%s is given out, which is not in %s", a, last)
		}
	})
}

// BenchmarkSetState has a node hear of a change among 10,000 blocks.
func BenchmarkSetState(b *testing.B) {
	p := poolOf("p", "10.0.0.0/8", 26, model.UseWorkload)
	s := &model.Snapshot{Pools: []*model.Pool{p}}
	for i := range 10_000 {
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
		s.Blocks = append(s.Blocks, &model.Block{CIDR: cidr, Pool: "p", Node: fmt.Sprint("node", i/2)})
	}
	m := New(Options{Node: "node7", Claims: claims{}})
	b.ReportAllocs()
	for b.Loop() {
		m.SetState(datastore.State{Snapshot: s, Fresh: true})
	}
}

// TestAddressesOfNodesAreNotGivenOut has a pool that contains the subnet of the nodes.
func TestAddressesOfNodesAreNotGivenOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t, Options{})
		pools := []*model.Pool{poolOf("p", "192.0.2.0/30", 30, model.UseWorkload)}
		s.SetState(datastore.State{Snapshot: &model.Snapshot{Pools: pools, Nodes: []model.Node{
			{Name: "n", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.0")}},
			{Name: "other", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("198.51.100.1")}},
		}}, Fresh: true, Conditions: compile.Allocatable(pools)})
		synctest.Wait()
		got := []string{s.add("a").String(), s.add("b").String()}
		slices.Sort(got)
		if want := []string{"192.0.2.1", "192.0.2.3"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		for _, wanted := range [][]netip.Addr{nil, {netip.MustParseAddr("192.0.2.2")}} {
			if out, err := s.Add(t.Context(), &cni.Request{Network: "net", ContainerID: "c", Interface: "eth0", Addresses: wanted}, nil, nil); err == nil {
				t.Errorf("%v was given out", out.Addresses)
			}
		}
	})
}
