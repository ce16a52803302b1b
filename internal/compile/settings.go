package compile

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
)

// settings are what the NATConfigurations come to for one node, with the defaults filled in.
type settings struct {
	exclusions    model.Exclusions
	to4, to6      netip.Addr
	ports         model.PortRange
	allocation    model.PortAllocation
	existingFlows model.ExistingFlows
	linkLocal     model.LinkLocal
	leakGuard     model.LeakGuard
	outInterfaces []string
}

// Setting is one field of what the NATConfigurations come to for a node, and the configuration that decided it.
type Setting struct {
	Field  string `json:"field"`            // of the spec, such as portRange
	Family string `json:"family,omitempty"` // IPv4 or IPv6, for addresses: they are merged by family
	// Value is the one in force: "node" stands for the address of the interface by which a connection leaves, and
	// "" for ports that the kernel chooses and for all interfaces.
	Value string `json:"value"`
	// NATConfiguration is the one that decided it; absent where the default is in force.
	NATConfiguration string `json:"natConfiguration,omitempty"`
	// Overridden are the others that select the node and set this field, in the order in which they would decide.
	Overridden []string `json:"overridden,omitempty"`
}

// NeedsNodes says whether the plan of a node depends on the addresses of other nodes.
func NeedsNodes(s *model.Snapshot, node string) bool {
	merged, _ := merge(selecting(s, node, s.NATConfigurations, natSelector))
	return merged.exclusions == model.ExcludeIPPoolsAndHostIPs
}

// Merge says field by field what configurations that all select one node come to for it, and which of them decided
// each field. Their order does not matter.
func Merge(configs []*model.NATConfiguration) []Setting {
	_, origins := merge(slices.Clone(configs))
	return origins
}

// selecting are the configurations, of whichever kind, that select the node. A selector that does not parse selects nothing
// (validation refuses it).
func selecting[C any](s *model.Snapshot, node string, all []C, nodeSelector func(*C) string) []*C {
	labels := labelsOf(s.Nodes, node)
	var chosen []*C
	for i := range all {
		if sel, err := selector.Parse(nodeSelector(&all[i])); err == nil && sel.Matches(labels) {
			chosen = append(chosen, &all[i])
		}
	}
	return chosen
}

func natSelector(c *model.NATConfiguration) string { return c.NodeSelector }

// merge merges configurations, which it sorts, field by field: the highest priority wins, then the lower name. The
// Settings come in the order of the fields of the spec.
func merge(chosen []*model.NATConfiguration) (settings, []Setting) {
	slices.SortFunc(chosen, func(a, b *model.NATConfiguration) int {
		switch {
		case a.Priority > b.Priority, a.Priority == b.Priority && a.Name < b.Name:
			return -1
		default:
			return 1
		}
	})
	const fields = 9
	m := merger{chosen, make([]Setting, 0, fields)}
	var out settings
	out.exclusions = first(&m, Setting{Field: "exclusions"}, model.ExcludeIPPoolsOnly, func(c *model.NATConfiguration) *model.Exclusions { return c.Exclusions }, asText)
	out.to4 = first(&m, Setting{Field: "addresses", Family: "IPv4"}, netip.Addr{}, address(netip.Addr.Is4), addressText)
	out.to6 = first(&m, Setting{Field: "addresses", Family: "IPv6"}, netip.Addr{}, address(netip.Addr.Is6), addressText)
	out.ports = first(&m, Setting{Field: "portRange"}, model.PortRange{}, func(c *model.NATConfiguration) *model.PortRange { return c.PortRange }, model.PortRange.String)
	out.allocation = first(&m, Setting{Field: "portAllocation"}, model.PortsFullyRandom, func(c *model.NATConfiguration) *model.PortAllocation { return c.PortAllocation }, asText)
	out.existingFlows = first(&m, Setting{Field: "existingFlows"}, model.FlowsMove, func(c *model.NATConfiguration) *model.ExistingFlows { return c.ExistingFlows }, asText)
	out.outInterfaces = first(&m, Setting{Field: "outInterfaces"}, nil, interfaces, func(names []string) string { return strings.Join(names, ",") })
	out.linkLocal = first(&m, Setting{Field: "linkLocal"}, model.LinkLocalTranslate, func(c *model.NATConfiguration) *model.LinkLocal { return c.LinkLocal }, asText)
	out.leakGuard = first(&m, Setting{Field: "leakGuard"}, model.LeakGuardEnabled, func(c *model.NATConfiguration) *model.LeakGuard { return c.LeakGuard }, asText)
	return out, m.origins
}

// merger is a merge under way: the configurations, the first of which decides, and what was merged so far.
type merger struct {
	chosen  []*model.NATConfiguration
	origins []Setting
}

// first is the value of the first configuration that sets the field, or the default. It notes where that is from.
func first[T any](m *merger, s Setting, def T, field func(*model.NATConfiguration) *T, text func(T) string) T {
	value, by, overridden := decide(m.chosen, def, func(c *model.NATConfiguration) string { return c.Name }, field)
	s.Value, s.NATConfiguration, s.Overridden = text(value), by, overridden
	m.origins = append(m.origins, s)
	return value
}

// decide is the value of the first configuration that sets a field, or the default, the configuration's name, and those of the
// others that set it.
func decide[C, T any](chosen []*C, def T, name func(*C) string, field func(*C) *T) (value T, by string, overridden []string) {
	value = def
	found := false
	for _, c := range chosen {
		switch v := field(c); {
		case v == nil:
		case found:
			overridden = append(overridden, name(c))
		default:
			value, found, by = *v, true, name(c)
		}
	}
	return value, by, overridden
}

// address is the field of an address of one family. A configuration that lists addresses of the other family alone
// leaves this one to the next; one with an empty list decides for both families that there is none.
func address(family func(netip.Addr) bool) func(*model.NATConfiguration) *netip.Addr {
	return func(c *model.NATConfiguration) *netip.Addr {
		if i := slices.IndexFunc(c.Addresses, family); i >= 0 {
			return &c.Addresses[i]
		}
		if c.Addresses != nil && len(c.Addresses) == 0 {
			return &netip.Addr{}
		}
		return nil
	}
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return "node"
	}
	return a.String()
}

// interfaces is the field outInterfaces, sorted.
func interfaces(c *model.NATConfiguration) *[]string {
	if c.OutInterfaces == nil {
		return nil
	}
	names := slices.Compact(slices.Sorted(slices.Values(c.OutInterfaces)))
	return &names
}

func asText[T ~string](v T) string { return string(v) }

func labelsOf(nodes []model.Node, name string) map[string]string {
	for i := range nodes {
		if nodes[i].Name == name {
			return nodes[i].Labels
		}
	}
	return nil
}
