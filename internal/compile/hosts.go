package compile

import (
	"net/netip"

	"github.com/sallyport/sallyport/internal/model"
)

// hostAddresses are the addresses of nodes that are exempt, with the node that has each.
type hostAddresses map[netip.Addr]string

// collectHosts gathers the declared addresses of every node and this node's own. Of two nodes that
// claim one address, this node and then the lower name is said to have it.
func collectHosts(nodes []model.Node, local model.Local) hostAddresses {
	hosts := make(hostAddresses, len(local.Interfaces)+len(nodes))
	for _, p := range local.Interfaces {
		if !p.Addr().IsLoopback() {
			hosts[p.Addr()] = local.Name
		}
	}
	for i := range nodes {
		for _, a := range nodes[i].Addresses {
			if _, ok := hosts[a]; !ok && !a.IsLoopback() {
				hosts[a] = nodes[i].Name
			}
		}
	}
	return hosts
}
