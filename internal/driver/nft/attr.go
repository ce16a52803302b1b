package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// A netlink attribute is a header (length, type; both 16 bits, host byte order), a payload, and padding
// up to a multiple of four bytes (linux/netlink.h). nf_tables writes numbers in network byte order.
const (
	attrHeader  = unix.NLA_HDRLEN
	attrMaxLen  = 1<<16 - 1
	attrTypeMax = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

// errMalformed is what every parser returns, wrapped, for data that is not what the kernel would send.
var errMalformed = errors.New("malformed netlink data")

// attribute is one decoded attribute. Its data is part of the buffer that was decoded.
type attribute struct {
	kind   uint16 // without the flag bits
	data   []byte
	offset int // of the attribute's header, in the buffer that was decoded
}

// attributes iterates over the attributes in b. What follows a malformed one is not looked at, and
// malformed data ends in one error.
func attributes(b []byte) iter.Seq2[attribute, error] {
	return func(yield func(attribute, error) bool) {
		for at := 0; at < len(b); {
			rest := b[at:]
			if len(rest) < attrHeader {
				yield(attribute{}, fmt.Errorf("%w: %d bytes where an attribute should begin", errMalformed, len(rest)))
				return
			}
			n := int(binary.NativeEndian.Uint16(rest))
			if n < attrHeader || n > len(rest) {
				yield(attribute{}, fmt.Errorf("%w: an attribute of %d bytes in %d", errMalformed, n, len(rest)))
				return
			}
			a := attribute{kind: binary.NativeEndian.Uint16(rest[2:]) & attrTypeMax, data: rest[attrHeader:n:n], offset: at}
			if !yield(a, nil) {
				return
			}
			at += align4(n)
		}
	}
}

// uint32 reads a number in network byte order.
func (a attribute) uint32() (uint32, error) {
	if len(a.data) != 4 {
		return 0, fmt.Errorf("%w: attribute %d has %d bytes, not 4", errMalformed, a.kind, len(a.data))
	}
	return binary.BigEndian.Uint32(a.data), nil
}

// uint64 reads a number in network byte order.
func (a attribute) uint64() (uint64, error) {
	if len(a.data) != 8 {
		return 0, fmt.Errorf("%w: attribute %d has %d bytes, not 8", errMalformed, a.kind, len(a.data))
	}
	return binary.BigEndian.Uint64(a.data), nil
}

// text reads a string, with or without its closing zero.
func (a attribute) text() string {
	for i, c := range a.data {
		if c == 0 {
			return string(a.data[:i])
		}
	}
	return string(a.data)
}

// appendAttr appends an attribute. The data of those that this package writes is at most maxChunk long.
func appendAttr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return pad4(b)
}

func appendUint32(b []byte, kind uint16, v uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, attrHeader+4)
	b = binary.NativeEndian.AppendUint16(b, kind)
	return binary.BigEndian.AppendUint32(b, v)
}

// appendText appends a string with the zero that the kernel wants at its end.
func appendText(b []byte, kind uint16, s string) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(s)+1))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, s...)
	return pad4(append(b, 0))
}

// openNest begins a nested attribute and returns where, for closeNest.
func openNest(b []byte, kind uint16) ([]byte, int) {
	at := len(b)
	b = binary.NativeEndian.AppendUint16(b, 0)
	return binary.NativeEndian.AppendUint16(b, kind|unix.NLA_F_NESTED), at
}

// closeNest writes the length of the nested attribute that began at at.
func closeNest(b []byte, at int) {
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
}

func align4(n int) int { return (n + 3) &^ 3 }

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
