package nftables

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// maxGone is how many labels that no element has any more are remembered with what was counted for them, in case they
// come back. With one more, all of them are forgotten.
const maxGone = 1000

// Counts reads what the elements of sets with counters have counted, by label: the packets that found them. A number
// never decreases while the engine lives and the table has the label, and includes what the kernel had counted before
// for elements that the first table wanted too. Labels of earlier tables may be among them. It takes as long as a
// reading of the sets; on error the numbers are those last read.
func (e *Engine) Counts(ctx context.Context) (map[string]uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var err error
	if e.held != nil {
		err = e.readCounts(ctx)
	}
	sums := maps.Clone(e.carried)
	for s := range counted(e.held) {
		for i := range s.n {
			sums[s.label(i)] += s.count(i)
		}
	}
	delete(sums, "")
	return sums, err
}

// counted iterates over the sets whose elements count; there are none in a nil table.
func counted(t *Table) iter.Seq[*Set] {
	return func(yield func(*Set) bool) {
		if t == nil {
			return
		}
		for i := range t.Sets {
			if s := &t.Sets[i]; s.Counters && !s.strange && !yield(s) {
				return
			}
		}
	}
}

// countedAs finds the set of a table whose elements may be those of a set that counts; nil if there is none.
func (t *Table) countedAs(s *Set) *Set {
	if o := t.Set(s.Name); o != nil && o.SameKind(s) {
		return o
	}
	return nil
}

// readCounts brings the counts of held up to date.
func (e *Engine) readCounts(ctx context.Context) error {
	for held := range counted(e.held) {
		if held.n == 0 {
			continue
		}
		read, err := e.readStable(ctx, held)
		if err != nil {
			return fmt.Errorf("reading counters: %w", err)
		}
		pair(read, held, func(r, h int) {
			if r >= 0 && h >= 0 {
				e.carry(held, h, read.count(r))
				held.setCount(h, read.count(r))
			}
		})
	}
	return nil
}

// readStable reads a set until it is not changed meanwhile. A set that is gone is empty.
func (e *Engine) readStable(ctx context.Context, held *Set) (*Set, error) {
	read := &Set{Name: held.Name, Key: held.Key, Ranges: held.Ranges, Data: held.Data, Counters: held.Counters}
	for try := 1; ; try++ {
		err := e.conn.readElements(ctx, read, e.held.ours)
		switch {
		case isAbsent(err):
			read.elements = elements{}
			return read, nil
		case errors.Is(err, nfnetlink.ErrInterrupted) && ctx.Err() == nil && try < readTries:
		default:
			return read, err
		}
	}
}

// carry keeps what an element had counted if it now counts less, having been replaced by somebody.
func (e *Engine) carry(held *Set, i int, now uint64) {
	if last := held.count(i); now < last {
		e.carried[held.label(i)] += last
	}
}

// takeCounts passes labels and counts on from what is held to a table that was read.
func (e *Engine) takeCounts(read *Table) {
	for held := range counted(e.held) {
		now := read.countedAs(held)
		if now == nil {
			now = &Set{Key: held.Key, Ranges: held.Ranges, Data: held.Data}
		}
		if now.n > 0 && held.labels != nil {
			now.labels = make([]string, now.n)
		}
		pairUnlabelled(now, held, func(r, h int) {
			switch {
			case r < 0:
				e.carried[held.label(h)] += held.count(h)
			case h >= 0:
				e.carry(held, h, now.count(r))
				if now.labels != nil {
					now.labels[r] = held.label(h)
				}
			}
		})
	}
}

// pairUnlabelled is pair for a set that was read, whose elements have no labels yet.
func pairUnlabelled(read, held *Set, visit func(read, held int)) {
	bare := *read
	bare.labels = nil
	pair(&bare, held, visit)
}

// settle makes wanted what is held, after a change has been carried out. Counts pass on to elements
// that stay; what deleted ones had counted, as last read or echoed, is carried on for their labels.
func (e *Engine) settle(wanted *Table, c *change, deleted map[string]map[string]uint64) {
	for held := range counted(e.held) {
		gone := func(i int) {
			first, _ := held.key(i)
			if n := max(held.count(i), deleted[held.Name][string(first)]); n > 0 {
				e.carried[held.label(i)] += n
			}
		}
		w := wanted.countedAs(held)
		if w == nil || c.replaces(held.Name) {
			for i := range held.n {
				gone(i)
			}
			continue
		}
		var counts Set // of w, which may be held itself
		counts.n = w.n
		pair(held, w, func(h, w int) {
			switch {
			case w < 0:
				gone(h)
			case h >= 0:
				counts.setCount(w, held.count(h))
			}
		})
		w.counts = counts.counts
	}
	wanted.ours = wanted.flags&flagOwner != 0
	e.held = wanted
	e.forget()
}

// forget keeps what is carried on from growing with every label that an element ever had. It looks at all labels only
// when there are twice as many as it last kept, so that a small change stays cheap.
func (e *Engine) forget() {
	if len(e.carried) <= e.remembered+maxGone {
		return
	}
	planned := map[string]bool{}
	for held := range counted(e.held) {
		for i := range held.n {
			planned[held.label(i)] = true
		}
	}
	maps.DeleteFunc(e.carried, func(label string, _ uint64) bool { return !planned[label] })
	e.remembered = 2 * len(e.carried)
}

// replaces says whether a change deletes every element of a set, those included that it adds again.
func (c *change) replaces(set string) bool {
	return c.rebuild || slices.Contains(c.dropSets, set) || slices.Contains(c.emptySets, set)
}

// removesMany says whether a change deletes more elements that count than are echoed.
func (c *change) removesMany() bool {
	return slices.ContainsFunc(c.remove, func(d difference) bool { return d.set.Counters && len(d.at) > maxEcho })
}
