package route

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Overruled names learned routes, at most so many, to whose very range the kernel has a route of another that it prefers. It reads all
// routes of the main tables.
func (k *Keeper) Overruled(ctx context.Context, most int) ([]Refused, error) {
	k.mu.Lock()
	wanted := k.wanted
	k.mu.Unlock()
	if len(wanted) == 0 {
		return nil, nil
	}
	conn, err := rtnetlink.Dial(k.netns) // so that no change waits for a long list
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var out []Refused
	var batch rtnetlink.Batch
	for _, every := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		before := len(out)
		batch.Reset()
		batch.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: every, Table: unix.RT_TABLE_MAIN}.Encode())
		batch.Uint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)
		err := conn.DumpWhole(ctx, "reading routes", &batch, func() { out = out[:before] }, func(m nfnetlink.Message) error {
			r, err := rtnetlink.ParseRoute(m)
			if err != nil || r.Table != unix.RT_TABLE_MAIN || !r.To.IsValid() || r.To.Addr().Is6() != every.Addr().Is6() || r.Metric >= metricLearned || len(out) == most {
				return err
			}
			if _, known := slices.BinarySearchFunc(wanted, r.To, func(l Learned, to netip.Prefix) int { return l.Prefix.Compare(to) }); known {
				out = append(out, Refused{r.To, "the kernel prefers " + whose(r)})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// whose says whose a route is, for messages.
func whose(r rtnetlink.RouteMessage) string {
	switch r.Protocol {
	case rtnetlink.RouteProtocol:
		return "the route that the block of a node has"
	case unix.RTPROT_KERNEL:
		return "the subnet of an interface of this node"
	}
	return fmt.Sprintf("the route of another program (protocol %d, metric %d)", r.Protocol, r.Metric)
}
