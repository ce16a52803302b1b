package nftables

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// reading gathers the elements of a set as the kernel tells of them.
type reading struct {
	set *Set // becomes what was read
	raw Set  // the same, with a row for each element of the kernel
	// ends says of each row whether it ends a range before itself; for sets of halves alone.
	ends []bool
	odd  bool // there was an element that none of our sets has
}

func newReading(s *Set) *reading {
	s.elements, s.kernelSet.counts, s.malformed = elements{}, nil, false
	r := &reading{set: s, raw: Set{Key: s.Key, Ranges: s.Ranges && !s.halves(), Data: s.Data, Counters: s.Counters}}
	return r
}

// add takes an element over. Only what the kernel cannot have meant is an error.
func (r *reading) add(e element) error {
	size := keySize(r.raw.Key)
	if e.any {
		r.odd = true
		return nil
	}
	if len(e.key) != size || e.keyEnd != nil && len(e.keyEnd) != size {
		return fmt.Errorf("%w: a key of %d bytes", nfnetlink.ErrMalformed, len(e.key))
	}
	if e.keyEnd == nil {
		e.keyEnd = e.key
	}
	s := &r.raw
	s.rows = append(s.rows, e.key...)
	if s.Ranges {
		s.rows = append(s.rows, e.keyEnd...)
	}
	switch {
	case s.Data == Verdicts:
		if e.verdict == nil {
			r.odd = r.odd || !e.end
			e.verdict = &Verdict{}
		}
		s.verdicts = append(s.verdicts, *e.verdict)
	case s.Data != 0:
		if e.data == nil && e.end {
			e.data = make([]byte, s.Data.size())
		}
		if len(e.data) != s.Data.size() {
			return fmt.Errorf("%w: data of %d bytes", nfnetlink.ErrMalformed, len(e.data))
		}
		s.rows = append(s.rows, e.data...)
	}
	if s.Counters {
		s.counts = append(s.counts, e.count)
	}
	if r.set.halves() {
		r.ends = append(r.ends, e.end)
	} else {
		r.odd = r.odd || e.end
	}
	s.n++
	return nil
}

// compare orders rows by key. At one key, the end of a range comes before the start of the next.
func (r *reading) compare(a, b int32) int {
	if c := bytes.Compare(r.raw.row(int(a)), r.raw.row(int(b))); c != 0 || !r.set.halves() {
		return c
	}
	switch {
	case r.ends[a] == r.ends[b]:
		return 0
	case r.ends[a]:
		return -1
	}
	return 1
}

// finish puts what was read into the set, in the order of the keys.
func (r *reading) finish() {
	order := make([]int32, r.raw.n)
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, r.compare)
	ok := !r.odd
	if r.set.halves() {
		ok = ok && r.pair(order)
	} else {
		for _, i := range order {
			first, last := r.raw.key(int(i))
			r.take(int(i), first, last)
		}
	}
	if !ok {
		r.set.elements, r.set.counts, r.set.malformed = elements{}, nil, true
	}
}

// pair makes ranges of elements that each begin or end one. It reports false if they do not pair.
func (r *reading) pair(order []int32) bool {
	if len(order) > 0 && r.ends[order[0]] && allZero(r.raw.row(int(order[0]))) {
		// The nft command puts an end at zero into each set that it adds to. It matches nothing.
		order = order[1:]
	}
	r.set.Grow((len(order) + 1) / 2)
	last := make([]byte, keySize(r.raw.Key))
	for i := 0; i < len(order); i++ {
		at := int(order[i])
		if r.ends[at] {
			return false
		}
		first := r.raw.row(at)
		for k := range last {
			last[k] = 255 // unless an end follows
		}
		if i+1 < len(order) {
			end := r.raw.row(int(order[i+1]))
			if !r.ends[order[i+1]] || bytes.Equal(end, first) {
				return false
			}
			copy(last, end)
			before(last)
			i++
		}
		r.take(at, first, last)
	}
	return true
}

// take adds the element of a row to the set.
func (r *reading) take(row int, first, last []byte) {
	s, at := r.set, len(r.set.rows)
	s.rows = append(s.rows, first...)
	if s.Ranges {
		s.rows = append(s.rows, last...)
	}
	s.rows = append(s.rows, r.raw.data(row)...)
	s.added(at, r.raw.verdict(row), "")
	if n := r.raw.count(row); n > 0 || s.counts != nil {
		if s.counts == nil {
			s.counts = make([]uint64, s.n-1, r.raw.n)
		}
		s.counts = append(s.counts, n)
	}
}

// before makes a key the one before.
func before(key []byte) {
	for i := len(key) - 1; i >= 0; i-- {
		if key[i]--; key[i] != 255 {
			return
		}
	}
}

// after makes a key the next. It reports false if there is none.
func after(key []byte) bool {
	for i := len(key) - 1; i >= 0; i-- {
		if key[i]++; key[i] != 0 {
			return true
		}
	}
	return false
}
