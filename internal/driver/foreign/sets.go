package foreign

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// What linux/netfilter/nf_tables.h has and golang.org/x/sys/unix has not.
const (
	attrElementKeyEnd = 10 // NFTA_SET_ELEM_KEY_END
	setConcat         = 1 << 7
	// setChanges are the flags of sets whose elements packets add, or that come to an end by themselves.
	setChanges = unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
)

// set is what a rule looks things up in.
type set struct {
	known    bool // false: it could not be read in full, or holds what is not understood
	interval bool
	elements []element
}

// element is one element of a set; of one with intervals, where one begins or, excluded, ends.
type element struct {
	key   []byte
	end   bool
	odd   bool   // its key is not understood
	chain string // where a map of verdicts leads to; "" if nowhere
}

// readSet reads a set once.
func (r *tables) readSet(at place) *set {
	if s := r.sets[at]; s != nil {
		return s
	}
	s := &set{}
	r.sets[at] = s
	flags, err := r.setFlags(at)
	if err != nil {
		return s
	}
	attrs := nfnetlink.AppendText(nil, unix.NFTA_SET_ELEM_LIST_TABLE, at.table)
	attrs = nfnetlink.AppendText(attrs, unix.NFTA_SET_ELEM_LIST_SET, at.name)
	err = r.dump("reading set "+at.name, unix.NFT_MSG_GETSETELEM, at.family, attrs, func() { s.elements = nil }, func(m nfnetlink.Message) (err error) {
		if s.elements, err = parseElements(s.elements, m); err == nil && len(s.elements) > maxElements {
			err = errTooMany
		}
		return err
	})
	s.known = err == nil && flags&(setConcat|setChanges) == 0 && !slices.ContainsFunc(s.elements, func(e element) bool { return e.odd })
	s.interval = flags&unix.NFT_SET_INTERVAL != 0
	return s
}

func (r *tables) setFlags(at place) (flags uint32, err error) {
	request := r.conn.Request(subsystem|unix.NFT_MSG_GETSET, 0, at.family)
	request = nfnetlink.AppendText(request, unix.NFTA_SET_TABLE, at.table)
	request = nfnetlink.AppendText(request, unix.NFTA_SET_NAME, at.name)
	err = r.conn.Get(r.ctx, "reading set "+at.name, request, func(m nfnetlink.Message) error {
		for a, err := range m.Attributes() {
			if err == nil && a.Kind == unix.NFTA_SET_FLAGS {
				flags, err = a.Uint32()
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return flags, err
}

// parseElements decodes the elements in a message and appends them to out.
func parseElements(out []element, m nfnetlink.Message) ([]element, error) {
	for a, err := range m.Attributes() {
		if err != nil {
			return nil, err
		}
		if a.Kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for item, err := range nfnetlink.Attributes(a.Data) {
			if err != nil {
				return nil, err
			}
			e, err := parseElement(item.Data)
			if err != nil {
				return nil, fmt.Errorf("element: %w", err)
			}
			out = append(out, e)
		}
	}
	return out, nil
}

func parseElement(b []byte) (e element, err error) {
	attrs, err := attributesOf(b)
	if err != nil {
		return element{}, err
	}
	flags := number(attrs[unix.NFTA_SET_ELEM_FLAGS])
	_, both := attrs[attrElementKeyEnd]
	e.end = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0
	key, err := attributesOf(attrs[unix.NFTA_SET_ELEM_KEY])
	if err != nil {
		return element{}, err
	}
	e.key = slices.Clone(key[unix.NFTA_DATA_VALUE])
	e.odd = both || flags&^unix.NFT_SET_ELEM_INTERVAL_END != 0 || len(e.key) == 0
	_, e.chain, err = parseVerdict(attrs[unix.NFTA_SET_ELEM_DATA])
	return e, err
}

// parseVerdict decodes the verdict in data; 0 and "" if there is none.
func parseVerdict(b []byte) (code int32, chain string, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err == nil && a.Kind == unix.NFTA_DATA_VERDICT {
			var v map[uint16][]byte
			v, err = attributesOf(a.Data)
			code = int32(number(v[unix.NFTA_VERDICT_CODE]))
			chain = string(bytes.TrimRight(v[unix.NFTA_VERDICT_CHAIN], "\x00"))
		}
		if err != nil {
			return 0, "", err
		}
	}
	return code, chain, nil
}

// ranges are the addresses of a set; false if it holds other things, or is not known.
func (s *set) ranges(size int) ([]netipx.IPRange, bool) {
	if !s.known {
		return nil, false
	}
	list := slices.Clone(s.elements)
	slices.SortStableFunc(list, func(a, b element) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		if a.end == b.end {
			return 0
		} else if a.end {
			return -1
		}
		return 1
	})
	var out []netipx.IPRange
	last := netipx.RangeOfPrefix(netip.PrefixFrom(netip.IPv6Unspecified(), 0)).To()
	if size == 4 {
		last = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	var from netip.Addr
	for _, e := range list {
		a, ok := netip.AddrFromSlice(e.key)
		switch {
		case !ok || len(e.key) != size:
			return nil, false
		case !s.interval:
			out = append(out, netipx.IPRangeFrom(a, a))
		case e.end && from.IsValid():
			if a.Compare(from) > 0 {
				out = append(out, netipx.IPRangeFrom(from, a.Prev()))
			}
			from = netip.Addr{}
		case !e.end && !from.IsValid():
			from = a
		}
	}
	if from.IsValid() {
		out = append(out, netipx.IPRangeFrom(from, last))
	}
	return out, true
}

// chains are those that a map of verdicts leads to.
func (s *set) chains() (out []string) {
	for _, e := range s.elements {
		if e.chain != "" && !slices.Contains(out, e.chain) {
			out = append(out, e.chain)
		}
	}
	slices.Sort(out) // the kernel's order is that of hashes
	return out
}
