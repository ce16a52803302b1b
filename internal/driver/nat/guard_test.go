package nat

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go4.org/netipx"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nftables"
)

// postrouted is a packet after every translation, as the guard's rules see it.
type postrouted struct {
	family  family
	header  []byte // the network header, and what follows it
	tracked bool
	status  uint32 // of its connection, as the two below
	reply   bool
	out     string // the interface by which it leaves
}

func (p *postrouted) address(offset uint32) netip.Addr {
	a, _ := netip.AddrFromSlice(p.header[offset : offset+p.family.AddrLen])
	return a
}

// drawPostrouted makes a packet from and to addresses of and beside what a plan speaks of. Beside the addresses
// its header holds parts of others, so that it may look like one of the other family.
func drawPostrouted(rt *rapid.T, p compile.NAT) *postrouted {
	v4, v6 := cuts()
	all := append(v4, v6...)
	for _, s := range p.Sources {
		all = append(all, s.Range.From(), s.Range.To())
	}
	for _, r := range p.Exempt {
		all = append(all, r.From(), r.To())
	}
	for _, a := range slices.Clone(all) {
		if next := a.Next(); next.IsValid() {
			all = append(all, next)
		}
	}
	f := rapid.SampledFrom([]family{ipv4(), ipv6()}).Draw(rt, "family")
	part := rapid.SampledFrom(all)
	address := rapid.SampledFrom(slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a.Is4() != (f.AddrLen == 4) }))
	out := &postrouted{family: f, tracked: rapid.IntRange(0, 3).Draw(rt, "tracked") > 0, out: rapid.SampledFrom([]string{"eth0", "eth1", "wan0", "pod0"}).Draw(rt, "out")}
	for len(out.header) < 64 {
		out.header = append(out.header, part.Draw(rt, "part").AsSlice()...)
	}
	copy(out.header[f.Source:], address.Draw(rt, "source").AsSlice())
	copy(out.header[f.Destination:], address.Draw(rt, "destination").AsSlice())
	out.header[0] = f.Version<<4 | rapid.ByteRange(0, 15).Draw(rt, "rest of the first byte")
	if out.tracked {
		out.status = rapid.SampledFrom([]uint32{0, ctStatusSNAT, ctStatusSNAT | 1<<5, 1 << 5}).Draw(rt, "status")
		out.reply = rapid.IntRange(0, 3).Draw(rt, "reply") == 0
	}
	return out
}

// walk goes through the rules of a chain, and of those that it goes to, as the kernel does. It returns the
// chain that a packet leaves by a verdict or by its end, or "leak" without walking through that.
func (p *postrouted) walk(tb rapid.TB, t *nftables.Table, name string) string {
	for _, r := range t.Chain(name).Rules {
		switch to, verdict := p.rule(tb, t, name, r.Form()); {
		case !verdict:
		case to == chainLeak:
			return chainLeak
		case to != "":
			return p.walk(tb, t, to)
		default:
			return name
		}
	}
	return name
}

// rule carries out one rule. It fails the test where the rules of guard have an expression that the kernel
// does not evaluate in place.
func (p *postrouted) rule(tb rapid.TB, t *nftables.Table, chain, form string) (to string, verdict bool) {
	var reg []byte
	for form != "" {
		quoted, err := strconv.QuotedPrefix(form)
		if err != nil {
			tb.Fatal(err)
		}
		inner, rest, _ := strings.Cut(strings.TrimPrefix(form[len(quoted):], "{"), "}")
		f := parseFields(inner)
		form = rest
		if chain == chainGuard && !evaluatedInPlace(quoted, f) {
			tb.Fatalf("the kernel evaluates %s{%s} by a call", quoted, inner)
		}
		switch quoted {
		case `"payload"`:
			reg = p.header[f.number("3"):][:f.number("4")]
		case `"bitwise"`:
			reg = slices.Clone(reg)
			for i, m := range f.value("4") {
				reg[i] &= m
			}
		case `"meta"`:
			reg = map[uint32][]byte{unix.NFT_META_NFPROTO: {p.family.Proto}, unix.NFT_META_OIFNAME: append([]byte(p.out), make([]byte, unix.IFNAMSIZ-len(p.out))...)}[f.number("2")]
		case `"ct"`:
			if !p.tracked {
				return "", false
			}
			reg = nftables.Native(p.status)
			if f.number("2") == unix.NFT_CT_DIRECTION {
				reg = map[bool][]byte{false: {0}, true: {1}}[p.reply]
			}
		case `"cmp"`:
			if want := f["3.1"]; bytes.Equal(reg[:len(want)], want) != (f.number("2") == unix.NFT_CMP_EQ) {
				return "", false
			}
		case `"lookup"`:
			a, _ := netip.AddrFromSlice(reg)
			if !holds(t.Set(f.string("1")), a) {
				return "", false
			}
		case `"immediate"`:
			return f.string("2.2.2"), true
		default:
			tb.Fatalf("a rule of %s has %s{%s}", chain, quoted, inner)
		}
	}
	return "", false
}

// holds says whether a set of ranges holds an address.
func holds(s *nftables.Set, a netip.Addr) bool {
	for i := range s.Len() {
		if netipx.IPRangeFrom(s.Addrs(i)).Contains(a) {
			return true
		}
	}
	return false
}

// fields are the attributes of one expression by path. An absent one is zero.
type fields map[string][]byte

func parseFields(s string) fields {
	f := fields{}
	for part := range strings.FieldsSeq(s) {
		path, value, _ := strings.Cut(part, "=")
		if b, err := hex.DecodeString(value); err == nil {
			f[path] = b
		}
	}
	return f
}

func (f fields) number(path string) uint32 {
	if b := f[path]; len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f fields) string(path string) string { return strings.TrimRight(string(f[path]), "\x00") }

// value is the data of an attribute that holds a value.
func (f fields) value(path string) []byte { return f[path+".1"] }

// evaluatedInPlace says whether nft_do_chain (net/netfilter/nf_tables_core.c) needs no call for an expression.
func evaluatedInPlace(quoted string, f fields) bool {
	switch quoted {
	case `"payload"`: // nft_payload_select_ops
		return f.number("2") == unix.NFT_PAYLOAD_NETWORK_HEADER && f.number("4") == 4 && f.number("3")%4 == 0
	case `"bitwise"`: // nft_bitwise_select_ops
		return f.number("3") == 4
	case `"cmp"`: // nft_cmp_select_ops
		return len(f["3.1"]) == 4 && f.number("2") == unix.NFT_CMP_EQ
	}
	return quoted == `"immediate"`
}

// TestGuardStopsWhatThePlanTranslates walks random packets through the guard of random plans. Those that the plan
// translates, and nobody has, must come to leak, and no others.
func TestGuardStopsWhatThePlanTranslates(t *testing.T) {
	t.Parallel()
	leaks, passes := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		plan := drawPlan(rt)
		plan.LeakGuard = true
		wanted, err := layout(plan, true)
		if err != nil {
			rt.Fatal(err)
		}
		for range 20 {
			p := drawPostrouted(rt, plan)
			source, destination := p.address(p.family.Source), p.address(p.family.Destination)
			leak := p.status&ctStatusSNAT == 0 && !p.reply &&
				slices.ContainsFunc(plan.Sources, func(s compile.Source) bool { return s.Range.Contains(source) }) &&
				!slices.ContainsFunc(plan.Exempt, func(r netipx.IPRange) bool { return r.Contains(destination) }) &&
				(len(plan.OutInterfaces) == 0 || slices.ContainsFunc(plan.OutInterfaces, func(name string) bool {
					prefix, any := strings.CutSuffix(name, "*")
					return name == p.out || any && strings.HasPrefix(p.out, prefix)
				}))
			if at := p.walk(rt, wanted, chainGuard); (at == chainLeak) != leak {
				rt.Fatalf("%s to %s by %s (%+v) ends in %s; a leak: %t", source, destination, p.out, p, at, leak)
			}
			if leak {
				leaks++
			} else {
				passes++
			}
		}
	})
	if leaks == 0 || passes == 0 {
		t.Errorf("%d leaks and %d others; want some of either", leaks, passes)
	}
}

// TestVersionIsTheFirstNibble tells the families apart by every first byte.
func TestVersionIsTheFirstNibble(t *testing.T) {
	t.Parallel()
	for _, f := range families() {
		r := nftables.NewRule(version(f), nftables.Return())
		for first := range 256 {
			p := &postrouted{header: binary.BigEndian.AppendUint32(nil, uint32(first)<<24|0x00ffffff)}
			if _, match := p.rule(t, nil, chainGuard, r.Form()); match != (first>>4 == int(f.Version)) {
				t.Errorf("%s: a header that begins with %#02x matches: %t", f.name, first, match)
			}
		}
	}
}

// TestChangesLeaveTheGuardAlone changes a plan: rules of the guard come anew only with the prefixes that they
// compare addresses with, and never those that count what is dropped.
func TestChangesLeaveTheGuardAlone(t *testing.T) {
	t.Parallel()
	plan := func(from, exempt string) *nftables.Table {
		n := simplePlan(t)
		n.Sources, n.Exempt, n.LeakGuard = sources(t, "a", strings.Fields(from)...), ranges(t, strings.Fields(exempt)...), true
		wanted, err := layout(n, true)
		if err != nil {
			t.Fatal(err)
		}
		return wanted
	}
	const four = "10.0.0.0/24 10.0.2.0/24 10.0.8.0/24 10.0.16.0/24 10.0.32.0/24 10.0.64.0/24"
	before := plan(four, "10.0.0.0/16")
	for _, test := range []struct {
		name, sources, exempt string
		want                  []string
	}{
		{"a source where others are", strings.Replace(four, "10.0.8.0/24", "10.0.8.0/24 10.0.10.0/24", 1), "10.0.0.0/16", nil},
		{"a source far away", four + " 192.168.0.0/24", "10.0.0.0/16", []string{chainGuard}},
		{"another exempt range without sources", four, "10.0.0.0/16 172.16.0.0/12", nil},
		{"a wider exempt range", four, "10.0.0.0/8", []string{chainSuspect}},
	} {
		after := plan(test.sources, test.exempt)
		var changed []string
		for i, c := range after.Chains {
			if c.Name != before.Chains[i].Name || !nftables.EqualRules(c.Rules, before.Chains[i].Rules) {
				changed = append(changed, c.Name)
			}
		}
		if !slices.Equal(changed, test.want) {
			t.Errorf("%s: chains %v are filled again; want %v", test.name, changed, test.want)
		}
	}
}
