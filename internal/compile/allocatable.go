package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
)

// Condition is the Allocatable condition of a pool: whether it may give out addresses, and if not why.
type Condition struct {
	Allocatable bool
	Reason      string // CamelCase, as conditions have it
	Message     string
}

// The reasons of the Allocatable condition, as package api/v3 has them.
const (
	ReasonOK              = "OK"
	ReasonPoolDisabled    = "PoolDisabled"
	ReasonCIDROverlap     = "CIDROverlap"
	ReasonTerminating     = "Terminating"
	ReasonInvalidSelector = "InvalidSelector"
)

// Allocatable says for every pool, by name, whether it may give out addresses. Of enabled pools that
// overlap, the one that already is allocatable wins, then the older, then the lower name. One that is being deleted,
// or whose selectors cannot be read, gives out none and keeps its range from others all the same, since its
// addresses may be in use. Translation does not depend on any of it.
func Allocatable(pools []*model.Pool) map[string]Condition {
	out := make(map[string]Condition, len(pools))
	var enabled []*model.Pool
	for _, p := range pools {
		if p.Disabled && !p.Terminating {
			out[p.Name] = Condition{Reason: ReasonPoolDisabled, Message: "the pool is disabled: it gives out no new address"}
			continue
		}
		enabled = append(enabled, p)
	}
	slices.SortFunc(enabled, func(a, b *model.Pool) int {
		switch {
		case a.WasAllocatable != b.WasAllocatable && a.WasAllocatable, a.WasAllocatable == b.WasAllocatable && a.Older(b):
			return -1
		default:
			return 1
		}
	})
	var won bart.Table[*model.Pool] // disjoint
	for _, p := range enabled {
		q := overlapping(&won, p.CIDR)
		if q == nil && !p.Disabled {
			won.Insert(p.CIDR, p)
		}
		out[p.Name] = conditionOf(p, q)
	}
	return out
}

// conditionOf is that of a pool that is not just disabled; q is the one that keeps it from its range, or nil.
func conditionOf(p, q *model.Pool) Condition {
	if p.Terminating {
		return Condition{Reason: ReasonTerminating, Message: "the pool is being deleted: it gives out no new address"}
	}
	for _, s := range []struct{ field, text string }{{"spec.nodeSelector", p.NodeSelector}, {"spec.namespaceSelector", p.NamespaceSelector}} {
		if fault := selectorFault(s.text); fault != "" {
			return Condition{Reason: ReasonInvalidSelector, Message: s.field + fault + ": the pool gives out no address"}
		}
	}
	if q != nil {
		return Condition{Reason: ReasonCIDROverlap,
			Message: fmt.Sprintf("%s overlaps pool %s (%s), which came first: it gives out no address while both stand", p.CIDR, q.Name, q.CIDR)}
	}
	return Condition{Allocatable: true, Reason: ReasonOK, Message: "the pool gives out addresses"}
}

// selectorFault says what is wrong with a selector, or "".
func selectorFault(text string) string {
	if text == "all()" { // nearly every one
		return ""
	}
	s, err := selector.Parse(text)
	switch {
	case err != nil:
		return " is not a selector: " + err.Error()
	case s.Global():
		return " is global(), which selects nothing here; use all()"
	}
	return ""
}

// overlapping is a pool of the table that shares addresses with the prefix, or nil.
func overlapping(t *bart.Table[*model.Pool], p netip.Prefix) *model.Pool {
	if q, ok := t.LookupPrefix(p); ok {
		return q
	}
	for _, q := range t.Subnets(p) {
		return q
	}
	return nil
}
