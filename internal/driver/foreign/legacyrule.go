package foreign

import (
	"encoding/binary"
	"strings"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
)

// The bits that turn a condition of an entry round (IPT_INV_…, IP6T_INV_…).
const (
	invertOut      = 0x02
	invertSource   = 0x08
	invertDest     = 0x10
	invertProtocol = 0x40
	invertOther    = 0xff &^ (invertOut | invertSource | invertDest | invertProtocol)
)

// rule decodes an entry, which split has looked at, and the chain that it leads to.
func (v *legacyVersion) rule(entry []byte, at int, byStart map[int]*legacyChain, ipsets *ipsets) (diagnose.Rule, *legacyChain) {
	r := diagnose.Rule{}
	var text []string
	add := func(said string, matches ...diagnose.Match) {
		if said != "" {
			text = append(text, said)
		}
		r.Matches = append(r.Matches, matches...)
	}
	inverted := entry[v.inverted]
	v.address(entry, 0, inverted&invertSource != 0, fieldSource, "-s", add)
	v.address(entry, v.addrLen, inverted&invertDest != 0, fieldDestination, "-d", add)
	v.interfaces(entry, inverted&invertOut != 0, add)
	if p := binary.NativeEndian.Uint16(entry[v.protocol:]); p != 0 && (v.protocolFlag == 0 || entry[v.flags]&v.protocolFlag != 0) {
		not := inverted&invertProtocol != 0
		add("-p "+sign(not)+protocolText(uint8(p)), diagnose.Match{Kind: diagnose.MatchProtocol, Not: not, Protocols: []uint8{uint8(p)}})
	}
	if known := v.gotoFlag | v.protocolFlag; entry[v.flags]&^known != 0 || inverted&invertOther != 0 {
		add("other flags", diagnose.Match{}) // fragments, types of service
	}
	target := int(binary.NativeEndian.Uint16(entry[v.target:]))
	for b := entry[v.matches:target]; len(b) > 0; {
		size := 0
		if len(b) >= extensionHeader {
			size = int(binary.NativeEndian.Uint16(b))
		}
		if size < extensionHeader || size > len(b) {
			add("malformed", diagnose.Match{})
			break
		}
		name, revision, info := extension(b[:size])
		said, matches, known := ipsets.xtMatch(name, revision, info)
		if !known {
			matches = []diagnose.Match{{}}
		}
		add(said, matches...)
		b = b[size:]
	}
	r.Text = strings.Join(text, " ")
	var to *legacyChain
	r.Action, to = v.action(entry[target:], entry[v.flags]&v.gotoFlag != 0, at+len(entry), byStart)
	return r, to
}

// address takes in an address with its mask, two address lengths further on; none is 0 under 0.
func (v *legacyVersion) address(entry []byte, at int, not bool, f field, option string, add func(string, ...diagnose.Match)) {
	address, mask := entry[at:at+v.addrLen], entry[at+2*v.addrLen:at+3*v.addrLen]
	if isZero(address) && isZero(mask) && !not {
		return
	}
	p, ok := prefixOf(address, mask)
	if !ok {
		add(option+" with a mask", diagnose.Match{})
		return
	}
	m := addressMatch(f, netipx.RangeOfPrefix(p))
	m.Not = not
	add(option+" "+sign(not)+prefixText(p), m)
}

// interfaces takes in the names of interfaces. A mask says how many bytes count.
func (v *legacyVersion) interfaces(entry []byte, not bool, add func(string, ...diagnose.Match)) {
	if name, _ := legacyName(entry, v.in, v.in+2*unix.IFNAMSIZ); name != "" {
		add("-i "+name, diagnose.Match{})
	}
	name, ok := legacyName(entry, v.out, v.outMask)
	switch {
	case name == "" && !not:
	case !ok:
		add("-o "+sign(not)+name, diagnose.Match{})
	default:
		add("-o "+sign(not)+name, diagnose.Match{Kind: diagnose.MatchOut, Not: not, Names: []string{name}})
	}
}

// legacyName is the name of an interface, with "*" for any rest; "" for any interface; false if it has a
// mask that is not understood.
func legacyName(entry []byte, at, maskAt int) (string, bool) {
	name, mask := entry[at:at+unix.IFNAMSIZ], entry[maskAt:maskAt+unix.IFNAMSIZ]
	n := 0
	for n < len(mask) && mask[n] == 0xff {
		n++
	}
	if !isZero(mask[n:]) {
		return name29(name), false
	}
	text, _, whole := strings.Cut(string(name[:n]), "\x00")
	if !whole && n > 0 && n < unix.IFNAMSIZ {
		text += "*"
	}
	return text, true
}

// action decodes a target. That of the standard kind, whose name is empty, holds a verdict: where to go on, or
// what to do, as its negative less one.
func (v *legacyVersion) action(target []byte, isGoto bool, next int, byStart map[int]*legacyChain) (diagnose.Action, *legacyChain) {
	const (
		drop     = -0 - 1
		accept   = -1 - 1
		returned = -4 - 1 // XT_RETURN: NF_REPEAT
	)
	name, revision, info := extension(target)
	if name != "" {
		_, action := xtTarget(name, revision, info)
		return action, nil
	}
	if len(info) < 4 {
		return diagnose.Action{Kind: diagnose.ActionUnknown}, nil
	}
	verdict := int(int32(binary.NativeEndian.Uint32(info)))
	switch verdict {
	case drop, accept:
		return diagnose.Action{Kind: diagnose.ActionEnd}, nil
	case returned:
		return diagnose.Action{Kind: diagnose.ActionReturn}, nil
	case next:
		return diagnose.Action{}, nil
	}
	to := byStart[verdict]
	if to == nil {
		return diagnose.Action{Kind: diagnose.ActionUnknown}, nil
	}
	kind := diagnose.ActionJump
	if isGoto {
		kind = diagnose.ActionGoto
	}
	return diagnose.Action{Kind: kind, Chains: []string{to.name}}, to
}
