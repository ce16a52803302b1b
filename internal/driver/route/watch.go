package route

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// workloadLinks is how the names of workloads' links begin, which come and go with every pod.
const workloadLinks = "sly"

// Watch calls changed, which must not wait, when somebody else changes what is ours, or what the kernel drops routes for
// without a word: an interface that goes down, an address that goes. It ends with the context, or where it cannot go on.
func (d *Driver) Watch(ctx context.Context, changed func()) error {
	w := d.watcher()
	return rtnetlink.Subscribe(ctx, d.netns, groups(), changed, func(m nfnetlink.Message) {
		if w.matters(m) {
			changed()
		}
	})
}

// groups are what the kernel tells of.
func groups() []uint32 {
	return []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_NEIGH}
}

func (d *Driver) watcher() *watcher {
	return &watcher{own: d.conn.PortID(), up: map[int32]bool{}, ours: d.ours}
}

// watcher tells what matters from what does not.
type watcher struct {
	own  uint32                 // the address of the driver's socket
	up   map[int32]bool         // whether a link, of others, is up, by index
	ours func(index int32) bool // whether a link is a device of ours
}

func (d *Driver) ours(index int32) bool {
	return index == d.indexes[0].Load() || index == d.indexes[1].Load()
}

// matters says whether a notification is about something of ours that another program changed.
func (w *watcher) matters(m nfnetlink.Message) bool {
	switch m.Kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		e, ok := parseRoute(m)
		return ok && m.PortID != w.own && (e.via.IsValid() || e.kind == unix.RTN_UNREACHABLE)
	case unix.RTM_DELADDR:
		return m.PortID != w.own && !linkLocal(m)
	case unix.RTM_DELNEIGH:
		// The kernel does not say who changed a forwarding entry, so that new ones, which are mostly ours, tell nothing.
		return m.PortID != w.own && len(m.Body) >= unix.SizeofNdMsg && w.ours(int32(number(m.Body[4:])))
	}
	return false
}

// linkLocal says whether a message is about an address that no route of ours needs.
func linkLocal(m nfnetlink.Message) bool {
	if len(m.Body) < unix.SizeofIfAddrmsg {
		return false
	}
	for a, err := range nfnetlink.Attributes(m.Body[unix.SizeofIfAddrmsg:]) {
		if err == nil && a.Kind == unix.IFA_ADDRESS {
			addr, _ := netip.AddrFromSlice(a.Data)
			return addr.IsLinkLocalUnicast()
		}
	}
	return false
}

// link says whether a change of a link matters: of ours any that another program made, of others that they go up or down.
func (w *watcher) link(m nfnetlink.Message) bool {
	var l device
	if err := parseLink(m, &l); err != nil {
		return true // it cannot be told
	}
	if strings.HasPrefix(l.name, workloadLinks) {
		return false
	}
	if slices.Contains(deviceNames[:], l.name) {
		return m.PortID != w.own
	}
	before, known := w.up[l.index]
	if m.Kind == unix.RTM_DELLINK {
		delete(w.up, l.index)
		return true
	}
	w.up[l.index] = l.up
	return !known || before != l.up
}
