package nftables

import (
	"context"
)

// elementsShown bounds the elements of a set that a preview names; it counts them all.
const elementsShown = 5

// Preview is how a table of ours differs from what is wanted.
type Preview struct {
	Table string `json:"table"` // family and name
	// Equal says that applying it would change nothing but, perhaps, who owns the table.
	Equal bool `json:"equal"`
	// Present says that the table is there, and Replaced that it would be made again, since it is dormant or
	// holds things that cannot be repaired one by one. Either way it is one transaction.
	Present  bool           `json:"present"`
	Replaced bool           `json:"replaced,omitempty"`
	Chains   []ChainPreview `json:"chains,omitempty"` // those that differ
	Sets     []SetPreview   `json:"sets,omitempty"`   // those that differ
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

// SetPreview says which elements of a set would go and come.
type SetPreview struct {
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
func (e *Engine) Preview(ctx context.Context, declared *Table) (*Preview, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	wanted, err := e.prepare(declared)
	if err != nil {
		return nil, err
	}
	actual, _, err := e.conn.readTable(ctx)
	if err != nil {
		return nil, err
	}
	wanted.flags = actual.flags & flagsOwned // whoever owns it
	c := diff(actual, wanted)
	p := &Preview{Table: tableFamily(e.conn.family) + " " + e.conn.table, Equal: c.empty(), Present: actual.present, Replaced: c.rebuild}
	p.previewChains(actual, wanted)
	p.previewSets(actual, wanted, c)
	return p, nil
}

func (p *Preview) previewChains(actual, wanted *Table) {
	for i := range actual.Chains {
		a := &actual.Chains[i]
		if wanted.Chain(a.Name) == nil {
			p.Chains = append(p.Chains, ChainPreview{Name: a.Name, Gone: true, Remove: texts(a.Rules)})
		}
	}
	for i := range wanted.Chains {
		w, a := &wanted.Chains[i], actual.Chain(wanted.Chains[i].Name)
		switch {
		case a == nil:
			p.Chains = append(p.Chains, ChainPreview{Name: w.Name, New: true, Add: texts(w.Rules)})
		case !w.sameKind(a):
			p.Chains = append(p.Chains, ChainPreview{Name: w.Name, Gone: true, New: true, Remove: texts(a.Rules), Add: texts(w.Rules)})
		default:
			if remove, add := unlike(a.Rules, w.Rules); len(remove)+len(add) > 0 {
				p.Chains = append(p.Chains, ChainPreview{Name: w.Name, Remove: texts(remove), Add: texts(add)})
			}
		}
	}
}

func (p *Preview) previewSets(actual, wanted *Table, c *change) {
	for i := range actual.Sets {
		a := &actual.Sets[i]
		if wanted.Set(a.Name) == nil {
			p.Sets = append(p.Sets, setPreview(a.Name, whole(a), difference{}, true, false))
		}
	}
	for i := range wanted.Sets {
		w, a := &wanted.Sets[i], actual.Set(wanted.Sets[i].Name)
		switch {
		case a == nil:
			p.Sets = append(p.Sets, setPreview(w.Name, difference{}, whole(w), false, true))
		case !a.SameKind(w) || a.malformed:
			p.Sets = append(p.Sets, setPreview(w.Name, whole(a), whole(w), true, true))
		default:
			if remove, add := c.diffElements(a, w); len(remove)+len(add) > 0 {
				p.Sets = append(p.Sets, setPreview(w.Name, difference{a, remove}, difference{w, add}, false, false))
			}
		}
	}
}

// whole are all elements of a set.
func whole(s *Set) difference {
	d := difference{s, make([]int32, s.n)}
	for i := range d.at {
		d.at[i] = int32(i)
	}
	return d
}

func setPreview(name string, remove, add difference, gone, come bool) SetPreview {
	first := func(d difference) (out []string) {
		for _, i := range d.at[:min(len(d.at), elementsShown)] {
			out = append(out, d.set.text(int(i), true))
		}
		return out
	}
	return SetPreview{Name: name, Remove: len(remove.at), Add: len(add.at), RemoveFirst: first(remove), AddFirst: first(add), Gone: gone, New: come}
}

func texts(rules []Rule) []string {
	var out []string
	for _, r := range rules {
		out = append(out, r.String())
	}
	return out
}
