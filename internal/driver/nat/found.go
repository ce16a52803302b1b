package nat

import (
	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
)

// Ranges are what a table that stands translates: these sources, but towards these destinations. They are
// sorted, IPv4 first; the sources have no pools.
type Ranges struct {
	Sources []compile.Source
	Exempt  []netipx.IPRange

	base []rule // of the chain that says by which interfaces what leaves is translated
}

// Covers says whether the table that stood translated what leaves by these interfaces, and nothing else.
func (r *Ranges) Covers(outInterfaces []string) bool {
	rules, err := baseRules(outInterfaces)
	return err == nil && diffRules(r.base, rules) == 0
}

// Found is what stood when the driver first looked, as an earlier agent had left it. It is given once, and is
// nil if nothing stood.
func (d *Driver) Found() *Ranges {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.found
	d.found = nil
	return r
}

// find takes note of the first table that is read.
func (d *Driver) find(t *table) {
	if d.looked {
		return
	}
	d.looked = true
	if !t.present {
		return
	}
	d.found = &Ranges{}
	if c := t.chain(chainPostrouting); c != nil {
		d.found.base = c.rules
	}
	for _, f := range []family{ipv4(), ipv6()} {
		if s := t.set(setSource + f.suffix); s != nil {
			for _, g := range s.segments {
				d.found.Sources = append(d.found.Sources, compile.Source{Range: netipx.IPRangeFrom(g.first, g.last)})
			}
		}
		if s := t.set(setExempt + f.suffix); s != nil {
			for _, g := range s.segments {
				d.found.Exempt = append(d.found.Exempt, netipx.IPRangeFrom(g.first, g.last))
			}
		}
	}
}
