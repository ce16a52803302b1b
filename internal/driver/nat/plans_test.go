package nat

import (
	"net/netip"
	"testing"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// ranges parses prefixes and ranges such as "10.0.0.0/8" and "10.0.0.1-10.0.0.3".
func ranges(tb testing.TB, list ...string) []netipx.IPRange {
	tb.Helper()
	out := make([]netipx.IPRange, 0, len(list))
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, netipx.RangeOfPrefix(p))
			continue
		}
		r, err := netipx.ParseIPRange(s)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// sources gives ranges to one pool.
func sources(tb testing.TB, pool string, list ...string) []compile.Source {
	tb.Helper()
	var out []compile.Source
	for _, r := range ranges(tb, list...) {
		out = append(out, compile.Source{Range: r, Pool: pool})
	}
	return out
}

// simplePlan has two pools, one range beside them, both families, and the default settings.
func simplePlan(tb testing.TB) compile.NAT {
	tb.Helper()
	return compile.NAT{
		Sources:    append(sources(tb, "a", "10.1.0.0/24", "10.1.2.0/24"), sources(tb, "b", "fd00:1::/64")...),
		Exempt:     ranges(tb, "10.0.0.0/8", "fd00::/16"),
		Allocation: model.PortsFullyRandom,
	}
}
