package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindSallyportNode is the kind of a SallyportNode.
const KindSallyportNode = "SallyportNode"

// SallyportNodeConditionReady is the type of the condition that says whether the kernel of a node was read back and
// equals the pools and settings. The agent of the node writes it. The controller writes Unknown in its place while the
// agent gives no sign of life; an agent that is back writes it again.
const SallyportNodeConditionReady = "Ready"

// Reasons of the condition Ready.
const (
	// SallyportNodeReasonProgrammed: the kernel was read back and equals the pools and settings. The agent says so.
	SallyportNodeReasonProgrammed = "Programmed"
	// SallyportNodeReasonNotProgrammed: it does not, or the agent has no pools yet. The agent says so.
	SallyportNodeReasonNotProgrammed = "NotProgrammed"
	// SallyportNodeReasonHeartbeatMissing: the agent has not renewed its Lease for too long. The controller says so.
	SallyportNodeReasonHeartbeatMissing = "HeartbeatMissing"
	// SallyportNodeReasonRebooted: what the agent said is from before the node booted. The controller says so.
	SallyportNodeReasonRebooted = "Rebooted"
)

// LeaseUnknownSince is the annotation by which the controller tells an agent, on the Lease that the agent renews, that it
// has called the node unknown, and since when: the agent then writes again how the node stands.
const LeaseUnknownSince = Group + "/unknown-since"

// SallyportNode is how Sallyport stands on one node. The agent of the node writes it, under the node's name, and the
// node owns it, so that it goes with the node. It is written when something in it changes, not now and then: counters
// are metrics. That the agent lives, it says by a Lease: the controller calls a node unknown after 2 minutes without.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=sallyportnodes,shortName=spnode
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether the kernel was read back and equals the pools and settings"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why, in one word"
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,description="Why, in words"
// +kubebuilder:printcolumn:name="Translates-To",type=string,JSONPath=`.status.translatesTo`,description="The addresses that connections are translated to"
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`,description="The version of the agent"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SallyportNode struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is that of the node.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// How the node stands.
	// +optional
	Status SallyportNodeStatus `json:"status,omitzero"`
}

// SallyportNodeStatus is how Sallyport stands on one node.
type SallyportNodeStatus struct {
	// Ready: whether the kernel was read back and equals the pools and settings that the agent has seen; Unknown while the
	// agent gives no sign of life, or where what it said is from before the node booted.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// The boot of the node that this was said in, as /proc/sys/kernel/random/boot_id names it and
	// status.nodeInfo.bootID of the Node: where the two differ, the node has booted since.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID,omitempty"`

	// The version of the agent.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`

	// How far the node is: what the kernel holds.
	// +optional
	Observed Observed `json:"observed,omitzero"`

	// Pools and NATConfigurations that the node knows and does not hold as they are; at most 50, by kind and name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	Exceptions []Exception `json:"exceptions,omitempty"`

	// How many exceptions there are beside those that are listed. While there are any, none of either kind counts as held.
	// +optional
	MoreExceptions int64 `json:"moreExceptions,omitempty"`

	// What connections are translated to: configured addresses, and "node" for a family without one, whose
	// connections get the address of the interface by which they leave.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=45
	TranslatesTo []string `json:"translatesTo,omitempty"`

	// What is wrong on the node without holding anything back, the worst first; at most 10, of 512 characters.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:MaxLength=512
	Warnings []string `json:"warnings,omitempty"`

	// How BGP stands; absent where nothing asks the node to speak it.
	// +optional
	BGP *NodeBGP `json:"bgp,omitempty"`
}

// NodeBGP is how BGP stands on a node.
type NodeBGP struct {
	// How many sessions the node is asked to have.
	Sessions int64 `json:"sessions"`

	// How many of them are up.
	Established int64 `json:"established"`

	// The BGPPeers that ask the node for sessions, by name; at most 64.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Peers []NodeBGPPeer `json:"peers,omitempty"`

	// The sessions, those that are down first; at most 64. Numbers of routes may be a few minutes old: the metrics have them as they are.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	List []NodeBGPSession `json:"list,omitempty"`
}

// NodeBGPPeer is a BGPPeer that asks a node for sessions.
type NodeBGPPeer struct {
	// The name of the BGPPeer.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Its metadata.generation.
	// +optional
	Generation int64 `json:"generation,omitempty"`

	// How many sessions the node has by it; 0 where it needs none, or for the reason in why.
	Sessions int64 `json:"sessions"`

	// How many of them are up.
	Established int64 `json:"established"`

	// What is wrong with one of them, in words; at most 256 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Why string `json:"why,omitempty"`
}

// NodeBGPSession is a session of a node.
type NodeBGPSession struct {
	// The address of the peer; with the interface where it is link-local.
	// +kubebuilder:validation:MaxLength=64
	Peer string `json:"peer"`

	// The BGPPeer that asks for it; absent: the mesh between nodes does.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	BGPPeer string `json:"bgpPeer,omitempty"`

	// The node at the other end; absent: it is a router.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`

	// The AS number of the peer.
	ASNumber int64 `json:"asNumber"`

	// Whether it is up: Established, or Down.
	// +kubebuilder:validation:Enum=Established;Down
	State string `json:"state"`

	// Since when; absent where it never was up.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`

	// Why it is down, or what keeps the node from having it as asked, in words; at most 256 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Why string `json:"why,omitempty"`

	// How many routes the peer tells of.
	Received int64 `json:"received"`

	// How many of them the node believes.
	Accepted int64 `json:"accepted"`

	// How many routes of the node the peer is told of.
	Told int64 `json:"told"`
}

// The states of a session.
const (
	BGPSessionEstablished = "Established"
	BGPSessionDown        = "Down"
)

// Observed is how far a node has followed the API: the highest resourceVersion, as a decimal number, among the objects
// of a kind that the kernel holds. An object with a resourceVersion up to it is held, unless it is among the
// exceptions. Empty: none was seen, one has a resourceVersion that is no number, or the node is not ready. The number may be that of an earlier change of the
// same object, where later ones changed nothing but its status.
//
// A digest stands for the generations of all objects of a kind that were seen then. The controller compares it with that of
// the objects in the API: where the two are the same, the node has seen each of these generations by that number.
type Observed struct {
	// Of the pools.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	IPPools string `json:"ipPools,omitempty"`

	// The digest of the pools that were seen.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	IPPoolsDigest string `json:"ipPoolsDigest,omitempty"`

	// Of the NATConfigurations.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	NATConfigurations string `json:"natConfigurations,omitempty"`

	// The digest of the NATConfigurations that were seen.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	NATConfigurationsDigest string `json:"natConfigurationsDigest,omitempty"`
}

// Exception is an object that a node does not hold as it is.
type Exception struct {
	// IPPool or NATConfiguration.
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	// The name of the object.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Its metadata.generation.
	// +optional
	Generation int64 `json:"generation,omitempty"`

	// Why, in words; at most 512 characters.
	// +kubebuilder:validation:MaxLength=512
	Reason string `json:"reason"`
}

// SallyportNodeList is a list of SallyportNodes.
//
// +kubebuilder:object:root=true
type SallyportNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []SallyportNode `json:"items"`
}
