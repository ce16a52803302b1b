package compile

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/model"
)

func TestImportsAndExports(t *testing.T) {
	t.Parallel()
	rule := func(cidr string, op model.MatchOperator, accept bool) model.BGPFilterRule {
		return model.BGPFilterRule{CIDR: netip.MustParsePrefix(cidr), Operator: op, Accept: accept}
	}
	learned := rule("10.3.0.0/16", model.MatchIn, false)
	learned.Learned = true
	filters := []*model.BGPFilter{
		{Name: "f", Import4: []model.BGPFilterRule{rule("10.2.0.0/16", model.MatchEqual, false), rule("0.0.0.0/0", model.MatchEqual, true)}, Export4: []model.BGPFilterRule{learned}},
		{Name: "g", Import4: []model.BGPFilterRule{rule("10.2.0.0/15", model.MatchIn, true), rule("10.1.0.0/16", model.MatchIn, true)}, Import6: []model.BGPFilterRule{{}},
			Export6: []model.BGPFilterRule{rule("fd00::/8", model.MatchNotIn, false)}},
	}
	b := BGP{Own: prefixes("10.1.0.0/26", "192.0.2.1/32"), Reflected: prefixes("10.0.0.0/12", "fd00::/48")}
	plain, filtered := BGPPeer{}, BGPPeer{Reflect: true, Import: rulesOf(filters, importing), Export: rulesOf(filters, exporting)}
	for _, test := range []struct {
		peer  *BGPPeer
		route string
		how   string // import, or export of an announcement, or of what was learned
		want  bool
		why   string
	}{
		{&plain, "198.51.100.0/24", "import", true, ""},
		{&plain, "0.0.0.0/0", "import", false, "no BGPFilter accepts the default route"},
		{&plain, "::/0", "import", false, "no BGPFilter accepts the default route"},
		{&plain, "0.0.0.0/1", "import", true, ""},
		{&plain, "10.1.0.0/26", "import", false, "this node has 10.1.0.0/26"},
		{&plain, "10.1.0.5/32", "import", false, "this node has 10.1.0.0/26"},
		{&plain, "10.1.0.0/25", "import", true, ""},
		{&plain, "192.0.2.1/32", "import", false, "this node has 192.0.2.1/32"},
		{&filtered, "10.1.0.1/32", "import", false, "this node has 10.1.0.0/26"},
		{&filtered, "0.0.0.0/0", "import", true, `BGPFilter "f", importV4[1]`},
		{&filtered, "10.2.0.0/16", "import", false, `BGPFilter "f", importV4[0]`},
		{&filtered, "10.2.1.0/24", "import", true, `BGPFilter "g", importV4[0]`},
		{&filtered, "198.51.100.0/24", "import", true, ""},
		{&filtered, "2001:db8::/32", "import", false, `BGPFilter "g", importV6[0]`},
		{&filtered, "::/0", "import", false, `BGPFilter "g", importV6[0]`},
		{&plain, "10.1.0.0/26", "export", true, ""},
		{&plain, "10.1.1.0/26", "learned", false, "the node has learned the route, and reflects none to this peer"},
		{&filtered, "10.1.1.0/26", "learned", true, ""},
		{&filtered, "10.0.0.0/11", "learned", false, "the node has learned the route, and reflects routes inside of pools alone"},
		{&filtered, "0.0.0.0/0", "learned", false, "the node has learned the route, and reflects routes inside of pools alone"},
		{&filtered, "10.3.1.0/26", "learned", false, `BGPFilter "f", exportV4[0]`},
		{&filtered, "10.3.1.0/26", "export", true, ""},
		{&filtered, "2001:db8::/32", "export", false, `BGPFilter "g", exportV6[0]`},
		{&filtered, "fd00::/64", "export", true, ""},
	} {
		route := netip.MustParsePrefix(test.route)
		got, why := b.Exports(test.peer, route, test.how == "learned")
		if test.how == "import" {
			got, why = b.Imports(test.peer, route)
		}
		if got != test.want || why != test.why {
			t.Errorf("%s of %s: %t, %q; want %t, %q", test.how, test.route, got, why, test.want, test.why)
		}
	}
}

// TestRules holds the rules against what Calico has BIRD match: "net = CIDR" and "net ~ CIDR", or, with lengths, "net ~ [ CIDR{min,max} ]"
// where min is not less than the CIDR's length; NotEqual and NotIn are their opposites.
func TestRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		six := rapid.Bool().Draw(t, "IPv6")
		base, width, f := netip.MustParseAddr("10.0.0.0").As4(), 32, v4
		prefix := func(what string) netip.Prefix {
			bits := rapid.IntRange(0, 6).Draw(t, what+" bits")
			last := rapid.IntRange(0, 63).Draw(t, what)
			if six {
				a := netip.MustParseAddr("fd00::").As16()
				a[0] = byte(last << 2)
				return netip.PrefixFrom(netip.AddrFrom16(a), bits).Masked()
			}
			base[0] = byte(last << 2)
			return netip.PrefixFrom(netip.AddrFrom4(base), bits).Masked()
		}
		if six {
			width, f = 128, v6
		}
		in := model.BGPFilterRule{CIDR: prefix("cidr"), Operator: rapid.SampledFrom([]model.MatchOperator{model.MatchEqual, model.MatchNotEqual, model.MatchIn, model.MatchNotIn}).Draw(t, "operator"),
			Learned: rapid.Bool().Draw(t, "learned alone"), Accept: rapid.Bool().Draw(t, "accept")}
		least, most := in.CIDR.Bits(), width
		if rapid.Bool().Draw(t, "has min") {
			n := uint8(rapid.IntRange(0, 7).Draw(t, "min"))
			in.Min, least = &n, max(least, int(n))
		}
		if rapid.Bool().Draw(t, "has max") {
			n := uint8(rapid.IntRange(0, 7).Draw(t, "max"))
			in.Max, most = &n, int(n)
		}
		route, learned := prefix("route"), rapid.Bool().Draw(t, "learned")
		within := route.Bits() >= in.CIDR.Bits() && in.CIDR.Contains(route.Addr())
		if in.Operator == model.MatchEqual || in.Operator == model.MatchNotEqual {
			within = route == in.CIDR
		}
		want := within && route.Bits() >= least && route.Bits() <= most
		if in.Operator == model.MatchNotEqual || in.Operator == model.MatchNotIn {
			want = !want
		}
		want = want && (learned || !in.Learned)
		out, some := ruleOf(&in, f)
		if got := some && out.Matches(route, learned); got != want || out.Accept != in.Accept || some && (out.Min > out.Max || int(out.Min) < out.Prefix.Bits()) {
			t.Fatalf("%+v became %+v: %s, learned: %t, matches: %t, want %t", in, out, route, learned, got, want)
		}
		other := netip.MustParsePrefix("2001:db8::/32")
		if six {
			other = netip.MustParsePrefix("192.0.2.0/24")
		}
		if some && out.Matches(other, true) {
			t.Fatalf("%+v matches %s", out, other)
		}
	})
}
