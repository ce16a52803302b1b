package nftables

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// Type is a type of keys and data, by the number that the nft command knows it by (enum datatypes of its
// include/datatype.h). The kernel keeps the number for nft.
type Type uint8

// The types that tables of ours may have.
const (
	Verdicts    Type = 1 // of data alone
	IPv4Addr    Type = 7
	IPv6Addr    Type = 8
	InetProto   Type = 12
	InetService Type = 13
	Mark        Type = 19
	IfName      Type = 41
)

// typeBits is how many bits of a concatenation's number each of its types has (TYPE_BITS of nft's datatype.h).
const typeBits = 6

// maxFields is how many types fit a concatenation's number.
const maxFields = 32 / typeBits

// size is the length of a value in bytes; 0 for a type that is not known.
func (t Type) size() int {
	switch t {
	case InetProto:
		return 1
	case InetService:
		return 2
	case IPv4Addr, Mark:
		return 4
	case IPv6Addr, IfName:
		return 16
	}
	return 0
}

// hostOrder says whether values are in the byte order of the host, so that their bytes do not sort as they do.
func (t Type) hostOrder() bool { return t == Mark || t == IfName }

// String is the name that the nft command has for the type.
func (t Type) String() string {
	switch t {
	case Verdicts:
		return "verdict"
	case IPv4Addr:
		return "ipv4_addr"
	case IPv6Addr:
		return "ipv6_addr"
	case InetProto:
		return "inet_proto"
	case InetService:
		return "inet_service"
	case Mark:
		return "mark"
	case IfName:
		return "ifname"
	}
	return "type " + strconv.Itoa(int(t))
}

// keyType is the number of a key's types together.
func keyType(types []Type) uint32 {
	var n uint32
	for _, t := range types {
		n = n<<typeBits | uint32(t)
	}
	return n
}

// typesOf splits the number of a key into its types; nil if there are some among them that we do not have.
func typesOf(n uint32) (types []Type) {
	for shift := (maxFields - 1) * typeBits; shift >= 0; shift -= typeBits {
		t := Type(n >> shift & (1<<typeBits - 1))
		if t == 0 && types == nil {
			continue
		}
		if t.size() == 0 {
			return nil
		}
		types = append(types, t)
	}
	if n>>(maxFields*typeBits) != 0 {
		return nil
	}
	return types
}

// keySize is the length of a key in bytes. The fields of a concatenation fill registers of four bytes.
func keySize(types []Type) int {
	if len(types) == 1 {
		return types[0].size()
	}
	n := 0
	for _, t := range types {
		n += align4(t.size())
	}
	return n
}

func align4(n int) int { return (n + 3) &^ 3 }

// AppendAddr appends an address to a key or to data.
func AppendAddr(b []byte, a netip.Addr) []byte {
	b = pad4(b)
	if a.Is4() {
		v := a.As4()
		return append(b, v[:]...)
	}
	v := a.As16()
	return append(b, v[:]...)
}

// AppendProto appends a transport protocol (IANA number).
func AppendProto(b []byte, protocol uint8) []byte { return append(pad4(b), protocol) }

// AppendService appends a port.
func AppendService(b []byte, port uint16) []byte { return binary.BigEndian.AppendUint16(pad4(b), port) }

// AppendMark appends a packet's mark.
func AppendMark(b []byte, mark uint32) []byte { return binary.NativeEndian.AppendUint32(pad4(b), mark) }

// AppendIfName appends the name of an interface, of which at most 15 bytes count.
func AppendIfName(b []byte, name string) []byte {
	var v [unix.IFNAMSIZ]byte
	copy(v[:unix.IFNAMSIZ-1], name)
	return append(pad4(b), v[:]...)
}

// pad4 begins the next field of a concatenation.
func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// text renders a value, or a range of values, as the nft command does.
func (t Type) text(first, last []byte) string {
	if string(first) == string(last) {
		return t.one(first)
	}
	if p, ok := prefixOf(first, last); ok && (t == IPv4Addr || t == IPv6Addr) {
		return p.String()
	}
	return t.one(first) + "-" + t.one(last)
}

func prefixOf(first, last []byte) (netip.Prefix, bool) {
	from, _ := netip.AddrFromSlice(first)
	to, _ := netip.AddrFromSlice(last)
	return netipx.IPRangeFrom(from, to).Prefix()
}

func (t Type) one(b []byte) string {
	switch t {
	case IPv4Addr, IPv6Addr:
		if a, ok := netip.AddrFromSlice(b); ok {
			return a.String()
		}
	case InetProto:
		return value("protocol", b)
	case InetService:
		return strconv.Itoa(int(binary.BigEndian.Uint16(b)))
	case Mark:
		return fmt.Sprintf("0x%08x", binary.NativeEndian.Uint32(b))
	case IfName:
		return strconv.Quote(strings.TrimRight(string(b), "\x00"))
	}
	return "0x" + hex.EncodeToString(b)
}
