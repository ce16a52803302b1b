package nft

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"go4.org/netipx"
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
func cover(ranges []segment) []netip.Prefix {
	if len(ranges) == 0 {
		return nil
	}
	var cuts []int // before these
	for i := 1; i < len(ranges); i++ {
		if common(ranges[i-1].last, ranges[i].first) < mostBits {
			cuts = append(cuts, i)
		}
	}
	slices.SortStableFunc(cuts, func(i, j int) int {
		return cmp.Compare(common(ranges[i-1].last, ranges[i].first), common(ranges[j-1].last, ranges[j].first))
	})
	cuts = cuts[:min(len(cuts), mostPrefixes-1)]
	slices.Sort(cuts)
	var out []netip.Prefix
	from := 0
	for _, to := range append(cuts, len(ranges)) {
		first, last := ranges[from].first, ranges[to-1].last
		out = append(out, netip.PrefixFrom(first, min(common(first, last), mostBits)).Masked())
		from = to
	}
	return out
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
func homes(exempt, sources []segment) []netip.Prefix {
	var out, pieces []netip.Prefix
	for _, e := range exempt {
		pieces = netipx.IPRangeFrom(e.first, e.last).AppendPrefixes(pieces[:0])
		for _, p := range pieces {
			for len(sources) > 0 && sources[0].last.Less(p.Addr()) {
				sources = sources[1:]
			}
			if len(sources) > 0 && !netipx.PrefixLastIP(p).Less(sources[0].first) && p.Bits() <= mostBits {
				out = append(out, p)
			}
		}
	}
	slices.SortStableFunc(out, func(p, q netip.Prefix) int { return cmp.Compare(p.Bits(), q.Bits()) })
	return out[:min(len(out), mostPrefixes)]
}
