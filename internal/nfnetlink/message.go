package nfnetlink

import (
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// A netlink message is a header (linux/netlink.h: length, type, flags, sequence, port id; host byte
// order); those of netfilter go on with family, version and resource id (linux/netfilter/nfnetlink.h).
const (
	// HeaderLen is the length of a netlink message's header, in bytes.
	HeaderLen   = unix.NLMSG_HDRLEN
	nfHeaderLen = 4
)

// Message is one decoded netlink message.
type Message struct {
	Kind   uint16 // for netfilter's, the subsystem in the upper byte
	Flags  uint16
	Seq    uint32
	PortID uint32 // of the socket that the message is for; in a notification, of the one that made the change
	Body   []byte // after the netlink header
}

// Messages iterates over the messages in a datagram; malformed data ends in one error.
func Messages(b []byte) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for len(b) > 0 {
			if len(b) < HeaderLen {
				yield(Message{}, fmt.Errorf("%w: %d bytes where a message should begin", ErrMalformed, len(b)))
				return
			}
			n := binary.NativeEndian.Uint32(b)
			if n < HeaderLen || uint64(n) > uint64(len(b)) {
				yield(Message{}, fmt.Errorf("%w: a message of %d bytes in %d", ErrMalformed, n, len(b)))
				return
			}
			m := Message{
				Kind:   binary.NativeEndian.Uint16(b[4:]),
				Flags:  binary.NativeEndian.Uint16(b[6:]),
				Seq:    binary.NativeEndian.Uint32(b[8:]),
				PortID: binary.NativeEndian.Uint32(b[12:]),
				Body:   b[HeaderLen:n:n],
			}
			if !yield(m, nil) {
				return
			}
			b = b[min(align4(int(n)), len(b)):]
		}
	}
}

// Attributes iterates over what follows the header of netfilter.
func (m Message) Attributes() iter.Seq2[Attribute, error] {
	if len(m.Body) < nfHeaderLen {
		return func(yield func(Attribute, error) bool) {
			yield(Attribute{}, fmt.Errorf("%w: a message without netfilter's header", ErrMalformed))
		}
	}
	return Attributes(m.Body[nfHeaderLen:])
}

// Payload is what follows the header of netfilter, undecoded; nil if that is missing. To iterate over its
// Attributes allocates nothing.
func (m Message) Payload() []byte {
	if len(m.Body) < nfHeaderLen {
		return nil
	}
	return m.Body[nfHeaderLen:]
}

// Family is the family of the object that the message is about (unix.NFPROTO_…).
func (m Message) Family() uint8 {
	if len(m.Body) < nfHeaderLen {
		return unix.NFPROTO_UNSPEC
	}
	return m.Body[0]
}

// Reply is the end of an answer: what the kernel says of one message.
type Reply struct {
	Errno  unix.Errno // 0: it was done
	Text   string     // the kernel's own words, mostly ""
	Offset int        // of the attribute at fault, from the message's start; 0 if not known
}

// ParseReply decodes NLMSG_ERROR and the NLMSG_DONE of a dump. The error code is followed, for an
// error, by the header of the message that it is about, and then by attributes with more about it.
func ParseReply(m Message) (Reply, error) {
	if len(m.Body) < 4 {
		if m.Kind == unix.NLMSG_DONE {
			return Reply{}, nil // kernels may leave the code out
		}
		return Reply{}, fmt.Errorf("%w: an answer of %d bytes", ErrMalformed, len(m.Body))
	}
	code := int32(binary.NativeEndian.Uint32(m.Body))
	if code > 0 || code < -4095 {
		return Reply{}, fmt.Errorf("%w: error code %d", ErrMalformed, code)
	}
	r := Reply{Errno: unix.Errno(-code)}
	at := 4
	if m.Kind == unix.NLMSG_ERROR {
		at += HeaderLen
		if m.Flags&unix.NLM_F_CAPPED == 0 && len(m.Body) >= at {
			// The whole message is repeated, not its header alone.
			n := binary.NativeEndian.Uint32(m.Body[4:])
			if uint64(n) > uint64(len(m.Body)) {
				return r, nil
			}
			at = 4 + align4(int(n))
		}
	}
	if m.Flags&unix.NLM_F_ACK_TLVS == 0 || at > len(m.Body) {
		return r, nil
	}
	for a, err := range Attributes(m.Body[at:]) {
		if err != nil {
			return r, err
		}
		switch {
		case a.Kind == unix.NLMSGERR_ATTR_MSG:
			r.Text = a.Text()
		case a.Kind == unix.NLMSGERR_ATTR_OFFS && len(a.Data) == 4:
			r.Offset = int(binary.NativeEndian.Uint32(a.Data))
		}
	}
	return r, nil
}

// AppendHeader begins a message of netfilter and returns where it begins.
func AppendHeader(b []byte, kind, flags uint16, family uint8, resource uint16, seq uint32) ([]byte, int) {
	at := len(b)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the kernel knows who sends
	b = append(b, family, unix.NFNETLINK_V0)
	return binary.BigEndian.AppendUint16(b, resource), at
}

// EndMessage writes the length of the message that began at at. Attributes are aligned already.
func EndMessage(b []byte, at int) {
	binary.NativeEndian.PutUint32(b[at:], uint32(len(b)-at))
}

// AskForAnswer makes the kernel answer the message that began at at also when it succeeds.
func AskForAnswer(b []byte, at int) {
	flags := binary.NativeEndian.Uint16(b[at+6:])
	binary.NativeEndian.PutUint16(b[at+6:], flags|unix.NLM_F_ACK)
}
