package nat

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/nftables"
)

const (
	// mostPrefixes bounds the prefixes of a family that rules compare addresses with, one by one.
	mostPrefixes = 4
	// mostBits bounds the length of such a prefix: an address is compared word by word, two words at most.
	mostBits = 64
)

// cover is at most mostPrefixes prefixes that hold all of some ranges, none longer than mostBits. The ranges are of
// one family, sorted and disjoint. They are cut into groups where neighbours have least in common, and each group
// is covered by one prefix, which may hold other addresses as well.
func cover(ranges *nftables.Set) []netip.Prefix {
	if ranges.Len() == 0 {
		return nil
	}
	shared := func(i int) int { return common(lastOf(ranges, i-1), firstOf(ranges, i)) }
	cuts := smallest(mostPrefixes-1, func(yield func(int) bool) { // before these
		for i := 1; i < ranges.Len(); i++ {
			if shared(i) < mostBits && !yield(i) {
				return
			}
		}
	}, shared)
	slices.Sort(cuts)
	var out []netip.Prefix
	from := 0
	for _, to := range append(cuts, ranges.Len()) {
		a, b := firstOf(ranges, from), lastOf(ranges, to-1)
		out = append(out, netip.PrefixFrom(a, min(common(a, b), mostBits)).Masked())
		from = to
	}
	return out
}

func firstOf(s *nftables.Set, i int) netip.Addr {
	first, _ := s.Addrs(i)
	return first
}

func lastOf(s *nftables.Set, i int) netip.Addr {
	_, last := s.Addrs(i)
	return last
}

// common is how many bits two addresses of one family have in common at their beginning.
func common(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	n := bits.LeadingZeros64(binary.BigEndian.Uint64(x[:]) ^ binary.BigEndian.Uint64(y[:]))
	if n == 64 {
		n += bits.LeadingZeros64(binary.BigEndian.Uint64(x[8:]) ^ binary.BigEndian.Uint64(y[8:]))
	}
	return n - (128 - a.BitLen())
}

// homes are the largest prefixes that are exempt as a whole and hold sources: where pods speak to pods. Both
// lists are of one family, sorted and disjoint. There are at most mostPrefixes, none longer than mostBits.
func homes(exempt, sources *nftables.Set) []netip.Prefix {
	return smallest(mostPrefixes, func(yield func(netip.Prefix) bool) {
		var pieces []netip.Prefix
		next := 0 // of the sources
		for i := range exempt.Len() {
			pieces = netipx.IPRangeFrom(exempt.Addrs(i)).AppendPrefixes(pieces[:0])
			for _, p := range pieces {
				for next < sources.Len() && lastOf(sources, next).Less(p.Addr()) {
					next++
				}
				if next < sources.Len() && !netipx.PrefixLastIP(p).Less(firstOf(sources, next)) && p.Bits() <= mostBits && !yield(p) {
					return
				}
			}
		}
	}, netip.Prefix.Bits)
}

// smallest are at most n things of a sequence, those of the lowest rank, by rank and then as they came.
func smallest[T any](n int, all iter.Seq[T], rank func(T) int) []T {
	var out []T
	for v := range all {
		at, _ := slices.BinarySearchFunc(out, rank(v), func(o T, r int) int {
			if rank(o) <= r {
				return -1
			}
			return 1
		})
		if at < n {
			out = slices.Insert(out[:min(len(out), n-1)], at, v)
		}
	}
	return out
}
