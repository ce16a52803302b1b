// Package hostaddr tells which addresses the node's own interfaces have, now and whenever that changes.
// It only reads.
package hostaddr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// List is every address on the node's interfaces with the length of its subnet's prefix, sorted. Link-local
// addresses of IPv6 are left out: no decision depends on whose they are. Those of IPv4 count, since one may be this
// node's, such as NodeLocal DNSCache's, or outside, such as a cloud's metadata service.
func List() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing the addresses of this node's interfaces: %w", err)
	}
	out := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			continue
		}
		out = append(out, netip.PrefixFrom(p.Addr().Unmap().WithZone(""), p.Bits()))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out), nil
}

// resubscribe is the pause before the kernel is asked again after the subscription broke.
const resubscribe = time.Second

// sayAgain is how often a fault that goes on is logged.
const sayAgain = time.Minute

// Watch calls report with List at the start and after each change that makes it differ, until the
// context ends. A broken subscription is renewed, and nothing is missed: each renewal lists anew.
func Watch(ctx context.Context, log *slog.Logger, report func([]netip.Prefix)) {
	var last []netip.Prefix
	first := true
	relist := func() error {
		now, err := List()
		if err == nil && (first || !slices.Equal(now, last)) {
			first, last = false, now
			report(now)
		}
		return err
	}
	renew(ctx, log, func() error { return follow(ctx, relist) })
}

// renew follows until the context ends, again and again where that breaks. Of a fault that goes on it says
// something now and then.
func renew(ctx context.Context, log *slog.Logger, follow func() error) {
	var said string
	var at time.Time
	for ctx.Err() == nil {
		if err := follow(); err != nil && (err.Error() != said || time.Since(at) >= sayAgain) {
			said, at = err.Error(), time.Now()
			log.Error("could not follow this node's addresses; the last ones known stay in force", "error", err, "retry_in", resubscribe)
		}
		select {
		case <-ctx.Done():
		case <-time.After(resubscribe):
		}
	}
}

// follow calls relist once subscribed and after each notification, until the subscription ends.
func follow(ctx context.Context, relist func() error) error {
	done := make(chan struct{})
	defer close(done)
	updates := make(chan netlink.AddrUpdate)
	failed := make(chan error, 1)
	err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
	})
	if err != nil {
		// Without notifications, each renewal still sees what has changed.
		return errors.Join(fmt.Errorf("subscribing to address changes: %w", err), relist())
	}
	// The library's reader may be about to hand over one more update before it sees done.
	defer func() { go drain(updates) }()
	if err := relist(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("reading address changes: %w", err)
		case _, ok := <-updates:
			if !ok {
				return nil
			}
			if err := relist(); err != nil {
				return err
			}
		}
	}
}

// drain ends when the library's reader closes the channel, which it does once its socket is closed.
func drain(updates <-chan netlink.AddrUpdate) {
	for range updates {
		continue
	}
}
