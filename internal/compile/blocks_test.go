package compile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/internal/model"
)

// TestBlocksThatDoNotCount adds blocks that a mistaken or hostile node may have written: the plan stays as it was, and says so.
func TestBlocksThatDoNotCount(t *testing.T) {
	t.Parallel()
	const misfit, overlap = "blocks without a route, since they are no blocks of their pools: ", "blocks without a route, since they overlap others: "
	for name, tc := range map[string]struct {
		blocks []*model.Block
		says   string
	}{
		"an address of others":            {[]*model.Block{block("8.8.8.8/32", "p4")}, misfit + `1, such as 8.8.8.8/32 of node "c": pool p4 is 10.1.0.0/16, which does not contain it`},
		"the network of Services":         {[]*model.Block{block("10.96.0.0/26", "p4")}, misfit + `1, such as 10.96.0.0/26`},
		"everything":                      {[]*model.Block{block("0.0.0.0/1", "p4"), block("128.0.0.0/1", "p4")}, misfit + `2, such as 0.0.0.0/1`},
		"more than the pool":              {[]*model.Block{block("10.0.0.0/8", "p4")}, misfit + `1, such as 10.0.0.0/8`},
		"an address of another's block":   {[]*model.Block{block("10.1.0.70/32", "p4")}, misfit + `1, such as 10.1.0.70/32 of node "c": pool p4 has blockSize: 26`},
		"all addresses of the pool":       {[]*model.Block{block("10.1.0.0/16", "p4")}, misfit + `1, such as 10.1.0.0/16 of node "c": pool p4 has blockSize: 26`},
		"another family":                  {[]*model.Block{block("10.1.5.0/26", "p6")}, misfit + `1, such as 10.1.5.0/26 of node "c": pool p6 is fd00::/64`},
		"no pool":                         {[]*model.Block{block("10.1.5.0/26", "gone\n")}, misfit + `1, such as 10.1.5.0/26 of node "c": pool "gone\n" does not exist`},
		"another's block":                 {[]*model.Block{block("10.1.0.64/26", "p4")}, overlap + `1, such as 10.1.0.64/26 of node "c", which overlaps 10.1.0.64/26 of node "b": delete`},
		"blocks of a pool in another one": {[]*model.Block{block("10.1.0.64/28", "small"), block("10.1.0.80/28", "small")}, overlap + `2, such as 10.1.0.64/28 of node "c", which overlaps 10.1.0.64/26 of node "b"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			small := networkPool("small", "10.1.0.64/27", model.ModeCrossSubnet, model.ModeNever)
			small.BlockSize = 28
			s, l := cluster(networkPool("p4", "10.1.0.0/16", model.ModeCrossSubnet, model.ModeNever), networkPool("p6", "fd00::/64", model.ModeCrossSubnet, model.ModeNever), small,
				&model.Pool{Name: "lb", CIDR: netip.MustParsePrefix("10.2.0.0/16"), BlockSize: 26, AllowedUses: model.UseLoadBalancer})
			want := Compile(s, l)
			if len(want.Network.Problems) > 0 {
				t.Fatal(want.Network.Problems)
			}
			more := *s
			more.Blocks = append(slices.Clone(s.Blocks), tc.blocks...)
			slices.SortStableFunc(more.Blocks, func(a, b *model.Block) int { return a.CIDR.Compare(b.CIDR) })
			got := Compile(&more, l)
			if diff := cmp.Diff(render(want), render(got)); diff != "" {
				t.Error(diff)
			}
			if p := got.Network.Problems; len(p) != 1 || !strings.HasPrefix(p[0], tc.says) {
				t.Errorf("the problems are %q, want %q", p, tc.says)
			}
		})
	}
}

// block is one of node c.
func block(cidr, pool string) *model.Block {
	return &model.Block{CIDR: netip.MustParsePrefix(cidr), Pool: pool, Node: "c"}
}

// TestBlocksWithoutADatastore takes the blocks that the node itself says it owns where no datastore keeps any.
func TestBlocksWithoutADatastore(t *testing.T) {
	t.Parallel()
	mine := netip.MustParsePrefix("10.244.1.0/26")
	p := Compile(&model.Snapshot{Pools: []*model.Pool{{Name: "p", CIDR: netip.MustParsePrefix("10.244.0.0/16"), BlockSize: 26, AllowedUses: model.UseWorkload}}},
		model.Local{Name: "n", Network: true, Blocks: []model.Block{{CIDR: mine, Pool: "p", Node: "n"}}})
	if r := p.Routes.Routes; len(r) != 1 || r[0].CIDR != mine || r[0].Way != Here {
		t.Errorf("routes are %+v, want the own block unreachable", r)
	}
}
