package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/sallyport/sallyport/internal/model"
)

// Condition is the Allocatable condition of a pool: whether it may give out addresses, and if not why.
type Condition struct {
	Allocatable bool
	Reason      string // CamelCase, as conditions have it
	Message     string
}

// The reasons of the Allocatable condition, as package api/v3 has them.
const (
	ReasonOK           = "OK"
	ReasonPoolDisabled = "PoolDisabled"
	ReasonCIDROverlap  = "CIDROverlap"
)

// Allocatable says for every pool, by name, whether it may give out addresses. Of enabled pools that
// overlap, the one that already is allocatable wins, then the older, then the lower name. Translation
// does not depend on it.
func Allocatable(pools []model.Pool) map[string]Condition {
	out := make(map[string]Condition, len(pools))
	var enabled []*model.Pool
	for i := range pools {
		if pools[i].Disabled {
			out[pools[i].Name] = Condition{Reason: ReasonPoolDisabled, Message: "the pool is disabled: it gives out no new address"}
			continue
		}
		enabled = append(enabled, &pools[i])
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
		if q := overlapping(&won, p.CIDR); q != nil {
			out[p.Name] = Condition{Reason: ReasonCIDROverlap,
				Message: fmt.Sprintf("%s overlaps pool %s (%s), which came first: it gives out no address while both stand", p.CIDR, q.Name, q.CIDR)}
			continue
		}
		won.Insert(p.CIDR, p)
		out[p.Name] = Condition{Allocatable: true, Reason: ReasonOK, Message: "the pool gives out addresses"}
	}
	return out
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
