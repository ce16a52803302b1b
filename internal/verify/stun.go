package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// What is used of STUN (RFC 8489, sections 5, 14 and 18). A library for it (pion/stun) brings DTLS and five modules for the
// header and one attribute, which is all that is needed.
const (
	headerLen      = 20
	magic          = 0x2112A442
	bindingRequest = 0x0001
	bindingSuccess = 0x0101

	attrMapped    = 0x0001 // MAPPED-ADDRESS, of servers that follow RFC 3489
	attrXORMapped = 0x0020 // XOR-MAPPED-ADDRESS
)

// Our own attributes. Servers ignore those from 0x8000 on that they do not know; these are registered for no other use.
const (
	attrToken  = 0xD511 // request: the run that it belongs to
	attrCookie = 0xD512 // answer: proves to the server, when it comes back, that the source receives its answers
	attrTTL    = 0xD513 // request: the TTL of the answer, one byte
	attrSize   = 0xD514 // request: the length of the answer, in bytes of STUN, two bytes
	attrReport = 0xD515 // request: from which error on; answer: the ICMP errors that came for answers to this source
	attrQuery  = 0xD516 // request: did this token come? answer: seen
	attrOurs   = 0xD517 // answer: the version of this protocol
	attrPad    = 0xD518 // nothing
)

// protocolVersion is what attrOurs says.
const protocolVersion = 1

// maxMessage is the length of the longest message, in bytes: that of a datagram on a link with jumbo frames.
const maxMessage = 9216

type (
	transaction [12]byte
	token       [16]byte
	cookie      [16]byte
)

// message is one STUN message. Fields that are absent have their zero value.
type message struct {
	kind uint16
	id   transaction

	mapped    netip.AddrPort
	token     token
	cookie    cookie
	ttl       uint8
	size      uint16
	hasReport bool
	from      uint16 // of a report that is asked for
	report    []byte // of one that is given: encoded, see hopError
	query     token
	seen      *seen // of an answer
	ours      uint8
	padding   int // bytes of attrPad's value, without its header; -1: no such attribute
}

// seen is what a server knows of a token.
type seen struct {
	state    uint8 // one of those below
	udp, tcp uint8 // requests that came, at most 255
	from     netip.AddrPort
}

// The states of a token.
const (
	tokenUnseen  = 0
	tokenSeen    = 1
	tokenUnknown = 2 // the server had no room for more tokens
)

var errNotSTUN = errors.New("not a STUN message")

// encode appends the message.
func (m *message) encode(b []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, m.kind)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, m.id[:]...)
	if m.mapped.IsValid() {
		b = attribute(b, attrXORMapped, appendAddress(nil, m.mapped, m.id))
	}
	if m.ours != 0 {
		b = attribute(b, attrOurs, []byte{m.ours, 0, 0, 0})
	}
	if m.token != (token{}) {
		b = attribute(b, attrToken, m.token[:])
	}
	if m.cookie != (cookie{}) {
		b = attribute(b, attrCookie, m.cookie[:])
	}
	if m.ttl != 0 {
		b = attribute(b, attrTTL, []byte{m.ttl, 0, 0, 0})
	}
	if m.size != 0 {
		b = attribute(b, attrSize, binary.BigEndian.AppendUint16(nil, m.size))
	}
	if m.hasReport {
		b = attribute(b, attrReport, append(binary.BigEndian.AppendUint16(nil, m.from), m.report...))
	}
	if m.query != (token{}) {
		b = attribute(b, attrQuery, m.query[:])
	}
	if s := m.seen; s != nil {
		b = attribute(b, attrQuery, append([]byte{s.state, s.udp, s.tcp, 0}, appendEndpoint(nil, s.from)...))
	}
	if m.padding >= 0 {
		b = attribute(b, attrPad, make([]byte, m.padding))
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start-headerLen))
	return b
}

// padTo is the message as a datagram of n bytes, where it is not longer already. Messages are multiples of four bytes long; up to
// three zeros follow where n is not. A gap of less than a header of padding is not filled.
func (m *message) padTo(n int) []byte {
	m.padding = -1
	short := len(m.encode(nil))
	if m.padding = n&^3 - short - 4; m.padding < 0 {
		m.padding = -1
		return m.encode(nil)
	}
	return append(m.encode(make([]byte, 0, n)), make([]byte, n&3)...)
}

// trimmed is the message in a datagram: see padTo.
func trimmed(b []byte) []byte {
	if n, err := messageLen(b); err == nil && n < len(b) && len(b)-n < 4 {
		return b[:n]
	}
	return b
}

func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// appendAddress writes an XOR-MAPPED-ADDRESS.
func appendAddress(b []byte, a netip.AddrPort, id transaction) []byte {
	family := byte(2)
	if a.Addr().Is4() {
		family = 1
	}
	b = append(b, 0, family)
	b = binary.BigEndian.AppendUint16(b, a.Port()^magic>>16)
	return append(b, xor(a.Addr().AsSlice(), id)...)
}

// xor hides an address, or shows it again: translators that rewrite what looks like an address leave it alone.
func xor(address []byte, id transaction) []byte {
	key := append(binary.BigEndian.AppendUint32(nil, magic), id[:]...)
	out := make([]byte, len(address))
	for i := range address {
		out[i] = address[i] ^ key[i]
	}
	return out
}

// appendEndpoint writes an address and a port in 18 bytes, as RFC 8489 has nothing for; an absent one is all zeros. IPv4
// stands as IPv4-mapped IPv6, complemented, since some translators look for their addresses in what they pass on.
func appendEndpoint(b []byte, a netip.AddrPort) []byte {
	b = binary.BigEndian.AppendUint16(b, a.Port())
	if !a.IsValid() {
		return append(b, make([]byte, 16)...)
	}
	bytes := a.Addr().As16()
	for i := range bytes {
		bytes[i] = ^bytes[i]
	}
	return append(b, bytes[:]...)
}

// endpointLen is the length of what appendEndpoint writes, in bytes.
const endpointLen = 18

func parseEndpoint(b []byte) netip.AddrPort {
	if [16]byte(b[2:endpointLen]) == ([16]byte{}) {
		return netip.AddrPort{}
	}
	var bytes [16]byte
	for i := range bytes {
		bytes[i] = ^b[2+i]
	}
	return netip.AddrPortFrom(netip.AddrFrom16(bytes).Unmap(), binary.BigEndian.Uint16(b))
}

// messageLen is the length of the message that begins with a header, in bytes.
func messageLen(header []byte) (int, error) {
	if len(header) < headerLen || header[0]&0xc0 != 0 || binary.BigEndian.Uint32(header[4:]) != magic {
		return 0, errNotSTUN
	}
	n := headerLen + int(binary.BigEndian.Uint16(header[2:]))
	if n&3 != 0 || n > maxMessage {
		return 0, fmt.Errorf("%w: a length of %d bytes", errNotSTUN, n)
	}
	return n, nil
}

// decode reads a message. Attributes that it does not know, it passes over.
func decode(b []byte) (*message, error) {
	n, err := messageLen(b)
	if err != nil {
		return nil, err
	}
	if n != len(b) {
		return nil, fmt.Errorf("%w: %d bytes, and the header says %d", errNotSTUN, len(b), n)
	}
	m := &message{kind: binary.BigEndian.Uint16(b), id: transaction(b[8:headerLen]), padding: -1}
	for rest := b[headerLen:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, fmt.Errorf("%w: %d bytes that are no attribute", errNotSTUN, len(rest))
		}
		kind, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		padded := 4 + (size+3)&^3
		if padded > len(rest) {
			return nil, fmt.Errorf("%w: attribute %#x is cut off", errNotSTUN, kind)
		}
		if err := m.attribute(kind, rest[4:4+size]); err != nil {
			return nil, err
		}
		rest = rest[padded:]
	}
	return m, nil
}

// attribute takes one attribute.
func (m *message) attribute(kind uint16, value []byte) error {
	bad := fmt.Errorf("%w: attribute %#x of %d bytes", errNotSTUN, kind, len(value))
	switch kind {
	case attrXORMapped, attrMapped:
		a, ok := parseAddress(value, m.id, kind == attrXORMapped)
		if !ok {
			return bad
		}
		if kind == attrXORMapped || !m.mapped.IsValid() {
			m.mapped = a
		}
	case attrToken, attrCookie:
		if len(value) != len(token{}) {
			return bad
		}
		if kind == attrToken {
			m.token = token(value)
		} else {
			m.cookie = cookie(value)
		}
	case attrTTL, attrOurs:
		if len(value) != 4 {
			return bad
		}
		if kind == attrTTL {
			m.ttl = value[0]
		} else {
			m.ours = value[0]
		}
	case attrSize, attrReport:
		if len(value) < 2 {
			return bad
		}
		if n := binary.BigEndian.Uint16(value); kind == attrSize {
			m.size = n
		} else {
			m.hasReport, m.from, m.report = true, n, bytes.Clone(value[2:]) // the buffer is used again
		}
	case attrQuery:
		switch len(value) {
		case len(token{}):
			m.query = token(value)
		case 4 + endpointLen:
			m.seen = &seen{state: value[0], udp: value[1], tcp: value[2], from: parseEndpoint(value[4:])}
		default:
			return bad
		}
	case attrPad:
		m.padding = len(value)
	}
	return nil
}

func parseAddress(b []byte, id transaction, hidden bool) (netip.AddrPort, bool) {
	if len(b) < 4 || b[1] == 1 && len(b) != 8 || b[1] == 2 && len(b) != 20 || b[1] != 1 && b[1] != 2 {
		return netip.AddrPort{}, false
	}
	port, address := binary.BigEndian.Uint16(b[2:]), b[4:]
	if hidden {
		port, address = port^magic>>16, xor(address, id)
	}
	ip, ok := netip.AddrFromSlice(address)
	return netip.AddrPortFrom(ip.Unmap(), port), ok
}

// hopError is an ICMP error that came for an answer of the server.
type hopError struct {
	ttl  uint8 // that the answer was sent with; 0: the usual one
	kind uint8 // one of those below
	mtu  uint16
	by   netip.Addr     // whose address the error bears
	to   netip.AddrPort // the destination of the answer, as the error quotes it
}

// The kinds of ICMP errors.
const (
	errorExpired     = 1
	errorTooBig      = 2
	errorUnreachable = 3
)

// hopErrorLen is the length of an encoded hopError, in bytes.
const hopErrorLen = 4 + 2*endpointLen

func (e hopError) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, e.ttl, e.kind), e.mtu)
	return appendEndpoint(appendEndpoint(b, netip.AddrPortFrom(e.by, 0)), e.to)
}

// decodeReport reads the errors of a report.
func decodeReport(b []byte) []hopError {
	var out []hopError
	for ; len(b) >= hopErrorLen; b = b[hopErrorLen:] {
		out = append(out, hopError{ttl: b[0], kind: b[1], mtu: binary.BigEndian.Uint16(b[2:]), by: parseEndpoint(b[4:]).Addr(), to: parseEndpoint(b[4+endpointLen:])})
	}
	return out
}
