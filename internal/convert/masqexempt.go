package convert

import (
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// exempt writes a disabled pool for each range towards which the agent does not translate. What lies in another
// one, or in a range of pods, adds nothing; what no pool may hold is cut out, and left to linkLocal.
func (c *masqConverter) exempt(cfg *masqConfig) {
	var all []netip.Prefix
	from := map[netip.Prefix]netip.Prefix{} // of the parts of a range that was cut
	for _, r := range cfg.ranges {
		c.listed(cfg, r)
		switch parts := withoutLinkLocal(r.prefix); {
		case len(parts) == 0:
			c.note(r.place, r.field, "%s is link-local, which no pool may hold: left out, since linkLocal says what becomes of it. Nothing is to be done", r.prefix)
		case len(parts) > 1:
			c.note(r.place, r.field, "%s holds link-local addresses, which no pool may: the rest of it is written as %d pools. Nothing is to be done", r.prefix, len(parts))
			for _, p := range parts {
				if _, twice := from[p]; !twice {
					from[p] = r.prefix
				}
			}
			all = append(all, parts...)
		default:
			all = append(all, r.prefix)
		}
	}
	for i, p := range all {
		if coveredByOther(all, i) || c.isPods(p) {
			continue
		}
		comment := []string{"Not translated towards."}
		if whole, ok := from[p]; ok {
			comment = append(comment, fmt.Sprintf("A part of %s.", whole))
		}
		if inner := others(all, p); inner != "" {
			comment = append(comment, "Holds "+inner+" too.")
		}
		c.result.Manifests = append(c.result.Manifests, pool(rangeName("exempt", p), strings.Join(comment, " "),
			map[string]any{"cidr": p.String(), "disabled": true}))
	}
	c.betweenPods(all)
}

// listed sees whether a range of the list has link-local addresses of IPv4, and says so where they are not all of
// them although the others are translated.
func (c *masqConverter) listed(cfg *masqConfig, r masqRange) {
	if !r.prefix.Overlaps(linkLocal[0]) {
		return
	}
	cfg.listsLinkLocal = true
	if cfg.masqLinkLocal && !covers(r.prefix, linkLocal[0]) {
		c.note(r.place, r.field, "%s is a part of %s, which a NATConfiguration translates as a whole or not at all: linkLocal is Keep. Set Translate if the rest matters more", r.prefix, linkLocal[0])
	}
}

// isPods says whether a range lies in one of pods, towards which nothing is translated anyway.
func (c *masqConverter) isPods(p netip.Prefix) bool {
	for _, q := range c.podNet {
		if covers(q, p) {
			return true
		}
	}
	return false
}

// others names the ranges of the list that lie in one of it.
func others(all []netip.Prefix, p netip.Prefix) string {
	var names []string
	seen := map[netip.Prefix]bool{p: true}
	for _, q := range all {
		if covers(p, q) && !seen[q] {
			seen[q] = true
			names = append(names, q.String())
		}
	}
	return strings.Join(names, ", ")
}

// betweenPods says so where the agent translates between pods, which Sallyport never does.
func (c *masqConverter) betweenPods(exempt []netip.Prefix) {
	for _, p := range c.podNet {
		var b netipx.IPSetBuilder
		b.AddPrefix(p)
		for _, q := range exempt {
			b.RemovePrefix(q)
		}
		if set, err := b.IPSet(); err == nil && len(set.Ranges()) > 0 {
			c.note(place{}, "--pod-cidr", "%s is not, or not as a whole, in the list of ip-masq-agent, which therefore translates also towards pods in it. "+
				"Sallyport never translates towards a pool, so pods see each other's own addresses there. Nothing is to be done if the network carries them", p)
		}
	}
}

// withoutLinkLocal is a range in as many parts as are needed to leave out what is link-local.
func withoutLinkLocal(p netip.Prefix) []netip.Prefix {
	if !touchesLinkLocal(p) {
		return []netip.Prefix{p}
	}
	var b netipx.IPSetBuilder
	b.AddPrefix(p)
	for _, l := range linkLocal {
		b.RemovePrefix(l)
	}
	set, err := b.IPSet()
	if err != nil { // only an invalid prefix can cause it
		return nil
	}
	return set.Prefixes()
}
