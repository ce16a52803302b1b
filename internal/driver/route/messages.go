package route

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// putRoute adds a route, or replaces that of the same prefix and metric where there is one of ours.
func putRoute(b *rtnetlink.Batch, e entry, there bool) {
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL) // never one of others
	if there {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	routeMessage(b, unix.RTM_NEWROUTE, flags, e)
}

// dropRoute removes a route of ours.
func dropRoute(b *rtnetlink.Batch, e entry) { routeMessage(b, unix.RTM_DELROUTE, 0, e) }

func routeMessage(b *rtnetlink.Batch, kind, flags uint16, e entry) {
	fixed := rtnetlink.RouteFixed{Destination: e.to, Table: unix.RT_TABLE_MAIN, Protocol: rtnetlink.RouteProtocol, Type: e.kind}
	if e.dev != 0 {
		fixed.Flags = unix.RTNH_F_ONLINK
	}
	b.Message(kind, flags, fixed.Encode())
	b.Addr(unix.RTA_DST, e.to.Addr())
	if e.via.IsValid() {
		b.Addr(unix.RTA_GATEWAY, e.via)
	}
	if e.dev != 0 {
		b.Uint32(unix.RTA_OIF, uint32(e.dev))
	}
	if e.src.IsValid() {
		b.Addr(unix.RTA_PREFSRC, e.src)
	}
	if e.metric != 0 {
		b.Uint32(unix.RTA_PRIORITY, e.metric)
	}
}

func putNeighbour(b *rtnetlink.Batch, dev int32, n neighbour) {
	b.Message(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, rtnetlink.Neighbour(rtnetlink.Family(n.addr), int(dev), unix.NUD_PERMANENT, 0))
	b.Addr(unix.NDA_DST, n.addr)
	b.Bytes(unix.NDA_LLADDR, n.mac[:])
}

func dropNeighbour(b *rtnetlink.Batch, dev int32, n neighbour) {
	b.Message(unix.RTM_DELNEIGH, 0, rtnetlink.Neighbour(rtnetlink.Family(n.addr), int(dev), 0, 0))
	b.Addr(unix.NDA_DST, n.addr)
}

func putForward(b *rtnetlink.Batch, dev int32, f forward) {
	forwardMessage(b, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, dev, f)
}

func dropForward(b *rtnetlink.Batch, dev int32, f forward) {
	forwardMessage(b, unix.RTM_DELNEIGH, 0, dev, f)
}

func forwardMessage(b *rtnetlink.Batch, kind, flags uint16, dev int32, f forward) {
	b.Message(kind, flags, rtnetlink.Neighbour(unix.AF_BRIDGE, int(dev), unix.NUD_PERMANENT|unix.NUD_NOARP, unix.NTF_SELF))
	b.Bytes(unix.NDA_LLADDR, f.mac[:])
	if f.to.IsValid() {
		b.Addr(unix.NDA_DST, f.to)
	}
}

func putAddress(b *rtnetlink.Batch, dev int32, p netip.Prefix) {
	fixed := rtnetlink.Address(int(dev), p)
	if p.Addr().Is6() {
		fixed[2] = unix.IFA_F_NODAD // usable at once
	}
	b.Message(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fixed)
	b.Addr(unix.IFA_LOCAL, p.Addr())
	b.Addr(unix.IFA_ADDRESS, p.Addr())
}

func dropAddress(b *rtnetlink.Batch, dev int32, p netip.Prefix) {
	b.Message(unix.RTM_DELADDR, 0, rtnetlink.Address(int(dev), p))
	b.Addr(unix.IFA_LOCAL, p.Addr())
	b.Addr(unix.IFA_ADDRESS, p.Addr())
}

// createDevice makes a device and brings it up. What it leaves out is as the kernel has it: checksums in the outer header, its
// own time to live, source ports by the hash of the flow, no mark against fragmentation (the MTU sees to that).
func createDevice(b *rtnetlink.Batch, d *device) {
	b.Message(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtnetlink.Link(0, 0, 0))
	b.Text(unix.IFLA_IFNAME, d.name)
	b.Bytes(unix.IFLA_ADDRESS, d.mac[:])
	if d.mtu > 0 {
		b.Uint32(unix.IFLA_MTU, uint32(d.mtu))
	}
	b.Nest(unix.IFLA_LINKINFO, func() {
		b.Text(unix.IFLA_INFO_KIND, "vxlan")
		b.Nest(unix.IFLA_INFO_DATA, func() {
			b.Uint32(unix.IFLA_VXLAN_ID, d.vni)
			b.BigUint16(unix.IFLA_VXLAN_PORT, d.port)
			b.Uint8(unix.IFLA_VXLAN_LEARNING, 0)
			localOf(b, d)
		})
	})
	noLinkLocal(b, d)
	b.Message(unix.RTM_NEWLINK, 0, rtnetlink.Link(0, unix.IFF_UP, unix.IFF_UP))
	b.Text(unix.IFLA_IFNAME, d.name)
}

// noLinkLocal keeps the kernel from giving a device an address of its own choice, and with it from multicast: the overlay
// carries none. A kernel without IPv6 refuses it, and needs it not.
func noLinkLocal(b *rtnetlink.Batch, d *device) {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return
	}
	b.Message(unix.RTM_NEWLINK, 0, rtnetlink.Link(0, 0, 0))
	b.Text(unix.IFLA_IFNAME, d.name)
	b.Nest(unix.IFLA_AF_SPEC, func() {
		b.Nest(unix.AF_INET6, func() { b.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, addrGenNone) })
	})
}

// addrGenNone is IN6_ADDR_GEN_MODE_NONE (include/uapi/linux/if_link.h).
const addrGenNone = 1

func localOf(b *rtnetlink.Batch, d *device) {
	if d.local.Is4() {
		b.Addr(unix.IFLA_VXLAN_LOCAL, d.local)
	} else {
		b.Addr(unix.IFLA_VXLAN_LOCAL6, d.local)
	}
}

// changeDevice changes what can be changed in place.
func changeDevice(b *rtnetlink.Batch, held, wanted *device) {
	if held.local != wanted.local {
		b.Message(unix.RTM_NEWLINK, 0, rtnetlink.Link(int(held.index), 0, 0))
		b.Nest(unix.IFLA_LINKINFO, func() {
			b.Text(unix.IFLA_INFO_KIND, "vxlan")
			b.Nest(unix.IFLA_INFO_DATA, func() {
				b.Uint32(unix.IFLA_VXLAN_ID, wanted.vni)
				localOf(b, wanted)
			})
		})
	}
	if held.mac == wanted.mac && (held.mtu == wanted.mtu || wanted.mtu == 0) && held.up {
		return
	}
	b.Message(unix.RTM_NEWLINK, 0, rtnetlink.Link(int(held.index), unix.IFF_UP, unix.IFF_UP))
	b.Bytes(unix.IFLA_ADDRESS, wanted.mac[:])
	if wanted.mtu > 0 {
		b.Uint32(unix.IFLA_MTU, uint32(wanted.mtu))
	}
}

func deleteDevice(b *rtnetlink.Batch, index int32) {
	b.Message(unix.RTM_DELLINK, 0, rtnetlink.Link(int(index), 0, 0))
}

// describe says what a message of ours was to do.
func describe(m nfnetlink.Message) string {
	switch m.Kind {
	case unix.RTM_NEWROUTE:
		e, _, _ := parseRoute(m)
		return "putting " + e.String()
	case unix.RTM_DELROUTE:
		e, _, _ := parseRoute(m)
		return "removing " + e.String()
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, _ := rtnetlink.ParseNeighbour(m)
		what := "neighbour "
		if m.Body[0] == unix.AF_BRIDGE {
			what = "forwarding entry to "
		}
		if m.Kind == unix.RTM_NEWNEIGH {
			return "putting the " + what + n.Addr.String()
		}
		return "removing the " + what + n.Addr.String()
	case unix.RTM_NEWADDR:
		return "putting an address on a VXLAN device"
	case unix.RTM_DELADDR:
		return "removing an address from a VXLAN device"
	case unix.RTM_DELLINK:
		return "removing a VXLAN device"
	default:
		return "setting up a VXLAN device"
	}
}
