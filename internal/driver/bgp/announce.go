package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/sallyport/sallyport/internal/compile"
)

// families are those that gobgp serves.
var families = [2]bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC}

// announce makes the routes that originate here those of a plan. One that is announced stays so while its block is not ready again.
func (s *server) announce(ctx context.Context, plan *compile.BGP) error {
	var add, remove []*apiutil.Path
	var unready []string
	wanted := map[netip.Prefix]bool{}
	for _, a := range plan.Announcements {
		wanted[a.Prefix] = true
		has, announced := s.announced[a.Prefix]
		if announced && reflect.DeepEqual(has.Communities, a.Communities) {
			continue
		}
		if ready := s.driver.opts.Ready; !announced && ready != nil && !ready(ctx, a.Prefix) {
			unready = append(unready, a.Prefix.String())
			continue
		}
		path, err := pathOf(&a)
		if err != nil {
			return fmt.Errorf("announcing %s: %w", a.Prefix, err)
		}
		add = append(add, path)
		s.announced[a.Prefix] = a
	}
	for prefix := range s.announced {
		if wanted[prefix] {
			continue
		}
		path, err := pathOf(&compile.Announcement{Prefix: prefix})
		if err != nil {
			return fmt.Errorf("withdrawing %s: %w", prefix, err)
		}
		remove = append(remove, path)
		delete(s.announced, prefix)
	}
	var err error
	if len(remove) > 0 {
		err = s.bgp.DeletePath(apiutil.DeletePathRequest{Paths: remove})
	}
	if len(add) > 0 {
		_, failed := s.bgp.AddPath(apiutil.AddPathRequest{Paths: add})
		err = errors.Join(err, failed)
	}
	if err != nil { // it is not known what was done
		clear(s.announced)
		return fmt.Errorf("announcing routes: %w", err)
	}
	if len(unready) > 0 {
		return fmt.Errorf("not announced yet, since the route that keeps packets to free addresses on this node does not stand: %s", strings.Join(unready, ", "))
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
