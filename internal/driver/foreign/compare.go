package foreign

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
)

// compare takes in an expression that asks what a register holds.
func (d *decoder) compare(name string, attrs map[uint16][]byte) error {
	switch name {
	case "cmp":
		data, err := attributesOf(attrs[unix.NFTA_CMP_DATA])
		if err != nil {
			return err
		}
		d.cmp(d.registers[register(number(attrs[unix.NFTA_CMP_SREG]))], number(attrs[unix.NFTA_CMP_OP]), data[unix.NFTA_DATA_VALUE])
		return nil
	case "range":
		from, err := attributesOf(attrs[unix.NFTA_RANGE_FROM_DATA])
		if err != nil {
			return err
		}
		to, err := attributesOf(attrs[unix.NFTA_RANGE_TO_DATA])
		if err != nil {
			return err
		}
		not := number(attrs[unix.NFTA_RANGE_OP]) == unix.NFT_RANGE_NEQ
		d.between(d.registers[register(number(attrs[unix.NFTA_RANGE_SREG]))], not, from[unix.NFTA_DATA_VALUE], to[unix.NFTA_DATA_VALUE])
		return nil
	default:
		d.lookup(attrs)
		return nil
	}
}

// cmp takes in a comparison with a value.
func (d *decoder) cmp(o operand, op uint32, value []byte) {
	m, text := diagnose.Match{}, valueText(o, op, value)
	switch {
	case o.field == fieldFixed:
		m.Kind = diagnose.MatchNothing
		if fixed(o, op, value) {
			m.Kind = diagnose.MatchEverything
		}
	case op == unix.NFT_CMP_EQ, op == unix.NFT_CMP_NEQ:
		var name string
		if m, name = d.equal(o, value); m.Kind == diagnose.MatchUnknown {
			break
		}
		m.Not = m.Not != (op == unix.NFT_CMP_NEQ)
		text = sign(op == unix.NFT_CMP_NEQ) + name
	case o.field == fieldSource, o.field == fieldDestination:
		if r, ok := d.beyond(o, op, value); ok {
			m, text = addressMatch(o.field, r), r.String()
		}
	}
	if o.field == fieldFamily || o.field == fieldEtherType {
		d.narrow(m)
		d.add("", m) // the family shows in what follows
		return
	}
	d.add(strings.TrimSpace(o.text+" "+text), m)
}

// beyond is the range of the addresses that are at most, or at least, a value.
func (d *decoder) beyond(o operand, op uint32, value []byte) (netipx.IPRange, bool) {
	a, ok := netip.AddrFromSlice(value)
	if !ok || len(value) != d.addressLen() || int(o.size) != len(value) || o.and != nil {
		return netipx.IPRange{}, false
	}
	all := netipx.RangeOfPrefix(netip.PrefixFrom(a, 0).Masked())
	r := netipx.IPRange{}
	switch op {
	case unix.NFT_CMP_LT:
		r = netipx.IPRangeFrom(all.From(), a.Prev())
	case unix.NFT_CMP_LTE:
		r = netipx.IPRangeFrom(all.From(), a)
	case unix.NFT_CMP_GT:
		r = netipx.IPRangeFrom(a.Next(), all.To())
	case unix.NFT_CMP_GTE:
		r = netipx.IPRangeFrom(a, all.To())
	}
	return r, r.IsValid()
}

// fixed compares what all packets that are judged agree on.
func fixed(o operand, op uint32, value []byte) bool {
	have := bytes.Clone(o.value)
	for i := range have {
		if i < len(o.and) {
			have[i] = have[i]&o.and[i] ^ o.xor[i]
		}
	}
	c := bytes.Compare(have[:min(len(have), len(value))], value)
	switch op {
	case unix.NFT_CMP_EQ:
		return c == 0
	case unix.NFT_CMP_NEQ:
		return c != 0
	case unix.NFT_CMP_LT:
		return c < 0
	case unix.NFT_CMP_LTE:
		return c <= 0
	case unix.NFT_CMP_GT:
		return c > 0
	default:
		return c >= 0
	}
}

// narrow notes which family the packets have that come to the expressions that follow.
func (d *decoder) narrow(m diagnose.Match) {
	if m.Kind != diagnose.MatchIPv4 || d.family != unix.NFPROTO_INET {
		return
	}
	d.family = unix.NFPROTO_IPV4
	if m.Not {
		d.family = unix.NFPROTO_IPV6
	}
}

// equal is the match of what an operand holds with a value, and the value as people write it.
func (d *decoder) equal(o operand, value []byte) (diagnose.Match, string) {
	unknown := fmt.Sprintf("%x", value)
	switch o.field {
	case fieldSource, fieldDestination:
		p, ok := d.prefix(o, value)
		if !ok {
			return diagnose.Match{}, unknown
		}
		return addressMatch(o.field, netipx.RangeOfPrefix(p)), prefixText(p)
	case fieldProtocol:
		if len(value) == 1 && o.and == nil {
			return diagnose.Match{Kind: diagnose.MatchProtocol, Protocols: []uint8{value[0]}}, protocolText(value[0])
		}
	case fieldFamily, fieldEtherType:
		return familyMatch(o, value), ""
	case fieldOut:
		if o.and == nil && len(value) <= unix.IFNAMSIZ {
			name, _, whole := strings.Cut(string(value), "\x00")
			if !whole && len(value) < unix.IFNAMSIZ {
				name += "*"
			}
			return diagnose.Match{Kind: diagnose.MatchOut, Names: []string{name}}, name
		}
	case fieldOutIndex:
		if len(value) == 4 && o.and == nil {
			if name := d.link(int(binary.NativeEndian.Uint32(value))); name != "" {
				return diagnose.Match{Kind: diagnose.MatchOut, Names: []string{name}}, name
			}
		}
	case fieldMark:
		return markMatch(o, value)
	}
	return diagnose.Match{}, unknown
}

func familyMatch(o operand, value []byte) diagnose.Match {
	v4, v6 := []byte{unix.NFPROTO_IPV4}, []byte{unix.NFPROTO_IPV6}
	if o.field == fieldEtherType {
		v4, v6 = []byte{0x08, 0x00}, []byte{0x86, 0xdd}
	}
	switch {
	case o.and != nil:
	case bytes.Equal(value, v4):
		return diagnose.Match{Kind: diagnose.MatchIPv4}
	case bytes.Equal(value, v6):
		return diagnose.Match{Kind: diagnose.MatchIPv4, Not: true}
	}
	return diagnose.Match{}
}

func markMatch(o operand, value []byte) (diagnose.Match, string) {
	if len(value) != 4 || o.and != nil && len(o.and) != 4 {
		return diagnose.Match{}, fmt.Sprintf("%x", value)
	}
	m := diagnose.Match{Kind: diagnose.MatchMark, Mask: ^uint32(0), Value: binary.NativeEndian.Uint32(value)}
	if o.and != nil {
		m.Mask = binary.NativeEndian.Uint32(o.and)
		m.Value ^= binary.NativeEndian.Uint32(o.xor)
	}
	return m, markText(m)
}

func markText(m diagnose.Match) string {
	if m.Mask == ^uint32(0) {
		return fmt.Sprintf("%#x", m.Value)
	}
	return fmt.Sprintf("%#x/%#x", m.Value, m.Mask)
}

func addressMatch(f field, r ...netipx.IPRange) diagnose.Match {
	if f == fieldSource {
		return diagnose.Match{Kind: diagnose.MatchSource, Ranges: r}
	}
	return diagnose.Match{Kind: diagnose.MatchDestination, Ranges: r}
}

// addressLen is the length of an address, in bytes, for the family of the rule; 0 where it is not known.
func (d *decoder) addressLen() int {
	switch d.family {
	case unix.NFPROTO_IPV4:
		return 4
	case unix.NFPROTO_IPV6:
		return 16
	}
	return 0
}

// prefix is the addresses whose first bytes, under a mask, equal a value.
func (d *decoder) prefix(o operand, value []byte) (netip.Prefix, bool) {
	size := d.addressLen()
	if len(value) == 0 || len(value) > size || uint32(len(value)) > o.size {
		return netip.Prefix{}, false
	}
	mask := bytes.Repeat([]byte{0xff}, len(value))
	if o.and != nil {
		if len(o.and) != len(value) || len(bytes.Trim(o.xor, "\x00")) > 0 {
			return netip.Prefix{}, false
		}
		mask = o.and
	}
	return prefixOf(append(bytes.Clone(value), make([]byte, size-len(value))...), mask)
}

// prefixOf makes a prefix of an address and a mask, which may be shorter; false if the mask has holes.
func prefixOf(address, mask []byte) (netip.Prefix, bool) {
	ones := 0
	for i, b := range mask {
		n := bits.LeadingZeros8(^b)
		ones += n
		if n < 8 {
			if b<<n != 0 || len(bytes.Trim(mask[i+1:], "\x00")) > 0 {
				return netip.Prefix{}, false
			}
			break
		}
	}
	a, ok := netip.AddrFromSlice(address)
	if !ok {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(a, ones)
	return p, p.Masked() == p // a value outside of the mask equals nothing
}

// between takes in a comparison with a range of values.
func (d *decoder) between(o operand, not bool, from, to []byte) {
	text := fmt.Sprintf("%x-%x", from, to)
	m := diagnose.Match{}
	if o.field == fieldSource || o.field == fieldDestination {
		a, ok1 := netip.AddrFromSlice(from)
		b, ok2 := netip.AddrFromSlice(to)
		if r := netipx.IPRangeFrom(a, b); ok1 && ok2 && o.and == nil && len(from) == d.addressLen() && r.IsValid() {
			m, text = addressMatch(o.field, r), r.String()
			m.Not = not
		}
	}
	if not {
		text = "!= " + text
	}
	d.add(o.text+" "+text, m)
}

// lookup takes in a search in a set, or in a map.
func (d *decoder) lookup(attrs map[uint16][]byte) {
	name := strings.TrimRight(string(attrs[unix.NFTA_LOOKUP_SET]), "\x00")
	o := d.registers[register(number(attrs[unix.NFTA_LOOKUP_SREG]))]
	s := d.set(name)
	m := d.in(o, s)
	sign := ""
	if number(attrs[unix.NFTA_LOOKUP_FLAGS])&unix.NFT_LOOKUP_F_INV != 0 {
		m.Not, sign = m.Kind != diagnose.MatchUnknown, "!= "
	}
	to, isMap := attrs[unix.NFTA_LOOKUP_DREG]
	if isMap && number(to) == unix.NFT_REG_VERDICT {
		d.add(fmt.Sprintf("%s vmap @%s", o.text, name), m)
		d.target("", diagnose.Action{Kind: diagnose.ActionUnknown, Chains: s.chains()})
		return
	}
	if isMap {
		d.registers[register(number(to))] = operand{text: "@" + name}
	}
	d.add(fmt.Sprintf("%s %s%s", o.text, sign, s.text(name, m)), m)
}

// in is the match of what an operand holds with the elements of a set.
func (d *decoder) in(o operand, s *set) (m diagnose.Match) {
	if o.field == fieldSource || o.field == fieldDestination {
		if r, ok := s.ranges(d.addressLen()); ok && o.and == nil && int(o.size) == d.addressLen() {
			return addressMatch(o.field, r...)
		}
		return m
	}
	if !s.known || s.interval || o.and != nil && o.field != fieldFixed {
		return m
	}
	switch o.field {
	case fieldProtocol:
		m.Kind = diagnose.MatchProtocol
		for _, e := range s.elements {
			m.Protocols = append(m.Protocols, e.key[0])
		}
		slices.Sort(m.Protocols)
	case fieldOut:
		m.Kind = diagnose.MatchOut
		for _, e := range s.elements {
			name, _, _ := strings.Cut(string(e.key), "\x00")
			m.Names = append(m.Names, name)
		}
		slices.Sort(m.Names)
	case fieldFixed:
		m.Kind = diagnose.MatchNothing
		if slices.ContainsFunc(s.elements, func(e element) bool { return fixed(o, unix.NFT_CMP_EQ, e.key) }) {
			m.Kind = diagnose.MatchEverything
		}
	}
	return m
}
