package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
)

// TestSegmentsOf reads lists of elements: an address begins a range, one with "!" ends it before itself.
func TestSegmentsOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ elements, want string }{
		{"", ""},
		{"10.0.0.0 10.0.0.2!", "10.0.0.0-10.0.0.1"},
		{"10.0.0.2! 10.0.0.0", "10.0.0.0-10.0.0.1"},
		{"10.0.0.0 10.0.0.1! 10.0.0.1 10.0.0.2!", "10.0.0.0 10.0.0.1"},
		{"10.0.0.1 10.0.0.2! 10.0.0.1! 10.0.0.0", "10.0.0.0 10.0.0.1"},
		{"0.0.0.0! 10.0.0.0 10.0.0.1!", "10.0.0.0"},
		{"0.0.0.0! 0.0.0.0 0.0.0.1!", "0.0.0.0"},
		{"0.0.0.0", "0.0.0.0-255.255.255.255"},
		{"10.0.0.0 10.0.0.1! 255.255.255.255", "10.0.0.0 255.255.255.255"},
		{":: ::1! ffff::", ":: ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"10.0.0.1!", "malformed"},
		{"10.0.0.0 10.0.0.1", "malformed"},
		{"10.0.0.0 10.0.0.1! 10.0.0.2!", "malformed"},
		{"0.0.0.0! 0.0.0.0!", "malformed"},
		{"10.0.0.0 10.0.0.1! *", "malformed"},
	} {
		var elements []element
		for _, s := range strings.Fields(test.elements) {
			if s == "*" {
				elements = append(elements, element{any: true})
				continue
			}
			addr, end := strings.CutSuffix(s, "!")
			elements = append(elements, element{key: netip.MustParseAddr(addr), end: end})
		}
		segments, ok := segmentsOf(elements)
		got := strings.Trim(fmt.Sprint(segments), "[]")
		if !ok {
			got = "malformed"
		}
		if got != test.want {
			t.Errorf("%q: %s; want %s", test.elements, got, test.want)
		}
	}
}

// TestDiffSegments compares lists of ranges; a letter after a colon is the pool.
func TestDiffSegments(t *testing.T) {
	t.Parallel()
	parse := func(s string) (out []segment) {
		for _, f := range strings.Fields(s) {
			f, pool, _ := strings.Cut(f, ":")
			first, last, found := strings.Cut(f, "-")
			if !found {
				last = first
			}
			out = append(out, segment{first: netip.MustParseAddr("10.0.0." + first), last: netip.MustParseAddr("10.0.0." + last), pool: pool})
		}
		return out
	}
	for _, test := range []struct{ name, actual, wanted, remove, add string }{
		{"equal", "1-3:a 5:b", "1-3:a 5:b", "", ""},
		{"first", "", "1:a", "", "1:a"},
		{"last", "1:a", "", "1:a", ""},
		{"between", "1:a 9:a", "1:a 5:a 9:a", "", "5:a"},
		{"shrinks", "1-9:a", "1-5:a", "1-9:a", "1-5:a"},
		{"grows", "3-5:a", "1-5:a", "3-5:a", "1-5:a"},
		{"splits", "1-9:a", "1-3:a 5-9:a", "1-9:a", "1-3:a 5-9:a"},
		{"joins", "1-3:a 4-9:a", "1-9:a", "1-3:a 4-9:a", "1-9:a"},
		{"passes to another pool", "1:a 2:a", "1:b 2:a", "1:a", "1:b"},
		{"pool not known", "1 2", "1:a 2:b", "", ""},
	} {
		remove, add := diffSegments(parse(test.actual), parse(test.wanted))
		options := cmp.AllowUnexported(segment{}, netip.Addr{})
		if d := cmp.Diff(parse(test.remove), remove, options, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s: to remove (-want +got):\n%s", test.name, d)
		}
		if d := cmp.Diff(parse(test.add), add, options, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s: to add (-want +got):\n%s", test.name, d)
		}
	}
}

// TestCanonical checks which expressions have the same form. Each is marshalled by the library.
func TestCanonical(t *testing.T) {
	t.Parallel()
	form := func(e expr.Any) string {
		r, err := new(ruleBuilder).add(e).build()
		if err != nil {
			t.Fatal(err)
		}
		return r.form
	}
	for _, test := range []struct {
		name string
		a, b expr.Any
		same bool
	}{
		{"set id", &expr.Lookup{SourceRegister: 1, SetName: "x"}, &expr.Lookup{SourceRegister: 1, SetName: "x", SetID: 7}, true},
		{"set name", &expr.Lookup{SourceRegister: 1, SetName: "x"}, &expr.Lookup{SourceRegister: 1, SetName: "y"}, false},
		{"inverted", &expr.Lookup{SourceRegister: 1, SetName: "x"}, &expr.Lookup{SourceRegister: 1, SetName: "x", Invert: true}, false},
		{"counter values", &expr.Counter{}, &expr.Counter{Packets: 3, Bytes: 4}, true},
		{"nat that has ports", &expr.NAT{RegAddrMin: 1, RegProtoMin: 2}, &expr.NAT{RegAddrMin: 1, RegProtoMin: 2, Specified: true}, true},
		{"nat at random", &expr.NAT{RegAddrMin: 1}, &expr.NAT{RegAddrMin: 1, Random: true}, false},
		{"nat persistent", &expr.NAT{RegAddrMin: 1}, &expr.NAT{RegAddrMin: 1, Persistent: true}, false},
		{"masquerade fully at random", &expr.Masq{}, &expr.Masq{FullyRandom: true}, false},
		{"zero compared", &expr.Cmp{Register: 1, Data: []byte{0}}, &expr.Cmp{Register: 1, Data: []byte{0, 0}}, false},
		{"operator", &expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{1}}, &expr.Cmp{Register: 1, Op: expr.CmpOpNeq, Data: []byte{1}}, false},
		{"verdict", &expr.Verdict{Kind: expr.VerdictGoto, Chain: "x"}, &expr.Verdict{Kind: expr.VerdictJump, Chain: "x"}, false},
		{"chain", &expr.Verdict{Kind: expr.VerdictGoto, Chain: "x"}, &expr.Verdict{Kind: expr.VerdictGoto, Chain: "y"}, false},
		{"offset", &expr.Payload{DestRegister: 1, Base: 1, Offset: 12, Len: 4}, &expr.Payload{DestRegister: 1, Base: 1, Offset: 16, Len: 4}, false},
	} {
		if a, b := form(test.a), form(test.b); (a == b) != test.same {
			t.Errorf("%s: %s and %s; want the same form: %t", test.name, a, b, test.same)
		}
	}
}
