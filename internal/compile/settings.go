package compile

import (
	"net/netip"
	"slices"

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
	leakGuard     model.LeakGuard
	outInterfaces []string
}

// NeedsNodes says whether the plan of a node depends on the addresses of other nodes.
func NeedsNodes(s *model.Snapshot, node string) bool {
	return settingsFor(s, node).exclusions == model.ExcludeIPPoolsAndHostIPs
}

// settingsFor merges, field by field, the configurations that select the node: the highest priority
// wins, then the lower name. A selector that does not parse selects nothing (validation refuses it).
func settingsFor(s *model.Snapshot, node string) settings {
	labels := labelsOf(s.Nodes, node)
	var chosen []*model.NATConfiguration
	for i := range s.NATConfigurations {
		c := &s.NATConfigurations[i]
		if sel, err := selector.Parse(c.NodeSelector); err == nil && sel.Matches(labels) {
			chosen = append(chosen, c)
		}
	}
	slices.SortFunc(chosen, func(a, b *model.NATConfiguration) int {
		switch {
		case a.Priority > b.Priority, a.Priority == b.Priority && a.Name < b.Name:
			return -1
		default:
			return 1
		}
	})

	out := settings{exclusions: model.ExcludeIPPoolsOnly, allocation: model.PortsFullyRandom, existingFlows: model.FlowsMove,
		leakGuard: model.LeakGuardEnforce}
	out.exclusions = first(chosen, out.exclusions, func(c *model.NATConfiguration) *model.Exclusions { return c.Exclusions })
	out.ports = first(chosen, out.ports, func(c *model.NATConfiguration) *model.PortRange { return c.PortRange })
	out.allocation = first(chosen, out.allocation, func(c *model.NATConfiguration) *model.PortAllocation { return c.PortAllocation })
	out.existingFlows = first(chosen, out.existingFlows, func(c *model.NATConfiguration) *model.ExistingFlows { return c.ExistingFlows })
	out.leakGuard = first(chosen, out.leakGuard, func(c *model.NATConfiguration) *model.LeakGuard { return c.LeakGuard })
	out.to4 = address(chosen, netip.Addr.Is4)
	out.to6 = address(chosen, netip.Addr.Is6)
	for _, c := range chosen {
		if c.OutInterfaces != nil {
			out.outInterfaces = slices.Compact(slices.Sorted(slices.Values(c.OutInterfaces)))
			break
		}
	}
	return out
}

// first is the value of the first configuration that sets the field, or the default.
func first[T any](cs []*model.NATConfiguration, def T, field func(*model.NATConfiguration) *T) T {
	for _, c := range cs {
		if v := field(c); v != nil {
			return *v
		}
	}
	return def
}

// address is the address of one family that the configurations agree on. A configuration that lists
// addresses of the other family alone leaves this one to the next; one with an empty list decides for
// both families that there is none.
func address(cs []*model.NATConfiguration, family func(netip.Addr) bool) netip.Addr {
	for _, c := range cs {
		if i := slices.IndexFunc(c.Addresses, family); i >= 0 {
			return c.Addresses[i]
		}
		if c.Addresses != nil && len(c.Addresses) == 0 {
			break
		}
	}
	return netip.Addr{}
}

func labelsOf(nodes []model.Node, name string) map[string]string {
	for i := range nodes {
		if nodes[i].Name == name {
			return nodes[i].Labels
		}
	}
	return nil
}
