package agent

import (
	"context"
	"net/http"
	"net/netip"
)

// IPAMResponse is what the pod network of a node gives out; `sallyport ipam show -o json` prints it.
type IPAMResponse struct {
	Node   string      `json:"node"`
	Blocks []IPAMBlock `json:"blocks"`
	// Workloads are those whose links the kernel has.
	Workloads []IPAMWorkload `json:"workloads"`
	// Shortened counts the addresses that were given out before they had cooled down, since the agent started.
	Shortened uint64 `json:"shortened"`
	// Faults are where the kernel, the agent and the datastore do not agree.
	Faults []string `json:"faults"`
}

// IPAMBlock is a block of this node.
type IPAMBlock struct {
	CIDR    netip.Prefix `json:"cidr"`
	Pool    string       `json:"pool"`
	InUse   int          `json:"inUse"`
	Cooling int          `json:"cooling"` // given back, and not given out again yet
	Size    uint64       `json:"size"`    // addresses in all
}

// IPAMWorkload is a workload with its addresses.
type IPAMWorkload struct {
	Addresses []netip.Addr `json:"addresses"`
	Link      string       `json:"link"` // the interface on the node
	Container string       `json:"container"`
	Interface string       `json:"interface"`     // in the container
	UID       string       `json:"uid,omitempty"` // of the pod
	Leaving   bool         `json:"leaving,omitempty"`
}

const noPodNetwork = "this agent is not the pod network: it runs without --network, and another one gives pods their addresses"

func (a *Agent) serveIPAM(w http.ResponseWriter, r *http.Request) {
	if a.network == nil {
		http.Error(w, noPodNetwork, http.StatusNotFound)
		return
	}
	u, err := a.network.manager.Usage(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	out := IPAMResponse{Node: a.cfg.NodeName, Blocks: []IPAMBlock{}, Workloads: []IPAMWorkload{}, Shortened: u.Shortened, Faults: append([]string{}, u.Faults...)}
	for _, b := range u.Blocks {
		out.Blocks = append(out.Blocks, IPAMBlock{b.CIDR, b.Pool, b.Used, b.Cooling, b.Size()})
	}
	for _, h := range u.Workloads {
		out.Workloads = append(out.Workloads, IPAMWorkload{h.Addresses, h.Link, h.ContainerID, h.Interface, h.UID, h.Leaving})
	}
	reply(w, out)
}

// IPAM asks what the pod network of the node gives out.
func (c *Client) IPAM(ctx context.Context) (*IPAMResponse, error) {
	var r IPAMResponse
	return &r, c.callWithin(ctx, glance, http.MethodGet, "/v1/ipam", nil, &r, maxList)
}
