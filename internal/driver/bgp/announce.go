package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/sallyport/sallyport/internal/compile"
)

// families are those that gobgp serves.
var families = [2]bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC}

// origin is the part of gobgp that has the routes that originate here. Tests have it fail.
type origin interface {
	AddPath(apiutil.AddPathRequest) ([]apiutil.AddPathResponse, error)
	DeletePath(apiutil.DeletePathRequest) error
}

// announcer keeps the routes that originate here.
type announcer struct {
	to    origin
	ready func(context.Context, netip.Prefix) bool // as in Options
	has   map[netip.Prefix]compile.Announcement    // what gobgp has
	maybe map[netip.Prefix]bool                    // routes that it may have, since it failed when it was given them
}

// announce makes the routes that originate here those of a plan. One that is announced stays so while its block is not ready again.
func (n *announcer) announce(ctx context.Context, plan *compile.BGP) error {
	wanted := map[netip.Prefix]bool{}
	var add []compile.Announcement
	var unready []string
	for _, a := range plan.Announcements {
		wanted[a.Prefix] = true
		has, announced := n.has[a.Prefix]
		if announced && reflect.DeepEqual(has.Communities, a.Communities) {
			continue
		}
		if !announced && !n.maybe[a.Prefix] && n.ready != nil && !n.ready(ctx, a.Prefix) {
			unready = append(unready, a.Prefix.String())
			continue
		}
		add = append(add, a)
	}
	failed := errors.Join(n.withdraw(wanted), n.add(add))
	if len(unready) > 0 {
		failed = errors.Join(failed, fmt.Errorf("not announced yet, since the route that keeps packets to free addresses on this node does not stand: %s", strings.Join(unready, ", ")))
	}
	return failed
}

// add announces routes. gobgp takes those that it can, and does not say which: where it fails, all are in doubt.
func (n *announcer) add(all []compile.Announcement) error {
	var failed error
	var paths []*apiutil.Path
	var sent []compile.Announcement
	for _, a := range all {
		path, err := pathOf(&a)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("announcing %s: %w", a.Prefix, err))
			continue
		}
		paths, sent = append(paths, path), append(sent, a)
		n.maybe[a.Prefix] = true
		delete(n.has, a.Prefix)
	}
	if len(paths) == 0 {
		return failed
	}
	if _, err := n.to.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
		return errors.Join(failed, fmt.Errorf("announcing routes: %w", err))
	}
	for _, a := range sent {
		n.has[a.Prefix] = a
		delete(n.maybe, a.Prefix)
	}
	return failed
}

// withdraw withdraws what is not wanted. Where that fails, it is tried again the next time.
func (n *announcer) withdraw(wanted map[netip.Prefix]bool) error {
	var paths []*apiutil.Path
	var gone []netip.Prefix
	for _, p := range slices.Concat(slices.Collect(maps.Keys(n.has)), slices.Collect(maps.Keys(n.maybe))) {
		if wanted[p] {
			continue
		}
		path, err := pathOf(&compile.Announcement{Prefix: p})
		if err != nil {
			return fmt.Errorf("withdrawing %s: %w", p, err)
		}
		paths, gone = append(paths, path), append(gone, p)
	}
	if len(paths) == 0 {
		return nil
	}
	if err := n.to.DeletePath(apiutil.DeletePathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("withdrawing routes: %w", err)
	}
	for _, p := range gone {
		delete(n.has, p)
		delete(n.maybe, p)
	}
	return nil
}

// pathOf is an announcement in gobgp's form. Its next hop is left open: each session gets this node's address in it, by policy.
func pathOf(a *compile.Announcement) (*apiutil.Path, error) {
	f := family(a.Prefix)
	nlri, err := bgp.NewIPAddrPrefix(a.Prefix)
	if err != nil {
		return nil, err
	}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)}
	if f == 0 {
		hop, err := bgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, hop)
	} else {
		hop, err := bgp.NewPathAttributeMpReachNLRI(families[f], []bgp.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, hop)
	}
	var standard []uint32
	var large []*bgp.LargeCommunity
	for _, c := range a.Communities {
		if c.Large {
			large = append(large, bgp.NewLargeCommunity(c.Admin, c.One, c.Two))
		} else {
			standard = append(standard, c.Admin<<16|c.One&0xffff)
		}
	}
	if len(standard) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeCommunities(standard))
	}
	if len(large) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeLargeCommunities(large))
	}
	return &apiutil.Path{Family: families[f], Nlri: nlri, Attrs: attrs}, nil
}
