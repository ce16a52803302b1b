package workload

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Watch follows the links of workloads until the context ends, or it cannot go on; then it must be called again, and misses
// nothing. Options.Gone is told of each that vanishes. Changed, which must not wait, is called when another program may have
// changed a link that is held, its routes or its neighbours, or the rules.
func (d *Driver) Watch(ctx context.Context, changed func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.watchLinks(ctx, changed) })
	g.Go(func() error { return d.rules.netdev.Watch(ctx, changed) })
	g.Go(func() error { return d.rules.inet.Watch(ctx, changed) })
	return g.Wait()
}

func (d *Driver) watchLinks(ctx context.Context, changed func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost := func() {
		if err := d.relist(ctx); err != nil {
			cancel(fmt.Errorf("reading the links: %w", err))
		}
		changed()
	}
	groups := []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}
	unheard := rtnetlink.Unheard{Forwarding: true, RoutesBut: []uint8{32, 128}} // routes of workloads are to single addresses
	err := rtnetlink.Subscribe(ctx, d.opts.NetNS, groups, unheard, lost, func(m nfnetlink.Message) {
		if d.notice(ctx, m) {
			changed()
		}
	})
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, ctx.Err()) {
		return cause
	}
	return err
}

// notice takes over what the kernel tells, and says whether something is not as it should be. What is malformed may be about
// anything.
func (d *Driver) notice(ctx context.Context, m nfnetlink.Message) bool {
	var ok, differs bool
	var err error
	switch m.Kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		var dev device
		if dev, ok, err = parseDevice(m); ok {
			differs = d.noticeDevice(ctx, &dev, m.Kind == unix.RTM_DELLINK)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		var n neighbour
		if n, ok, err = parseNeighbour(m); ok {
			differs = d.differs(n.index, func(l *link) bool {
				return d.byAddr[n.addr] == l && (m.Kind == unix.RTM_DELNEIGH || !n.permanent || n.mac != l.alias.mac)
			})
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		var r routeTo
		if r, ok, err = parseRoute(m); ok {
			differs = d.noticeRoute(&r, m.Kind == unix.RTM_DELROUTE)
		}
	}
	return err != nil || differs
}

// noticeDevice takes over what the kernel tells of a device, and says whether it is not as it should be.
func (d *Driver) noticeDevice(ctx context.Context, dev *device, gone bool) bool {
	if gone {
		d.vanished(dev.index)
		return false
	}
	differs := func(l *link) bool {
		text, err := l.alias.text()
		return err != nil || dev.name != l.Link || dev.alias != text || dev.master != 0 || !dev.up
	}
	if !d.differs(dev.index, differs) {
		return false
	}
	// It may be what Add had done so far when the kernel told it.
	err := d.with(func(c *rtnetlink.Conn) error {
		now, err := getDevice(ctx, c, dev.name)
		if err == nil && now.index == dev.index {
			*dev = now
		}
		return err
	})
	return err != nil || d.differs(dev.index, differs)
}

// noticeRoute says whether a route is not as that to a workload should be.
func (d *Driver) noticeRoute(r *routeTo, gone bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, plan := d.byAddr[r.to], d.plan.Load()
	return l != nil && (gone || r.index != l.Index || r.protocol != rtnetlink.RouteProtocol || plan != nil && r.from != sourceFor(plan, r.to))
}

// differs says whether a link that is held is not as it should be.
func (d *Driver) differs(index int, is func(*link) bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.links[index]
	return l != nil && !l.pending && !l.Leaving && is(l)
}
