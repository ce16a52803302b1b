package nftables

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Element is one element of a set or map. Keys and data are made by the functions whose names begin with Append.
type Element struct {
	Key  []byte
	Last []byte // of a range, in sets of ranges; nil if Key is all of it
	Data []byte // in maps
	// Verdict is what a verdict map says of the key. The zero value drops.
	Verdict Verdict
	// Label says to whom counts what the element counts; "" if nobody cares.
	Label string
}

// Verdict is what becomes of a packet. The zero value drops it.
type Verdict struct {
	code  int32
	chain string
}

// Drop drops the packet.
func Drop() Verdict { return Verdict{} }

// Accept ends the evaluation of the base chain by which the packet came.
func Accept() Verdict { return Verdict{code: verdictAccept} }

// Return leaves the chain.
func Return() Verdict { return Verdict{code: unix.NFT_RETURN} }

// GoTo goes to a chain and does not come back.
func GoTo(chain string) Verdict { return Verdict{code: unix.NFT_GOTO, chain: chain} }

// Jump goes to a chain and comes back from its end.
func Jump(chain string) Verdict { return Verdict{code: unix.NFT_JUMP, chain: chain} }

// verdictAccept is NF_ACCEPT of linux/netfilter.h; NF_DROP is 0.
const verdictDrop, verdictAccept = 0, 1

// String renders the verdict as the nft command does.
func (v Verdict) String() string {
	switch v.code {
	case verdictDrop:
		return "drop"
	case verdictAccept:
		return "accept"
	case unix.NFT_RETURN:
		return "return"
	case unix.NFT_GOTO:
		return "goto " + v.chain
	case unix.NFT_JUMP:
		return "jump " + v.chain
	}
	return fmt.Sprintf("[verdict %d]", v.code)
}

// elements are the elements of a set, ordered by their keys. A row holds a first key, a last key in a set of
// ranges, and data in a map that has values: all of it without a pointer, so that many cost little.
type elements struct {
	rows     []byte
	n        int
	widths   widths    // see measure
	verdicts []Verdict // of a verdict map
	labels   []string  // nil if no element has any
	unsorted bool
	err      error // what was wrong with the first bad element
}

// Len is the number of elements.
func (s *Set) Len() int { return s.n }

// Grow makes room for n elements.
func (s *Set) Grow(n int) { s.rows = slices.Grow(s.rows, n*s.width()) }

// widths are the lengths of a key, of a row without its data, and of a row.
type widths struct{ size, key, row int }

// measure says how long rows are. What it found it remembers: it is asked for each element.
func (s *Set) measure() widths {
	if s.widths.row == 0 && len(s.Key) > 0 {
		w := widths{size: keySize(s.Key)}
		w.key = w.size
		if s.Ranges {
			w.key *= 2
		}
		w.row = w.key
		if s.Data != 0 && s.Data != Verdicts {
			w.row += s.Data.size()
		}
		s.widths = w
	}
	return s.widths
}

// width is the length of a row.
func (s *Set) width() int { return s.measure().row }

// Add adds an element, in any order. What is wrong with it the engine says.
func (s *Set) Add(e Element) {
	size := keySize(s.Key)
	if s.concat() {
		e.Key = pad4(e.Key)
		if e.Last != nil {
			e.Last = pad4(e.Last)
		}
	}
	switch {
	case len(e.Key) != size || e.Last != nil && len(e.Last) != size:
		s.fault(fmt.Errorf("a key of %d bytes where %s has %d", len(e.Key), typeNames(s.Key), size))
		return
	case e.Last != nil && !s.Ranges && !bytes.Equal(e.Key, e.Last):
		s.fault(errors.New("a range in a set without ranges"))
		return
	case s.Data == Verdicts && e.Data != nil || s.Data != Verdicts && len(e.Data) != s.Data.size():
		s.fault(fmt.Errorf("data of %d bytes where %s has %d", len(e.Data), s.Data, s.Data.size()))
		return
	}
	at := len(s.rows)
	s.rows = append(s.rows, e.Key...)
	if s.Ranges {
		if e.Last == nil {
			e.Last = e.Key
		}
		s.rows = append(s.rows, e.Last...)
	}
	s.rows = append(s.rows, e.Data...)
	s.added(at, e.Verdict, e.Label)
}

// AddRange adds a range of addresses to a set of them, or one address.
func (s *Set) AddRange(first, last netip.Addr, label string) {
	if len(s.Key) != 1 || !s.Ranges || s.Data != 0 || first.BitLen() != 8*s.Key[0].size() || last.BitLen() != first.BitLen() {
		s.fault(fmt.Errorf("%s-%s: not a range of %s", first, last, typeNames(s.Key)))
		return
	}
	at := len(s.rows)
	s.rows = AppendAddr(AppendAddr(s.rows, first), last)
	s.added(at, Verdict{}, label)
}

// added takes note of a row that was appended.
func (s *Set) added(at int, v Verdict, label string) {
	s.n++
	if s.Data == Verdicts {
		s.verdicts = append(s.verdicts, v)
	}
	if label != "" && s.labels == nil {
		width := len(s.rows) - at
		s.labels = make([]string, s.n-1, max(cap(s.rows)/width, s.n))
	}
	if s.labels != nil {
		s.labels = append(s.labels, label)
	}
	width := len(s.rows) - at
	s.unsorted = s.unsorted || at > 0 && bytes.Compare(s.rows[at-width:at], s.rows[at:]) >= 0
}

func (s *Set) fault(err error) {
	if s.err == nil {
		s.err = err
	}
}

// TakeElements replaces the elements by those of a set of the same kind. It reports false, and changes nothing, if the
// other is of another kind or its elements are none that we could have made.
func (s *Set) TakeElements(o *Set) bool {
	if o == nil || !s.SameKind(o) || o.malformed {
		return false
	}
	s.elements = o.elements
	return true
}

// DropElements leaves the set without elements.
func (s *Set) DropElements() { s.elements = elements{} }

// All iterates over the elements in the order of their keys. Their bytes must not be changed.
func (s *Set) All() iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for i := range s.n {
			first, last := s.key(i)
			if !yield(Element{Key: first, Last: last, Data: s.data(i), Verdict: s.verdict(i), Label: s.label(i)}) {
				return
			}
		}
	}
}

// Addrs are the ends of the element with an index, in a set of addresses.
func (s *Set) Addrs(i int) (first, last netip.Addr) {
	a, b := s.key(i)
	first, _ = netip.AddrFromSlice(a)
	last, _ = netip.AddrFromSlice(b)
	return first, last
}

// row is the key of an element: its first key, and its last one in a set of ranges.
func (s *Set) row(i int) []byte {
	w := s.measure()
	return s.rows[i*w.row : i*w.row+w.key]
}

// key are the first key and the last one of an element.
func (s *Set) key(i int) (first, last []byte) {
	row, size := s.row(i), s.measure().size
	return row[:size:size], row[len(row)-size : len(row) : len(row)]
}

// data is the data of an element in a map that has values; nil otherwise.
func (s *Set) data(i int) []byte {
	w := s.measure()
	from, to := i*w.row+w.key, (i+1)*w.row
	if from == to {
		return nil
	}
	return s.rows[from:to:to]
}

func (s *Set) verdict(i int) Verdict {
	if s.verdicts == nil {
		return Verdict{}
	}
	return s.verdicts[i]
}

func (s *Set) label(i int) string {
	if s.labels == nil {
		return ""
	}
	return s.labels[i]
}

func (s *Set) count(i int) uint64 {
	if s.counts == nil {
		return 0
	}
	return s.counts[i]
}

// setCount says what an element has counted.
func (s *Set) setCount(i int, n uint64) {
	if s.counts == nil {
		if n == 0 {
			return
		}
		s.counts = make([]uint64, s.n)
	}
	s.counts[i] = n
}

// sort orders the elements by their keys.
func (s *Set) sort() {
	if !s.unsorted {
		return
	}
	s.unsorted = false
	order := make([]int32, s.n)
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return bytes.Compare(s.row(int(a)), s.row(int(b))) })
	old, width := s.elements, s.width()
	s.rows = make([]byte, 0, len(old.rows))
	if old.verdicts != nil {
		s.verdicts = make([]Verdict, 0, s.n)
	}
	if old.labels != nil {
		s.labels = make([]string, 0, s.n)
	}
	for _, i := range order {
		s.rows = append(s.rows, old.rows[int(i)*width:(int(i)+1)*width]...)
		if old.verdicts != nil {
			s.verdicts = append(s.verdicts, old.verdicts[i])
		}
		if old.labels != nil {
			s.labels = append(s.labels, old.labels[i])
		}
	}
}

// check orders the elements, and says what is wrong with the set.
func (s *Set) check() error {
	for _, t := range append(slices.Clone(s.Key), s.Data) {
		if t != 0 && t != Verdicts && t.size() == 0 {
			return fmt.Errorf("%s is not known", t)
		}
	}
	if len(s.Key) == 0 || len(s.Key) > maxFields || slices.Contains(s.Key, Verdicts) || slices.Contains(s.Key, 0) {
		return fmt.Errorf("%s is no key", typeNames(s.Key))
	}
	if s.err != nil {
		return s.err
	}
	s.sort()
	for i := range s.n {
		if err := s.checkElement(i); err != nil {
			return err
		}
	}
	return nil
}

// checkElement says whether an element is no range, or overlaps one that follows it: the kernel notices some of the
// latter only, and may then delete one in place of another.
func (s *Set) checkElement(i int) error {
	if s.Ranges && s.overlapUnordered(i) {
		return fmt.Errorf("%s is no range", s.text(i, false))
	}
	size := s.Key[0].size()
	_, last := s.key(i)
	for j := i + 1; j < s.n && (s.Ranges || j == i+1); j++ {
		if next, _ := s.key(j); bytes.Compare(next[:size], last[:size]) > 0 {
			return nil
		}
		if s.overlap(i, j) {
			return fmt.Errorf("%s overlaps %s", s.text(j, false), s.text(i, false))
		}
	}
	return nil
}

// overlapUnordered says whether an element ends before it begins, in any field.
func (s *Set) overlapUnordered(i int) bool {
	first, last := s.key(i)
	for _, t := range s.Key {
		c := bytes.Compare(first[:t.size()], last[:t.size()])
		if c > 0 || c < 0 && t.hostOrder() {
			return true
		}
		first, last = first[min(align4(t.size()), len(first)):], last[min(align4(t.size()), len(last)):]
	}
	return false
}

// overlap says whether two elements have a key in common.
func (s *Set) overlap(i, j int) bool {
	first, last := s.key(i)
	from, to := s.key(j)
	for _, t := range s.Key {
		n := t.size()
		if bytes.Compare(last[:n], from[:n]) < 0 || bytes.Compare(to[:n], first[:n]) < 0 {
			return false
		}
		next := min(align4(n), len(first))
		first, last, from, to = first[next:], last[next:], from[next:], to[next:]
	}
	return true
}

// same says whether two elements of sets of one kind are equal, but for their labels and counts.
func same(a *Set, i int, b *Set, j int) bool {
	w := a.measure().row
	return bytes.Equal(a.rows[i*w:(i+1)*w], b.rows[j*w:(j+1)*w]) && a.verdict(i) == b.verdict(j)
}

// text renders an element as the nft command does, more or less. Prefixes says that a range that is a prefix is
// written as one.
func (s *Set) text(i int, prefixes bool) string {
	first, last := s.key(i)
	var b strings.Builder
	for k, t := range s.Key {
		n := t.size()
		switch {
		case k > 0:
			b.WriteString(" . " + t.text(first[:n], last[:n]))
		case prefixes || s.concat() || bytes.Equal(first[:n], last[:n]):
			b.WriteString(t.text(first[:n], last[:n]))
		default:
			b.WriteString(t.one(first[:n]) + "-" + t.one(last[:n]))
		}
		next := min(align4(n), len(first))
		first, last = first[next:], last[next:]
	}
	switch s.Data {
	case 0:
	case Verdicts:
		b.WriteString(" : " + s.verdict(i).String())
	default:
		b.WriteString(" : " + s.Data.one(s.data(i)))
	}
	return b.String()
}

// labelled is the text of an element with its label, for errors.
func (s *Set) labelled(i int) string {
	if s.label(i) == "" {
		return s.text(i, false)
	}
	return fmt.Sprintf("%s of %s %q", s.text(i, false), s.Labels, s.label(i))
}

func typeNames(types []Type) string {
	var names []string
	for _, t := range types {
		names = append(names, t.String())
	}
	return strings.Join(names, " . ")
}
