package rtnetlink

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Batch is a row of messages for the kernel, which carries each out by itself, in their order: where it refuses one, it goes on
// with the next. The zero value is empty.
type Batch struct {
	buf    []byte
	starts []int // where each message begins
}

// Len is the number of messages.
func (b *Batch) Len() int { return len(b.starts) }

// At is a message of the batch, as the kernel reads it.
func (b *Batch) At(i int) nfnetlink.Message {
	at := b.starts[i]
	return nfnetlink.Message{Kind: binary.NativeEndian.Uint16(b.buf[at+4:]), Flags: binary.NativeEndian.Uint16(b.buf[at+6:]), Body: b.buf[at+nfnetlink.HeaderLen : b.end(i)]}
}

// Reset empties the batch, and keeps its memory.
func (b *Batch) Reset() { b.buf, b.starts = b.buf[:0], b.starts[:0] }

// Message begins a message (unix.RTM_…, with unix.NLM_F_… beside NLM_F_REQUEST) with the fixed part that its kind has, such
// as that of Link. What ended the message before must be closed.
func (b *Batch) Message(kind, flags uint16, fixed []byte) {
	b.starts = append(b.starts, len(b.buf))
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0) // the length: send writes it
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags|unix.NLM_F_REQUEST)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0) // the sequence number: send writes it
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0) // the kernel knows who sends
	b.buf = append(b.buf, fixed...)
}

// Append appends raw bytes to the message, such as the fixed part of a message that an attribute holds. They must be a multiple
// of four.
func (b *Batch) Append(raw []byte) { b.buf = append(b.buf, raw...) }

// Bytes appends an attribute.
func (b *Batch) Bytes(kind uint16, data []byte) { b.buf = nfnetlink.AppendAttr(b.buf, kind, data) }

// Text appends a string, with a zero at its end.
func (b *Batch) Text(kind uint16, s string) { b.buf = nfnetlink.AppendText(b.buf, kind, s) }

// Uint8 appends a number of one byte.
func (b *Batch) Uint8(kind uint16, v uint8) { b.Bytes(kind, []byte{v}) }

// Uint16 appends a number in host byte order.
func (b *Batch) Uint16(kind uint16, v uint16) {
	b.Bytes(kind, binary.NativeEndian.AppendUint16(make([]byte, 0, 2), v))
}

// Uint32 appends a number in host byte order.
func (b *Batch) Uint32(kind uint16, v uint32) {
	b.Bytes(kind, binary.NativeEndian.AppendUint32(make([]byte, 0, 4), v))
}

// BigUint16 appends a number in network byte order, as ports are.
func (b *Batch) BigUint16(kind uint16, v uint16) {
	b.Bytes(kind, binary.BigEndian.AppendUint16(make([]byte, 0, 2), v))
}

// Addr appends an address of four or sixteen bytes.
func (b *Batch) Addr(kind uint16, a netip.Addr) {
	if a.Is4() {
		raw := a.As4()
		b.Bytes(kind, raw[:])
		return
	}
	raw := a.As16()
	b.Bytes(kind, raw[:])
}

// Nest appends an attribute that holds what inside appends.
func (b *Batch) Nest(kind uint16, inside func()) {
	var at int
	b.buf, at = nfnetlink.OpenNest(b.buf, kind)
	inside()
	nfnetlink.CloseNest(b.buf, at)
}

// skipStatistics is RTEXT_FILTER_SKIP_STATS (include/uapi/linux/rtnetlink.h): what links have carried is of no interest.
const skipStatistics = 1 << 3

// GetLink asks for a link by its name; empty: for all.
func (b *Batch) GetLink(name string) {
	b.Message(unix.RTM_GETLINK, 0, Link(0, 0, 0))
	if name != "" {
		b.Text(unix.IFLA_IFNAME, name)
	}
	b.Uint32(unix.IFLA_EXT_MASK, skipStatistics)
}

// Link is the fixed part of messages about links (struct ifinfomsg): an index, or 0 where an attribute names the link, and
// the flags to set of those in change (unix.IFF_…).
func Link(index int, flags, change uint32) []byte {
	fixed := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	binary.NativeEndian.PutUint32(fixed[8:], flags)
	binary.NativeEndian.PutUint32(fixed[12:], change)
	return fixed
}

// Address is the fixed part of messages about addresses (struct ifaddrmsg): an address with the length of its subnet, on a link.
func Address(index int, p netip.Prefix) []byte {
	fixed := make([]byte, unix.SizeofIfAddrmsg)
	fixed[0], fixed[1] = Family(p.Addr()), uint8(p.Bits())
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	return fixed
}

// RouteProtocol marks Sallyport's routes (rtm_protocol): the kernel and the daemons of others leave such alone, and
// include/uapi/linux/rtnetlink.h names none of this number.
const RouteProtocol = 115

// RouteFixed is the fixed part of messages about routes (struct rtmsg).
type RouteFixed struct {
	Destination netip.Prefix // decides the family; its address goes into RTA_DST
	Table       uint8        // unix.RT_TABLE_…
	Protocol    uint8
	Scope       uint8 // unix.RT_SCOPE_…
	Type        uint8 // unix.RTN_…
	Flags       uint32
}

// Encode is the fixed part.
func (r RouteFixed) Encode() []byte {
	fixed := make([]byte, unix.SizeofRtMsg)
	fixed[0], fixed[1] = Family(r.Destination.Addr()), uint8(r.Destination.Bits())
	fixed[4], fixed[5], fixed[6], fixed[7] = r.Table, r.Protocol, r.Scope, r.Type
	binary.NativeEndian.PutUint32(fixed[8:], r.Flags)
	return fixed
}

// Neighbour is the fixed part of messages about neighbours and forwarding entries (struct ndmsg): unix.AF_INET, AF_INET6 or
// AF_BRIDGE, a link, unix.NUD_… and unix.NTF_….
func Neighbour(family uint8, index int, state uint16, flags uint8) []byte {
	fixed := make([]byte, unix.SizeofNdMsg)
	fixed[0] = family
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	binary.NativeEndian.PutUint16(fixed[8:], state)
	fixed[10] = flags
	return fixed
}

// Family is unix.AF_INET or AF_INET6.
func Family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
