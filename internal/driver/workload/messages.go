package workload

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Gateway4 is the address by which a workload reaches its node over IPv4. No device has it: a permanent neighbour stands for
// it. It is link-local, so that no other host has it.
func Gateway4() netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 1, 1}) }

// Gateway6 is that of IPv6.
func Gateway6() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1}) }

// hostMAC is that of the node's side of every link: locally administered, as Calico's, and the same everywhere, so that
// what a workload keeps of its gateway stays true.
func hostMAC() mac { return mac{0xee, 0xee, 0xee, 0xee, 0xee, 0xee} }

// What golang.org/x/sys/unix has not (linux/veth.h, linux/if_link.h, linux/ip.h).
const (
	vethInfoPeer        = 1 // VETH_INFO_PEER
	inetConf            = 1 // IFLA_INET_CONF
	inet6AddrGenMode    = 8 // IFLA_INET6_ADDR_GEN_MODE
	addrGenModeNone     = 1 // IN6_ADDR_GEN_MODE_NONE
	confForwarding      = 1 // IPV4_DEVCONF_FORWARDING
	confAcceptRedirects = 4 // IPV4_DEVCONF_ACCEPT_REDIRECTS
	confSourceRoute     = 9 // IPV4_DEVCONF_ACCEPT_SOURCE_ROUTE
)

// request is what is asked of the kernel, with what each message is for.
type request struct {
	rtnetlink.Batch
	doing []string
}

// message begins a message.
func (r *request) message(kind, flags uint16, fixed []byte, doing string) {
	r.Message(kind, flags, fixed)
	r.doing = append(r.doing, doing)
}

// create makes a pair of devices: one on the node, and one in a network namespace.
func (r *request) create(name, peer string, ns uintptr, inside mac, mtu int, doing string) {
	r.message(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtnetlink.Link(0, 0, 0), doing)
	r.Text(unix.IFLA_IFNAME, name)
	m := hostMAC()
	r.Bytes(unix.IFLA_ADDRESS, m[:])
	r.mtu(mtu)
	r.Nest(unix.IFLA_LINKINFO, func() {
		r.Text(unix.IFLA_INFO_KIND, kindVeth)
		r.Nest(unix.IFLA_INFO_DATA, func() {
			r.Nest(vethInfoPeer, func() {
				r.Append(rtnetlink.Link(0, 0, 0))
				r.Text(unix.IFLA_IFNAME, peer)
				r.Bytes(unix.IFLA_ADDRESS, inside[:])
				r.Uint32(unix.IFLA_NET_NS_FD, uint32(ns))
				r.mtu(mtu)
			})
		})
	})
}

func (r *request) mtu(mtu int) {
	if mtu > 0 {
		r.Uint32(unix.IFLA_MTU, uint32(mtu))
	}
}

// alias sets the alias of the device with a name.
func (r *request) alias(name, text string) {
	r.message(unix.RTM_NEWLINK, 0, rtnetlink.Link(0, 0, 0), "setting the alias of "+name)
	r.Text(unix.IFLA_IFNAME, name)
	r.Text(unix.IFLA_IFALIAS, text)
}

// rename gives a device a name.
func (r *request) rename(index int, name, doing string) {
	r.message(unix.RTM_NEWLINK, 0, rtnetlink.Link(index, 0, 0), doing)
	r.Text(unix.IFLA_IFNAME, name)
}

// free ends that a device is a port of another one.
func (r *request) free(index int, doing string) {
	r.message(unix.RTM_NEWLINK, 0, rtnetlink.Link(index, 0, 0), doing)
	r.Uint32(unix.IFLA_MASTER, 0)
}

// configure makes the node's side of a link one that forwards, and that has no address.
func (r *request) configure(name string, v6 bool) {
	r.message(unix.RTM_NEWLINK, 0, rtnetlink.Link(0, 0, 0), "configuring "+name)
	r.Text(unix.IFLA_IFNAME, name)
	r.Nest(unix.IFLA_AF_SPEC, func() {
		r.Nest(unix.AF_INET, func() {
			r.Nest(inetConf, func() {
				r.Uint32(confForwarding, 1)
				r.Uint32(confAcceptRedirects, 0)
				r.Uint32(confSourceRoute, 0)
			})
		})
		if v6 {
			r.Nest(unix.AF_INET6, func() { r.Uint8(inet6AddrGenMode, addrGenModeNone) })
		}
	})
}

// up sets a device up.
func (r *request) up(index int, doing string) {
	r.message(unix.RTM_NEWLINK, 0, rtnetlink.Link(index, unix.IFF_UP, unix.IFF_UP), doing)
}

// address gives a device an address of its own, which is usable at once: no other device can have it.
func (r *request) address(index int, a netip.Addr, doing string) {
	r.message(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtnetlink.Address(index, single(a)), doing)
	r.Addr(unix.IFA_LOCAL, a)
	r.Addr(unix.IFA_ADDRESS, a)
	r.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE)
}

// routeTo sends what goes to an address out by a device, from another address if that is valid.
func (r *request) routeTo(flags uint16, index int, a, from netip.Addr, protocol uint8, doing string) {
	r.message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|flags, route(a, protocol).Encode(), doing)
	r.Addr(unix.RTA_DST, a)
	r.Uint32(unix.RTA_OIF, uint32(index))
	if from.IsValid() {
		r.Addr(unix.RTA_PREFSRC, from)
	}
}

// noRouteTo deletes the route of routeTo.
func (r *request) noRouteTo(index int, a netip.Addr, doing string) {
	r.message(unix.RTM_DELROUTE, 0, route(a, rtnetlink.RouteProtocol).Encode(), doing)
	r.Addr(unix.RTA_DST, a)
	r.Uint32(unix.RTA_OIF, uint32(index))
}

func route(a netip.Addr, protocol uint8) rtnetlink.RouteFixed {
	return rtnetlink.RouteFixed{Destination: single(a), Table: unix.RT_TABLE_MAIN, Protocol: protocol,
		Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST}
}

// routeVia sends what has no other route to a gateway.
func (r *request) routeVia(index int, gateway netip.Addr, doing string) {
	r.message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, rtnetlink.RouteFixed{Destination: anyOf(gateway),
		Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST}.Encode(), doing)
	r.Addr(unix.RTA_GATEWAY, gateway)
	r.Uint32(unix.RTA_OIF, uint32(index))
}

// neighbour says for good which MAC address an address on a link has.
func (r *request) neighbour(index int, a netip.Addr, m mac, doing string) {
	r.message(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		rtnetlink.Neighbour(rtnetlink.Family(a), index, unix.NUD_PERMANENT, 0), doing)
	r.Addr(unix.NDA_DST, a)
	r.Bytes(unix.NDA_LLADDR, m[:])
}

// noNeighbour deletes what neighbour says.
func (r *request) noNeighbour(index int, a netip.Addr, doing string) {
	r.message(unix.RTM_DELNEIGH, 0, rtnetlink.Neighbour(rtnetlink.Family(a), index, 0, 0), doing)
	r.Addr(unix.NDA_DST, a)
}

// remove deletes a device.
func (r *request) remove(index int, doing string) {
	r.message(unix.RTM_DELLINK, 0, rtnetlink.Link(index, 0, 0), doing)
}

// gatewayOf is the gateway of a workload that has an address.
func gatewayOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return Gateway4()
	}
	return Gateway6()
}

// anyOf is the prefix of all addresses of the family of one.
func anyOf(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// single is the prefix of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
