package nat

import (
	"context"
	"slices"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// Ranges are what a table that stands translates: these sources, but towards these destinations. They are
// sorted, IPv4 first; the sources have no pools.
type Ranges struct {
	Sources []compile.Source
	Exempt  []netipx.IPRange

	base []nftables.Rule // of the chain that says by which interfaces what leaves is translated
}

// Covers says whether the table that stood translated what leaves by these interfaces, and nothing else.
func (r *Ranges) Covers(outInterfaces []string) bool {
	return nftables.EqualRules(r.base, baseRules(outInterfaces))
}

// Found is what stood when the driver first looked, as an earlier agent had left it. It is given once, and is
// nil if nothing stood.
func (d *Driver) Found() *Ranges {
	t := d.Engine.Found()
	if t == nil {
		return nil
	}
	r := &Ranges{}
	if c := t.Chain(chainPostrouting); c != nil {
		r.base = c.Rules
	}
	for _, f := range families() {
		if s := f.find(t, setSource); s != nil {
			for i := range s.Len() {
				r.Sources = append(r.Sources, compile.Source{Range: netipx.IPRangeFrom(s.Addrs(i))})
			}
		}
		if s := f.find(t, setExempt); s != nil {
			for i := range s.Len() {
				r.Exempt = append(r.Exempt, netipx.IPRangeFrom(s.Addrs(i)))
			}
		}
	}
	return r
}

// find finds a set of the family's ranges in a table, whether it counts or not; nil if there is none.
func (f family) find(t *nftables.Table, name string) *nftables.Set {
	s, want := t.Set(name+f.suffix), f.set(name)
	if s == nil {
		return nil
	}
	want.Counters = s.Counters
	if !s.SameKind(&want) {
		return nil
	}
	return s
}

// Translates says whether the table in the kernel translates anything, also where an earlier agent has made it. It changes nothing.
func (d *Driver) Translates(ctx context.Context) (bool, error) {
	p, err := d.Preview(ctx, compile.NAT{Allocation: model.PortsFullyRandom})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(p.Sets, func(s nftables.SetPreview) bool {
		return s.Remove > 0 && slices.ContainsFunc(families(), func(f family) bool { return s.Name == setSource+f.suffix })
	}), nil
}
