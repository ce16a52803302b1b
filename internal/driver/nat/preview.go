package nat

import (
	"context"
	"fmt"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
)

// rangesShown bounds the ranges of a set that a preview names; it counts them all.
const rangesShown = 5

// Preview is how our table differs from what a plan wants.
type Preview struct {
	Table string `json:"table"` // family and name
	// Equal says that applying the plan would change nothing but, perhaps, who owns the table.
	Equal bool `json:"equal"`
	// Present says that the table is there, and Replaced that it would be made anew, since it is dormant or
	// holds things that cannot be mended one by one. Either way it is one transaction.
	Present  bool            `json:"present"`
	Replaced bool            `json:"replaced,omitempty"`
	Chains   []ChainPreview  `json:"chains,omitempty"` // those that differ
	Sets     []RangesPreview `json:"sets,omitempty"`   // those that differ
}

// ChainPreview says which rules of a chain would go and come, as the nft command writes them.
type ChainPreview struct {
	Name   string   `json:"name"`
	Remove []string `json:"remove,omitempty"`
	Add    []string `json:"add,omitempty"`
	// Gone and New say that the chain itself goes or comes; both, that it gets another hook.
	Gone bool `json:"gone,omitempty"`
	New  bool `json:"new,omitempty"`
}

// RangesPreview says which ranges of a set would go and come.
type RangesPreview struct {
	Name   string `json:"name"`
	Remove int    `json:"remove"` // how many
	Add    int    `json:"add"`
	// RemoveFirst and AddFirst are the first of them.
	RemoveFirst []string `json:"removeFirst,omitempty"`
	AddFirst    []string `json:"addFirst,omitempty"`
	// Gone and New say that the set itself goes or comes; both, that it becomes one of another kind.
	Gone bool `json:"gone,omitempty"`
	New  bool `json:"new,omitempty"`
}

// Preview says what Apply would change, and changes nothing.
func (d *Driver) Preview(ctx context.Context, nat compile.NAT) (*Preview, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wanted, err := layout(nat)
	if err != nil {
		return nil, fmt.Errorf("laying out table %s: %w", TableName, err)
	}
	actual, _, err := d.conn.readTable(ctx)
	if err != nil {
		return nil, err
	}
	wanted.flags = actual.flags & flagsOwned // whoever owns it
	c := diff(actual, wanted)
	p := &Preview{Table: "inet " + TableName, Equal: c.empty(), Present: actual.present, Replaced: c.rebuild}
	p.previewChains(actual, wanted)
	p.previewSets(actual, wanted)
	return p, nil
}

func (p *Preview) previewChains(actual, wanted *table) {
	for i := range actual.chains {
		a := &actual.chains[i]
		if wanted.chain(a.name) == nil {
			p.Chains = append(p.Chains, ChainPreview{Name: a.name, Gone: true, Remove: texts(a.rules)})
		}
	}
	for i := range wanted.chains {
		w, a := &wanted.chains[i], actual.chain(wanted.chains[i].name)
		switch {
		case a == nil:
			p.Chains = append(p.Chains, ChainPreview{Name: w.name, New: true, Add: texts(w.rules)})
		case !w.sameKind(a):
			p.Chains = append(p.Chains, ChainPreview{Name: w.name, Gone: true, New: true, Remove: texts(a.rules), Add: texts(w.rules)})
		default:
			if remove, add := unlike(a.rules, w.rules); len(remove)+len(add) > 0 {
				p.Chains = append(p.Chains, ChainPreview{Name: w.name, Remove: texts(remove), Add: texts(add)})
			}
		}
	}
}

func (p *Preview) previewSets(actual, wanted *table) {
	for i := range actual.sets {
		a := &actual.sets[i]
		if wanted.set(a.name) == nil {
			p.Sets = append(p.Sets, rangesPreview(a.name, a.segments, nil, true, false))
		}
	}
	for i := range wanted.sets {
		w, a := &wanted.sets[i], actual.set(wanted.sets[i].name)
		switch {
		case a == nil:
			p.Sets = append(p.Sets, rangesPreview(w.name, nil, w.segments, false, true))
		case a.spec != w.spec || a.malformed:
			p.Sets = append(p.Sets, rangesPreview(w.name, a.segments, w.segments, true, true))
		default:
			if remove, add := diffSegments(a.segments, w.segments); len(remove)+len(add) > 0 {
				p.Sets = append(p.Sets, rangesPreview(w.name, remove, add, false, false))
			}
		}
	}
}

func rangesPreview(name string, remove, add []segment, gone, come bool) RangesPreview {
	first := func(list []segment) (out []string) {
		for _, s := range list[:min(len(list), rangesShown)] {
			out = append(out, s.prefix())
		}
		return out
	}
	return RangesPreview{Name: name, Remove: len(remove), Add: len(add), RemoveFirst: first(remove), AddFirst: first(add), Gone: gone, New: come}
}

// prefix renders a range as a prefix if it is one.
func (s segment) prefix() string {
	if p, ok := netipx.IPRangeFrom(s.first, s.last).Prefix(); ok {
		return p.String()
	}
	return s.String()
}

func texts(rules []rule) []string {
	var out []string
	for _, r := range rules {
		out = append(out, text(r.form))
	}
	return out
}
