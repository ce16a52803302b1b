package route

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// dump reads objects by one request; begin empties what was read before, where they changed meanwhile.
func (d *Driver) dump(ctx context.Context, doing string, begin func(), request func(*rtnetlink.Batch), handle func(nfnetlink.Message) error) error {
	d.batch.Reset()
	request(&d.batch)
	return d.conn.DumpWhole(ctx, doing, &d.batch, begin, handle)
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
			b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: any, Table: unix.RT_TABLE_MAIN, Protocol: rtnetlink.RouteProtocol}.Encode())
			b.Uint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)
		}, func(m nfnetlink.Message) error {
			e, ok, err := parseRoute(m)
			if !ok || e.to.Addr().Is6() != (family == unix.AF_INET6) {
				return err
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

// parseRoute reads a message about a route. It reports false for one that is not of our protocol in the main table.
func parseRoute(m nfnetlink.Message) (entry, bool, error) {
	r, err := rtnetlink.ParseRoute(m)
	return entry{to: r.To, metric: r.Metric, kind: r.Type, dev: int32(r.Index), via: r.Via, src: r.From},
		err == nil && r.Protocol == rtnetlink.RouteProtocol && r.Metric != metricLearned && r.Table == unix.RT_TABLE_MAIN && r.To.IsValid(), err
}

// readDevice reads the device of a family, and what stands on it; nil where there is none.
func (d *Driver) readDevice(ctx context.Context, f int) (*device, error) {
	name := deviceNames[f]
	d.batch.Reset()
	d.batch.GetLink(name)
	dev := &device{}
	err := d.conn.Get(ctx, "reading "+name, &d.batch, func(m nfnetlink.Message) (err error) {
		*dev, err = parseDevice(m)
		return err
	})
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
		a, err := rtnetlink.ParseAddress(m)
		if addr := a.Prefix.Addr(); err == nil && int32(a.Index) == dev.index && !(addr.Is6() && addr.IsLinkLocalUnicast()) {
			dev.addresses = append(dev.addresses, a.Prefix)
		}
		return err
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
		n, err := rtnetlink.ParseNeighbour(m)
		if err == nil && int32(n.Index) == dev.index && n.State&unix.NUD_PERMANENT != 0 && n.Addr.IsValid() {
			dev.neighbours = append(dev.neighbours, neighbour{n.Addr, n.MAC})
		}
		return err
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
		n, err := rtnetlink.ParseNeighbour(m)
		if err == nil && int32(n.Index) == dev.index && n.Flags&unix.NTF_SELF != 0 {
			dev.forwards = append(dev.forwards, forward{n.MAC, n.Addr})
		}
		return err
	})
	slices.SortFunc(dev.forwards, forward.compare)
	return err
}

// notPods are the names of the node's links but for those that lead to pods, or to virtual machines, as their kind tells.
func (d *Driver) notPods(ctx context.Context) ([]string, error) {
	var names []string
	err := d.dump(ctx, "reading links", func() { names = nil }, func(b *rtnetlink.Batch) {
		b.GetLink("")
	}, func(m nfnetlink.Message) error {
		l, err := rtnetlink.ParseLink(m)
		if err == nil && l.Kind != "veth" && l.Kind != "tun" && l.Kind != "vxlan" {
			names = append(names, l.Name)
		}
		return err
	})
	return names, err
}

// parseDevice reads a link, and its options where it is one of VXLAN.
func parseDevice(m nfnetlink.Message) (device, error) {
	l, err := rtnetlink.ParseLink(m)
	dev := device{name: l.Name, index: int32(l.Index), kind: l.Kind, up: l.Up, mac: l.MAC, mtu: l.MTU}
	if err == nil && dev.kind == "vxlan" {
		err = parseOptions(l.Options, &dev)
	}
	return dev, err
}

// parseOptions reads the options of a VXLAN device.
func parseOptions(data []byte, dev *device) error {
	for a, err := range nfnetlink.Attributes(data) {
		if err != nil {
			return err
		}
		switch a.Kind {
		case unix.IFLA_VXLAN_ID:
			if len(a.Data) == 4 {
				dev.vni = binary.NativeEndian.Uint32(a.Data)
			}
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
