package nat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Counter is what one pool's addresses have done.
type Counter struct {
	// Connections is the number of connections that were translated, or would have been had the kernel
	// found a free port. It never decreases while the driver lives and the plan has the pool, and includes
	// what the kernel had counted before for ranges that the first plan wanted too.
	Connections uint64
}

// maxGone is how many pools that are in the plan no more are remembered with what they counted, in case they come
// back. With one more, all of them are forgotten.
const maxGone = 1000

// Counters reads how many connections were translated, by pool. Pools of earlier plans may be among them.
// It takes as long as a reading of the source sets; on error the numbers are those last read.
func (d *Driver) Counters(ctx context.Context) (map[string]Counter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.held != nil {
		err = d.readCounts(ctx)
	}
	sums := maps.Clone(d.carried)
	for _, s := range countedSets(d.held) {
		for _, e := range s.segments {
			sums[e.pool] += e.count
		}
	}
	delete(sums, "")
	counters := make(map[string]Counter, len(sums))
	for pool, n := range sums {
		counters[pool] = Counter{Connections: n}
	}
	return counters, err
}

// countedSets are the sets whose elements count; none in a nil table.
func countedSets(t *table) []*set {
	var out []*set
	for _, f := range []family{ipv4(), ipv6()} {
		if t == nil {
			break
		}
		if s := t.set(setSource + f.suffix); s != nil {
			out = append(out, s)
		}
	}
	return out
}

// readCounts brings the counts of held up to date.
func (d *Driver) readCounts(ctx context.Context) error {
	for _, s := range countedSets(d.held) {
		if len(s.segments) == 0 {
			continue
		}
		segments, err := d.readStable(ctx, s.name)
		if err != nil {
			return fmt.Errorf("reading counters: %w", err)
		}
		pair(segments, s.segments, func(read, held *segment) {
			if read != nil && held != nil {
				d.carry(*held, read.count)
				held.count = read.count
			}
		})
	}
	return nil
}

// readStable reads a set until it is not changed meanwhile. A set that is gone is empty.
func (d *Driver) readStable(ctx context.Context, name string) (segments []segment, err error) {
	for range readTries {
		segments, _, err = d.conn.readSegments(ctx, name, d.held.ours)
		if !errors.Is(err, nfnetlink.ErrInterrupted) || ctx.Err() != nil {
			break
		}
	}
	if isAbsent(err) {
		return nil, nil
	}
	return segments, err
}

// carry keeps what an element had counted if it now counts less, having been replaced by somebody.
func (d *Driver) carry(last segment, now uint64) {
	if now < last.count {
		d.carried[last.pool] += last.count
	}
}

// takeCounts passes pools and counts on from what is held to a table that was read.
func (d *Driver) takeCounts(read *table) {
	for _, held := range countedSets(d.held) {
		var now []segment
		if s := read.set(held.name); s != nil {
			now = s.segments
		}
		pair(now, held.segments, func(r, h *segment) {
			switch {
			case r == nil:
				d.carried[h.pool] += h.count
			case h != nil:
				r.pool = h.pool
				d.carry(*h, r.count)
			}
		})
	}
}

// settle makes wanted what is held, after a change has been carried out. Counts pass on to elements
// that stay; what deleted ones had counted, as last read or echoed, is carried on for their pools.
func (d *Driver) settle(wanted *table, c *change, deleted map[string][]element) {
	for _, held := range countedSets(d.held) {
		w := wanted.set(held.name)
		final := make(map[netip.Addr]uint64)
		for _, e := range deleted[held.name] {
			if !e.end {
				final[e.key] = e.count
			}
		}
		gone := func(s *segment) { d.carried[s.pool] += max(s.count, final[s.first]) }
		if c.replaces(held.name) {
			for i := range held.segments {
				gone(&held.segments[i])
			}
			continue
		}
		pair(held.segments, w.segments, func(h, w *segment) {
			switch {
			case w == nil:
				gone(h)
			case h != nil:
				w.count = h.count
			}
		})
	}
	wanted.ours = wanted.flags&flagOwner != 0
	d.held = wanted
	d.forget()
}

// forget keeps what is carried on from growing with every name that a pool ever had. It looks at all names only
// when there are twice as many as it last kept, so that a small change stays cheap.
func (d *Driver) forget() {
	if len(d.carried) <= d.remembered+maxGone {
		return
	}
	planned := map[string]bool{}
	for _, s := range countedSets(d.held) {
		for i := range s.segments {
			planned[s.segments[i].pool] = true
		}
	}
	maps.DeleteFunc(d.carried, func(pool string, _ uint64) bool { return !planned[pool] })
	d.remembered = 2 * len(d.carried)
}

// replaces says whether a change deletes every element of a set, those included that it adds again.
func (c *change) replaces(set string) bool {
	return c.rebuild || slices.Contains(c.dropSets, set) || slices.Contains(c.emptySets, set)
}

// removesMany says whether a change deletes more ranges from a set than are echoed.
func (c *change) removesMany() bool {
	return slices.ContainsFunc(c.remove, func(d difference) bool { return len(d.segments) > maxEcho })
}
