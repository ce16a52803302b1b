package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/internal/compile"
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
	Pod       string       `json:"pod,omitempty"` // NAMESPACE/NAME, in a cluster
	UID       string       `json:"uid,omitempty"` // of the pod
	Leaving   bool         `json:"leaving,omitempty"`
}

// NetworkStatus is how the pod network of a node stands.
type NetworkStatus struct {
	Addresses []netip.Addr `json:"addresses"` // by which other nodes reach this one, at most one of each family
	Tunnels   []netip.Addr `json:"tunnels"`   // of its VXLAN devices, likewise
	MTU       int          `json:"mtu"`       // of the interfaces of workloads, in bytes; 0: the kernel's default
	Workloads int          `json:"workloads"`
	Blocks    int          `json:"blocks"`
	InUse     int          `json:"inUse"`     // addresses of these blocks that are in use
	Cooling   int          `json:"cooling"`   // given back, and not given out again yet
	Shortened uint64       `json:"shortened"` // given out before they had cooled down, since the agent started
	// Dropped counts packets since the rules were made; absent where the kernel was not read.
	Dropped *NetworkDropped `json:"dropped,omitempty"`
	// Settings say for each field of a NodeNetworkConfiguration what is in force, and which object decided that.
	Settings []compile.NetworkSetting `json:"settings"`
	// Problems are what keeps blocks of other nodes from being reached.
	Problems []string `json:"problems"`
	// BGPProblems are what keeps the node from speaking BGP as it is asked to.
	BGPProblems []string `json:"bgpProblems"`
	// BGP is how BGP stands; absent where the node has no peer.
	BGP *BGPStatus `json:"bgp,omitempty"`
}

// NetworkDropped counts packets that were dropped.
type NetworkDropped struct {
	Spoofed  uint64 `json:"spoofed"`  // that a workload sent from an address that is not its own
	Injected uint64 `json:"injected"` // that were for the overlay between nodes, and not from a node
}

// status is nil without a plan.
func (n *network) status(ctx context.Context, plan *compile.Plan) *NetworkStatus {
	if n == nil || plan == nil {
		return nil
	}
	c := n.manager.Counts()
	out := &NetworkStatus{Addresses: []netip.Addr{}, Tunnels: append([]netip.Addr{}, c.Tunnels...), MTU: plan.Workloads.MTU, Workloads: c.Workloads,
		Blocks: len(c.Blocks), Shortened: c.Shortened, Settings: plan.Network.Settings,
		Problems: append([]string{}, plan.Network.Problems...), BGPProblems: append([]string{}, plan.BGP.Problems...)}
	for _, a := range []netip.Addr{plan.Workloads.Node4, plan.Workloads.Node6} {
		if a.IsValid() {
			out.Addresses = append(out.Addresses, a)
		}
	}
	var err error
	if out.BGP, err = n.speaker.status(ctx); err != nil {
		out.BGPProblems = append(out.BGPProblems, err.Error())
	}
	if d, err := n.links.Drops(ctx); err == nil {
		out.Dropped = &NetworkDropped{d.Spoofed, d.Injected}
	}
	for _, b := range c.Blocks {
		out.InUse, out.Cooling = out.InUse+b.Used, out.Cooling+b.Cooling
	}
	return out
}

func collectNetwork(s *NetworkStatus, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	if s == nil {
		return
	}
	send(desc("workloads", "Workloads that have addresses of this node."), prometheus.GaugeValue, float64(s.Workloads))
	send(desc("blocks", "Blocks of pools that this node owns."), prometheus.GaugeValue, float64(s.Blocks))
	addresses := desc("block_addresses", "Addresses of this node's blocks, by what becomes of them: used, or cooling.", "state")
	send(addresses, prometheus.GaugeValue, float64(s.InUse), "used")
	send(addresses, prometheus.GaugeValue, float64(s.Cooling), "cooling")
	send(desc("addresses_shortened_total", "Addresses that were given out before they had cooled down, since no other one was free."), prometheus.CounterValue, float64(s.Shortened))
	if s.Dropped != nil {
		dropped := desc("workload_dropped_total", "Packets of workloads that were dropped, by why: spoofed is another source than the workload's, injected is for the overlay between nodes.", "reason")
		send(dropped, prometheus.CounterValue, float64(s.Dropped.Spoofed), "spoofed")
		send(dropped, prometheus.CounterValue, float64(s.Dropped.Injected), "injected")
	}
	send(desc("network_problems", "Reasons for which blocks of other nodes are not reached."), prometheus.GaugeValue, float64(len(s.Problems)))
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
	pods := a.network.manager.Pods()
	for _, h := range u.Workloads {
		out.Workloads = append(out.Workloads, IPAMWorkload{h.Addresses, h.Link, h.ContainerID, h.Interface, pods[h.Addresses[0]], h.UID, h.Leaving})
	}
	reply(w, out)
}

// ReleaseRequest asks to give back a block of this node.
type ReleaseRequest struct {
	Block netip.Prefix `json:"block"`
}

func (a *Agent) serveRelease(w http.ResponseWriter, r *http.Request) {
	if a.network == nil {
		http.Error(w, noPodNetwork, http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var req ReleaseRequest
	if err = cmp.Or(err, json.Unmarshal(body, &req)); err != nil {
		http.Error(w, "reading the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := a.network.manager.Release(r.Context(), req.Block); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	reply(w, struct{}{})
}

// Release asks the pod network to give back a block of this node at once.
func (c *Client) Release(ctx context.Context, block netip.Prefix) error {
	var nothing struct{}
	return c.callWithin(ctx, patience, http.MethodPost, "/v1/ipam/release", ReleaseRequest{block}, &nothing, maxAnswer)
}

// IPAM asks what the pod network of the node gives out.
func (c *Client) IPAM(ctx context.Context) (*IPAMResponse, error) {
	var r IPAMResponse
	return &r, c.callWithin(ctx, glance, http.MethodGet, "/v1/ipam", nil, &r, maxList)
}
