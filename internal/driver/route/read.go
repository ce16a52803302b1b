package route

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// readings bounds how often what changes while it is read is read again.
const readings = 10

// dump reads objects by one request, again where they change meanwhile; begin empties what was read. A family that the kernel
// lacks has none.
func (d *Driver) dump(ctx context.Context, doing string, begin func(), request func(*rtnetlink.Batch), handle func(nfnetlink.Message) error) error {
	for try := 1; ; try++ {
		begin()
		d.batch.Reset()
		request(&d.batch)
		err := d.conn.Dump(ctx, doing, &d.batch, handle)
		switch {
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
			begin()
			return nil
		case errors.Is(err, nfnetlink.ErrInterrupted) && try < readings:
			continue
		}
		return err
	}
}

// read reads all of ours.
func (d *Driver) read(ctx context.Context) (*state, error) {
	s := &state{}
	for f := range s.devices {
		var err error
		if s.devices[f], err = d.readDevice(ctx, f); err != nil {
			return nil, err
		}
	}
	capacity := 0
	if d.applied != nil {
		capacity = len(d.applied.Routes)
	}
	var families [2][]entry
	for f, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		any := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if family == unix.AF_INET6 {
			any = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		err := d.dump(ctx, "reading our routes", func() { families[f] = families[f][:0] }, func(b *rtnetlink.Batch) {
			b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: any, Table: unix.RT_TABLE_MAIN, Protocol: protocol}.Encode())
			b.Uint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)
		}, func(m nfnetlink.Message) error {
			e, ok := parseRoute(m)
			if !ok || len(m.Body) == 0 || m.Body[0] != family {
				return nil
			}
			if e.dev = s.own(e.dev); e.via.IsValid() || e.kind == unix.RTN_UNREACHABLE {
				if families[f] == nil {
					families[f] = make([]entry, 0, capacity)
				}
				families[f] = append(families[f], e)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	s.routes = append(families[0], families[1]...)
	slices.SortFunc(s.routes, entry.compare)
	return s, nil
}

// own is an index where it is that of a device of ours, and 0 where not.
func (s *state) own(index int32) int32 {
	for _, dev := range s.devices {
		if dev != nil && dev.index == index {
			return index
		}
	}
	return 0
}

// parseRoute reads a message about a route, of which it is not ok where it is none of our protocol in the main table.
func parseRoute(m nfnetlink.Message) (entry, bool) {
	if len(m.Body) < unix.SizeofRtMsg || m.Body[5] != protocol || m.Body[4] != unix.RT_TABLE_MAIN {
		return entry{}, false
	}
	e := entry{kind: m.Body[7]}
	var to netip.Addr
	if m.Body[0] == unix.AF_INET {
		to = netip.IPv4Unspecified()
	} else {
		to = netip.IPv6Unspecified()
	}
	for rest := m.Body[unix.SizeofRtMsg:]; len(rest) > 0; {
		kind, data, next, ok := nfnetlink.Next(rest)
		if !ok {
			return entry{}, false
		}
		rest = next
		switch kind {
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(data)
		case unix.RTA_GATEWAY:
			e.via, _ = netip.AddrFromSlice(data)
		case unix.RTA_PREFSRC:
			e.src, _ = netip.AddrFromSlice(data)
		case unix.RTA_PRIORITY:
			e.metric = number(data)
		case unix.RTA_OIF:
			e.dev = int32(number(data))
		}
	}
	e.to = netip.PrefixFrom(to, int(m.Body[1]))
	return e, true
}

// number reads a number in host byte order; 0 where it is none.
func number(data []byte) uint32 {
	if len(data) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(data)
}

// readDevice reads the device of a family, and what stands on it; nil where there is none.
func (d *Driver) readDevice(ctx context.Context, f int) (*device, error) {
	name := deviceNames[f]
	d.batch.Reset()
	d.batch.Message(unix.RTM_GETLINK, 0, rtnetlink.Link(0, 0, 0))
	d.batch.Text(unix.IFLA_IFNAME, name)
	dev := &device{}
	err := d.conn.Get(ctx, "reading "+name, &d.batch, func(m nfnetlink.Message) error { return parseLink(m, dev) })
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil || dev.kind != "vxlan" {
		return dev, err
	}
	if err := d.readAddresses(ctx, dev); err != nil {
		return nil, err
	}
	family := []uint8{unix.AF_INET, unix.AF_INET6}[f]
	if err := d.readNeighbours(ctx, dev, family); err != nil {
		return nil, err
	}
	return dev, d.readForwards(ctx, dev)
}

// readAddresses reads the addresses of a device.
func (d *Driver) readAddresses(ctx context.Context, dev *device) error {
	err := d.dump(ctx, "reading the addresses of "+dev.name, func() { dev.addresses = nil }, func(b *rtnetlink.Batch) {
		fixed := make([]byte, unix.SizeofIfAddrmsg)
		binary.NativeEndian.PutUint32(fixed[4:], uint32(dev.index))
		b.Message(unix.RTM_GETADDR, 0, fixed)
	}, func(m nfnetlink.Message) error {
		if len(m.Body) < unix.SizeofIfAddrmsg || int32(number(m.Body[4:])) != dev.index {
			return nil
		}
		bits := int(m.Body[1])
		for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofIfAddrmsg:]) {
			if err != nil {
				return err
			}
			want := uint16(unix.IFA_ADDRESS)
			if m.Body[0] == unix.AF_INET {
				want = unix.IFA_LOCAL
			}
			if addr, ok := netip.AddrFromSlice(a.Data); a.Kind == want && ok && !(addr.Is6() && addr.IsLinkLocalUnicast()) {
				dev.addresses = append(dev.addresses, netip.PrefixFrom(addr, bits))
			}
		}
		return nil
	})
	slices.SortFunc(dev.addresses, netip.Prefix.Compare)
	return err
}

// readNeighbours reads the permanent neighbours of a device. Others are what the kernel asks for by itself.
func (d *Driver) readNeighbours(ctx context.Context, dev *device, family uint8) error {
	capacity := 0
	err := d.dump(ctx, "reading the neighbours of "+dev.name, func() { dev.neighbours = make([]neighbour, 0, capacity) }, func(b *rtnetlink.Batch) {
		b.Message(unix.RTM_GETNEIGH, 0, rtnetlink.Neighbour(family, 0, 0, 0))
		b.Uint32(unix.NDA_IFINDEX, uint32(dev.index))
	}, func(m nfnetlink.Message) error {
		n, ok := parseNeighbour(m, dev.index)
		if ok && n.state&unix.NUD_PERMANENT != 0 && n.dst.IsValid() {
			dev.neighbours = append(dev.neighbours, neighbour{n.dst, n.mac})
		}
		return nil
	})
	slices.SortFunc(dev.neighbours, neighbour.compare)
	return err
}

// readForwards reads the forwarding entries of a device.
func (d *Driver) readForwards(ctx context.Context, dev *device) error {
	capacity := len(dev.neighbours)
	err := d.dump(ctx, "reading the forwarding entries of "+dev.name, func() { dev.forwards = make([]forward, 0, capacity) }, func(b *rtnetlink.Batch) {
		b.Message(unix.RTM_GETNEIGH, 0, rtnetlink.Neighbour(unix.AF_BRIDGE, int(dev.index), 0, 0))
	}, func(m nfnetlink.Message) error {
		if n, ok := parseNeighbour(m, dev.index); ok && n.flags&unix.NTF_SELF != 0 {
			dev.forwards = append(dev.forwards, forward{n.mac, n.dst})
		}
		return nil
	})
	slices.SortFunc(dev.forwards, forward.compare)
	return err
}

// near is a message about a neighbour or a forwarding entry.
type near struct {
	state uint16
	flags uint8
	dst   netip.Addr
	mac   [6]byte
}

// parseNeighbour reads a message about a neighbour or a forwarding entry; not ok where it is about another link's.
func parseNeighbour(m nfnetlink.Message, index int32) (near, bool) {
	if len(m.Body) < unix.SizeofNdMsg || int32(number(m.Body[4:])) != index {
		return near{}, false
	}
	n := near{state: binary.NativeEndian.Uint16(m.Body[8:]), flags: m.Body[10]}
	for rest := m.Body[unix.SizeofNdMsg:]; len(rest) > 0; {
		kind, data, next, ok := nfnetlink.Next(rest)
		if !ok {
			return near{}, false
		}
		rest = next
		switch kind {
		case unix.NDA_DST:
			n.dst, _ = netip.AddrFromSlice(data)
		case unix.NDA_LLADDR:
			copy(n.mac[:], data)
		}
	}
	return n, true
}

// notPods are the names of the node's links but for those that lead to pods, or to virtual machines, as their kind tells.
func (d *Driver) notPods(ctx context.Context) ([]string, error) {
	var names []string
	err := d.dump(ctx, "reading links", func() { names = nil }, func(b *rtnetlink.Batch) {
		b.Message(unix.RTM_GETLINK, 0, rtnetlink.Link(0, 0, 0))
	}, func(m nfnetlink.Message) error {
		var l device
		if err := parseLink(m, &l); err != nil {
			return err
		}
		if l.kind != "veth" && l.kind != "tun" && l.kind != "vxlan" {
			names = append(names, l.name)
		}
		return nil
	})
	return names, err
}

// parseLink reads a link.
func parseLink(m nfnetlink.Message, dev *device) error {
	if len(m.Body) < unix.SizeofIfInfomsg {
		return fmt.Errorf("%w: a link of %d bytes", nfnetlink.ErrMalformed, len(m.Body))
	}
	*dev = device{index: int32(number(m.Body[4:])), up: number(m.Body[8:])&unix.IFF_UP != 0}
	for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofIfInfomsg:]) {
		if err != nil {
			return err
		}
		switch a.Kind {
		case unix.IFLA_IFNAME:
			dev.name = a.Text()
		case unix.IFLA_ADDRESS:
			copy(dev.mac[:], a.Data)
		case unix.IFLA_MTU:
			dev.mtu = int(number(a.Data))
		case unix.IFLA_LINKINFO:
			if err := parseLinkInfo(a.Data, dev); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseLinkInfo reads the kind of a link, and its options where that is VXLAN.
func parseLinkInfo(info []byte, dev *device) error {
	var data []byte
	for a, err := range nfnetlink.Attributes(info) {
		if err != nil {
			return err
		}
		switch a.Kind {
		case unix.IFLA_INFO_KIND:
			dev.kind = a.Text()
		case unix.IFLA_INFO_DATA:
			data = a.Data
		}
	}
	if dev.kind != "vxlan" {
		return nil
	}
	for a, err := range nfnetlink.Attributes(data) {
		if err != nil {
			return err
		}
		switch a.Kind {
		case unix.IFLA_VXLAN_ID:
			dev.vni = number(a.Data)
		case unix.IFLA_VXLAN_PORT:
			if len(a.Data) == 2 {
				dev.port = binary.BigEndian.Uint16(a.Data)
			}
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			dev.local, _ = netip.AddrFromSlice(a.Data)
		case unix.IFLA_VXLAN_GBP, unix.IFLA_VXLAN_GPE, unix.IFLA_VXLAN_GROUP, unix.IFLA_VXLAN_GROUP6:
			dev.odd = true // flags, and addresses that ours lacks
		case unix.IFLA_VXLAN_LEARNING, unix.IFLA_VXLAN_PROXY, unix.IFLA_VXLAN_RSC, unix.IFLA_VXLAN_L2MISS, unix.IFLA_VXLAN_L3MISS,
			unix.IFLA_VXLAN_COLLECT_METADATA, unix.IFLA_VXLAN_VNIFILTER, unix.IFLA_VXLAN_LINK:
			dev.odd = dev.odd || len(bytes.Trim(a.Data, "\x00")) > 0
		}
	}
	return nil
}
