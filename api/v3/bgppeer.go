package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindBGPPeer is the kind of a BGPPeer.
const KindBGPPeer = "BGPPeer"

// BGPPeer asks nodes to speak BGP (RFC 4271) with a router, or with other nodes. Each node tells its peers of its blocks, and
// takes the routes that they tell of.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Node Selector",type=string,JSONPath=`.spec.nodeSelector`,description="The nodes that have the peer"
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`,description="The node that has the peer"
// +kubebuilder:printcolumn:name="Peer Selector",type=string,JSONPath=`.spec.peerSelector`,description="The nodes that are the peers"
// +kubebuilder:printcolumn:name="Peer IP",type=string,JSONPath=`.spec.peerIP`,description="The address of the peer"
// +kubebuilder:printcolumn:name="Peer ASN",type=string,JSONPath=`.spec.asNumber`,description="The AS number of the peer"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPPeer struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is a DNS subdomain (RFC 1123): lower case letters, digits, "-" and
	// ".", at most 253 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// Which nodes speak with which peer, and how.
	// +required
	Spec BGPPeerSpec `json:"spec"`

	// What was observed of the sessions. Written by the system; ignored in manifests.
	// +optional
	Status *BGPPeerStatus `json:"status,omitempty"`
}

// BGPPeerSpec says which nodes speak with which peer, and how.
//
// +kubebuilder:validation:XValidation:fieldPath=".nodeSelector",rule=`self.?node.orValue("").size() == 0 || self.?nodeSelector.orValue("").size() == 0`,message="excludes node; remove one of the two"
// +kubebuilder:validation:XValidation:fieldPath=".peerIP",rule=`self.?peerIP.orValue("").size() > 0 || self.?peerSelector.orValue("").size() > 0 || self.?localWorkloadSelector.orValue("").size() > 0`,message="is missing; set peerIP and asNumber for a router, or peerSelector for nodes"
// +kubebuilder:validation:XValidation:fieldPath=".peerSelector",rule=`self.?peerIP.orValue("").size() == 0 || self.?peerSelector.orValue("").size() == 0`,message="excludes peerIP; remove one of the two"
// +kubebuilder:validation:XValidation:fieldPath=".asNumber",rule=`self.?peerIP.orValue("").size() == 0 || self.?peerSelector.orValue("").size() > 0 || self.?localWorkloadSelector.orValue("").size() > 0 || self.?asNumber.orValue(0) != 0`,message="is missing; set the AS number of the router at peerIP"
// +kubebuilder:validation:XValidation:fieldPath=".asNumber",rule=`self.?peerSelector.orValue("").size() == 0 || self.?peerIP.orValue("").size() > 0 || self.?asNumber.orValue(0) == 0`,message="must be absent beside peerSelector: nodes have the AS numbers of their annotations and of the BGPConfiguration"
// +kubebuilder:validation:XValidation:fieldPath=".localWorkloadSelector",rule=`self.?localWorkloadSelector.orValue("").size() == 0 || self.?peerIP.orValue("").size() == 0 && self.?peerSelector.orValue("").size() == 0`,message="excludes peerIP and peerSelector; remove it, or these"
// +kubebuilder:validation:XValidation:fieldPath=".asNumber",rule=`self.?localWorkloadSelector.orValue("").size() == 0 || self.?peerIP.orValue("").size() > 0 || self.?peerSelector.orValue("").size() > 0 || self.?asNumber.orValue(0) != 0`,message="is missing; localWorkloadSelector needs it"
// +kubebuilder:validation:XValidation:fieldPath=".reachableBy",rule=`self.?reachableBy.orValue("").size() == 0 || self.?peerIP.orValue("").size() > 0`,message="is the way to peerIP, which is missing; remove it, or set peerIP"
// +kubebuilder:validation:XValidation:fieldPath=".keepOriginalNextHop",rule="!self.?keepOriginalNextHop.orValue(false) || !has(self.nextHopMode)",message="is the old form of nextHopMode; remove one of the two"
type BGPPeerSpec struct {
	// The name of the one node that has the peer. Excludes nodeSelector. Default: the nodes of nodeSelector.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`

	// The nodes that have the peer, as a selector over their labels, such as rack == 'a'; at most 262144 bytes. Excludes node.
	// Default: all().
	// +optional
	// +kubebuilder:validation:MaxLength=262144
	NodeSelector string `json:"nodeSelector,omitempty"`

	// The address of the peer: IPv4, IPv6, or link-local IPv6 with the node's interface, such as 192.0.2.1, 2001:db8::1 or
	// fe80::1%eth0. A port may follow: 192.0.2.1:1179, or [2001:db8::1]:1179. Without one it is 179, or the listenPort of the
	// node that has the address. A session carries routes of the family of its address; one with a link-local peer carries both.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.size() == 0 || [self.matches('^\\\\[[^\\\\[\\\\]]*:[^\\\\[\\\\]]*\\\\]:[0-9]{1,5}$') ? self.substring(1, self.lastIndexOf(']')) : self.matches('^[0-9.]+:[0-9]{1,5}$') ? self.substring(0, self.lastIndexOf(':')) : self].all(host, isIP(host.contains('%') ? host.substring(0, host.indexOf('%')) : host) && (!host.contains('%') || host.matches('^[^%]+%[^/:*%[:space:]]{1,15}$'))) && (!self.matches('^.*(\\\\]|[.][0-9]+):[0-9]{1,5}$') || int(self.substring(self.lastIndexOf(':') + 1)) >= 1 && int(self.substring(self.lastIndexOf(':') + 1)) <= 65535)",message="must be an address, such as 192.0.2.1, 2001:db8::1 or fe80::1%eth0, or one with a port, such as 192.0.2.1:1179 or [2001:db8::1]:1179"
	// +kubebuilder:validation:XValidation:rule="self.matches('^\\\\[?[fF][eE][89aAbB][0-9a-fA-F]:') == self.contains('%')",message="must name the interface where it is link-local (fe80::/10), such as fe80::1%eth0, and only there"
	PeerIP string `json:"peerIP,omitempty"`

	// The AS number of the peer, 1 to 4294967295. Required with peerIP; absent with peerSelector. 0 is the same as no value.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	ASNumber int64 `json:"asNumber,omitempty"`

	// The AS number by which the node speaks with this peer, 1 to 4294967295. 0 is the same as no value. Default: the node's own.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalASNumber int64 `json:"localASNumber,omitempty"`

	// The nodes that are the peers, as a selector over their labels; at most 262144 bytes. Each pair of nodes has a session for
	// each family that both have an address of. Excludes peerIP.
	// +optional
	// +kubebuilder:validation:MaxLength=262144
	PeerSelector string `json:"peerSelector,omitempty"`

	// Whether the nodes of peerSelector get the other end of these sessions by this BGPPeer too (Auto), or by one of their own
	// (Manual). Default: Auto.
	// +optional
	ReversePeering BGPReversePeering `json:"reversePeering,omitempty"`

	// The password of the sessions (TCP MD5, RFC 2385). Default: none.
	// +optional
	Password *BGPPassword `json:"password,omitempty"`

	// From which address a node speaks: its own by which other nodes reach it (UseNodeIP), or whichever the kernel chooses
	// (None), as it always is with a link-local peer. Default: UseNodeIP.
	// +optional
	SourceAddress BGPSourceAddress `json:"sourceAddress,omitempty"`

	// The next hop of routes that a route reflector reflects to the peer: the one that they have (Keep, and Auto), or the
	// reflector itself (Self). The node's own blocks have the node as next hop always. Default: Auto.
	// +optional
	NextHopMode *BGPNextHopMode `json:"nextHopMode,omitempty"`

	// The old form of nextHopMode: Keep. Excludes it.
	// +optional
	KeepOriginalNextHop bool `json:"keepOriginalNextHop,omitempty"`

	// How often a node says that it lives, 1s to 21845s, such as 30s; parts of a second are rounded. The hold time becomes three times
	// that, if it is less. Default: a third of the hold time, which a NodeNetworkConfiguration sets.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(ns|us|ms|s|m|h)){1,6}$') && duration(self) >= duration('1s') && duration(self) <= duration('21845s')",message="must be a duration of 1s to 21845s, such as 30s"
	KeepaliveTime string `json:"keepaliveTime,omitempty"`

	// How long the peer keeps the node's routes while the node's agent restarts (graceful restart, RFC 4724), 1s to 4095s, such as
	// 120s; parts of a second are rounded. Default: 120s.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(ns|us|ms|s|m|h)){1,6}$') && duration(self) >= duration('1s') && duration(self) <= duration('4095s')",message="must be a duration of 1s to 4095s, such as 120s"
	MaxRestartTime string `json:"maxRestartTime,omitempty"`

	// How many hops the peer is away, 1 to 255: packets that come from further are dropped (RFC 5082). The peer must do likewise. 0
	// is the same as no value. Default: from how far packets come does not matter.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	TTLSecurity int32 `json:"ttlSecurity,omitempty"`

	// How often the node's own AS number may stand in the AS path of a route that it takes, 0 to 255. More than 0 gives up
	// the protection against loops. Default: 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	NumAllowedLocalASNumbers int32 `json:"numAllowedLocalASNumbers,omitempty"`

	// The names of BGPFilters, of which the first rule that matches a route decides about it; at most 100. While one of them does
	// not exist, there is no session. Default: none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=253
	Filters []string `json:"filters,omitempty"`

	// The gateway to the peer. Sallyport does not act on it: give the node a route to the peer instead.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ReachableBy string `json:"reachableBy,omitempty"`

	// Pods of the node that are the peers. Sallyport does not act on it: a BGPPeer that has it makes no session.
	// +optional
	// +kubebuilder:validation:MaxLength=262144
	LocalWorkloadSelector string `json:"localWorkloadSelector,omitempty"`
}

// BGPReversePeering says who configures the other end of a session between nodes.
// +kubebuilder:validation:Enum=Auto;Manual
type BGPReversePeering string

// The values of BGPReversePeering.
const (
	BGPReversePeeringAuto   BGPReversePeering = "Auto"
	BGPReversePeeringManual BGPReversePeering = "Manual"
)

// BGPSourceAddress says from which address a node speaks.
// +kubebuilder:validation:Enum=UseNodeIP;None
type BGPSourceAddress string

// The values of BGPSourceAddress.
const (
	BGPSourceAddressUseNodeIP BGPSourceAddress = "UseNodeIP"
	BGPSourceAddressNone      BGPSourceAddress = "None"
)

// BGPNextHopMode says which next hop reflected routes have.
// +kubebuilder:validation:Enum=Auto;Self;Keep
type BGPNextHopMode string

// The values of BGPNextHopMode.
const (
	BGPNextHopModeAuto BGPNextHopMode = "Auto"
	BGPNextHopModeSelf BGPNextHopMode = "Self"
	BGPNextHopModeKeep BGPNextHopMode = "Keep"
)

// BGPPassword says where a password is.
type BGPPassword struct {
	// The Secret that has it.
	// +optional
	SecretKeyRef *SecretKeySelector `json:"secretKeyRef,omitempty"`
}

// SecretKeySelector is a key of a Secret in the namespace of the agents. Without Kubernetes it is a file of mode 0600, of the name
// of the key, in a directory of the name of the Secret.
type SecretKeySelector struct {
	// The name of the Secret, a DNS subdomain.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Secret: lower case letters, digits, '-' and '.'"
	Name string `json:"name"`

	// The key in its data: letters, digits, "-", "_" and ".", at most 253 characters.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && !self.startsWith('..') && self != '.'",message="must be a key of a Secret: letters, digits, '-', '_' and '.'"
	Key string `json:"key"`

	// Whether the sessions go without a password where the Secret or the key does not exist. Default: false, so that there is
	// no session.
	// +optional
	Optional *bool `json:"optional,omitempty"`
}

// The types of the conditions of BGPPeers, BGPConfigurations and BGPFilters.
const (
	// BGPConditionAccepted says whether nodes act on the object as a whole.
	BGPConditionAccepted = "Accepted"
	// BGPConditionEstablished says whether all sessions of a BGPPeer are up.
	BGPConditionEstablished = "Established"
)

// The reasons of the condition Accepted.
const (
	// BGPReasonOK comes with status True.
	BGPReasonOK = "OK"
	// BGPReasonFieldsIgnored comes with status True: the object sets fields on which Sallyport does not act, which the message names.
	BGPReasonFieldsIgnored = "FieldsIgnored"
	// BGPReasonInvalid comes with status False: nodes do not use the object, or not as it is now.
	BGPReasonInvalid = "Invalid"
)

// BGPPeerStatus is what was observed of a BGPPeer.
type BGPPeerStatus struct {
	// The conditions of the peer. Accepted says whether nodes act on all of it, with reason OK, FieldsIgnored or Invalid.
	// Established says on how many nodes its sessions are up.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BGPPeerList is a list of BGPPeers.
//
// +kubebuilder:object:root=true
type BGPPeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []BGPPeer `json:"items"`
}
