package nat

import (
	"github.com/sallyport/sallyport/internal/nftables"
)

// parts are the families: a fault in one never holds the other back.
func parts() []nftables.Part {
	var out []nftables.Part
	all := families()
	for i, f := range all {
		stays := all[1-i]
		out = append(out, nftables.Part{Name: f.name, Alone: func(wanted, held *nftables.Table) { keep(stays, wanted, held) }})
	}
	return out
}

// keep takes what is wanted of a family from what is held. A table that has nothing of the family yet gets
// none of its ranges, and not the rules that translate it.
func keep(f family, wanted, held *nftables.Table) {
	for _, name := range []string{setSource, setExempt, setGuarded} {
		if s := wanted.Set(name + f.suffix); s != nil && !s.TakeElements(held.Set(s.Name)) {
			s.DropElements()
		}
	}
	name := chainSNAT + f.suffix
	if h := held.Chain(name); h == nil || len(h.Rules) == 0 {
		wanted.Chain(name).Rules = nil
	}
	fitGuard(wanted, fitsOf(wanted))
}
