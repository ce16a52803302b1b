package rtnetlink

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

func TestHopsAreReadAsWritten(t *testing.T) {
	a4, a6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")
	for _, to := range []string{"10.0.0.0/8", "2001:db8::/32"} {
		for _, hops := range [][]Hop{{{a4, 0}}, {{a6, 7}}, {{a4, 0}, {a6, 7}}, {{a6, 7}, {a6, 8}, {a4, 9}}} {
			var b Batch
			prefix := netip.MustParsePrefix(to)
			b.Message(unix.RTM_NEWROUTE, 0, RouteFixed{Destination: prefix}.Encode())
			b.Hops(prefix, hops)
			m := b.At(0)
			if got, err := ParseHops(m); err != nil || !slices.Equal(got, hops) {
				t.Errorf("%s: read %v (%v), not %v", to, got, err, hops)
			}
			for n := range len(m.Body) { // none of them may crash
				_, _ = ParseHops(nfnetlink.Message{Kind: m.Kind, Body: m.Body[:n]})
			}
		}
	}
}

func TestMalformedHopsAreAnError(t *testing.T) {
	for _, data := range [][]byte{{1}, {4, 0, 0, 0, 0, 0, 0, 0}, {16, 0, 0, 0, 0, 0, 0, 0}, {12, 0, 0, 0, 0, 0, 0, 0, 9, 0, 5, 0}} {
		var b Batch
		b.Message(unix.RTM_NEWROUTE, 0, RouteFixed{Destination: netip.MustParsePrefix("10.0.0.0/8")}.Encode())
		b.Bytes(unix.RTA_MULTIPATH, data)
		if hops, err := ParseHops(b.At(0)); err == nil {
			t.Errorf("%v: read %v", data, hops)
		}
	}
}
