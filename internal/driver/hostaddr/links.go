package hostaddr

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// WatchLinks calls report with what List returns, and with the links that have these addresses, at the start and after each change
// that makes it differ, until the context ends. Links that Sallyport makes, which come and go with every pod, are left out, and so
// are those that are down. A broken subscription is renewed, and nothing is missed: each renewal reads all again.
func WatchLinks(ctx context.Context, log *slog.Logger, report func([]netip.Prefix, []model.Link)) {
	var lastAddresses []netip.Prefix
	var lastLinks []model.Link
	first := true
	reread := func(ctx context.Context) error {
		addresses, links, err := read(ctx)
		if err == nil && (first || !slices.Equal(addresses, lastAddresses) || !slices.EqualFunc(links, lastLinks, sameLink)) {
			first, lastAddresses, lastLinks = false, addresses, links
			report(addresses, links)
		}
		return err
	}
	renew(ctx, log, func() error { return followLinks(ctx, reread) })
}

func sameLink(a, b model.Link) bool {
	return a.Name == b.Name && a.MTU == b.MTU && a.Default4 == b.Default4 && a.Default6 == b.Default6 && slices.Equal(a.Addresses, b.Addresses)
}

// followLinks calls reread once subscribed and after each notification that may matter, until the subscription ends.
func followLinks(ctx context.Context, reread func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	again := func() {
		if err := reread(ctx); err != nil {
			cancel(err)
		}
	}
	groups := []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}
	err := rtnetlink.Subscribe(ctx, 0, groups, again, func(m nfnetlink.Message) {
		if matters(m) {
			again()
		}
	})
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return err
}

// matters says whether a notification may be about what is reported: not one about a link of Sallyport's, of which there are
// several for every pod, nor about a route that is no default route.
func matters(m nfnetlink.Message) bool {
	switch m.Kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		_, l, ok := parseLink(m)
		return !ok || !ours(l.Name)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return isDefault(m)
	}
	a, ok := parseAddress(m)
	return !ok || !unreported(a.prefix.Addr())
}

// unreported says whether an address is link-local, of IPv6.
func unreported(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// ours says whether Sallyport makes links of that name: those of workloads, and VXLAN devices.
func ours(name string) bool {
	return strings.HasPrefix(name, "sly") || strings.HasPrefix(name, "sallyport.")
}

// isDefault says whether a message is about a default route of the main table.
func isDefault(m nfnetlink.Message) bool {
	return len(m.Body) >= unix.SizeofRtMsg && m.Body[1] == 0 && m.Body[4] == unix.RT_TABLE_MAIN && m.Body[7] == unix.RTN_UNICAST
}

// parseLink reads a link that is up or down, with its index.
func parseLink(m nfnetlink.Message) (index uint32, l model.Link, ok bool) {
	if len(m.Body) < unix.SizeofIfInfomsg {
		return 0, l, false
	}
	for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofIfInfomsg:]) {
		switch {
		case err != nil:
			return 0, l, false
		case a.Kind == unix.IFLA_IFNAME:
			l.Name = a.Text()
		case a.Kind == unix.IFLA_MTU && len(a.Data) == 4:
			l.MTU = int(binary.NativeEndian.Uint32(a.Data))
		}
	}
	return binary.NativeEndian.Uint32(m.Body[4:]), l, true
}

// skipStats is RTEXT_FILTER_SKIP_STATS (include/uapi/linux/rtnetlink.h): links are read without what they have carried.
const skipStats = 1 << 3

// readings bounds how often what changes while it is read is read again.
const readings = 10

// read reads all addresses but link-local ones of IPv6, and the links that are up and have addresses, sorted.
func read(ctx context.Context) (addresses []netip.Prefix, links []model.Link, err error) {
	conn, err := rtnetlink.Dial(0)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	for range readings {
		r := reader{ctx: ctx, conn: conn, byIndex: map[uint32]*model.Link{}}
		if err = r.read(); !errors.Is(err, nfnetlink.ErrInterrupted) {
			addresses, links = r.result()
			return addresses, links, err
		}
	}
	return nil, nil, err
}

// reader is a reading under way.
type reader struct {
	ctx       context.Context
	conn      *rtnetlink.Conn
	byIndex   map[uint32]*model.Link
	addresses []netip.Prefix
}

func (r *reader) read() error {
	var b rtnetlink.Batch
	b.Message(unix.RTM_GETLINK, 0, rtnetlink.Link(0, 0, 0))
	b.Uint32(unix.IFLA_EXT_MASK, skipStats)
	if err := r.conn.Dump(r.ctx, "listing this node's links", &b, r.link); err != nil {
		return err
	}
	b.Reset()
	b.Message(unix.RTM_GETADDR, 0, make([]byte, unix.SizeofIfAddrmsg))
	if err := r.conn.Dump(r.ctx, "listing the addresses of this node's links", &b, r.address); err != nil {
		return err
	}
	for _, any := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		b.Reset()
		b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: any, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}.Encode())
		err := r.conn.Dump(r.ctx, "listing this node's routes", &b, r.route)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

func (r *reader) link(m nfnetlink.Message) error {
	index, l, ok := parseLink(m)
	if ok && !ours(l.Name) && binary.NativeEndian.Uint32(m.Body[8:])&unix.IFF_UP != 0 {
		r.byIndex[index] = &l
	}
	return nil
}

// passing are the flags of addresses by which no other node should know this one: the kernel does not use them yet or any more, or
// replaces them after a while (RFC 8981).
const passing = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED | unix.IFA_F_TEMPORARY

func (r *reader) address(m nfnetlink.Message) error {
	a, ok := parseAddress(m)
	if !ok || unreported(a.prefix.Addr()) {
		return nil
	}
	r.addresses = append(r.addresses, a.prefix)
	if l := r.byIndex[a.index]; l != nil && a.flags&passing == 0 {
		l.Addresses = append(l.Addresses, a.prefix)
	}
	return nil
}

// linkAddress is an address on a link.
type linkAddress struct {
	index  uint32
	prefix netip.Prefix
	flags  uint32 // unix.IFA_F_…
}

func parseAddress(m nfnetlink.Message) (linkAddress, bool) {
	if len(m.Body) < unix.SizeofIfAddrmsg {
		return linkAddress{}, false
	}
	out := linkAddress{index: binary.NativeEndian.Uint32(m.Body[4:]), flags: uint32(m.Body[2])}
	var local, address netip.Addr
	for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofIfAddrmsg:]) {
		switch {
		case err != nil:
			return linkAddress{}, false
		case a.Kind == unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Data)
		case a.Kind == unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(a.Data)
		case a.Kind == unix.IFA_FLAGS && len(a.Data) == 4:
			out.flags = binary.NativeEndian.Uint32(a.Data)
		}
	}
	if !local.IsValid() { // IPv6 has it where there is a peer alone
		local = address
	}
	if local.Is4() {
		out.flags &^= unix.IFA_F_SECONDARY // the bit that means IFA_F_TEMPORARY of an address of IPv6
	}
	out.prefix = netip.PrefixFrom(local, int(m.Body[1]))
	return out, local.IsValid()
}

func (r *reader) route(m nfnetlink.Message) error {
	if !isDefault(m) {
		return nil
	}
	hop := func(index uint32) {
		if l := r.byIndex[index]; l != nil {
			l.Default4 = l.Default4 || m.Body[0] == unix.AF_INET
			l.Default6 = l.Default6 || m.Body[0] == unix.AF_INET6
		}
	}
	for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofRtMsg:]) {
		switch {
		case err != nil:
			return err
		case a.Kind == unix.RTA_OIF && len(a.Data) == 4:
			hop(binary.NativeEndian.Uint32(a.Data))
		case a.Kind == unix.RTA_MULTIPATH:
			for rest := a.Data; len(rest) >= unix.SizeofRtNexthop; { // struct rtnexthop: its length, and the link at byte 4
				hop(binary.NativeEndian.Uint32(rest[4:]))
				n := (int(binary.NativeEndian.Uint16(rest)) + 3) &^ 3
				if n < unix.SizeofRtNexthop || n > len(rest) {
					break
				}
				rest = rest[n:]
			}
		}
	}
	return nil
}

// result is what was read, sorted.
func (r *reader) result() ([]netip.Prefix, []model.Link) {
	slices.SortFunc(r.addresses, netip.Prefix.Compare)
	addresses := slices.Compact(r.addresses)
	if addresses == nil {
		addresses = []netip.Prefix{} // none, and that is known
	}
	var links []model.Link
	for _, l := range r.byIndex {
		if len(l.Addresses) > 0 {
			slices.SortFunc(l.Addresses, netip.Prefix.Compare)
			links = append(links, *l)
		}
	}
	slices.SortFunc(links, func(a, b model.Link) int { return strings.Compare(a.Name, b.Name) })
	return addresses, links
}
