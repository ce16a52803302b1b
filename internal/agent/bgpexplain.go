package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/internal/driver/bgp"
)

// explain says what BGP has to do with packets from one address to another: the route that peers told of, and whether routers know the way
// back, and on to a pod of this node.
func (s *speaker) explain(ctx context.Context, source, destination netip.Addr) []string {
	st, err := s.driver.Glance(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	routes, _ := s.driver.Learned()
	return explainBGP(&st, routes, source, destination)
}

func explainBGP(st *bgp.State, routes []bgp.Route, source, destination netip.Addr) (out []string) {
	var best *bgp.Route
	for i := range routes {
		if r := &routes[i]; r.Prefix.Contains(destination) && (best == nil || r.Prefix.Bits() > best.Prefix.Bits()) {
			best = r
		}
	}
	if best != nil {
		out = append(out, fmt.Sprintf("peers tell of the route %s to %s, by %s", best.Prefix, destination, addresses(best.Hops)))
	}
	var all BGPResponse
	all.announcements(st)
	for _, a := range []netip.Addr{source, destination} {
		for i := range all.Announced {
			b := &all.Announced[i]
			switch {
			case !b.Prefix.Contains(a):
			case len(b.Told) == 0:
				out = append(out, fmt.Sprintf("block %s of %s is announced to no peer now", b.Prefix, a))
			default:
				out = append(out, fmt.Sprintf("block %s of %s is announced to %s", b.Prefix, a, addresses(b.Told)))
			}
		}
		for _, b := range all.Withheld {
			if b.Prefix.Contains(a) {
				out = append(out, fmt.Sprintf("block %s of %s is not announced: %s", b.Prefix, a, b.Why))
			}
		}
	}
	return out
}

func addresses(list []netip.Addr) string {
	texts := make([]string, 0, len(list))
	for _, a := range list {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}
