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
	for a, err := range nfnetlink.Attributes(m.Payload()) {
		if err != nil {
			return err
		}
		switch a.Kind {
		case ctaTupleOrig:
			f.orig = a.Data
			f.Protocol, err = f.Original.parse(a.Data)
		case ctaTupleReply:
			f.reply = a.Data
			_, err = f.Reply.parse(a.Data)
		case ctaZone:
			f.zone = a.Data
		case ctaID:
			f.ID, err = a.Uint32()
		case ctaStatus:
			f.status, err = a.Uint32()
		case ctaTimeout:
			var seconds uint32
			seconds, err = a.Uint32()
			f.Timeout = time.Duration(seconds) * time.Second
		case ctaProtoinfo:
			err = f.parseState(a.Data)
		case ctaTimestamp:
			err = f.parseStart(a.Data)
		}
		if err != nil {
			return err
		}
	}
	if !f.Original.valid() || !f.Reply.valid() {
		return fmt.Errorf("%w: a flow without the addresses of both directions", nfnetlink.ErrMalformed)
	}
	return nil
}

func (t *Tuple) valid() bool { return t.Source.Addr().IsValid() && t.Destination.Addr().IsValid() }

// parse reads one direction.
func (t *Tuple) parse(b []byte) (p compile.Protocol, err error) {
	var source, destination netip.Addr
	var ports portPair
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return 0, err
		}
		switch a.Kind {
		case ctaTupleIP:
			source, destination, err = parseAddresses(a.Data)
		case ctaTupleProto:
			p, ports, err = parseProtocol(a.Data)
		}
		if err != nil {
			return 0, err
		}
	}
	t.Source, t.Destination = netip.AddrPortFrom(source, ports.source), netip.AddrPortFrom(destination, ports.destination)
	return p, nil
}

func parseAddresses(b []byte) (source, destination netip.Addr, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return source, destination, err
		}
		var ip netip.Addr
		switch len(a.Data) {
		case 4:
			ip = netip.AddrFrom4([4]byte(a.Data))
		case 16:
			ip = netip.AddrFrom16([16]byte(a.Data))
		default:
			continue
		}
		switch a.Kind {
		case ctaIPv4Source, ctaIPv6Source:
			source = ip
		case ctaIPv4Destination, ctaIPv6Destination:
			destination = ip
		}
	}
	return source, destination, nil
}

type portPair struct{ source, destination uint16 }

func parseProtocol(b []byte) (p compile.Protocol, ports portPair, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		switch {
		case err != nil:
			return 0, ports, err
		case a.Kind == ctaProtoNumber && len(a.Data) == 1:
			p = compile.Protocol(a.Data[0])
		case len(a.Data) != 2:
		case a.Kind == ctaSourcePort:
			ports.source = binary.BigEndian.Uint16(a.Data)
		case a.Kind == ctaDestinationPort:
			ports.destination = binary.BigEndian.Uint16(a.Data)
		case a.Kind == ctaICMPIdentifier || a.Kind == ctaICMPv6Ident:
			ports.source = binary.BigEndian.Uint16(a.Data)
			ports.destination = ports.source
		}
	}
	return p, ports, nil
}

// parseState reads what the kernel knows of a connection's state, of which other protocols have none.
func (f *Flow) parseState(b []byte) error {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return err
		}
		if a.Kind != ctaProtoinfoTCP && a.Kind != ctaProtoinfoSCTP {
			continue
		}
		for s, err := range nfnetlink.Attributes(a.Data) {
			if err != nil {
				return err
			}
			if s.Kind == ctaProtoinfoState && len(s.Data) == 1 {
				f.state = s.Data[0]
			}
		}
	}
	return nil
}

func (f *Flow) parseStart(b []byte) error {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return err
		}
		if a.Kind != ctaTimestampOne {
			continue
		}
		ns, err := a.Uint64()
		if err != nil {
			return err
		}
		f.Start = time.Unix(0, int64(ns))
	}
	return nil
}
