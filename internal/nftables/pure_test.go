package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"go4.org/netipx"
)

// ends parses a prefix, a range or an address.
func ends(s string) (first, last netip.Addr) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr(), netipx.PrefixLastIP(p)
	}
	from, to, found := strings.Cut(s, "-")
	if !found {
		to = from
	}
	return netip.MustParseAddr(from), netip.MustParseAddr(to)
}

// TestRangesOfElements reads lists of elements: an address begins a range, one with "!" ends it before itself.
func TestRangesOfElements(t *testing.T) {
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
		s := Set{Key: []Type{IPv4Addr}, Ranges: true}
		if strings.Contains(test.elements, "::") {
			s.Key[0] = IPv6Addr
		}
		r := newReading(&s)
		for _, w := range strings.Fields(test.elements) {
			e := element{any: w == "*"}
			if !e.any {
				var addr string
				addr, e.end = strings.CutSuffix(w, "!")
				e.key = netip.MustParseAddr(addr).AsSlice()
			}
			if err := r.add(e); err != nil {
				t.Fatal(err)
			}
		}
		r.finish()
		var list []string
		for i := range s.Len() {
			list = append(list, s.text(i, false))
		}
		got := strings.Join(list, " ")
		if s.malformed {
			got = "malformed" + got
		}
		if got != test.want {
			t.Errorf("%q: %s; want %s", test.elements, got, test.want)
		}
	}
}

// TestDiffElements compares sets of ranges; a letter after a colon is the label.
func TestDiffElements(t *testing.T) {
	t.Parallel()
	parse := func(s string) *Set {
		out := Set{Key: []Type{IPv4Addr}, Ranges: true}
		for _, f := range strings.Fields(s) {
			f, label, _ := strings.Cut(f, ":")
			first, last, found := strings.Cut(f, "-")
			if !found {
				last = first
			}
			out.AddRange(netip.MustParseAddr("10.0.0."+first), netip.MustParseAddr("10.0.0."+last), label)
		}
		return &out
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
		{"passes to another label", "1:a 2:a", "1:b 2:a", "1:a", "1:b"},
		{"label not known", "1 2", "1:a 2:b", "", ""},
	} {
		actual, wanted := parse(test.actual), parse(test.wanted)
		remove, add := (&change{}).diffElements(actual, wanted)
		if d := cmp.Diff(labelled(whole(parse(test.remove))), labelled(difference{actual, remove})); d != "" {
			t.Errorf("%s: to remove (-want +got):\n%s", test.name, d)
		}
		if d := cmp.Diff(labelled(whole(parse(test.add))), labelled(difference{wanted, add})); d != "" {
			t.Errorf("%s: to add (-want +got):\n%s", test.name, d)
		}
	}
}

// labelled renders elements with their labels.
func labelled(d difference) (out []string) {
	for _, i := range d.at {
		out = append(out, d.set.labelled(int(i)))
	}
	return out
}

// TestCanonical checks which expressions have the same form. Each is marshalled by the library.
func TestCanonical(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		a, b expr.Any
		same bool
	}{
		{"set id", &expr.Lookup{SourceRegister: 1, SetName: "x"}, &expr.Lookup{SourceRegister: 1, SetName: "x", SetID: 7}, true},
		{"set name", &expr.Lookup{SourceRegister: 1, SetName: "x"}, &expr.Lookup{SourceRegister: 1, SetName: "y"}, false},
		{"inverted", &expr.Lookup{SourceRegister: 1, SetName: "x"}, &expr.Lookup{SourceRegister: 1, SetName: "x", Invert: true}, false},
		{"set or verdict map", &expr.Lookup{SourceRegister: 1, SetName: "x"}, &expr.Lookup{SourceRegister: 1, SetName: "x", IsDestRegSet: true}, false},
		{"register of a map", &expr.Lookup{SourceRegister: 1, SetName: "x", IsDestRegSet: true, DestRegister: 1}, &expr.Lookup{SourceRegister: 1, SetName: "x", IsDestRegSet: true, DestRegister: 2}, false},
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
		a, b := NewRule(Expr(test.a)), NewRule(Expr(test.b))
		if a.err != nil || b.err != nil || (a.Form() == b.Form()) != test.same {
			t.Errorf("%s: %s and %s (%v, %v); want the same form: %t", test.name, a.Form(), b.Form(), a.err, b.err, test.same)
		}
	}
}

// TestBadTables checks that the engine refuses what the kernel would refuse or take for something else, and names it.
func TestBadTables(t *testing.T) {
	t.Parallel()
	concat := func(list ...Element) *Table {
		s := Set{Name: "s", Key: []Type{IPv4Addr, InetProto, InetService}, Ranges: true}
		for _, e := range list {
			s.Add(e)
		}
		return &Table{Sets: []Set{s}}
	}
	key := func(addr string, protocol uint8, port uint16) []byte {
		return AppendService(AppendProto(AppendAddr(nil, netip.MustParseAddr(addr)), protocol), port)
	}
	one := func(s Set, list ...Element) *Table {
		s.Name = "s"
		for _, e := range list {
			s.Add(e)
		}
		return &Table{Sets: []Set{s}}
	}
	for want, table := range map[string]*Table{
		`chain "c" is there twice`:                {Chains: []Chain{{Name: "c"}, {Name: "c"}}},
		`set "s" is there twice`:                  {Sets: []Set{{Name: "s", Key: []Type{Mark}}, {Name: "s", Key: []Type{Mark}}}},
		"set s:  is no key":                       one(Set{}),
		"verdict is no key":                       one(Set{Key: []Type{Verdicts}}),
		"type 63 is not known":                    one(Set{Key: []Type{63}}),
		"a key of 4 bytes where ipv6_addr has 16": one(Set{Key: []Type{IPv6Addr}}, Element{Key: make([]byte, 4)}),
		"data of 0 bytes where mark has 4":        one(Set{Key: []Type{IPv4Addr}, Data: Mark}, Element{Key: make([]byte, 4)}),
		"10.0.0.0 overlaps 10.0.0.0":              one(Set{Key: []Type{IPv4Addr}}, Element{Key: []byte{10, 0, 0, 0}}, Element{Key: []byte{10, 0, 0, 0}}),
		"a range in a set without ranges":         one(Set{Key: []Type{InetService}}, Element{Key: []byte{0, 1}, Last: []byte{0, 2}}),
		"2-1 is no range":                         one(Set{Key: []Type{InetService}, Ranges: true}, Element{Key: []byte{0, 2}, Last: []byte{0, 1}}),
		`"a"-"b" is no range`:                     one(Set{Key: []Type{IfName}, Ranges: true}, Element{Key: AppendIfName(nil, "a"), Last: AppendIfName(nil, "b")}),
		"10.0.0.0/8 . udp . 9-1 is no range":      concat(Element{Key: key("10.0.0.0", 17, 9), Last: key("10.255.255.255", 17, 1)}),
		"10.1.0.0/16 . tcp . 80-90 overlaps 10.0.0.0/8 . tcp . 80": concat(
			Element{Key: key("10.1.0.0", 6, 80), Last: key("10.1.255.255", 6, 90)}, Element{Key: key("10.0.0.0", 6, 80), Last: key("10.255.255.255", 6, 80)}),
		"": concat(Element{Key: key("10.1.0.0", 6, 81), Last: key("10.1.255.255", 6, 90)}, Element{Key: key("10.0.0.0", 6, 80), Last: key("10.255.255.255", 6, 80)}),
	} {
		err := table.check()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// TestElementsAreSorted adds elements in any order: they come out by key, with their data, verdicts and labels.
func TestElementsAreSorted(t *testing.T) {
	t.Parallel()
	s := Set{Key: []Type{InetService}, Data: Verdicts}
	for _, port := range []uint16{443, 80, 8080, 22} {
		s.Add(Element{Key: AppendService(nil, port), Verdict: GoTo(fmt.Sprint("c", port)), Label: fmt.Sprint("l", port)})
	}
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for e := range s.All() {
		got = append(got, fmt.Sprintf("%d %s %s", binary.BigEndian.Uint16(e.Key), e.Verdict, e.Label))
	}
	if want := []string{"22 goto c22 l22", "80 goto c80 l80", "443 goto c443 l443", "8080 goto c8080 l8080"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
