package rtnetlink

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// The functions of this file read what the kernel says, in answers and notifications. Their errors wrap nfnetlink.ErrMalformed. They
// allocate nothing but names: a node may have thousands of routes.

// LinkMessage is what a message says of a link (struct ifinfomsg).
type LinkMessage struct {
	Family      uint8 // unix.AF_UNSPEC, or AF_BRIDGE where a bridge tells of its port
	Index, Peer int   // Peer is the index of the other side of a veth, in its namespace
	Up          bool
	Name, Alias string
	Kind        string // such as veth; empty for hardware
	MAC         [6]byte
	MTU         int
	Group       int
	Master      int    // the index of the device that it is a port of, such as a bridge; 0: none
	Options     []byte // attributes that the kind has (IFLA_INFO_DATA); valid as long as the message
}

// ParseLink reads a message about a link.
func ParseLink(m nfnetlink.Message) (l LinkMessage, err error) {
	whole := true // of what the kind has
	err = attributes("link", m, unix.SizeofIfInfomsg, func(kind uint16, data []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(data)
		case unix.IFLA_IFALIAS:
			l.Alias = text(data)
		case unix.IFLA_ADDRESS:
			copy(l.MAC[:], data)
		case unix.IFLA_MTU:
			l.MTU = number(data)
		case unix.IFLA_GROUP:
			l.Group = number(data)
		case unix.IFLA_MASTER:
			l.Master = number(data)
		case unix.IFLA_LINK:
			l.Peer = number(data)
		case unix.IFLA_LINKINFO:
			whole = l.parseInfo(data)
		}
	})
	if err == nil && !whole {
		err = malformed("link", m)
	}
	if err == nil {
		l.Family, l.Index, l.Up = m.Body[0], number(m.Body[4:8]), number(m.Body[8:12])&unix.IFF_UP != 0
	}
	return l, err
}

func (l *LinkMessage) parseInfo(info []byte) (whole bool) {
	return walk(info, func(kind uint16, data []byte) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.Kind = text(data)
		case unix.IFLA_INFO_DATA:
			l.Options = data
		}
	})
}

// AddressMessage is what a message says of an address on a link (struct ifaddrmsg).
type AddressMessage struct {
	Index  int          // of the link
	Prefix netip.Prefix // the link's own address, with the length of its subnet, unmasked; invalid where it is not of IPv4 or IPv6
	Flags  uint32       // unix.IFA_F_…, without IFA_F_SECONDARY of IPv4: it is the bit that means IFA_F_TEMPORARY of IPv6
}

// ParseAddress reads a message about an address.
func ParseAddress(m nfnetlink.Message) (a AddressMessage, err error) {
	var local, address netip.Addr
	flags := -1 // the attribute has more of them than the header
	err = attributes("address", m, unix.SizeofIfAddrmsg, func(kind uint16, data []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			local = addr(data)
		case unix.IFA_ADDRESS:
			address = addr(data)
		case unix.IFA_FLAGS:
			flags = number(data)
		}
	})
	if err != nil {
		return a, err
	}
	a.Index, a.Flags = number(m.Body[4:8]), uint32(m.Body[2])
	if flags >= 0 {
		a.Flags = uint32(flags)
	}
	if m.Body[0] != unix.AF_INET && m.Body[0] != unix.AF_INET6 {
		return a, nil
	}
	if !local.IsValid() { // IPv6 has it only where there is a peer
		local = address
	}
	if !local.IsValid() || local.Is6() != (m.Body[0] == unix.AF_INET6) {
		return a, malformed("address", m)
	}
	if local.Is4() {
		a.Flags &^= unix.IFA_F_SECONDARY
	}
	a.Prefix = netip.PrefixFrom(local, int(m.Body[1]))
	return a, nil
}

// RouteMessage is what a message says of a route (struct rtmsg). Of one with several next hops it has none.
type RouteMessage struct {
	To        netip.Prefix // invalid where it is not of IPv4 or IPv6
	Via, From netip.Addr   // the next hop, and the source of the node's own packets; invalid: none
	Index     int          // of the link; 0: none
	Metric    uint32
	Table     uint8 // unix.RT_TABLE_…
	Protocol  uint8
	Type      uint8 // unix.RTN_…
}

// ParseRoute reads a message about a route.
func ParseRoute(m nfnetlink.Message) (r RouteMessage, err error) {
	var to netip.Addr
	named := false
	err = attributes("route", m, unix.SizeofRtMsg, func(kind uint16, data []byte) {
		switch kind {
		case unix.RTA_DST:
			to, named = addr(data), true
		case unix.RTA_GATEWAY:
			r.Via = addr(data)
		case unix.RTA_PREFSRC:
			r.From = addr(data)
		case unix.RTA_PRIORITY:
			r.Metric = uint32(number(data))
		case unix.RTA_OIF:
			r.Index = number(data)
		}
	})
	if err != nil {
		return r, err
	}
	r.Table, r.Protocol, r.Type = m.Body[4], m.Body[5], m.Body[7]
	switch family := m.Body[0]; {
	case family != unix.AF_INET && family != unix.AF_INET6:
		return r, nil
	case !named && family == unix.AF_INET:
		to = netip.IPv4Unspecified()
	case !named:
		to = netip.IPv6Unspecified()
	}
	if !to.IsValid() || to.Is6() != (m.Body[0] == unix.AF_INET6) {
		return r, malformed("route", m)
	}
	r.To = netip.PrefixFrom(to, int(m.Body[1]))
	return r, nil
}

// NeighbourMessage is what a message says of a neighbour or a forwarding entry (struct ndmsg).
type NeighbourMessage struct {
	Index int        // of the link
	Addr  netip.Addr // invalid: none
	MAC   [6]byte
	State uint16 // unix.NUD_…
	Flags uint8  // unix.NTF_…
}

// ParseNeighbour reads a message about a neighbour or a forwarding entry.
func ParseNeighbour(m nfnetlink.Message) (n NeighbourMessage, err error) {
	err = attributes("neighbour", m, unix.SizeofNdMsg, func(kind uint16, data []byte) {
		switch kind {
		case unix.NDA_DST:
			n.Addr = addr(data)
		case unix.NDA_LLADDR:
			copy(n.MAC[:], data)
		}
	})
	if err == nil {
		n.Index, n.State, n.Flags = number(m.Body[4:8]), binary.NativeEndian.Uint16(m.Body[8:]), m.Body[10]
	}
	return n, err
}

// ForwardingMessage is what a notification says of a family's forwarding (struct netconfmsg).
type ForwardingMessage struct {
	All bool // of the whole namespace, not of one link
	Off bool // known to be off now
}

// ParseForwarding reads a notification about the settings of a family (RTM_NEWNETCONF).
func ParseForwarding(m nfnetlink.Message) (f ForwardingMessage, err error) {
	const header, attributeIndex, attributeForwarding, all = 4, 1, 2, -1 // linux/netconf.h
	err = attributes("setting", m, header, func(kind uint16, data []byte) {
		switch kind {
		case attributeIndex:
			f.All = int32(number(data)) == all
		case attributeForwarding:
			f.Off = number(data) == 0
		}
	})
	return f, err
}

// attributes hands on each attribute of a message, which begins with a header of some bytes.
func attributes(what string, m nfnetlink.Message, header int, each func(kind uint16, data []byte)) error {
	if len(m.Body) < header || !walk(m.Body[header:], each) {
		return malformed(what, m)
	}
	return nil
}

// walk hands on each attribute. It says whether the last one is whole.
func walk(rest []byte, each func(kind uint16, data []byte)) (whole bool) {
	for len(rest) > 0 {
		kind, data, next, ok := nfnetlink.Next(rest)
		if !ok {
			return false
		}
		rest = next
		each(kind, data)
	}
	return true
}

func malformed(what string, m nfnetlink.Message) error {
	return fmt.Errorf("%w: a message of %d bytes about a %s", nfnetlink.ErrMalformed, len(m.Body), what)
}

// number reads four bytes in host byte order; 0 where there are more or less.
func number(data []byte) int {
	if len(data) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(data))
}

// addr reads an address; invalid where it has the length of neither family.
func addr(data []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(data)
	return a
}

// text reads a string up to its zero.
func text(data []byte) string { return nfnetlink.Attribute{Data: data}.Text() }
