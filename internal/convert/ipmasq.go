package convert

import (
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
)

// MasqFlags are the flags of the command line of ip-masq-agent that change what it translates, and the ranges of
// the pods, which it does not know.
type MasqFlags struct {
	PodCIDRs          []string
	EnableIPv6        bool
	AllReservedRanges bool  // --nomasq-all-reserved-ranges
	RandomFully       *bool // nil: not said
	ToPorts           string
}

// FindPodCIDRs prints the ranges of pods as the nodes of a cluster have them.
const FindPodCIDRs = `kubectl get nodes -o jsonpath='{range .items[*]}{.spec.podCIDRs}{"\n"}{end}'`

// The lists of ip-masq-agent for a configuration that names no ranges (cmd/ip-masq-agent/ip-masq-agent.go,
// NewMasqConfig): RFC 1918, and what --nomasq-all-reserved-ranges adds.
var (
	privateRanges  = []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}
	reservedRanges = []string{
		"100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	}
)

// IPMasqAgent converts a configuration of ip-masq-agent: its file, or the ConfigMap that holds it. No document
// stands for an agent without a configuration. Several ConfigMaps of ip-masq-agent-v2 are merged as it merges them.
func IPMasqAgent(docs []Document, flags MasqFlags) (*Result, []model.Fault) {
	c := masqConverter{flags: flags, result: &Result{From: "ip-masq-agent"}}
	c.pods()
	cfg := c.read(docs)
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	c.note(place{}, "", "ip-masq-agent translates whatever the node forwards or sends, Sallyport only what comes from the pools below with "+
		"natOutgoing: true. If others need translation, such as containers beside Kubernetes, convert again with their ranges as --pod-cidr too")
	c.note(place{}, "", "towards multicast and broadcast addresses Sallyport translates nothing")
	c.emit(cfg)
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	return c.result, nil
}

// masqConverter collects what one conversion comes to.
type masqConverter struct {
	flags  MasqFlags
	podNet []netip.Prefix
	result *Result
	faults []model.Fault
}

func (c *masqConverter) note(p place, field, format string, args ...any) {
	c.result.Notes = append(c.result.Notes, p.says(field, format, args...))
}

func (c *masqConverter) fault(p place, field, format string, args ...any) {
	c.faults = append(c.faults, p.says(field, format, args...))
}

// pods reads the ranges of the pods. One that lies in another adds nothing.
func (c *masqConverter) pods() {
	if len(c.flags.PodCIDRs) == 0 {
		c.fault(place{}, "--pod-cidr", "is missing: ip-masq-agent translates whatever the node sends, Sallyport only what comes from a pool. Name the "+
			"ranges of the pods, such as --pod-cidr 10.244.0.0/16: the --cluster-cidr of kube-controller-manager, or those of the nodes, from: %s", FindPodCIDRs)
	}
	var all []netip.Prefix
	for _, s := range c.flags.PodCIDRs {
		p, wrong := parseRange(s)
		switch {
		case wrong != "":
			c.fault(place{}, "--pod-cidr", "%s", wrong)
		case touchesLinkLocal(p):
			c.fault(place{}, "--pod-cidr", "%s overlaps the link-local ranges 169.254.0.0/16 and fe80::/10, which hold no pods: name the range of the pods alone", p)
		case p.Addr().Is6() && !c.flags.EnableIPv6:
			c.fault(place{}, "--pod-cidr", "%s is IPv6, of which ip-masq-agent translates nothing without --enable-ipv6: add that flag if your agent has it, else leave this range out", p)
		default:
			all = append(all, p)
		}
	}
	for i, p := range all {
		if !coveredByOther(all, i) {
			c.podNet = append(c.podNet, p)
		}
	}
}

// coveredByOther says whether a range lies in another of the list; of equal ones the first stands.
func coveredByOther(all []netip.Prefix, i int) bool {
	for j, q := range all {
		if j != i && covers(q, all[i]) && (q != all[i] || j < i) {
			return true
		}
	}
	return false
}

// covers says whether a holds all of b.
func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

func touchesLinkLocal(p netip.Prefix) bool {
	return p.Overlaps(linkLocal[0]) || p.Overlaps(linkLocal[1])
}

// emit writes the manifests of a configuration.
func (c *masqConverter) emit(cfg *masqConfig) {
	for _, p := range c.podNet {
		c.result.Manifests = append(c.result.Manifests, pool(rangeName("pods", p),
			"Pods: what they open to the outside is translated. disabled: true, since their addresses come from another network, and none is to be given out from here.",
			map[string]any{"cidr": p.String(), "natOutgoing": true, "disabled": true}))
	}
	c.exempt(cfg)
	c.settings(cfg)
}

// settings writes a NATConfiguration with what the agent did.
func (c *masqConverter) settings(cfg *masqConfig) {
	spec := map[string]any{}
	if cfg.snatTarget.IsValid() {
		spec["addresses"] = []any{cfg.snatTarget.String()}
	}
	if c.flags.ToPorts != "" {
		c.toPorts(spec)
	}
	random := cfg.version != versionTwo // which has no such flag, and never does so
	if c.flags.RandomFully != nil {
		random = *c.flags.RandomFully
	}
	switch {
	case !random:
		spec["portAllocation"] = "Preserve"
	case c.flags.RandomFully != nil:
		spec["portAllocation"] = "FullyRandom"
	}
	spec["linkLocal"] = "Keep" // as the agent does unless it is told otherwise
	if cfg.masqLinkLocal && !cfg.listsLinkLocal {
		spec["linkLocal"] = "Translate"
	}
	c.result.Manifests = append(c.result.Manifests, configuration("ip-masq-agent", "", spec))
}

// toPorts takes over --to-ports, of which the agent takes several ranges.
func (c *masqConverter) toPorts(spec map[string]any) {
	var best ports
	ranges := strings.Split(c.flags.ToPorts, ",")
	for _, s := range ranges {
		p, wrong := parsePorts(s, "-")
		if wrong != "" {
			c.fault(place{}, "--to-ports", "%s", wrong)
			return
		}
		if best.first == 0 || p.size() > best.size() {
			best = p
		}
	}
	if len(ranges) > 1 {
		c.note(place{}, "--to-ports", "a NATConfiguration has one range of ports: of %s the largest is taken, %s. Set portRange if another one suits better", quote(c.flags.ToPorts), best)
	}
	spec["portRange"] = best.String()
}
