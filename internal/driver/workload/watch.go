package workload

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Watch follows the links of workloads until the context ends, or it cannot go on; then it must be called again, and misses
// nothing. Options.Gone is told of each that vanishes. Changed, which must not wait, is called when somebody else may have
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
	err := rtnetlink.Subscribe(ctx, d.opts.NetNS, groups, lost, func(m nfnetlink.Message) {
		if d.notice(m) {
			changed()
		}
	})
	if err == nil && ctx.Err() != nil {
		if cause := context.Cause(ctx); cause != ctx.Err() {
			return cause
		}
	}
	return err
}

// notice takes over what the kernel tells, and says whether something is not as it should be.
func (d *Driver) notice(m nfnetlink.Message) bool {
	switch m.Kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		dev, ok, err := parseDevice(m)
		switch {
		case err != nil:
			return true
		case !ok:
			return false
		case m.Kind == unix.RTM_DELLINK:
			d.vanished(dev.index)
			return false
		}
		return d.differs(dev.index, func(l *link) bool {
			text, err := l.alias.text()
			return err != nil || dev.alias != text || !dev.up
		})
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok, err := parseNeighbour(m)
		if err != nil || !ok {
			return err != nil
		}
		return d.differs(n.index, func(l *link) bool {
			return d.byAddr[n.addr] == l && (m.Kind == unix.RTM_DELNEIGH || !n.permanent || n.mac != l.alias.mac)
		})
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok, err := parseRoute(m)
		if err != nil || !ok {
			return err != nil
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		l := d.byAddr[r.to]
		plan := d.plan.Load()
		return l != nil && (m.Kind == unix.RTM_DELROUTE || r.index != l.Index || r.protocol != Protocol || plan != nil && r.from != sourceFor(plan, r.to))
	}
	return false
}

// differs says whether a link that is held is not as it should be.
func (d *Driver) differs(index int, is func(*link) bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.links[index]
	return l != nil && !l.pending && !l.Leaving && is(l)
}
