package route

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// fits says whether a device can become another one in place.
func fits(held, wanted *device) bool {
	return held.kind == wanted.kind && held.vni == wanted.vni && held.port == wanted.port && !held.odd && held.local.BitLen() == wanted.local.BitLen()
}

// ensure makes the device of a family what is wanted, but for what stands on it, and says whether it changed one. One that is not
// wanted stays until no route needs it. What the kernel refuses it notes; the error says that it is not known what it did.
func (d *Driver) ensure(ctx context.Context, f int, wanted *device) (changed bool, err error) {
	held := d.held.devices[f]
	d.batch.Reset()
	switch {
	case wanted == nil:
		return false, nil
	case held == nil:
		createDevice(&d.batch, wanted)
	case held.kind != "vxlan":
		d.refuse(fmt.Errorf("an interface named %s of kind %q is there, which Sallyport did not make: rename or remove it (ip link delete %s)", held.name, held.kind, held.name))
		return false, nil
	case !fits(held, wanted):
		return true, d.replace(ctx, f, wanted)
	default:
		changeDevice(&d.batch, held, wanted)
	}
	if d.batch.Len() == 0 {
		return false, nil
	}
	return true, d.setUp(ctx, wanted)
}

// replace makes a device out of one that cannot become it in place. Its routes go with it, so that their blocks are
// unreachable meanwhile.
func (d *Driver) replace(ctx context.Context, f int, wanted *device) error {
	old := d.held.devices[f].index
	d.batch.Reset()
	for _, e := range d.held.routes {
		if e.dev == old {
			putRoute(&d.batch, unreachable(e.to), false)
		}
	}
	if _, err := d.conn.Execute(ctx, &d.batch); err != nil { // one that is refused is there
		return fmt.Errorf("replacing %s: %w", wanted.name, err)
	}
	d.batch.Reset()
	deleteDevice(&d.batch, old)
	createDevice(&d.batch, wanted)
	return d.setUp(ctx, wanted)
}

// setUp carries out a batch that sets up a device.
func (d *Driver) setUp(ctx context.Context, wanted *device) error {
	refused, err := d.conn.Execute(ctx, &d.batch)
	if err != nil {
		return fmt.Errorf("setting up %s: %w", wanted.name, err)
	}
	if len(refused) == 0 {
		return nil
	}
	first := refused[0] // the others mostly follow from it
	err = first.Error("setting up " + wanted.name)
	switch first.Errno {
	case unix.EEXIST, unix.EADDRINUSE:
		err = d.clash(ctx, wanted, err)
	case unix.EOPNOTSUPP:
		err = fmt.Errorf("%w; the kernel has no VXLAN (module vxlan): load it, or set vxlanMode: Never in the pools", err)
	case unix.EADDRNOTAVAIL:
		err = fmt.Errorf("%w; is %s an address of this node?", err, wanted.local)
	}
	d.refuse(err)
	return nil
}

// clash names the device or program that has the port or the VNI which a device of ours is to have.
func (d *Driver) clash(ctx context.Context, wanted *device, err error) error {
	var others []string
	failed := d.dump(ctx, "reading VXLAN devices", func() { others = nil }, func(b *rtnetlink.Batch) {
		b.Message(unix.RTM_GETLINK, 0, rtnetlink.Link(0, 0, 0))
		b.Nest(unix.IFLA_LINKINFO, func() { b.Text(unix.IFLA_INFO_KIND, "vxlan") })
	}, func(m nfnetlink.Message) error {
		o, err := parseDevice(m)
		if err != nil {
			return err
		}
		if o.kind == "vxlan" && o.port == wanted.port && !slices.Contains(deviceNames[:], o.name) {
			others = append(others, fmt.Sprintf("%s (VNI %d)", o.name, o.vni))
		}
		return nil
	})
	whose := "a program on this node, such as Open vSwitch or Docker's overlay networks"
	if len(others) > 0 {
		whose = "the VXLAN device " + strings.Join(others, ", ")
	}
	return errors.Join(fmt.Errorf("%w: UDP port %d, VNI %d is taken by %s: remove it, or set another vxlan.port and vxlan.vni in a NodeNetworkConfiguration for all nodes",
		err, wanted.port, wanted.vni, whose), failed)
}

// inTheWay names the route of others that has the place of one of ours.
func (d *Driver) inTheWay(ctx context.Context, e entry) error {
	what := "a route of another program"
	var b rtnetlink.Batch
	fixed := rtnetlink.RouteFixed{Destination: e.to, Flags: unix.RTM_F_FIB_MATCH}.Encode()
	fixed[1] = uint8(e.to.Addr().BitLen())
	b.Message(unix.RTM_GETROUTE, 0, fixed)
	b.Addr(unix.RTA_DST, e.to.Addr())
	_ = d.conn.Get(ctx, "reading a route", &b, func(m nfnetlink.Message) error { // without it the message says less
		if len(m.Body) >= unix.SizeofRtMsg && int(m.Body[1]) == e.to.Bits() {
			what = fmt.Sprintf("a route of another program (protocol %d)", m.Body[5])
		}
		return nil
	})
	return fmt.Errorf("%s to %s is there already, and stays: remove it (ip route delete %s), so that Sallyport can put %s", what, e.to, e.to, e)
}
