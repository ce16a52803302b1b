package workload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// kindVeth is the kind of every link of ours.
const kindVeth = "veth"

// readTries is how often a dump is begun again because what is dumped changed meanwhile.
const readTries = 20

// device is what the kernel says of a device.
type device struct {
	index, peer int // peer is the index of the other side, in its namespace
	name        string
	alias       string
	kind        string
	mac         mac
	mtu         int
	group       int
	up          bool
}

// ours says what the alias of a device of ours holds; nil for any other device. One of ours is a veth whose name follows from
// its alias: nothing else makes it ours.
func (d *device) ours() *alias {
	if d.kind != kindVeth || !strings.HasPrefix(d.name, cni.LinkPrefix) {
		return nil
	}
	a, err := parseAlias(d.alias)
	if err != nil || a.Device() != d.name {
		return nil
	}
	return a
}

// parseDevice decodes a message about a device. It reports false for one of a bridge about its port.
func parseDevice(m nfnetlink.Message) (d device, ok bool, err error) {
	if len(m.Body) < unix.SizeofIfInfomsg {
		return d, false, fmt.Errorf("%w: a link of %d bytes", nfnetlink.ErrMalformed, len(m.Body))
	}
	if m.Body[0] != unix.AF_UNSPEC {
		return d, false, nil
	}
	d.index = int(int32(native32(m.Body[4:])))
	d.up = native32(m.Body[8:])&unix.IFF_UP != 0
	for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofIfInfomsg:]) {
		if err != nil {
			return d, false, fmt.Errorf("a link: %w", err)
		}
		switch a.Kind {
		case unix.IFLA_IFNAME:
			d.name = a.Text()
		case unix.IFLA_IFALIAS:
			d.alias = a.Text()
		case unix.IFLA_ADDRESS:
			copy(d.mac[:], a.Data)
		case unix.IFLA_MTU:
			d.mtu = number(a)
		case unix.IFLA_GROUP:
			d.group = number(a)
		case unix.IFLA_LINK:
			d.peer = number(a)
		case unix.IFLA_LINKINFO:
			for in, err := range nfnetlink.Attributes(a.Data) {
				if err != nil {
					return d, false, fmt.Errorf("the kind of link %s: %w", d.name, err)
				}
				if in.Kind == unix.IFLA_INFO_KIND {
					d.kind = in.Text()
				}
			}
		}
	}
	return d, true, nil
}

// number reads a number in host byte order; 0 if it is none.
func number(a nfnetlink.Attribute) int {
	if len(a.Data) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(a.Data))
}

// address reads an address; invalid if it is none.
func address(a nfnetlink.Attribute) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.Data)
	return addr
}

// getDevice asks for a device by its name. The error is unix.ENODEV where there is none.
func getDevice(ctx context.Context, c *rtnetlink.Conn, name string) (found device, err error) {
	var b rtnetlink.Batch
	b.Message(unix.RTM_GETLINK, 0, rtnetlink.Link(0, 0, 0))
	b.Text(unix.IFLA_IFNAME, name)
	b.Uint32(unix.IFLA_EXT_MASK, skipStatistics)
	err = c.Get(ctx, "asking for device "+name, &b, func(m nfnetlink.Message) (err error) {
		found, _, err = parseDevice(m)
		return err
	})
	return found, err
}

// dump reads all objects that a request asks for, again where they changed meanwhile. Begin is called before each reading.
func dump(ctx context.Context, c *rtnetlink.Conn, doing string, kind uint16, fixed []byte, begin func(), handle func(nfnetlink.Message) error) error {
	for range readTries {
		var b rtnetlink.Batch
		b.Message(kind, 0, fixed)
		if kind == unix.RTM_GETLINK {
			b.Uint32(unix.IFLA_EXT_MASK, skipStatistics)
		}
		begin()
		err := c.Dump(ctx, doing, &b, handle)
		if !errors.Is(err, nfnetlink.ErrInterrupted) || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w, in each of %d tries", doing, nfnetlink.ErrInterrupted, readTries)
}

// readDevices reads the devices whose names begin as ours do, and those in the group of ours that are leaving.
func readDevices(ctx context.Context, c *rtnetlink.Conn) (list []device, err error) {
	err = dump(ctx, c, "reading the links", unix.RTM_GETLINK, rtnetlink.Link(0, 0, 0), func() { list = list[:0] }, func(m nfnetlink.Message) error {
		d, ok, err := parseDevice(m)
		if ok && (strings.HasPrefix(d.name, cni.LinkPrefix) || d.group == leavingGroup) {
			list = append(list, d)
		}
		return err
	})
	return list, err
}

// routeTo is a route to one address out by a device.
type routeTo struct {
	to, from netip.Addr
	index    int
	protocol uint8
}

// parseRoute decodes a message about a route. It reports false for one that is not to a single address in the main table.
func parseRoute(m nfnetlink.Message) (r routeTo, ok bool, err error) {
	if len(m.Body) < unix.SizeofRtMsg {
		return r, false, fmt.Errorf("%w: a route of %d bytes", nfnetlink.ErrMalformed, len(m.Body))
	}
	family, bits, table := m.Body[0], int(m.Body[1]), m.Body[4]
	r.protocol = m.Body[5]
	if table != unix.RT_TABLE_MAIN || family != unix.AF_INET && family != unix.AF_INET6 {
		return r, false, nil
	}
	for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofRtMsg:]) {
		if err != nil {
			return r, false, fmt.Errorf("a route: %w", err)
		}
		switch a.Kind {
		case unix.RTA_DST:
			r.to = address(a)
		case unix.RTA_PREFSRC:
			r.from = address(a)
		case unix.RTA_OIF:
			r.index = number(a)
		}
	}
	return r, r.to.IsValid() && bits == r.to.BitLen(), nil
}

// readRoutes reads our routes to single addresses.
func readRoutes(ctx context.Context, c *rtnetlink.Conn) (list []routeTo, err error) {
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		before := len(list)
		fixed := rtnetlink.RouteFixed{Destination: netip.PrefixFrom(any, 0), Table: unix.RT_TABLE_MAIN, Protocol: Protocol}.Encode()
		err := dump(ctx, c, "reading the routes", unix.RTM_GETROUTE, fixed, func() { list = list[:before] }, func(m nfnetlink.Message) error {
			r, ok, err := parseRoute(m)
			if ok && r.protocol == Protocol {
				list = append(list, r)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// neighbour is what a device knows of an address.
type neighbour struct {
	index     int
	addr      netip.Addr
	mac       mac
	permanent bool
}

// parseNeighbour decodes a message about a neighbour. It reports false for one that is not about an address.
func parseNeighbour(m nfnetlink.Message) (n neighbour, ok bool, err error) {
	if len(m.Body) < unix.SizeofNdMsg {
		return n, false, fmt.Errorf("%w: a neighbour of %d bytes", nfnetlink.ErrMalformed, len(m.Body))
	}
	n.index = int(int32(native32(m.Body[4:])))
	n.permanent = binary.NativeEndian.Uint16(m.Body[8:])&unix.NUD_PERMANENT != 0
	for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofNdMsg:]) {
		if err != nil {
			return n, false, fmt.Errorf("a neighbour: %w", err)
		}
		switch a.Kind {
		case unix.NDA_DST:
			n.addr = address(a)
		case unix.NDA_LLADDR:
			copy(n.mac[:], a.Data)
		}
	}
	return n, n.addr.IsValid(), nil
}

// readNeighbours reads what all devices know of addresses.
func readNeighbours(ctx context.Context, c *rtnetlink.Conn) (list []neighbour, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		before := len(list)
		err := dump(ctx, c, "reading the neighbours", unix.RTM_GETNEIGH, rtnetlink.Neighbour(family, 0, 0, 0), func() { list = list[:before] }, func(m nfnetlink.Message) error {
			n, ok, err := parseNeighbour(m)
			if ok {
				list = append(list, n)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}
