package workload

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// kindVeth is the kind of every link of ours.
const kindVeth = "veth"

// device is what the kernel says of a device.
type device struct {
	index, peer int // peer is the index of the other side, in its namespace
	name        string
	alias       string
	kind        string
	mac         mac
	mtu         int
	group       int
	master      int // the index of a device that takes its packets, such as a bridge; 0: none
	up          bool
}

// ours says what the alias of a device of ours holds; nil for any other device. One of ours is a veth whose name follows from
// its alias: nothing else makes it ours.
func (d *device) ours() *alias {
	if !strings.HasPrefix(d.name, cni.LinkPrefix) {
		return nil
	}
	if a := d.workload(); a != nil && a.Device() == d.name {
		return a
	}
	return nil
}

// workload says what the alias of a device holds, if that is one of ours, whatever name the device has; nil if not. Another program
// may have renamed one of ours, while its workload goes on.
func (d *device) workload() *alias {
	if d.kind != kindVeth || !d.aliased() {
		return nil
	}
	a, err := parseAlias(d.alias)
	if err != nil {
		return nil
	}
	return a
}

// claims says what the alias of a device holds: of one of ours, or of one that another program has renamed, where no device of a list has
// its name; nil for any other device.
func (d *device) claims(list []device) *alias {
	if a := d.ours(); a != nil {
		return a
	}
	a := d.workload()
	if a == nil || a.state != held || slices.ContainsFunc(list, func(other device) bool { return other.name == a.Device() }) {
		return nil
	}
	return a
}

func (d *device) aliased() bool { return strings.HasPrefix(d.alias, aliasVersion+" ") }

// parseDevice decodes a message about a device. It reports false for one of a bridge about its port.
func parseDevice(m nfnetlink.Message) (device, bool, error) {
	l, err := rtnetlink.ParseLink(m)
	return device{index: l.Index, peer: l.Peer, name: l.Name, alias: l.Alias, kind: l.Kind, mac: l.MAC, mtu: l.MTU, group: l.Group, master: l.Master, up: l.Up},
		err == nil && l.Family == unix.AF_UNSPEC, err
}

// getDevice asks for a device by its name. The error is unix.ENODEV where there is none.
func getDevice(ctx context.Context, c *rtnetlink.Conn, name string) (found device, err error) {
	var b rtnetlink.Batch
	b.GetLink(name)
	err = c.Get(ctx, "asking for device "+name, &b, func(m nfnetlink.Message) (err error) {
		found, _, err = parseDevice(m)
		return err
	})
	return found, err
}

// readDevices reads the devices whose names or aliases begin as ours do, and those in the group of ours that are leaving.
func readDevices(ctx context.Context, c *rtnetlink.Conn) (list []device, err error) {
	var b rtnetlink.Batch
	b.GetLink("")
	err = c.DumpWhole(ctx, "reading the links", &b, func() { list = list[:0] }, func(m nfnetlink.Message) error {
		d, ok, err := parseDevice(m)
		if ok && (strings.HasPrefix(d.name, cni.LinkPrefix) || d.aliased() || d.group == leavingGroup) {
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
func parseRoute(m nfnetlink.Message) (routeTo, bool, error) {
	r, err := rtnetlink.ParseRoute(m)
	return routeTo{to: r.To.Addr(), from: r.From, index: r.Index, protocol: r.Protocol}, err == nil && r.Table == unix.RT_TABLE_MAIN && r.To.IsSingleIP(), err
}

// readRoutes reads our routes to single addresses.
func readRoutes(ctx context.Context, c *rtnetlink.Conn) (list []routeTo, err error) {
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		before := len(list)
		var b rtnetlink.Batch
		b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: netip.PrefixFrom(any, 0), Table: unix.RT_TABLE_MAIN, Protocol: rtnetlink.RouteProtocol}.Encode())
		err := c.DumpWhole(ctx, "reading the routes", &b, func() { list = list[:before] }, func(m nfnetlink.Message) error {
			r, ok, err := parseRoute(m)
			if ok && r.protocol == rtnetlink.RouteProtocol {
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
func parseNeighbour(m nfnetlink.Message) (neighbour, bool, error) {
	n, err := rtnetlink.ParseNeighbour(m)
	return neighbour{n.Index, n.Addr, n.MAC, n.State&unix.NUD_PERMANENT != 0}, err == nil && n.Addr.IsValid(), err
}

// readNeighbours reads what all devices know of addresses.
func readNeighbours(ctx context.Context, c *rtnetlink.Conn) (list []neighbour, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		before := len(list)
		var b rtnetlink.Batch
		b.Message(unix.RTM_GETNEIGH, 0, rtnetlink.Neighbour(family, 0, 0, 0))
		err := c.DumpWhole(ctx, "reading the neighbours", &b, func() { list = list[:before] }, func(m nfnetlink.Message) error {
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
