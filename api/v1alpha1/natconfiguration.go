package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindNATConfiguration is the kind of a NATConfiguration.
const KindNATConfiguration = "NATConfiguration"

// NATConfiguration says how connections are translated on the nodes that it selects. Several may select
// one node. They are merged field by field: for each field, the configuration with the highest priority
// among those that set it decides, and of equal priorities the one lower in name. Defaults are filled in
// after that. Each default can be set, against a configuration that has a lower priority: the fields name the
// value, and an empty list is set, to nothing. A field that is absent is not set.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=natconfig
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.spec.nodeSelector`,description="The nodes it is for"
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`,description="The highest decides"
// +kubebuilder:printcolumn:name="Exclusions",type=string,JSONPath=`.spec.exclusions`,description="The destinations that are not translated"
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.spec.addresses`,description="The addresses to translate to"
// +kubebuilder:printcolumn:name="Ports",type=string,JSONPath=`.spec.portRange`,description="The source ports of translated connections"
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,description="Whether it decides anything"
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`,description="Whether every ready node that it selects goes by it"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NATConfiguration struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is a DNS subdomain (RFC 1123): lower case letters, digits, "-" and
	// ".", at most 253 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// How connections should be translated.
	// +required
	Spec NATConfigurationSpec `json:"spec"`

	// What the controller says of it.
	// +optional
	Status NATConfigurationStatus `json:"status,omitzero"`
}

// NATConfigurationStatus is what the controller says of a NATConfiguration.
type NATConfigurationStatus struct {
	// Accepted: whether it decides at least one setting of a node, or would if it selected one. Programmed: whether every
	// ready node that it selects goes by it.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// The types of the conditions of a NATConfiguration.
const (
	NATConfigurationConditionAccepted   = "Accepted"
	NATConfigurationConditionProgrammed = "Programmed"
)

// Reasons of the conditions of a NATConfiguration.
const (
	// NATConfigurationReasonAccepted: it decides something, or sets nothing.
	NATConfigurationReasonAccepted = "Accepted"
	// NATConfigurationReasonInvalidSelector: its nodeSelector does not parse.
	NATConfigurationReasonInvalidSelector = "InvalidSelector"
	// NATConfigurationReasonInvalid: it holds something that this version of the controller does not understand.
	NATConfigurationReasonInvalid = "Invalid"
	// NATConfigurationReasonOverridden: others decide every field that it sets on every node that it selects.
	NATConfigurationReasonOverridden = "Overridden"
	// NATConfigurationReasonProgrammed: every ready node that it selects goes by it.
	NATConfigurationReasonProgrammed = "Programmed"
	// NATConfigurationReasonNoNodes: it selects no node that has an agent.
	NATConfigurationReasonNoNodes = "NoNodes"
	// NATConfigurationReasonNodesNotReady: a node is not ready, unknown, or cannot hold it.
	NATConfigurationReasonNodesNotReady = "NodesNotReady"
	// NATConfigurationReasonPending: a node has not taken it up yet.
	NATConfigurationReasonPending = "Pending"
	// NATConfigurationReasonNotComparable: whether nodes have taken it up cannot be known, since its resourceVersion is no
	// number.
	NATConfigurationReasonNotComparable = "NotComparable"
)

// NATConfigurationSpec says how connections should be translated.
type NATConfigurationSpec struct {
	// The nodes that the configuration is for, as a selector over their labels, such as zone == 'a'; at most
	// 262144 bytes. global() cannot be used here. Default: all().
	// +optional
	// +kubebuilder:validation:MaxLength=262144
	// +kubebuilder:validation:XValidation:rule="!self.contains('global(')",message="holds global(), which selects nothing here; use all()"
	NodeSelector string `json:"nodeSelector,omitempty"`

	// Which configuration decides where several set the same field for one node: the one with the highest
	// priority, then the one lower in name. -2147483648 to 2147483647. Default: 0.
	// +optional
	Priority int32 `json:"priority,omitempty"`

	// The destinations that are not translated: those inside any pool (IPPoolsOnly), or these and the
	// addresses of all nodes (IPPoolsAndHostIPs). Default: IPPoolsOnly.
	// +optional
	Exclusions *Exclusions `json:"exclusions,omitempty"`

	// The addresses to translate to, in place of the address of the interface by which a connection leaves:
	// at most one of IPv4 and one of IPv6, each unicast and neither loopback nor link-local. They must belong
	// to the node, or be routed to it. Merged by family: a configuration with an IPv4 address leaves IPv6 to
	// the others; an empty list decides both. Default: the address of the interface.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:items:XValidation:rule="isIP(self)",message="must be an IP address, such as 192.0.2.1 or 2001:db8::1"
	// +kubebuilder:validation:items:XValidation:rule="!isIP(self) || ip(self).isGlobalUnicast()",message="is not an address that others can answer to; use a unicast address that is neither loopback, link-local nor unspecified"
	// +kubebuilder:validation:XValidation:rule="!self.all(a, isIP(a)) || (self.filter(a, ip(a).family() == 4).size() <= 1 && self.filter(a, ip(a).family() == 6).size() <= 1)",message="holds two addresses of one family; keep at most one of IPv4 and one of IPv6"
	Addresses []string `json:"addresses,omitzero"`

	// The source ports of translated TCP, UDP and SCTP connections, as FIRST-LAST, both included, each 1 to
	// 65535, such as 32768-65535; or Any: the kernel chooses. While a pool uses VXLAN, port 4789 is kept free of
	// UDP, so that a range of 4789 alone is refused. Default: Any.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self == 'Any' || (self.matches('^[1-9][0-9]{0,4}-[1-9][0-9]{0,4}$') && int(self.split('-')[0]) <= 65535 && int(self.split('-')[1]) <= 65535)",message="must be FIRST-LAST with ports from 1 to 65535, such as 32768-65535, or Any"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[1-9][0-9]{0,4}-[1-9][0-9]{0,4}$') || int(self.split('-')[0]) > 65535 || int(self.split('-')[1]) > 65535 || int(self.split('-')[0]) <= int(self.split('-')[1])",messageExpression="'ends before it begins; write ' + self.split('-')[1] + '-' + self.split('-')[0]"
	// +kubebuilder:validation:XValidation:rule="self != '4789-4789'",message="4789 is the port of VXLAN, which translated UDP must not use; widen the range"
	PortRange *string `json:"portRange,omitempty"`

	// How the source port of a translated connection is picked: at random each time (FullyRandom), at random
	// by a hash of source and destination (Random), or the original one where it is free (Preserve). Default:
	// FullyRandom.
	// +optional
	PortAllocation *PortAllocation `json:"portAllocation,omitempty"`

	// What becomes of connections that are open when a change decides otherwise about them. Move: those of UDP,
	// ICMP and other protocols without connections take the new decision within a second, those of TCP and SCTP
	// finish under the old one, and those without an answer yet begin again. Keep: all finish under the
	// old one. Reset: none does. Default: Move.
	// +optional
	ExistingFlows *ExistingFlows `json:"existingFlows,omitempty"`

	// The interfaces by which a connection must leave to be translated, by name, 1 to 15 bytes each; a "*" at
	// the end matches any rest, so eth* means eth0, eth1 and so on. Empty or absent: every interface.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=15
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[^/:*[:space:]]{1,15}$|^[^/:*[:space:]]{1,14}[*]$') && bytes(self).size() <= 15 && !(self in ['.', '..'])",message="must be the name of an interface, 1 to 15 bytes without '/', ':' and white space, such as eth0, or the beginning of one and '*', such as eth*"
	OutInterfaces []string `json:"outInterfaces,omitzero"`

	// What happens to connections to IPv4 link-local addresses (169.254.0.0/16) outside the node, such as a
	// cloud's metadata service: they are translated like those to any other destination (Translate), or keep the
	// pod's address (Keep). Connections to the node's own addresses, link-local ones too, are never translated.
	// Nor are those to IPv6 link-local addresses (fe80::/10), which no node forwards. Default: Translate.
	// +optional
	LinkLocal *LinkLocal `json:"linkLocal,omitempty"`

	// What happens to a packet that should have been translated and was not, such as one that belongs to no
	// connection: it is dropped and counted (Enabled), or sent with the address of the pod (Disabled). The guard
	// also drops TCP segments that come from outside for no connection and no socket, since the reset with
	// which the node answers them can end a connection of a pod's that is well. Default: Enabled.
	// +optional
	LeakGuard *LeakGuard `json:"leakGuard,omitempty"`
}

// Exclusions says which destinations are not translated.
// +kubebuilder:validation:Enum=IPPoolsOnly;IPPoolsAndHostIPs
type Exclusions string

// The values of Exclusions.
const (
	ExclusionsIPPoolsOnly       Exclusions = "IPPoolsOnly"
	ExclusionsIPPoolsAndHostIPs Exclusions = "IPPoolsAndHostIPs"
)

// PortAllocation says how the source port of a translated connection is picked.
// +kubebuilder:validation:Enum=FullyRandom;Random;Preserve
type PortAllocation string

// The values of PortAllocation.
const (
	PortAllocationFullyRandom PortAllocation = "FullyRandom"
	PortAllocationRandom      PortAllocation = "Random"
	PortAllocationPreserve    PortAllocation = "Preserve"
)

// ExistingFlows says what becomes of open connections about which a change decides otherwise.
// +kubebuilder:validation:Enum=Move;Keep;Reset
type ExistingFlows string

// The values of ExistingFlows.
const (
	ExistingFlowsMove  ExistingFlows = "Move"
	ExistingFlowsKeep  ExistingFlows = "Keep"
	ExistingFlowsReset ExistingFlows = "Reset"
)

// LinkLocal says what happens to connections to IPv4 link-local addresses.
// +kubebuilder:validation:Enum=Translate;Keep
type LinkLocal string

// The values of LinkLocal.
const (
	LinkLocalTranslate LinkLocal = "Translate"
	LinkLocalKeep      LinkLocal = "Keep"
)

// LeakGuard says what happens to a packet that should have been translated and was not.
// +kubebuilder:validation:Enum=Enabled;Disabled
type LeakGuard string

// The values of LeakGuard.
const (
	LeakGuardEnabled  LeakGuard = "Enabled"
	LeakGuardDisabled LeakGuard = "Disabled"
)

// NATConfigurationList is a list of NATConfigurations.
//
// +kubebuilder:object:root=true
type NATConfigurationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []NATConfiguration `json:"items"`
}
