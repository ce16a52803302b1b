package lab

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Two things that a netlink request starts go on after it is acknowledged, in the kernel's work queues;
// packets that come before are lost or go astray. Both are waited for.
const (
	awaitInterval = 200 * time.Microsecond
	awaitAtMost   = 10 * time.Second
)

// awaitCarrier waits until an interface passes packets on. After the other end has come up, a work
// queue replaces the queue that drops everything (linkwatch_do_dev in net/core/link_watch.c).
func (h *Host) awaitCarrier(name string) error {
	return h.await("carrier on "+name, func() (bool, error) {
		link, err := h.link(name)
		return err == nil && link.Attrs().OperState == netlink.OperUp, err
	})
}

// awaitLocal waits until the host takes packets to an address of its own. For IPv6 a work queue adds
// that route (addrconf_dad_work in net/ipv6/addrconf.c), even without duplicate address detection.
func (h *Host) awaitLocal(address netip.Addr) error {
	return h.await("packets to "+address.String(), func() (bool, error) {
		routes, err := h.route.RouteListFiltered(familyOf(address),
			&netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: ipNet(netip.PrefixFrom(address, address.BitLen()))},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		return len(routes) > 0, err
	})
}

// await polls until done says yes.
func (h *Host) await(what string, done func() (bool, error)) error {
	for start := time.Now(); ; time.Sleep(awaitInterval) {
		ok, err := done()
		switch {
		case err != nil:
			return fmt.Errorf("waiting for %s on host %s: %w", what, h.name, err)
		case ok:
			return nil
		case time.Since(start) > awaitAtMost:
			return fmt.Errorf("waiting for %s on host %s: not after %s", what, h.name, awaitAtMost)
		}
	}
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
