package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go4.org/netipx"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/nftables"
)

// setAt parses prefixes and ranges.
func setAt(tb testing.TB, list string) *nftables.Set {
	tb.Helper()
	return setOf(ranges(tb, strings.Fields(list)...))
}

// setOf is a set of ranges of one family.
func setOf(ranges []netipx.IPRange) *nftables.Set {
	s := ipv4().set("x")
	if len(ranges) > 0 && ranges[0].From().Is6() {
		s = ipv6().set("x")
	}
	for _, r := range ranges {
		s.AddRange(r.From(), r.To(), "")
	}
	return &s
}

func TestCover(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, ranges, want string }{
		{"nothing", "", ""},
		{"one pool", "10.244.0.0/16", "10.244.0.0/16"},
		{"one address", "10.244.0.7/32", "10.244.0.7/32"},
		{"four", "10.0.0.0/24 10.0.2.0/24 172.16.0.0/12 192.168.0.0/16", "10.0.0.0/24 10.0.2.0/24 172.16.0.0/12 192.168.0.0/16"},
		{"the two nearest of five are joined", "10.0.0.0/24 10.0.2.0/24 100.64.0.0/10 172.16.0.0/12 192.168.0.0/16",
			"10.0.0.0/22 100.64.0.0/10 172.16.0.0/12 192.168.0.0/16"},
		{"no prefix", "10.0.0.1-10.0.0.6", "10.0.0.0/29"},
		{"all", "0.0.0.0/0", "0.0.0.0/0"},
		{"across the middle", "127.0.0.0-128.0.0.0", "0.0.0.0/0"},
		{"the ends", "0.0.0.0/32 255.255.255.255/32", "0.0.0.0/32 255.255.255.255/32"},
		{"IPv6", "fd00:10:244::/56 fd00:20::/48", "fd00:10:244::/56 fd00:20::/48"},
		{"two words of IPv6 at most", "fd00:10:244::1:0:0:0/80 fd00:10:244::3:0:0:0/80", "fd00:10:244::/64"},
	} {
		if got := strings.Trim(fmt.Sprint(cover(setAt(t, test.ranges))), "[]"); got != test.want {
			t.Errorf("%s: %s is covered by %s; want %s", test.name, test.ranges, got, test.want)
		}
	}
}

func TestHomes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, exempt, sources, want string }{
		{"nothing", "", "", ""},
		{"a pool", "10.244.0.0/16 224.0.0.0/4", "10.244.0.0/16", "10.244.0.0/16"},
		{"a pool within a disabled one", "10.0.0.0/8 192.168.0.0/16", "10.244.0.0/16", "10.0.0.0/8"},
		{"no prefix", "10.0.0.0-10.2.255.255", "10.0.0.0/16 10.2.0.0/16", "10.0.0.0/15 10.2.0.0/16"},
		{"a source that is not exempt", "10.0.0.0/16", "11.0.0.0/16", ""},
		{"larger first, and no more than four", "10.0.0.0/24 10.0.2.0/24 10.0.4.0/24 10.0.6.0/24 10.1.0.0/16 10.3.0.0/20", "10.0.0.0/8",
			"10.1.0.0/16 10.3.0.0/20 10.0.0.0/24 10.0.2.0/24"},
		{"too long", "fd00:10:244::/56 fd00:20::/80", "fd00::/16", "fd00:10:244::/56"},
		{"all", "::/0", "fd00::/16", "::/0"},
	} {
		if got := strings.Trim(fmt.Sprint(homes(setAt(t, test.exempt), setAt(t, test.sources))), "[]"); got != test.want {
			t.Errorf("%s: %s; want %s", test.name, got, test.want)
		}
	}
}

// drawRanges are random ranges: some anywhere, some side by side.
func drawRanges(rt *rapid.T, v6 bool, label string) []netipx.IPRange {
	var b netipx.IPSetBuilder
	for _, p := range rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) netip.Prefix {
		n := 4
		if v6 {
			n = 16
		}
		raw := rapid.SliceOfN(rapid.Byte(), n, n).Draw(rt, "address")
		if rapid.Bool().Draw(rt, "near") {
			copy(raw, []byte{0xfd, 0x00, 0x00})
		}
		a, _ := netip.AddrFromSlice(raw)
		return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(rt, "bits")).Masked()
	}), 0, 12).Draw(rt, label) {
		b.AddPrefix(p)
	}
	s, err := b.IPSet()
	if err != nil {
		rt.Fatal(err)
	}
	return s.Ranges()
}

// TestEverySourceIsCovered covers random ranges, and looks for what may not be exempt among their homes.
func TestEverySourceIsCovered(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		v6 := rapid.Bool().Draw(rt, "v6")
		sources, exempt := drawRanges(rt, v6, "sources"), drawRanges(rt, v6, "exempt")
		check := func(what string, list []netip.Prefix) {
			if len(list) > mostPrefixes || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p != p.Masked() || p.Bits() > mostBits }) {
				rt.Fatalf("%s: %v", what, list)
			}
		}
		within := func(first, last netip.Addr, outer netipx.IPRange) bool {
			return outer.Contains(first) && outer.Contains(last)
		}
		covers := cover(setOf(sources))
		check("cover", covers)
		for _, s := range sources {
			if !slices.ContainsFunc(covers, func(p netip.Prefix) bool { return within(s.From(), s.To(), netipx.RangeOfPrefix(p)) }) {
				rt.Fatalf("%v does not cover %s", covers, s)
			}
		}
		found := homes(setOf(exempt), setOf(sources))
		check("homes", found)
		for _, p := range found {
			r := netipx.RangeOfPrefix(p)
			if !slices.ContainsFunc(exempt, func(e netipx.IPRange) bool { return within(r.From(), r.To(), e) }) {
				rt.Fatalf("%s is not exempt", p)
			}
			if !slices.ContainsFunc(sources, r.Overlaps) {
				rt.Fatalf("%s holds no source", p)
			}
		}
	})
}
