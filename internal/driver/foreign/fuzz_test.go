package foreign

import (
	"slices"
	"testing"

	"github.com/google/nftables/expr"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// FuzzRule decodes lists of expressions, with a set that holds anything.
func FuzzRule(f *testing.F) {
	source := &expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4, DestRegister: 1}
	for _, list := range [][]expr.Any{
		{source, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{10, 0, 0, 1}}, &expr.Masq{}},
		{source, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{255, 0, 0, 0}, Xor: make([]byte, 4)}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{10, 0, 0, 0}}},
		{source, &expr.Lookup{SourceRegister: 1, SetName: "s"}, &expr.Verdict{Kind: expr.VerdictJump, Chain: "c"}},
		{source, &expr.Lookup{SourceRegister: 1, SetName: "s", IsDestRegSet: true}},
		{source, &expr.Range{Op: expr.CmpOpNeq, Register: 1, FromData: []byte{10, 0, 0, 0}, ToData: []byte{10, 0, 0, 9}}},
		{source, &expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: []byte{0, 0, 0, 0}}},
		{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0, 0x40, 0, 0}, Xor: make([]byte, 4)},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}},
		{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{8, 0, 0, 0}}},
		{&expr.Immediate{Register: 1, Data: []byte{192, 0, 2, 1}}, &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}},
		{&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{2, 0, 0, 0}}},
		{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth")}},
	} {
		var b []byte
		for _, e := range list {
			one, err := expr.Marshal(unix.NFPROTO_IPV4, e)
			if err != nil {
				f.Fatal(err)
			}
			b = nfnetlink.AppendAttr(b, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, one)
		}
		f.Add(uint8(unix.NFPROTO_IPV4), b, []byte{10, 0, 0, 0}, true)
		f.Add(uint8(unix.NFPROTO_INET), b, []byte{10}, false)
	}
	f.Fuzz(func(t *testing.T, family uint8, list, key []byte, interval bool) {
		d := decoder{family: family, ipsets: noIPSets(), link: func(int) string { return "eth0" }, set: func(string) *set {
			return &set{known: len(key) > 0, interval: interval, elements: []element{{key: key, chain: "c"}, {key: key, end: true}}}
		}}
		rules, err := d.rule(list)
		if err != nil {
			return
		}
		if len(rules) == 0 {
			t.Error("a rule was lost")
		}
		render(&diagnose.Ruleset{Chains: []diagnose.Chain{{Rules: rules}}})
	})
}

// noIPSets knows what is in every other set, and asks the kernel for none.
func noIPSets() *ipsets {
	return &ipsets{read: map[uint16]ipset{}, fetch: func(i uint16) ipset { return ipset{name: "s", known: i%2 == 0} }}
}

// FuzzMessage parses what is read of chains, rules and sets.
func FuzzMessage(f *testing.F) {
	f.Add(nfnetlink.AppendText([]byte{2, 0, 0, 0}, unix.NFTA_CHAIN_TABLE, "t"))
	element, list := nfnetlink.OpenNest([]byte{2, 0, 0, 0}, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	element, one := nfnetlink.OpenNest(element, unix.NFTA_LIST_ELEM)
	element, key := nfnetlink.OpenNest(element, unix.NFTA_SET_ELEM_KEY)
	element = nfnetlink.AppendUint32(element, unix.NFTA_DATA_VALUE, 10<<24)
	for _, at := range []int{key, one, list} {
		nfnetlink.CloseNest(element, at)
	}
	f.Add(element)
	hook, at := nfnetlink.OpenNest([]byte{2, 0, 0, 0}, unix.NFTA_CHAIN_HOOK)
	hook = nfnetlink.AppendUint32(hook, unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_POST_ROUTING)
	nfnetlink.CloseNest(hook, at)
	f.Add(nfnetlink.AppendText(hook, unix.NFTA_CHAIN_TYPE, "nat"))
	f.Fuzz(func(t *testing.T, body []byte) {
		m := nfnetlink.Message{Body: body}
		if b, ok, err := parseBase(m); err == nil && ok && !b.chain.IPv4 && !b.chain.IPv6 {
			t.Errorf("%+v is for no packets", b)
		}
		if _, _, err := parseRule(m); err != nil {
			return
		}
		if ranges, err := parseIPSet(nil, m); err == nil && slices.ContainsFunc(ranges, func(r netipx.IPRange) bool { return !r.IsValid() }) {
			t.Errorf("ranges %v", ranges)
		}
		elements, err := parseElements(nil, m)
		if err != nil {
			return
		}
		for _, size := range []int{4, 16} {
			s := &set{known: true, interval: true, elements: elements}
			if ranges, ok := s.ranges(size); ok {
				for _, r := range ranges {
					if !r.IsValid() {
						t.Errorf("range %v of %+v", r, elements)
					}
				}
			}
		}
	})
}
