package workload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Check says what is wrong with the link of a workload; nil: nothing. The socket is as for Add, which closes it.
func (d *Driver) Check(ctx context.Context, w Workload, sock *os.File) error {
	pod, err := rtnetlink.Adopt(sock)
	if err != nil {
		return fmt.Errorf("%s: the rtnetlink socket of its network namespace: %w", &w, err)
	}
	defer pod.Close()
	if err := d.check(ctx, &w, pod); err != nil {
		return fmt.Errorf("%s: %w", &w, err)
	}
	return nil
}

func (d *Driver) check(ctx context.Context, w *Workload, pod *rtnetlink.Conn) error {
	d.gate.Lock()
	defer d.gate.Unlock()
	plan := d.plan.Load()
	if plan == nil {
		return ErrNoPlan
	}
	return d.with(func(c *rtnetlink.Conn) error {
		node, err := getDevice(ctx, c, w.Device())
		if err != nil {
			return err
		}
		a := node.ours()
		switch {
		case a == nil:
			return fmt.Errorf("device %s is not Sallyport's", node.name)
		case a.state != held:
			return fmt.Errorf("device %s is not in use, but %s", node.name, a.state)
		case a.UID != w.UID:
			return fmt.Errorf("device %s is that of pod %s, not %s", node.name, a.UID, w.UID)
		case !slices.Equal(a.Addresses, w.Addresses):
			return fmt.Errorf("device %s has the addresses %v, not %v", node.name, a.Addresses, w.Addresses)
		}
		k, err := readKernel(ctx, c)
		if err != nil {
			return err
		}
		var r request
		if err := k.repair(&r, &link{Held: Held{Workload: a.Workload, Link: node.name, Index: node.index}, alias: *a}, plan); err != nil {
			return err
		}
		var all []error
		for _, doing := range r.doing {
			all = append(all, fmt.Errorf("on the node this is left to do: %s", doing))
		}
		return errors.Join(append(all, checkInside(ctx, pod, &node, a))...)
	})
}

// checkInside says what is wrong in the network namespace of a workload.
func checkInside(ctx context.Context, pod *rtnetlink.Conn, node *device, a *alias) error {
	side, err := getDevice(ctx, pod, a.Interface)
	if err != nil {
		return fmt.Errorf("in the network namespace: %w", err)
	}
	var all []error
	wrong := func(format string, args ...any) {
		all = append(all, fmt.Errorf("in the network namespace: "+format, args...))
	}
	if side.index != node.peer || side.kind != kindVeth {
		wrong("device %s is not the other side of %s", a.Interface, node.name)
		return errors.Join(all...)
	}
	if !side.up {
		wrong("device %s is down", side.name)
	}
	if side.mac != a.mac {
		wrong("device %s has the MAC address %s, not %s", side.name, side.mac, a.mac)
	}
	addresses, err := readAddresses(ctx, pod, side.index)
	if err != nil {
		return err
	}
	neighbours, err := readNeighbours(ctx, pod)
	if err != nil {
		return err
	}
	for _, addr := range a.Addresses {
		gateway := gatewayOf(addr)
		if !slices.Contains(addresses, addr) {
			wrong("address %s is missing", addr)
		}
		if !slices.Contains(neighbours, neighbour{side.index, gateway, hostMAC(), true}) {
			wrong("the neighbour %s is missing", gateway)
		}
		via, err := readDefault(ctx, pod, side.index, gateway)
		switch {
		case err != nil:
			return err
		case !via:
			wrong("the default route by %s is missing", gateway)
		}
	}
	return errors.Join(all...)
}

// readAddresses reads the addresses of a device.
func readAddresses(ctx context.Context, c *rtnetlink.Conn, index int) (list []netip.Addr, err error) {
	var b rtnetlink.Batch
	b.Message(unix.RTM_GETADDR, 0, make([]byte, unix.SizeofIfAddrmsg))
	err = c.DumpWhole(ctx, "reading the addresses", &b, func() { list = list[:0] }, func(m nfnetlink.Message) error {
		a, err := rtnetlink.ParseAddress(m)
		if err == nil && a.Index == index {
			list = append(list, a.Prefix.Addr())
		}
		return err
	})
	return list, err
}

// readDefault says whether a device has a default route by a gateway.
func readDefault(ctx context.Context, c *rtnetlink.Conn, index int, gateway netip.Addr) (yes bool, err error) {
	var b rtnetlink.Batch
	b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: anyOf(gateway), Table: unix.RT_TABLE_MAIN}.Encode())
	err = c.DumpWhole(ctx, "reading the routes", &b, func() { yes = false }, func(m nfnetlink.Message) error {
		r, err := rtnetlink.ParseRoute(m)
		yes = yes || err == nil && r.To.Bits() == 0 && r.Via == gateway && r.Index == index
		return err
	})
	return yes, err
}
