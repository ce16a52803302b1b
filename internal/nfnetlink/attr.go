package nfnetlink

import (
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// A netlink attribute is a header (length, type; both 16 bits, host byte order), a payload, and padding
// up to a multiple of four bytes (linux/netlink.h). nf_tables writes numbers in network byte order.
const (
	// AttrHeaderLen is the length of an attribute's header, in bytes.
	AttrHeaderLen = unix.NLA_HDRLEN
	attrMaxLen    = 1<<16 - 1
	attrTypeMax   = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

// Attribute is one decoded attribute. Its data is part of the buffer that was decoded.
type Attribute struct {
	Kind   uint16 // without the flag bits
	Data   []byte
	Offset int // of the attribute's header, in the buffer that was decoded
}

// Attributes iterates over the attributes in b. What follows a malformed one is not looked at, and
// malformed data ends in one error.
func Attributes(b []byte) iter.Seq2[Attribute, error] {
	return func(yield func(Attribute, error) bool) {
		for at := 0; at < len(b); {
			kind, data, rest, ok := Next(b[at:])
			if !ok {
				yield(Attribute{}, malformedAttr(b[at:]))
				return
			}
			if !yield(Attribute{Kind: kind, Data: data, Offset: at}, nil) {
				return
			}
			at = len(b) - len(rest)
		}
	}
}

// Next takes the attribute at the start of b apart, for those who read very many: the compiler copies it into their
// loops. It is not ok where b does not begin with an attribute.
func Next(b []byte) (kind uint16, data, rest []byte, ok bool) {
	if len(b) < AttrHeaderLen {
		return 0, nil, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < AttrHeaderLen || n > len(b) {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[2:]) & attrTypeMax, b[AttrHeaderLen:n:n], b[min(align4(n), len(b)):], true
}

// malformedAttr says why b does not begin with an attribute.
func malformedAttr(b []byte) error {
	if len(b) < AttrHeaderLen {
		return fmt.Errorf("%w: %d bytes where an attribute should begin", ErrMalformed, len(b))
	}
	return fmt.Errorf("%w: an attribute of %d bytes in %d", ErrMalformed, binary.NativeEndian.Uint16(b), len(b))
}

// Uint32 reads a number in network byte order.
func (a Attribute) Uint32() (uint32, error) {
	if len(a.Data) != 4 {
		return 0, fmt.Errorf("%w: attribute %d has %d bytes, not 4", ErrMalformed, a.Kind, len(a.Data))
	}
	return binary.BigEndian.Uint32(a.Data), nil
}

// Uint64 reads a number in network byte order.
func (a Attribute) Uint64() (uint64, error) {
	if len(a.Data) != 8 {
		return 0, fmt.Errorf("%w: attribute %d has %d bytes, not 8", ErrMalformed, a.Kind, len(a.Data))
	}
	return binary.BigEndian.Uint64(a.Data), nil
}

// Text reads a string, with or without its closing zero.
func (a Attribute) Text() string {
	for i, c := range a.Data {
		if c == 0 {
			return string(a.Data[:i])
		}
	}
	return string(a.Data)
}

// AppendAttr appends an attribute. Its data is at most 65,531 bytes long: the caller sees to that.
func AppendAttr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(AttrHeaderLen+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return pad4(b)
}

// AppendUint32 appends a number in network byte order.
func AppendUint32(b []byte, kind uint16, v uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, AttrHeaderLen+4)
	b = binary.NativeEndian.AppendUint16(b, kind)
	return binary.BigEndian.AppendUint32(b, v)
}

// AppendText appends a string with the zero that the kernel wants at its end.
func AppendText(b []byte, kind uint16, s string) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(AttrHeaderLen+len(s)+1))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, s...)
	return pad4(append(b, 0))
}

// OpenNest begins a nested attribute and returns where, for CloseNest.
func OpenNest(b []byte, kind uint16) ([]byte, int) {
	at := len(b)
	b = binary.NativeEndian.AppendUint16(b, 0)
	return binary.NativeEndian.AppendUint16(b, kind|unix.NLA_F_NESTED), at
}

// CloseNest writes the length of the nested attribute that began at at.
func CloseNest(b []byte, at int) {
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
}

func align4(n int) int { return (n + 3) &^ 3 }

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
