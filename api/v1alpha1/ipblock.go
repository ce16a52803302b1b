package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindIPBlock is the kind of an IPBlock.
const KindIPBlock = "IPBlock"

// BlockFinalizer stands on each IPBlock. The agent that gives a block back removes it, when no address of the block is in
// use; the controller removes it where the Node has been absent and its agent silent for 15 minutes.
const BlockFinalizer = Group + "/block"

// PoolFinalizer stands on each IPPool of which a node owns a block. The controller removes it when the last one was given back:
// until then a pool that was deleted is terminating, and still decides about its addresses.
const PoolFinalizer = Group + "/blocks"

// IPBlock is a piece of a pool that one node owns: no other node gives out its addresses. Agents claim blocks by creating
// them. The name stands for the CIDR, so that the API server lets one node alone have each block: 4-10-244-1-0-26 for
// 10.244.1.0/26, and 6-fd00-0010-0000-0000-0000-0000-0000-0040-122 for fd00:10::40/122.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ipb
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`,description="The addresses of the block"
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`,description="The node that gives them out"
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`,description="The pool that the block is a piece of"
// +kubebuilder:printcolumn:name="Allocated",type=integer,JSONPath=`.status.allocated`,description="How many addresses are in use"
// +kubebuilder:printcolumn:name="Cooling",type=integer,JSONPath=`.status.cooling`,description="How many addresses wait before they are given out again"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
//
// +kubebuilder:validation:XValidation:fieldPath=".spec.cidr",rule="!isCIDR(self.spec.cidr) || (cidr(self.spec.cidr).ip().family() == 4 ? self.metadata.name == '4-' + self.spec.cidr.replace('.', '-').replace('/', '-') : self.metadata.name.matches('^6(-[0-9a-f]{4}){8}-[0-9]{1,3}$') && [self.metadata.name.substring(2, self.metadata.name.lastIndexOf('-')).replace('-', ':') + self.metadata.name.substring(self.metadata.name.lastIndexOf('-')).replace('-', '/')].all(t, isCIDR(t) && cidr(t) == cidr(self.spec.cidr)))",message="is not what metadata.name stands for, such as 4-10-244-1-0-26 for 10.244.1.0/26; let the agents of nodes claim blocks"
type IPBlock struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name stands for the CIDR.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// What the block is.
	// +required
	Spec IPBlockSpec `json:"spec"`

	// How much of it is in use.
	// +optional
	Status IPBlockStatus `json:"status,omitzero"`
}

// IPBlockSpec is what a block is. It cannot be changed.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed; the node that owns a block gives it back, and another one claims it"
type IPBlockSpec struct {
	// The addresses of the block, such as 10.244.1.0/26. No bit is set behind the prefix.
	// +required
	// +kubebuilder:validation:MaxLength=48
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR, such as 10.244.1.0/26 or fd00:10:244::/122"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="has bits set behind the prefix"
	CIDR string `json:"cidr"`

	// The name of the node that gives out the addresses.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`

	// The name of the pool that the block is a piece of.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Pool string `json:"pool"`

	// The UID of that pool: a pool that was deleted and created again is another one.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	PoolUID string `json:"poolUID"`
}

// IPBlockStatus is how much of a block is in use. The agent of the node writes it now and then, not with each address.
type IPBlockStatus struct {
	// How many addresses pods, or the node itself, have.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Allocated int32 `json:"allocated"`

	// How many addresses were given back, and wait before they are given out again.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Cooling int32 `json:"cooling"`

	// When that was so.
	// +optional
	ObservedTime metav1.Time `json:"observedTime,omitzero"`
}

// IPBlockList is a list of IPBlocks.
//
// +kubebuilder:object:root=true
type IPBlockList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []IPBlock `json:"items"`
}
