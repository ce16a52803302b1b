package compile

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
)

func TestWhoWinsAnOverlap(t *testing.T) {
	t.Parallel()
	p := func(name, cidr string, rank uint64, was bool) *model.Pool {
		out := pool(name, cidr, true)
		out.Rank, out.WasAllocatable = rank, was
		return out
	}
	disabled := p("a", "10.0.0.0/8", 1, true)
	disabled.Disabled = true
	for _, tc := range []struct {
		name  string
		pools []*model.Pool
		want  string
	}{
		{"who was allocatable keeps it against an older one", []*model.Pool{p("a", "10.0.0.0/8", 1, false), p("b", "10.0.0.0/16", 2, true)}, "b"},
		{"the same, in another order", []*model.Pool{p("a", "10.0.0.0/8", 2, true), p("b", "10.0.0.0/16", 1, false)}, "a"},
		{"the older", []*model.Pool{p("a", "10.0.0.0/8", 2, false), p("b", "10.0.0.0/16", 1, false)}, "b"},
		{"the lower name", []*model.Pool{p("b", "10.0.0.0/8", 1, false), p("a", "10.0.0.0/16", 1, false)}, "a"},
		{"one that is disabled stands in nobody's way", []*model.Pool{disabled, p("b", "10.0.0.0/16", 2, false)}, "b"},
		{"one that lost stands in nobody's way", []*model.Pool{p("a", "10.0.0.0/16", 1, false), p("b", "10.0.0.0/8", 2, false), p("c", "10.1.0.0/16", 3, false)}, "a c"},
		{"families do not overlap", []*model.Pool{p("a", "10.0.0.0/8", 1, false), p("b", "::/8", 2, false)}, "a b"},
	} {
		for range 2 { // the order in which they are given does not matter
			got := Allocatable(tc.pools)
			var names []string
			for _, name := range slices.Sorted(maps.Keys(got)) {
				if got[name].Allocatable {
					names = append(names, name)
				}
			}
			if strings.Join(names, " ") != tc.want {
				t.Errorf("%s: allocatable are %v, want %s", tc.name, names, tc.want)
			}
			slices.Reverse(tc.pools)
		}
	}
}

func TestReasonsNotToGiveOutAddresses(t *testing.T) {
	t.Parallel()
	p := func(name, cidr string, f func(*model.Pool)) *model.Pool {
		out := pool(name, cidr, true)
		f(out)
		return out
	}
	got := Allocatable([]*model.Pool{
		p("a", "10.1.0.0/16", func(*model.Pool) {}),
		p("b", "10.1.0.0/24", func(*model.Pool) {}),
		p("c", "10.2.0.0/16", func(p *model.Pool) { p.Terminating = true }),
		p("d", "10.2.0.0/24", func(*model.Pool) {}),
		p("e", "10.3.0.0/16", func(p *model.Pool) { p.NodeSelector = "zone = 'a'" }),
		p("f", "10.3.0.0/24", func(*model.Pool) {}),
		p("g", "10.4.0.0/16", func(p *model.Pool) { p.Disabled, p.Terminating = true, true }),
		p("h", "10.4.0.0/24", func(p *model.Pool) { p.NamespaceSelector = "global()" }),
		p("i", "10.5.0.0/24", func(p *model.Pool) { p.Disabled, p.NodeSelector = true, "(" }),
	})
	for name, want := range map[string]string{
		"a": ReasonOK, "b": ReasonCIDROverlap, "c": ReasonTerminating, "d": ReasonCIDROverlap, "e": ReasonInvalidSelector,
		"f": ReasonCIDROverlap, "g": ReasonTerminating, "h": ReasonInvalidSelector, "i": ReasonPoolDisabled,
	} {
		if c := got[name]; c.Reason != want || c.Allocatable != (want == ReasonOK) {
			t.Errorf("pool %s: %+v, want %s", name, c, want)
		}
	}
}
