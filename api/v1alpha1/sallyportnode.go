package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindSallyportNode is the kind of a SallyportNode.
const KindSallyportNode = "SallyportNode"

// SallyportNode is how Sallyport stands on one node. The agent of the node writes it, under the node's name, and the
// node owns it, so that it goes with the node. It is written when something in it changes, not now and then: counters
// are metrics.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=sallyportnodes,shortName=spnode
// +kubebuilder:printcolumn:name="Ready",type=boolean,JSONPath=`.status.ready`,description="Whether the kernel was read back and equals the pools and settings"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`,description="Why it is not ready"
// +kubebuilder:printcolumn:name="Translates-To",type=string,JSONPath=`.status.translatesTo`,description="The addresses that connections are translated to"
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`,description="The version of the agent"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SallyportNode struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is that of the node.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// How the node stands.
	// +required
	Status SallyportNodeStatus `json:"status"`
}

// SallyportNodeStatus is how Sallyport stands on one node.
type SallyportNodeStatus struct {
	// Whether the kernel was read back and equals the pools and settings that the agent has seen.
	Ready bool `json:"ready"`

	// Why it is not ready, in words; at most 1024 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// The version of the agent.
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version"`

	// How far the node is: what the kernel holds.
	// +optional
	Observed Observed `json:"observed,omitzero"`

	// Pools that the node knows and does not hold as they are; at most 50, by name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	Exceptions []PoolException `json:"exceptions,omitempty"`

	// How many exceptions there are beside those that are listed. While there are any, no pool counts as held.
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
}

// Observed is how far a node has followed the API: the highest resourceVersion, as a decimal number, among the objects
// of a kind that the kernel holds. An object with a resourceVersion up to it is held, unless it is among the
// exceptions. Empty: none was seen, or the node is not ready. The number may be that of an earlier change of the
// same object, where later ones changed nothing but its status, and follows within some minutes.
type Observed struct {
	// Of the pools.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	IPPools string `json:"ipPools,omitempty"`

	// Of the NATConfigurations.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	NATConfigurations string `json:"natConfigurations,omitempty"`
}

// PoolException is a pool that a node does not hold as it is.
type PoolException struct {
	// The name of the pool.
	// +kubebuilder:validation:MaxLength=253
	Pool string `json:"pool"`

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
