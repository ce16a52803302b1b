package convert

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/yaml"
)

// version tells ip-masq-agent, whose file is one, from ip-masq-agent-v2, which merges several.
type version int

const (
	versionOne version = 1 // kubernetes-sigs/ip-masq-agent: key "config" of its ConfigMap
	versionTwo version = 2 // Azure/ip-masq-agent-v2: every key that begins with "ip-masq"
)

// keyOne is the key that the manifest of ip-masq-agent mounts; prefixTwo is what ip-masq-agent-v2 looks for.
const (
	keyOne    = "config"
	prefixTwo = "ip-masq"
)

// cidrLimit is how many ranges the agent accepts unless its configuration says otherwise.
const cidrLimit = 64

// masqRange is a range towards which nothing is translated, and where it was found.
type masqRange struct {
	prefix netip.Prefix
	place  place
	field  string
}

// masqConfig is what the configurations of one agent come to.
type masqConfig struct {
	version    version
	ranges     []masqRange
	snatTarget netip.Addr
	// masqLinkLocal says that 169.254.0.0/16 is translated towards, and listsLinkLocal that some of it is in ranges.
	masqLinkLocal, listsLinkLocal bool
}

// masqSource is one configuration, as a file or as a key of a ConfigMap.
type masqSource struct {
	place   place
	version version
	tree    map[string]any // nil: empty
}

// read finds the configurations and merges them.
func (c *masqConverter) read(docs []Document) *masqConfig {
	var sources []masqSource
	for i := range docs {
		sources = append(sources, c.sources(&docs[i])...)
	}
	cfg := &masqConfig{version: versionOne}
	if len(c.faults) > 0 {
		return cfg
	}
	if len(sources) == 0 {
		c.defaultRanges(cfg, place{})
		return cfg
	}
	cfg.version = sources[0].version
	for _, s := range sources[1:] {
		if s.version == versionOne || cfg.version == versionOne {
			c.fault(s.place, "", "is a second configuration, and ip-masq-agent reads one: leave one of them out")
			return cfg
		}
	}
	for _, s := range sources {
		c.source(cfg, s)
	}
	return cfg
}

// sources finds the configurations in a document.
func (c *masqConverter) sources(doc *Document) []masqSource {
	if doc.Value == nil {
		return []masqSource{{place: place{doc: doc}, version: versionOne}}
	}
	tree, ok := doc.Value.(map[string]any)
	if !ok {
		c.fault(place{doc: doc}, "", "is %s: a configuration of ip-masq-agent begins with fields such as nonMasqueradeCIDRs", typeName(doc.Value))
		return nil
	}
	kind, _ := tree["kind"].(string)
	if kind == "" && tree["apiVersion"] == nil {
		return []masqSource{{place{doc: doc}, versionOne, tree}}
	}
	meta, _ := tree["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if namespace, _ := meta["namespace"].(string); namespace != "" {
		name = namespace + "/" + name
	}
	p := place{doc: doc, kind: kind, name: name}
	if kind != "ConfigMap" {
		c.fault(p, "kind", "%s is no ConfigMap: give the configuration of ip-masq-agent, or the ConfigMap that holds it", quote(kind))
		return nil
	}
	return c.configMap(p, tree)
}

// configMap finds the configurations in a ConfigMap.
func (c *masqConverter) configMap(p place, tree map[string]any) []masqSource {
	data, _ := tree["data"].(map[string]any)
	var out []masqSource
	for _, key := range slices.Sorted(maps.Keys(data)) {
		v := versionTwo
		switch {
		case key == keyOne:
			v = versionOne
		case !strings.HasPrefix(key, prefixTwo):
			continue
		}
		if len(out) > 0 && (v == versionOne || out[0].version == versionOne) {
			c.fault(p, "data", "holds both %s, which ip-masq-agent reads, and what begins with %s, which ip-masq-agent-v2 reads: remove what your agent does not read", keyOne, prefixTwo)
			return nil
		}
		part := p
		part.within = "data." + key
		if strings.Contains(key, ".") {
			part.within = "data[" + key + "]"
		}
		text, ok := data[key].(string)
		if !ok {
			c.fault(part, "", "must be text, not %s", typeName(data[key]))
			return nil
		}
		value, err := yaml.Decode([]byte(text))
		if err != nil {
			c.fault(part, "", "%v", err)
			return nil
		}
		config, ok := value.(map[string]any)
		if !ok && value != nil {
			c.fault(part, "", "is %s: a configuration of ip-masq-agent begins with fields such as nonMasqueradeCIDRs", typeName(value))
			return nil
		}
		part.within += "."
		out = append(out, masqSource{part, v, config})
	}
	if len(out) == 0 {
		c.fault(p, "data", "has neither the key %s nor one that begins with %s: give the ConfigMap that the agent mounts, or no -f if it has none", keyOne, prefixTwo)
	}
	return out
}

// defaultRanges takes the agent's own list.
func (c *masqConverter) defaultRanges(cfg *masqConfig, p place) {
	list := privateRanges
	if c.flags.AllReservedRanges {
		list = slices.Concat(privateRanges, reservedRanges)
	}
	for _, s := range list {
		cfg.ranges = append(cfg.ranges, masqRange{prefix: netip.MustParsePrefix(s), place: p})
	}
	c.note(p, "nonMasqueradeCIDRs", "is not set, so that the list is the agent's own: %s", strings.Join(list, ", "))
}

// source adds what one configuration says. Like the agent's own reader it does not mind the case of a field.
func (c *masqConverter) source(cfg *masqConfig, s masqSource) {
	listed, limit := false, int64(cidrLimit)
	var count int
	for _, key := range slices.Sorted(maps.Keys(s.tree)) {
		v := s.tree[key]
		switch strings.ToLower(key) {
		case "nonmasqueradecidrs":
			listed = true
			count += c.ranges(cfg, s.place, key, v)
		case "masqlinklocal":
			// Of several configurations, one that says true is enough (ip-masq-agent-v2, MasqConfig.merge).
			cfg.masqLinkLocal = c.boolean(s.place, key, v) || cfg.masqLinkLocal
		case "masqlinklocalipv6":
			if c.boolean(s.place, key, v) && c.flags.EnableIPv6 {
				c.note(s.place, key, "true changes nothing, since no node forwards to %s (RFC 4291): left out. Nothing is to be done", linkLocal[1])
			}
		case "cidrlimit":
			n, ok := integer(v)
			if !ok && v != nil {
				c.fault(s.place, key, "must be a whole number, not %s", typeName(v))
			} else if ok {
				limit = n
			}
		case "resyncinterval":
			c.interval(s, key, v)
		case "snattarget":
			c.snatTarget(cfg, s.place, key, v)
		default:
			c.note(s.place, key, "is no field that ip-masq-agent knows, so that it has no effect there: look for a misspelling")
		}
	}
	if int64(count) > limit {
		c.fault(s.place, "nonMasqueradeCIDRs", "has %d ranges, more than the %d that the agent accepts: it refuses this configuration. Set cidrLimit in it if all are meant", count, limit)
	}
	switch {
	case listed:
	case s.version == versionTwo:
		c.note(s.place, "nonMasqueradeCIDRs", "is not set, which ip-masq-agent-v2 takes for an empty list. The ip-masq-agent of Kubernetes has a list of its own: if yours is that, give the text of this key as a file")
	default:
		c.defaultRanges(cfg, s.place)
	}
}

// ranges reads a list of ranges and returns how many there are.
func (c *masqConverter) ranges(cfg *masqConfig, p place, key string, v any) int {
	list, ok := v.([]any)
	if v == nil {
		c.note(p, key, "has no value, which the agent takes for an empty list: it translates towards everything but link-local addresses. Name the ranges if that is not meant")
	} else if !ok {
		c.fault(p, key, "must be a list of ranges such as 10.0.0.0/8, not %s", typeName(v))
	}
	for i, item := range list {
		field := fmt.Sprintf("%s[%d]", key, i)
		s, ok := item.(string)
		if !ok {
			c.fault(p, field, "must be text such as 10.0.0.0/8, not %s", typeName(item))
			continue
		}
		prefix, wrong := parseRange(s)
		switch {
		case wrong != "":
			c.fault(p, field, "%s", wrong)
		case prefix.Addr().Is6() && !c.flags.EnableIPv6:
			c.fault(p, field, "%s is IPv6, and an agent without --enable-ipv6 refuses this configuration: add that flag if your agent has it, else remove the range", prefix)
		default:
			cfg.ranges = append(cfg.ranges, masqRange{prefix, p, field})
		}
	}
	return len(list)
}

// boolean reads true or false, which is false where it is not set.
func (c *masqConverter) boolean(p place, key string, v any) bool {
	b, ok := v.(bool)
	if !ok && v != nil {
		c.fault(p, key, "must be true or false, not %s", typeName(v))
	}
	return b
}

// interval checks resyncInterval, which has no meaning here: changes are watched.
func (c *masqConverter) interval(s masqSource, key string, v any) {
	if s.version == versionTwo || v == nil {
		return
	}
	text, ok := v.(string)
	if _, err := time.ParseDuration(text); !ok || err != nil {
		c.fault(s.place, key, "%s is no duration, so that the agent refuses this configuration: write one such as 60s", quote(v))
	}
}

// snatTarget takes over the address of those versions that have this field, which is used for IPv4 alone.
func (c *masqConverter) snatTarget(cfg *masqConfig, p place, key string, v any) {
	text, ok := v.(string)
	if v == nil || ok && text == "" {
		return
	}
	a, err := netip.ParseAddr(text)
	switch {
	case !ok || err != nil || !usable(a):
		c.fault(p, key, "%s is no address to which others can answer: write an IPv4 address of the node", quote(v))
	case !a.Is4():
		c.fault(p, key, "%s is IPv6, and the agent uses it for IPv4: write an IPv4 address of the node", quote(v))
	default:
		cfg.snatTarget = a
	}
}

// usable says whether a NATConfiguration takes the address.
func usable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.Is4In6() && a.Zone() == "" && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
