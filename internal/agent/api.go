package agent

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// Status is how the node stands; `sallyport status -o json` prints it.
type Status struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	// Ready says that the kernel was read back and equals the plan; Reason is why not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`

	Dir       string                  `json:"dir,omitempty"` // absent in a cluster
	API       *APIStatus              `json:"api,omitempty"` // absent without a cluster
	Drivers   []reconcile.DriverState `json:"drivers"`
	Resources ResourceStatus          `json:"resources"`
	NAT       *NATStatus              `json:"nat,omitempty"`       // absent before the first plan
	Flows     *FlowsStatus            `json:"flows,omitempty"`     // absent before live flows were judged
	LeakGuard *LeakGuardStatus        `json:"leakGuard,omitempty"` // absent while it is off
	Network   *NetworkStatus          `json:"network,omitempty"`   // absent where this agent is not the pod network
	Pools     []PoolStatus            `json:"pools"`
	// Faults are what is wrong with the manifests. While there is one, the last good state of all
	// resources stays in force.
	Faults []model.Fault `json:"faults"`
	// Pending are the names of files whose change is not in force yet: somebody is writing them, or removed
	// them a moment ago.
	Pending []string `json:"pending"`
	// Warnings are what is wrong without holding anything back.
	Warnings []model.Fault `json:"warnings"`
	// Problems are what on the node stands in the way of the plan, the worst first, as of Examined. Ready does
	// not depend on them. At most 50 of each kind are listed.
	Problems  []diagnose.Problem `json:"problems"`
	Examined  time.Time          `json:"examined,omitzero"`   // absent before the first examination
	Conntrack *ConntrackStatus   `json:"conntrack,omitempty"` // absent where it could not be read
	Ports     *diagnose.Ports    `json:"ports,omitempty"`     // likewise; counted once a minute
}

// APIStatus is how the API server answers.
type APIStatus struct {
	Server string `json:"server"`
	// Heard is when it was last heard of, which is about once a minute where nothing changes; absent: never since the
	// agent started.
	Heard time.Time `json:"heard,omitzero"`
	// Lost is since when it does not answer, and Error why; both are absent while it does. What was last heard stays in
	// force.
	Lost  time.Time `json:"lost,omitzero"`
	Error string    `json:"error,omitempty"`
}

// ConntrackStatus is how full the kernel's connection tracking is, and what it dropped.
type ConntrackStatus struct {
	Entries uint64 `json:"entries"`
	Limit   uint64 `json:"limit"` // 0: none
	// InsertFailed counts connections that were dropped since no entry could be made for them, above all for
	// want of a free port; Dropped counts packets dropped for that reason or since the table was full.
	InsertFailed uint64 `json:"insertFailed"`
	Dropped      uint64 `json:"dropped"`
}

// ResourceStatus counts the resources in force.
type ResourceStatus struct {
	Pools             int `json:"pools"`
	NATConfigurations int `json:"natConfigurations"`
	Nodes             int `json:"nodes"`
}

// LeakGuardStatus counts the packets that the leak guard has dropped since the table was made.
type LeakGuardStatus struct {
	DroppedOut uint64 `json:"droppedOut"` // that would have left with an address that is to be translated
	DroppedIn  uint64 `json:"droppedIn"`  // TCP segments from outside that belong to no connection
}

// NATStatus is what the plan says about translation on this node.
type NATStatus struct {
	SourceRanges   int                  `json:"sourceRanges"`
	ExemptRanges   int                  `json:"exemptRanges"`
	OutInterfaces  []string             `json:"outInterfaces,omitempty"` // absent: every interface
	To4            string               `json:"to4"`                     // "node" or an address
	To6            string               `json:"to6"`
	Ports          string               `json:"ports,omitempty"`
	UDPPorts       string               `json:"udpPorts,omitempty"`
	PortAllocation model.PortAllocation `json:"portAllocation"`
	// Settings say for each field of a NATConfiguration what is in force, and which configuration decided that.
	Settings []compile.Setting `json:"settings"`
}

// PoolStatus is how one pool stands on this node.
type PoolStatus struct {
	Name        string       `json:"name"`
	CIDR        netip.Prefix `json:"cidr"`
	NATOutgoing bool         `json:"natOutgoing"`
	Disabled    bool         `json:"disabled"`
	Allocatable bool         `json:"allocatable"`
	Reason      string       `json:"reason"`  // of the Allocatable condition
	Message     string       `json:"message"` // of the same
	// TranslatedConnections counts those that this pool decided, since the table was made.
	TranslatedConnections uint64 `json:"translatedConnections"`
}

// WaitRequest asks the agent to answer when it holds objects in the kernel.
type WaitRequest struct {
	Objects []ObjectDigest `json:"objects"`
	// Seconds to wait at most, up to 600.
	Seconds float64 `json:"seconds"`
}

// ObjectDigest names an object with one content.
type ObjectDigest struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Digest string `json:"digest"` // as the datastore gives it; empty: the object is gone
}

// WaitResponse is the answer to a WaitRequest.
type WaitResponse struct {
	Held   bool   `json:"held"`
	Reason string `json:"reason,omitempty"` // why not in time
}

// CleanupRequest asks the agent to remove what it has put into the kernel, and to end.
type CleanupRequest struct {
	// Seconds after which the agent gives up, puts back what it has removed and goes on; up to 600.
	Seconds float64 `json:"seconds"`
}

// ObjectsResponse is what the agent knows of the objects of a kind, or of some of them.
type ObjectsResponse struct {
	// Dir and Current are as in ExplainResponse, but that the kernel does not matter here.
	Dir     string `json:"dir,omitempty"`
	Current bool   `json:"current"`
	// Fault is what is wrong with the directory itself; absent where nothing is.
	Fault *model.Fault `json:"fault,omitempty"`
	// Objects are sorted by name; absent unless Current.
	Objects []DeclaredObject `json:"objects,omitempty"`
	// Pools are those of them that are in force, without the connections they have translated; sorted by name.
	Pools []PoolStatus `json:"pools,omitempty"`
}

// DeclaredObject is an object as a manifest declares it.
type DeclaredObject struct {
	Kind   string          `json:"kind"`
	Name   string          `json:"name"`
	Object json.RawMessage `json:"object"`
}

// ExplainResponse is the verdict of the plan that the agent holds.
type ExplainResponse struct {
	Node     string            `json:"node"`
	Verdict  compile.Verdict   `json:"verdict"`
	Settings []compile.Setting `json:"settings"` // of the plan
	// Ready says that the kernel was read back and equals that plan; Reason is why not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Dir is the directory of manifests that the agent watches; absent in a cluster. Current says that the agent has
	// looked it over for this answer, and that the plan is that of the manifests as they are: none is faulty, and none is
	// being written.
	Dir     string `json:"dir,omitempty"`
	Current bool   `json:"current"`
	// Fault is the first of those for which the last good state is in force, and not what the manifests declare; absent
	// where there is none.
	Fault *model.Fault `json:"fault,omitempty"`
	// Route is how the plan reaches the block of the destination, in words; absent where no block holds it, and where the agent
	// is not the pod network.
	Route string `json:"route,omitempty"`
	// BGP names the learned route to the destination, and the peers that the blocks of source and destination are announced to;
	// absent where there is neither.
	BGP []string `json:"bgp,omitempty"`
}
