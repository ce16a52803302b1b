package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// The messages and attributes of linux/netfilter/nfnetlink_conntrack.h that are read or written.
const (
	messageNew    = unix.NFNL_SUBSYS_CTNETLINK << 8   // IPCTNL_MSG_CT_NEW
	messageGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	messageDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoinfo  = 4
	ctaTimeout    = 7
	ctaID         = 12
	ctaZone       = 18
	ctaTimestamp  = 20

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Source, ctaIPv4Destination = 1, 2
	ctaIPv6Source, ctaIPv6Destination = 3, 4

	ctaProtoNumber                     = 1
	ctaSourcePort, ctaDestinationPort  = 2, 3
	ctaICMPIdentifier, ctaICMPv6Ident  = 4, 7
	ctaProtoinfoTCP, ctaProtoinfoSCTP  = 1, 3
	ctaProtoinfoState, ctaTimestampOne = 1, 1 // CTA_PROTOINFO_TCP_STATE, CTA_PROTOINFO_SCTP_STATE; CTA_TIMESTAMP_START
)

// parse reads an entry into f, of which nothing of an earlier one is left. What f refers to is part of the
// message.
func (f *Flow) parse(m nfnetlink.Message) error {
	*f = Flow{family: m.Family()}
	for b := m.Payload(); len(b) > 0; {
		kind, data, rest, ok := nfnetlink.Next(b)
		if !ok {
			return fmt.Errorf("%w: %d bytes of a flow that are no attribute", nfnetlink.ErrMalformed, len(b))
		}
		if b = rest; !f.attribute(kind, data) {
			return fmt.Errorf("%w: attribute %d of a flow, with %d bytes", nfnetlink.ErrMalformed, kind, len(data))
		}
	}
	if !f.Original.valid() || !f.Reply.valid() {
		return fmt.Errorf("%w: a flow without the addresses of both directions", nfnetlink.ErrMalformed)
	}
	return nil
}

func (t *Tuple) valid() bool { return t.Source.Addr().IsValid() && t.Destination.Addr().IsValid() }

// attribute takes one attribute of an entry.
func (f *Flow) attribute(kind uint16, data []byte) (ok bool) {
	switch kind {
	case ctaTupleOrig:
		f.orig = data
		f.Protocol, ok = f.Original.parse(data)
	case ctaTupleReply:
		f.reply = data
		_, ok = f.Reply.parse(data)
	case ctaZone:
		f.zone, ok = data, true
	case ctaID:
		f.ID, ok = number(data)
	case ctaStatus:
		f.status, ok = number(data)
	case ctaTimeout:
		var seconds uint32
		seconds, ok = number(data)
		f.Timeout = time.Duration(seconds) * time.Second
	case ctaProtoinfo:
		ok = f.parseState(data)
	case ctaTimestamp:
		ok = f.parseStart(data)
	default:
		ok = true
	}
	return ok
}

func number(b []byte) (uint32, bool) {
	if len(b) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

// parse reads one direction.
func (t *Tuple) parse(b []byte) (p compile.Protocol, ok bool) {
	var source, destination netip.Addr
	var ports portPair
	for len(b) > 0 {
		kind, data, rest, ok := nfnetlink.Next(b)
		if b = rest; !ok {
			return 0, false
		}
		switch kind {
		case ctaTupleIP:
			source, destination, ok = parseAddresses(data)
		case ctaTupleProto:
			p, ports, ok = parseProtocol(data)
		}
		if !ok {
			return 0, false
		}
	}
	t.Source, t.Destination = netip.AddrPortFrom(source, ports.source), netip.AddrPortFrom(destination, ports.destination)
	return p, true
}

func parseAddresses(b []byte) (source, destination netip.Addr, ok bool) {
	for len(b) > 0 {
		kind, data, rest, ok := nfnetlink.Next(b)
		if b = rest; !ok {
			return source, destination, false
		}
		var ip netip.Addr
		switch len(data) {
		case 4:
			ip = netip.AddrFrom4([4]byte(data))
		case 16:
			ip = netip.AddrFrom16([16]byte(data))
		default:
			continue
		}
		switch kind {
		case ctaIPv4Source, ctaIPv6Source:
			source = ip
		case ctaIPv4Destination, ctaIPv6Destination:
			destination = ip
		}
	}
	return source, destination, true
}

type portPair struct{ source, destination uint16 }

func parseProtocol(b []byte) (p compile.Protocol, ports portPair, ok bool) {
	for len(b) > 0 {
		kind, data, rest, ok := nfnetlink.Next(b)
		b = rest
		switch {
		case !ok:
			return 0, ports, false
		case kind == ctaProtoNumber && len(data) == 1:
			p = compile.Protocol(data[0])
		case len(data) != 2:
		case kind == ctaSourcePort:
			ports.source = binary.BigEndian.Uint16(data)
		case kind == ctaDestinationPort:
			ports.destination = binary.BigEndian.Uint16(data)
		case kind == ctaICMPIdentifier || kind == ctaICMPv6Ident:
			ports.source = binary.BigEndian.Uint16(data)
			ports.destination = ports.source
		}
	}
	return p, ports, true
}

// parseState reads what the kernel knows of a connection's state, of which other protocols have none.
func (f *Flow) parseState(b []byte) bool {
	for len(b) > 0 {
		kind, data, rest, ok := nfnetlink.Next(b)
		if b = rest; !ok {
			return false
		}
		if kind != ctaProtoinfoTCP && kind != ctaProtoinfoSCTP {
			continue
		}
		for len(data) > 0 {
			kind, state, rest, ok := nfnetlink.Next(data)
			if data = rest; !ok {
				return false
			}
			if kind == ctaProtoinfoState && len(state) == 1 {
				f.state = state[0]
			}
		}
	}
	return true
}

func (f *Flow) parseStart(b []byte) bool {
	for len(b) > 0 {
		kind, data, rest, ok := nfnetlink.Next(b)
		if b = rest; !ok {
			return false
		}
		if kind != ctaTimestampOne {
			continue
		}
		if len(data) != 8 {
			return false
		}
		f.Start = time.Unix(0, int64(binary.BigEndian.Uint64(data)))
	}
	return true
}
