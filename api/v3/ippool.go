package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindIPPool is the kind of an IPPool.
const KindIPPool = "IPPool"

// IPPool is a range of addresses: which nodes and namespaces may use it, how packets travel between
// nodes, and whether connections that leave it are translated to the node's address.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName={ipp,ipps}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`,description="The range of the pool"
// +kubebuilder:printcolumn:name="NAT",type=boolean,JSONPath=`.spec.natOutgoing`,description="Whether connections that leave every pool are translated"
// +kubebuilder:printcolumn:name="VXLAN",type=string,JSONPath=`.spec.vxlanMode`,description="When packets between nodes are carried in VXLAN"
// +kubebuilder:printcolumn:name="IPIP",type=string,JSONPath=`.spec.ipipMode`,description="When packets between nodes are carried in IP in IP"
// +kubebuilder:printcolumn:name="Allocatable",type=string,JSONPath=`.status.conditions[?(@.type=="Allocatable")].status`,description="Whether the pool can give out addresses"
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`,description="Whether every ready node holds the pool"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IPPool struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is a DNS subdomain (RFC 1123): lower case letters, digits, "-" and
	// ".", at most 253 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// What the pool should be.
	// +required
	Spec IPPoolSpec `json:"spec"`

	// What was observed of the pool. Written by the system; ignored in manifests.
	// +optional
	Status *IPPoolStatus `json:"status,omitempty"`
}

// IPPoolSpec is what an IPPool should be.
//
// Its rules guard each other, so that one fault gives one error, on its own field: every rule that reads
// the CIDR holds while the CIDR cannot be parsed, and a rule about a change holds where the new value is
// wrong by itself. Optional fields are read as self.?field.orValue(default), which looks each up once. No
// rule may compare with an empty text in two apostrophes: gofmt turns them into a quotation mark.
//
// +kubebuilder:validation:XValidation:fieldPath=".cidr",rule="!isCIDR(self.cidr) || !isCIDR(oldSelf.cidr) || cidr(self.cidr).masked() == cidr(oldSelf.cidr).masked()",messageExpression="'cannot change from ' + oldSelf.cidr + '; delete the pool and create another with the new range'"
// +kubebuilder:validation:XValidation:fieldPath=".blockSize",rule="self.?blockSize.orValue(0) == 0 || !isCIDR(self.cidr) || (cidr(self.cidr).ip().family() == 4 ? self.blockSize >= 20 && self.blockSize <= 32 : self.blockSize >= 116 && self.blockSize <= 128)",messageExpression="cidr(self.cidr).ip().family() == 4 ? 'must be 20 to 32 for IPv4, default 26' : 'must be 116 to 128 for IPv6, default 122'"
// +kubebuilder:validation:XValidation:fieldPath=".blockSize",rule="self.?disabled.orValue(false) || !isCIDR(self.cidr) || [cidr(self.cidr)].all(c, [self.?blockSize.orValue(0)].all(b, b == 0 ? c.prefixLength() <= (c.ip().family() == 4 ? 26 : 122) : c.prefixLength() <= b || b < (c.ip().family() == 4 ? 20 : 116)))",messageExpression="(self.?blockSize.orValue(0) != 0 ? 'a block of this size' : cidr(self.cidr).ip().family() == 4 ? 'the default block, /26,' : 'the default block, /122,') + ' is larger than the pool ' + self.cidr + '; set blockSize to ' + self.cidr.split('/')[1] + ' or more, or disabled to true'"
// +kubebuilder:validation:XValidation:fieldPath=".blockSize",rule="!isCIDR(self.cidr) || !isCIDR(oldSelf.cidr) || !(cidr(self.cidr).masked() == cidr(oldSelf.cidr).masked()) || (self.?blockSize.orValue(0) != 0 && (cidr(self.cidr).ip().family() == 4 ? self.blockSize < 20 || self.blockSize > 32 : self.blockSize < 116 || self.blockSize > 128)) || (self.?blockSize.orValue(0) != 0 ? self.blockSize : cidr(self.cidr).ip().family() == 4 ? 26 : 122) == (oldSelf.?blockSize.orValue(0) != 0 ? oldSelf.blockSize : cidr(self.cidr).ip().family() == 4 ? 26 : 122)",message="cannot change (no value means 26 for IPv4, 122 for IPv6); delete the pool and create another with the new block size"
// +kubebuilder:validation:XValidation:fieldPath=".ipipMode",rule="self.?ipipMode.orValue('Never') == 'Never' || !((isCIDR(self.cidr) && cidr(self.cidr).ip().family() == 6) || self.?allowedUses.orValue([]) == ['LoadBalancer'])",messageExpression="((isCIDR(self.cidr) && cidr(self.cidr).ip().family() == 6) ? 'IP in IP carries IPv4 only' : 'a pool for LoadBalancer is never encapsulated') + '; set ipipMode to Never'"
// +kubebuilder:validation:XValidation:fieldPath=".vxlanMode",rule="self.?vxlanMode.orValue('Never') == 'Never' || !(self.?allowedUses.orValue([]) == ['LoadBalancer'])",message="a pool for LoadBalancer is never encapsulated; set vxlanMode to Never"
// +kubebuilder:validation:XValidation:fieldPath=".vxlanMode",rule="self.?vxlanMode.orValue('Never') == 'Never' || self.?ipipMode.orValue('Never') == 'Never' || (isCIDR(self.cidr) && cidr(self.cidr).ip().family() == 6) || self.?allowedUses.orValue([]) == ['LoadBalancer']",message="VXLAN and IP in IP exclude each other; set vxlanMode or ipipMode to Never"
// +kubebuilder:validation:XValidation:fieldPath=".allowedUses",rule="!has(oldSelf.allowedUses) || !('LoadBalancer' in oldSelf.allowedUses) || (has(self.allowedUses) && 'LoadBalancer' in self.allowedUses)",message="a pool for LoadBalancer stays one; delete it and create another for other uses"
// +kubebuilder:validation:XValidation:fieldPath=".nodeSelector",rule="self.?nodeSelector.orValue('all()') == 'all()' || !(self.?allowedUses.orValue([]) == ['LoadBalancer'])",message="addresses for LoadBalancer belong to no node; remove nodeSelector, or write all()"
// +kubebuilder:validation:XValidation:fieldPath=".disableBGPExport",rule="!self.?disableBGPExport.orValue(false) || !(self.?allowedUses.orValue([]) == ['LoadBalancer'])",message="addresses for LoadBalancer are reached by BGP; set disableBGPExport to false, or remove it"
// +kubebuilder:validation:XValidation:fieldPath=".namespaceSelector",rule="!has(self.namespaceSelector) || self.namespaceSelector.size() == 0 || !has(self.allowedUses) || !('Tunnel' in self.allowedUses)",message="tunnels belong to no namespace; remove namespaceSelector, or Tunnel from allowedUses"
type IPPoolSpec struct {
	// The range of the pool, such as 10.244.0.0/16 or fd00:10:244::/56. No bit is set behind the prefix; IPv6 may be
	// written in any form. The range must not overlap the link-local ranges 169.254.0.0/16 and fe80::/10, and
	// cannot be changed, though its text can.
	// +required
	// +kubebuilder:validation:MaxLength=48
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR, such as 10.244.0.0/16 or fd00:10:244::/56"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="has bits set behind the prefix"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).ip().family() == 6 || !(cidr('169.254.0.0/16').containsCIDR(cidr(self).masked()) || cidr(self).masked().containsCIDR('169.254.0.0/16'))",message="overlaps the link-local range 169.254.0.0/16, which is never routed; choose another range"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).ip().family() == 4 || !(cidr('fe80::/10').containsCIDR(cidr(self).masked()) || cidr(self).masked().containsCIDR('fe80::/10'))",message="overlaps the link-local range fe80::/10, which is never routed; choose another range"
	CIDR string `json:"cidr"`

	// When packets between nodes are carried in VXLAN (RFC 7348, UDP port 4789): Never, Always, or CrossSubnet
	// (only between nodes whose addresses lie in different subnets). Excludes ipipMode. Default: Never.
	// +optional
	VXLANMode VXLANMode `json:"vxlanMode,omitempty"`

	// When packets between nodes are carried in IP in IP (RFC 2003): Never, Always, or CrossSubnet. For IPv4
	// only. Excludes vxlanMode. Default: Never.
	// +optional
	IPIPMode IPIPMode `json:"ipipMode,omitempty"`

	// Whether a connection that an address of this pool opens to a destination outside every pool leaves with
	// the node's address. Where pools nest, one that says true is enough. Default: false.
	// +optional
	NATOutgoing bool `json:"natOutgoing,omitempty"`

	// Whether the pool gives out no new address. It changes nothing else: the pool still translates the
	// addresses that are in use, and its range is still a destination that is not translated. Default: false.
	// +optional
	Disabled bool `json:"disabled,omitempty"`

	// Whether routes to this pool are kept out of BGP. Refused in a pool for LoadBalancer. Default: false.
	// +optional
	DisableBGPExport bool `json:"disableBGPExport,omitempty"`

	// The prefix length of a block, the piece of the pool that one node owns: 20 to 32 for IPv4 (default 26,
	// which is 64 addresses), 116 to 128 for IPv6 (default 122). A block is no larger than the pool, unless the
	// pool is disabled. Cannot be changed. 0 is the same as no value.
	// +optional
	BlockSize int `json:"blockSize,omitempty"`

	// The nodes that may use the pool, as a selector over their labels, such as zone == 'a'; at most 262144
	// bytes. global() cannot be used here, and nothing but all() in a pool for LoadBalancer. Default: all().
	// +optional
	// +kubebuilder:validation:MaxLength=262144
	// +kubebuilder:validation:XValidation:rule="!self.contains('global(')",message="holds global(), which selects nothing here; use all()"
	NodeSelector string `json:"nodeSelector,omitempty"`

	// The namespaces whose workloads may use the pool, as a selector over their labels, in addition to
	// nodeSelector; at most 262144 bytes. Refused where allowedUses names Tunnel, since tunnels belong to no
	// namespace. global() cannot be used here. Default: all().
	// +optional
	// +kubebuilder:validation:MaxLength=262144
	// +kubebuilder:validation:XValidation:rule="!self.contains('global(')",message="holds global(), which selects nothing here; use all()"
	NamespaceSelector string `json:"namespaceSelector,omitempty"`

	// What addresses of the pool are for: Workload (pods and containers), Tunnel (the nodes' own ends of
	// tunnels), LoadBalancer (services). LoadBalancer stands alone, allows no encapsulation and, once set,
	// stays. Default, also for an empty list: Workload and Tunnel.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:XValidation:rule="!('LoadBalancer' in self) || !self.exists(u, u in ['Workload', 'Tunnel'])",message="LoadBalancer stands alone; remove it or the other uses"
	AllowedUses []IPPoolAllowedUse `json:"allowedUses,omitempty"`

	// Whether addresses are given to any pod (Automatic), or only to pods that ask for this pool
	// or an address of it by name (Manual). Default: Automatic.
	// +optional
	AssignmentMode *AssignmentMode `json:"assignmentMode,omitempty"`
}

// VXLANMode says when packets between nodes are carried in VXLAN.
// +kubebuilder:validation:Enum=Never;Always;CrossSubnet
type VXLANMode string

// The values of VXLANMode.
const (
	VXLANModeNever       VXLANMode = "Never"
	VXLANModeAlways      VXLANMode = "Always"
	VXLANModeCrossSubnet VXLANMode = "CrossSubnet"
)

// IPIPMode says when packets between nodes are carried in IP in IP.
// +kubebuilder:validation:Enum=Never;Always;CrossSubnet
type IPIPMode string

// The values of IPIPMode.
const (
	IPIPModeNever       IPIPMode = "Never"
	IPIPModeAlways      IPIPMode = "Always"
	IPIPModeCrossSubnet IPIPMode = "CrossSubnet"
)

// IPPoolAllowedUse is something that addresses of a pool may be used for.
// +kubebuilder:validation:Enum=Workload;Tunnel;LoadBalancer
type IPPoolAllowedUse string

// The values of IPPoolAllowedUse.
const (
	IPPoolAllowedUseWorkload     IPPoolAllowedUse = "Workload"
	IPPoolAllowedUseTunnel       IPPoolAllowedUse = "Tunnel"
	IPPoolAllowedUseLoadBalancer IPPoolAllowedUse = "LoadBalancer"
)

// AssignmentMode says who is given addresses of a pool.
// +kubebuilder:validation:Enum=Automatic;Manual
type AssignmentMode string

// The values of AssignmentMode.
const (
	Automatic AssignmentMode = "Automatic"
	Manual    AssignmentMode = "Manual"
)

// The types of the conditions of a pool.
const (
	// IPPoolConditionAllocatable says whether a pool can give out addresses.
	IPPoolConditionAllocatable = "Allocatable"
	// IPPoolConditionProgrammed says whether every ready node holds the pool, as of observedGeneration.
	IPPoolConditionProgrammed = "Programmed"
)

// The reasons of the condition Allocatable.
const (
	// IPPoolReasonOK comes with status True.
	IPPoolReasonOK = "OK"
	// IPPoolReasonPoolDisabled comes with status False: spec.disabled is true.
	IPPoolReasonPoolDisabled = "PoolDisabled"
	// IPPoolReasonCIDROverlap comes with status False: another pool that is allocatable already, else
	// older, else lower in name, overlaps this one.
	IPPoolReasonCIDROverlap = "CIDROverlap"
	// IPPoolReasonTerminating comes with status False: the pool is being deleted.
	IPPoolReasonTerminating = "Terminating"
	// IPPoolReasonInvalidSelector comes with status False: spec.nodeSelector or spec.namespaceSelector
	// cannot be read. Translation does not depend on them.
	IPPoolReasonInvalidSelector = "InvalidSelector"
)

// The reasons of the condition Programmed.
const (
	// IPPoolReasonProgrammed comes with status True: every ready node holds the pool.
	IPPoolReasonProgrammed = "Programmed"
	// IPPoolReasonPending comes with status False: nodes have not taken up the pool yet.
	IPPoolReasonPending = "Pending"
	// IPPoolReasonNodesNotReady comes with status False: there are nodes whose agent cannot hold the pool, or that
	// have no agent; or with status Unknown: there are nodes whose agent gives no sign of life.
	IPPoolReasonNodesNotReady = "NodesNotReady"
	// IPPoolReasonNotComparable comes with status Unknown: the resourceVersion of the pool is no number, so that
	// whether nodes have taken it up cannot be told.
	IPPoolReasonNotComparable = "NotComparable"
)

// IPPoolStatus is what was observed of an IPPool.
type IPPoolStatus struct {
	// The conditions of the pool. Allocatable says whether it can give out addresses, with reason OK,
	// PoolDisabled, CIDROverlap, Terminating or InvalidSelector. Programmed says whether every ready node holds it,
	// with reason Programmed, Pending, NodesNotReady or NotComparable.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// IPPoolList is a list of IPPools.
//
// +kubebuilder:object:root=true
type IPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []IPPool `json:"items"`
}
