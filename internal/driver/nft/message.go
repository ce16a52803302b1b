package nft

import (
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// A netlink message is a header (linux/netlink.h: length, type, flags, sequence, port id; host byte
// order); those of netfilter go on with family, version and resource id (linux/netfilter/nfnetlink.h).
const (
	headerLen   = unix.NLMSG_HDRLEN
	nfHeaderLen = 4
	subsystem   = unix.NFNL_SUBSYS_NFTABLES << 8
)

// message is one decoded netlink message.
type message struct {
	kind  uint16
	flags uint16
	seq   uint32
	body  []byte // after the netlink header
}

// messages iterates over the messages in a datagram; malformed data ends in one error.
func messages(b []byte) iter.Seq2[message, error] {
	return func(yield func(message, error) bool) {
		for len(b) > 0 {
			if len(b) < headerLen {
				yield(message{}, fmt.Errorf("%w: %d bytes where a message should begin", errMalformed, len(b)))
				return
			}
			n := binary.NativeEndian.Uint32(b)
			if n < headerLen || uint64(n) > uint64(len(b)) {
				yield(message{}, fmt.Errorf("%w: a message of %d bytes in %d", errMalformed, n, len(b)))
				return
			}
			m := message{
				kind:  binary.NativeEndian.Uint16(b[4:]),
				flags: binary.NativeEndian.Uint16(b[6:]),
				seq:   binary.NativeEndian.Uint32(b[8:]),
				body:  b[headerLen:n:n],
			}
			if !yield(m, nil) {
				return
			}
			b = b[min(align4(int(n)), len(b)):]
		}
	}
}

// is says whether the message is of nf_tables and of the given type (unix.NFT_MSG_…).
func (m message) is(kind uint16) bool { return m.kind == subsystem|kind }

// attributes iterates over what follows the header of netfilter.
func (m message) attributes() iter.Seq2[attribute, error] {
	if len(m.body) < nfHeaderLen {
		return func(yield func(attribute, error) bool) {
			yield(attribute{}, fmt.Errorf("%w: a message without netfilter's header", errMalformed))
		}
	}
	return attributes(m.body[nfHeaderLen:])
}

// family is the family of the object that the message is about (unix.NFPROTO_…).
func (m message) family() uint8 {
	if len(m.body) < nfHeaderLen {
		return unix.NFPROTO_UNSPEC
	}
	return m.body[0]
}

// reply is the end of an answer: what the kernel says of one message.
type reply struct {
	errno  unix.Errno // 0: it was done
	text   string     // the kernel's own words, mostly ""
	offset int        // of the attribute at fault, from the message's start; 0 if not known
}

// parseReply decodes NLMSG_ERROR and the NLMSG_DONE of a dump. The error code is followed, for an
// error, by the header of the message that it is about, and then by attributes with more about it.
func parseReply(m message) (reply, error) {
	if len(m.body) < 4 {
		if m.kind == unix.NLMSG_DONE {
			return reply{}, nil // kernels may leave the code out
		}
		return reply{}, fmt.Errorf("%w: an answer of %d bytes", errMalformed, len(m.body))
	}
	code := int32(binary.NativeEndian.Uint32(m.body))
	if code > 0 || code < -4095 {
		return reply{}, fmt.Errorf("%w: error code %d", errMalformed, code)
	}
	r := reply{errno: unix.Errno(-code)}
	at := 4
	if m.kind == unix.NLMSG_ERROR {
		at += headerLen
		if m.flags&unix.NLM_F_CAPPED == 0 && len(m.body) >= at {
			// The whole message is repeated, not its header alone.
			n := binary.NativeEndian.Uint32(m.body[4:])
			if uint64(n) > uint64(len(m.body)) {
				return r, nil
			}
			at = 4 + align4(int(n))
		}
	}
	if m.flags&unix.NLM_F_ACK_TLVS == 0 || at > len(m.body) {
		return r, nil
	}
	for a, err := range attributes(m.body[at:]) {
		if err != nil {
			return r, err
		}
		switch {
		case a.kind == unix.NLMSGERR_ATTR_MSG:
			r.text = a.text()
		case a.kind == unix.NLMSGERR_ATTR_OFFS && len(a.data) == 4:
			r.offset = int(binary.NativeEndian.Uint32(a.data))
		}
	}
	return r, nil
}

// appendMessage begins a message of nf_tables; endMessage closes it.
func appendMessage(b []byte, kind, flags uint16, family uint8, seq uint32) ([]byte, int) {
	return appendHeader(b, subsystem|kind, flags, family, 0, seq)
}

// appendHeader begins a message of netfilter and returns where it begins.
func appendHeader(b []byte, kind, flags uint16, family uint8, resource uint16, seq uint32) ([]byte, int) {
	at := len(b)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the kernel knows who sends
	b = append(b, family, unix.NFNETLINK_V0)
	return binary.BigEndian.AppendUint16(b, resource), at
}

// endMessage writes the length of the message that began at at. Attributes are aligned already.
func endMessage(b []byte, at int) {
	binary.NativeEndian.PutUint32(b[at:], uint32(len(b)-at))
}
