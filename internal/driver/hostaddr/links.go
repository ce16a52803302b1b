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

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// WatchLinks calls report with what List returns, and with the links that have these addresses, at the start and after each change
// that makes it differ, until the context ends. Links that Sallyport makes, which come and go with every pod, are left out. A link
// that is down stays: its addresses are the node's, and other nodes and routers are not told otherwise for a moment without it. A broken
// subscription is renewed, and nothing is missed: each renewal reads all again.
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
	err := rtnetlink.Subscribe(ctx, 0, groups, rtnetlink.Unheard{RoutesBut: []uint8{0}}, again, func(m nfnetlink.Message) {
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
		l, err := rtnetlink.ParseLink(m)
		return err != nil || !ours(l.Name)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return isDefault(m)
	}
	a, err := rtnetlink.ParseAddress(m)
	return err != nil || !unreported(a.Prefix.Addr())
}

// unreported says whether an address is link-local, of IPv6.
func unreported(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// ours says whether Sallyport makes links of that name: those of workloads, and VXLAN devices.
func ours(name string) bool {
	return strings.HasPrefix(name, cni.LinkPrefix) || name == compile.Device4 || name == compile.Device6
}

// isDefault says whether a message is about a default route of the main table.
func isDefault(m nfnetlink.Message) bool {
	return len(m.Body) >= unix.SizeofRtMsg && m.Body[1] == 0 && m.Body[4] == unix.RT_TABLE_MAIN && m.Body[7] == unix.RTN_UNICAST
}

// read reads all addresses but link-local ones of IPv6, and the links that have addresses, sorted.
func read(ctx context.Context) (addresses []netip.Prefix, links []model.Link, err error) {
	conn, err := rtnetlink.Dial(0)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	r := reader{ctx: ctx, conn: conn}
	if err := r.read(); err != nil {
		return nil, nil, err
	}
	addresses, links = r.result()
	return addresses, links, nil
}

// reader is a reading under way.
type reader struct {
	ctx       context.Context
	conn      *rtnetlink.Conn
	byIndex   map[int]*model.Link
	addresses []rtnetlink.AddressMessage
}

func (r *reader) read() error {
	var b rtnetlink.Batch
	b.GetLink("")
	if err := r.conn.DumpWhole(r.ctx, "listing this node's links", &b, func() { r.byIndex = map[int]*model.Link{} }, r.link); err != nil {
		return err
	}
	b.Reset()
	b.Message(unix.RTM_GETADDR, 0, make([]byte, unix.SizeofIfAddrmsg))
	if err := r.conn.DumpWhole(r.ctx, "listing the addresses of this node's links", &b, func() { r.addresses = nil }, r.address); err != nil {
		return err
	}
	for _, any := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		b.Reset()
		b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: any, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}.Encode())
		if err := r.conn.DumpWhole(r.ctx, "listing this node's routes", &b, func() { r.forgetDefault(any.Addr().Is6()) }, r.route); err != nil {
			return err
		}
	}
	return nil
}

// forgetDefault forgets which links have a default route of a family.
func (r *reader) forgetDefault(v6 bool) {
	for _, l := range r.byIndex {
		l.Default4, l.Default6 = l.Default4 && v6, l.Default6 && !v6
	}
}

func (r *reader) link(m nfnetlink.Message) error {
	l, err := rtnetlink.ParseLink(m)
	if err == nil && !ours(l.Name) {
		r.byIndex[l.Index] = &model.Link{Name: l.Name, MTU: l.MTU}
	}
	return err
}

// passing are the flags of addresses by which no other node should know this one: the kernel does not use them yet or any more, or
// replaces them after a while (RFC 8981).
const passing = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED | unix.IFA_F_TEMPORARY

func (r *reader) address(m nfnetlink.Message) error {
	a, err := rtnetlink.ParseAddress(m)
	if err == nil && a.Prefix.IsValid() && !unreported(a.Prefix.Addr()) {
		r.addresses = append(r.addresses, a)
	}
	return err
}

func (r *reader) route(m nfnetlink.Message) error {
	if !isDefault(m) {
		return nil
	}
	hop := func(index uint32) {
		if l := r.byIndex[int(index)]; l != nil {
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
	addresses := []netip.Prefix{} // if there are none, that is known
	for _, a := range r.addresses {
		addresses = append(addresses, a.Prefix)
		if l := r.byIndex[a.Index]; l != nil && a.Flags&passing == 0 {
			l.Addresses = append(l.Addresses, a.Prefix)
		}
	}
	slices.SortFunc(addresses, netip.Prefix.Compare)
	addresses = slices.Compact(addresses)
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
