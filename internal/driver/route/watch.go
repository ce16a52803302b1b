package route

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Watch calls changed, which must not wait, when another program changes what is ours, or what the kernel drops routes for
// without a word: an interface that goes down, an address that goes, forwarding that is turned off. It ends with the context, or where it cannot go on.
func (d *Driver) Watch(ctx context.Context, changed func()) error {
	w := d.watcher()
	unheard := rtnetlink.Unheard{From: []uint32{w.own}, Kinds: []uint16{unix.RTM_NEWNEIGH}}
	return rtnetlink.Subscribe(ctx, d.netns, groups(), unheard, changed, func(m nfnetlink.Message) {
		if w.matters(m) {
			changed()
		}
	})
}

// groups are what the kernel tells of.
func groups() []uint32 {
	return []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF}
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
		e, ok, err := parseRoute(m)
		return err != nil || ok && m.PortID != w.own && (e.via.IsValid() || e.kind == unix.RTN_UNREACHABLE)
	case unix.RTM_DELADDR:
		a, err := rtnetlink.ParseAddress(m)
		return m.PortID != w.own && (err != nil || !a.Prefix.Addr().IsLinkLocalUnicast()) // no route of ours needs those
	case unix.RTM_DELNEIGH:
		// The kernel does not say who changed a forwarding entry, so that new ones, which are mostly ours, tell nothing.
		n, err := rtnetlink.ParseNeighbour(m)
		return m.PortID != w.own && (err != nil || w.ours(int32(n.Index)))
	case unix.RTM_NEWNETCONF: // also of each link of a workload that comes
		f, err := rtnetlink.ParseForwarding(m)
		return err != nil || f.All && f.Off
	}
	return false
}

// link says whether a change of a link matters: of ours any that another program made, of others that they go up or down.
func (w *watcher) link(m nfnetlink.Message) bool {
	l, err := rtnetlink.ParseLink(m)
	if err != nil {
		return true // it cannot be told
	}
	if strings.HasPrefix(l.Name, cni.LinkPrefix) { // of a workload: they come and go with every pod
		return false
	}
	if slices.Contains(deviceNames[:], l.Name) {
		return m.PortID != w.own
	}
	before, known := w.up[int32(l.Index)]
	if m.Kind == unix.RTM_DELLINK {
		delete(w.up, int32(l.Index))
		return true
	}
	w.up[int32(l.Index)] = l.Up
	return !known || before != l.Up
}
