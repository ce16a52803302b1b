package compile

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/internal/model"
)

// blocks are the blocks that count. An IPBlock is what some node wrote: one that is no block of its pool would take packets of
// other networks away, or those of a block of another node, and one without a pool would have them dropped.
type blocks struct {
	good []*decided // sorted by CIDR; none overlaps another

	misfits, overlaps            int
	misfit, overlap, overlapping *model.Block // the first of each, and the block that it overlaps
	why                          string       // of the misfit
	withheld                     []Withheld   // those of this node that do not count
}

// sift takes the blocks of the snapshot, and those of this node that it lacks. Those that counted before are the same as there;
// of the others it is not decided yet how they are reached.
func (g *ground) sift(all []*model.Block, own []model.Block, before *between) blocks {
	b := blocks{good: make([]*decided, 0, len(all)+len(own))}
	var known walk
	var room []decided
	if before == nil {
		room = make([]decided, len(all)+len(own)) // at once, where all are new
	} else {
		known.good = before.blocks.good
	}
	apart := -1 // the place in known of the last that counts
	for block := range inOrder(all, own) {
		d := known.to(block)
		if d == nil {
			if why := misfit(block, g.pools[block.Pool]); why != "" {
				if b.misfits++; b.misfits == 1 {
					b.misfit, b.why = block, why
				}
				if block.Node == g.name {
					b.withheld = append(b.withheld, Withheld{block.CIDR, block.Pool, why})
				}
				continue
			}
		}
		// In the order of CIDRs, what overlaps any block before it overlaps the last that counts.
		// Two that counted one after the other do not overlap.
		stands := d != nil && apart >= 0 && apart == known.next-2
		if n := len(b.good); !stands && n > 0 && b.good[n-1].block.CIDR.Overlaps(block.CIDR) {
			if b.overlaps++; b.overlaps == 1 {
				b.overlap, b.overlapping = block, b.good[n-1].block
			}
			if block.Node == g.name {
				b.withheld = append(b.withheld, Withheld{block.CIDR, block.Pool, "it overlaps " + b.good[n-1].block.CIDR.String() + " of node " + b.good[n-1].block.Node})
			}
			continue
		}
		if d == nil {
			if len(room) == 0 {
				room = make([]decided, 1)
			}
			apart, d, room = -1, &room[0], room[1:]
			d.block, d.node, d.route = block, -1, Route{CIDR: block.CIDR, Node: block.Node, Pool: block.Pool, Way: undecided}
			if i, known := g.byName[block.Node]; known {
				d.node = i
			}
		} else {
			apart = known.next - 1
		}
		b.good = append(b.good, d)
	}
	return b
}

// walk goes through blocks that were decided about, in the order of CIDRs.
type walk struct {
	good []*decided
	next int
}

// to goes on behind a block, and returns it where it is the very same one; else nil.
func (w *walk) to(block *model.Block) *decided {
	for ; w.next < len(w.good); w.next++ {
		d := w.good[w.next]
		if d.block == block {
			w.next++
			return d
		}
		if d.route.CIDR.Compare(block.CIDR) >= 0 {
			return nil
		}
	}
	return nil
}

// misfit says why a block is not a block of its pool; empty: it is one.
func misfit(block *model.Block, pool *model.Pool) string {
	switch {
	case pool == nil:
		return fmt.Sprintf("pool %q does not exist", block.Pool)
	case pool.CIDR.Bits() > block.CIDR.Bits() || !pool.CIDR.Contains(block.CIDR.Addr()):
		return fmt.Sprintf("pool %s is %s, which does not contain it", pool.Name, pool.CIDR)
	case pool.BlockSize != block.CIDR.Bits():
		return fmt.Sprintf("pool %s has blockSize: %d", pool.Name, pool.BlockSize)
	}
	return ""
}

// problems says which blocks do not count.
func (b *blocks) problems() []string {
	var out []string
	if b.misfits > 0 {
		out = append(out, fmt.Sprintf("blocks without a route, since they are no blocks of their pools: %d, such as %s of node %q: %s; delete the IPBlock if no pod has an address of it",
			b.misfits, b.misfit.CIDR, b.misfit.Node, b.why))
	}
	if b.overlaps > 0 {
		out = append(out, fmt.Sprintf("blocks without a route, since they overlap others: %d, such as %s of node %q, which overlaps %s of node %q: delete one of the two IPBlocks",
			b.overlaps, b.overlap.CIDR, b.overlap.Node, b.overlapping.CIDR, b.overlapping.Node))
	}
	return out
}

// holding is the block that an address lies in, or nil. Blocks do not overlap, so that it is the last that begins before.
func (b *blocks) holding(a netip.Addr) *decided {
	i, _ := slices.BinarySearchFunc(b.good, a, func(d *decided, a netip.Addr) int {
		if d.block.CIDR.Addr().Compare(a) <= 0 {
			return -1
		}
		return 1
	})
	if i == 0 || !b.good[i-1].block.CIDR.Contains(a) {
		return nil
	}
	return b.good[i-1]
}

// inOrder are all blocks, and this node's own that are not among them, in the order of their CIDRs.
func inOrder(all []*model.Block, own []model.Block) iter.Seq[*model.Block] {
	return func(yield func(*model.Block) bool) {
		for len(all) > 0 || len(own) > 0 {
			var next *model.Block
			c := -1
			switch {
			case len(all) == 0:
				c = 1
			case len(own) > 0:
				c = all[0].CIDR.Compare(own[0].CIDR)
			}
			if c <= 0 {
				next, all = all[0], all[1:]
			} else {
				next = &own[0]
			}
			if c >= 0 {
				own = own[1:]
			}
			if !yield(next) {
				return
			}
		}
	}
}
