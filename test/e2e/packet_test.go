package e2e

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"

	"github.com/sallyport/sallyport/internal/compile"
)

// packet is the first packet of a connection or the answer to it: TCP SYN, UDP datagram, ICMP echo
// request, SCTP INIT. Its id travels where no translation changes it: in TCP's sequence number, in
// SCTP's initiate tag and else in the payload.
type packet struct {
	src, dst     netip.Addr
	proto        compile.Protocol
	sport, dport uint16 // ICMP: sport is the identifier
	id           uint32
	answers      uint32 // id of the packet that this one answers, or 0
	padding      int    // bytes added to the payload of UDP and ICMP
}

func (p packet) String() string {
	return fmt.Sprintf("%s %s:%d > %s:%d id %d answers %d", protocolName(p.proto), p.src, p.sport, p.dst, p.dport, p.id, p.answers)
}

func protocolName(p compile.Protocol) string {
	names := map[compile.Protocol]string{
		compile.ICMP: "icmp", compile.ICMPv6: "icmpv6", compile.TCP: "tcp", compile.UDP: "udp", compile.SCTP: "sctp",
	}
	return names[p]
}

// The bytes and types that packets are made of (RFC 791, 8200, 792, 4443, 9293, 9260).
const (
	ipv4Header = 20
	ipv6Header = 40

	icmpEchoReply, icmpEcho     = 0, 8
	icmpv6Echo, icmpv6EchoReply = 128, 129
	tcpSYN, tcpACK              = 0x02, 0x10
	sctpINIT, sctpINITACK       = 1, 2
)

// transport is the packet without its IP header, with its checksum.
func (p packet) transport() []byte {
	var b []byte
	switch p.proto {
	case compile.TCP:
		b = make([]byte, 20)
		p.ports(b)
		binary.BigEndian.PutUint32(b[4:], p.id)
		b[12], b[13] = 5<<4, tcpSYN
		if p.answers != 0 {
			b[13] |= tcpACK
			binary.BigEndian.PutUint32(b[8:], p.answers+1)
		}
		binary.BigEndian.PutUint16(b[14:], 65535)
		binary.BigEndian.PutUint16(b[16:], p.checksum(b))
	case compile.UDP:
		b = make([]byte, 12+p.padding)
		p.ports(b)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		binary.BigEndian.PutUint32(b[8:], p.id)
		check := p.checksum(b)
		if check == 0 {
			check = 0xffff // zero would mean that there is none (RFC 768)
		}
		binary.BigEndian.PutUint16(b[6:], check)
	case compile.ICMP, compile.ICMPv6:
		b = make([]byte, 12+p.padding)
		b[0] = p.echoType()
		binary.BigEndian.PutUint16(b[4:], p.sport)
		binary.BigEndian.PutUint32(b[8:], p.id)
		binary.BigEndian.PutUint16(b[2:], p.checksum(b))
	case compile.SCTP:
		b = make([]byte, 32)
		p.ports(b)
		binary.BigEndian.PutUint32(b[4:], p.answers) // verification tag: the peer's initiate tag
		b[12] = sctpINIT
		if p.answers != 0 {
			b[12] = sctpINITACK
		}
		binary.BigEndian.PutUint16(b[14:], 20)
		binary.BigEndian.PutUint32(b[16:], p.id)
		binary.BigEndian.PutUint32(b[20:], 65535)
		binary.BigEndian.PutUint16(b[24:], 1)
		binary.BigEndian.PutUint16(b[26:], 1)
		binary.LittleEndian.PutUint32(b[8:], sctpChecksum(b))
	}
	return b
}

func (p packet) ports(b []byte) {
	binary.BigEndian.PutUint16(b[0:], p.sport)
	binary.BigEndian.PutUint16(b[2:], p.dport)
}

func (p packet) echoType() byte {
	switch {
	case p.proto == compile.ICMP && p.answers == 0:
		return icmpEcho
	case p.proto == compile.ICMP:
		return icmpEchoReply
	case p.answers == 0:
		return icmpv6Echo
	default:
		return icmpv6EchoReply
	}
}

// marshal is the packet from its IP header on.
func (p packet) marshal() []byte { return ipPacket(p.src, p.dst, p.proto, p.transport()) }

// ipPacket puts an IP header before a transport packet. IPv4 packets may be fragmented.
func ipPacket(src, dst netip.Addr, proto compile.Protocol, transport []byte) []byte {
	if src.Is4() {
		b := make([]byte, ipv4Header, ipv4Header+len(transport))
		b[0] = 0x45
		binary.BigEndian.PutUint16(b[2:], uint16(ipv4Header+len(transport)))
		b[8], b[9] = 64, byte(proto)
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^sum(0, b))
		return append(b, transport...)
	}
	b := make([]byte, ipv6Header, ipv6Header+len(transport))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(transport)))
	b[6], b[7] = byte(proto), 64
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, transport...)
}

// parse reads an IP packet that transport may have made. It fails on anything else and on wrong checksums.
func parse(b []byte) (packet, error) {
	var p packet
	var l4 []byte
	switch {
	case len(b) >= ipv4Header && b[0] == 0x45:
		if sum(0, b[:ipv4Header]) != 0xffff {
			return p, fmt.Errorf("IPv4 header checksum is wrong in % x", b)
		}
		p.src, p.dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		p.proto = compile.Protocol(b[9])
		l4 = b[ipv4Header:min(len(b), int(binary.BigEndian.Uint16(b[2:])))]
	case len(b) >= ipv6Header && b[0]>>4 == 6:
		p.src, p.dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		p.proto = compile.Protocol(b[6])
		l4 = b[ipv6Header:min(len(b), ipv6Header+int(binary.BigEndian.Uint16(b[4:])))]
	default:
		return p, errNotOurs
	}
	if err := p.parseTransport(l4); err != nil {
		return p, err
	}
	if p.proto == compile.SCTP {
		if binary.LittleEndian.Uint32(l4[8:]) != sctpChecksum(l4) {
			return p, fmt.Errorf("SCTP checksum is wrong in %v", p)
		}
	} else if p.checksum(l4) != 0 {
		return p, fmt.Errorf("checksum is wrong in %v", p)
	}
	return p, nil
}

// errNotOurs is parse's error for a packet that no test has sent.
var errNotOurs = fmt.Errorf("not a packet of these tests")

// parseTransport fills in the ports and the id.
func (p *packet) parseTransport(b []byte) error {
	if len(b) < 12 || p.proto == compile.TCP && len(b) < 20 || p.proto == compile.SCTP && len(b) < 20 {
		return errNotOurs
	}
	p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	switch p.proto {
	case compile.TCP:
		p.id = binary.BigEndian.Uint32(b[4:])
		if b[13]&tcpACK != 0 {
			p.answers = binary.BigEndian.Uint32(b[8:]) - 1
		}
	case compile.UDP:
		p.id = binary.BigEndian.Uint32(b[8:])
	case compile.SCTP:
		p.id, p.answers = binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[4:])
	case compile.ICMP, compile.ICMPv6:
		switch b[0] {
		case icmpEcho, icmpEchoReply, icmpv6Echo, icmpv6EchoReply:
		default:
			return errNotOurs
		}
		p.sport, p.dport = binary.BigEndian.Uint16(b[4:]), 0
		p.id = binary.BigEndian.Uint32(b[8:])
	default:
		return errNotOurs
	}
	return nil
}

// checksum is the Internet checksum of b with its pseudo header: what to put into a field that is zero,
// or zero where the field is right (RFC 1071). ICMP for IPv4 has no pseudo header.
func (p packet) checksum(b []byte) uint16 {
	pseudo := uint32(0)
	if p.proto != compile.ICMP {
		pseudo = uint32(sum(0, p.src.AsSlice())) + uint32(sum(0, p.dst.AsSlice())) + uint32(p.proto) + uint32(len(b))
	}
	return ^sum(pseudo, b)
}

// sum is the ones' complement sum of b's 16-bit words and initial.
func sum(initial uint32, b []byte) uint16 {
	s := uint64(initial)
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// sctpChecksum is the CRC-32C of b with its checksum field taken as zero (RFC 9260, appendix A).
func sctpChecksum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, table, b[:8])
	c = crc32.Update(c, table, make([]byte, 4))
	return crc32.Update(c, table, b[12:])
}
