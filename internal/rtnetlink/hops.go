package rtnetlink

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Hop is one of the next hops of a route.
type Hop struct {
	Via   netip.Addr
	Index int // of the link; 0: the kernel finds it
}

// nextHopLen is the length of struct rtnexthop (include/uapi/linux/rtnetlink.h): length, flags, weight less 1, link.
const nextHopLen = 8

// Hops appends the next hops of a route to a prefix. Those of IPv4 routes may be of IPv6 (RFC 8950).
func (b *Batch) Hops(to netip.Prefix, hops []Hop) {
	if len(hops) == 1 {
		b.gateway(to, hops[0].Via)
		if hops[0].Index != 0 {
			b.Uint32(unix.RTA_OIF, uint32(hops[0].Index))
		}
		return
	}
	b.Nest(unix.RTA_MULTIPATH, func() {
		for _, h := range hops {
			at := len(b.buf)
			b.Append(make([]byte, nextHopLen))
			binary.NativeEndian.PutUint32(b.buf[at+4:], uint32(h.Index))
			b.gateway(to, h.Via)
			binary.NativeEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
		}
	})
}

// gateway appends a next hop's address.
func (b *Batch) gateway(to netip.Prefix, via netip.Addr) {
	if via.Is4() == to.Addr().Is4() {
		b.Addr(unix.RTA_GATEWAY, via)
		return
	}
	data := binary.NativeEndian.AppendUint16(nil, uint16(Family(via))) // struct rtvia
	b.Bytes(unix.RTA_VIA, append(data, via.AsSlice()...))
}

// ParseHops reads the next hops of a route out of a message about it, in the kernel's order.
func ParseHops(m nfnetlink.Message) (hops []Hop, err error) {
	var one Hop
	whole := true
	err = attributes("route", m, unix.SizeofRtMsg, func(kind uint16, data []byte) {
		switch kind {
		case unix.RTA_OIF:
			one.Index = number(data)
		case unix.RTA_MULTIPATH:
			hops, whole = multipath(data)
		default:
			one.take(kind, data)
		}
	})
	if err == nil && !whole {
		err = malformed("route with several next hops", m)
	}
	if one.Via.IsValid() {
		hops = append(hops, one)
	}
	return hops, err
}

// take takes the address out of an attribute that has one.
func (h *Hop) take(kind uint16, data []byte) {
	switch {
	case kind == unix.RTA_GATEWAY:
		h.Via = addr(data)
	case kind == unix.RTA_VIA && len(data) > 2:
		h.Via = addr(data[2:])
	}
}

// multipath reads a list of struct rtnexthop. It says whether the last one is whole.
func multipath(rest []byte) (hops []Hop, whole bool) {
	for len(rest) > 0 {
		if len(rest) < nextHopLen {
			return hops, false
		}
		n := int(binary.NativeEndian.Uint16(rest))
		if n < nextHopLen || n > len(rest) {
			return hops, false
		}
		h := Hop{Index: int(binary.NativeEndian.Uint32(rest[4:]))}
		if !walk(rest[nextHopLen:n], h.take) {
			return hops, false
		}
		hops = append(hops, h)
		rest = rest[min(len(rest), (n+3)&^3):]
	}
	return hops, true
}
