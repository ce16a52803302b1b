package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindBGPFilter is the kind of a BGPFilter.
const KindBGPFilter = "BGPFilter"

// BGPFilter says which routes the BGPPeers that name it are told of, and which of their routes nodes take. Whatever it accepts,
// nodes tell of their own blocks alone, and take no route for their own addresses and blocks.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPFilter struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is a DNS subdomain (RFC 1123): lower case letters, digits, "-" and
	// ".", at most 253 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// The rules.
	// +required
	Spec BGPFilterSpec `json:"spec"`

	// What was observed of the filter. Written by the system; ignored in manifests.
	// +optional
	Status *BGPFilterStatus `json:"status,omitempty"`
}

// BGPFilterSpec has the rules of a filter. Of each list, the first rule that matches a route decides about it.
type BGPFilterSpec struct {
	// Which IPv4 routes the peer is told of; at most 1000 rules. Where no rule matches, it is told.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	ExportV4 []BGPFilterRuleV4 `json:"exportV4,omitempty"`

	// Which IPv4 routes of the peer nodes take; at most 1000 rules. Where no rule matches, all are taken but the default route.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	ImportV4 []BGPFilterRuleV4 `json:"importV4,omitempty"`

	// Which IPv6 routes the peer is told of; at most 1000 rules. Where no rule matches, it is told.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	ExportV6 []BGPFilterRuleV6 `json:"exportV6,omitempty"`

	// Which IPv6 routes of the peer nodes take; at most 1000 rules. Where no rule matches, all are taken but the default route.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	ImportV6 []BGPFilterRuleV6 `json:"importV6,omitempty"`
}

// BGPFilterRuleV4 is a rule about IPv4 routes.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:fieldPath=".matchOperator",rule=`(self.?cidr.orValue("").size() > 0) == has(self.matchOperator)`,message="goes with cidr; set both, or none of the two"
// +kubebuilder:validation:XValidation:fieldPath=".prefixLength",rule=`!has(self.prefixLength) || self.?cidr.orValue("").size() > 0`,message="needs cidr; set it, such as 0.0.0.0/0 for all routes"
type BGPFilterRuleV4 struct {
	BGPFilterRule `json:",inline"`

	// A range that the route is compared with, by matchOperator, such as 203.0.113.0/24. Bits behind the prefix count for nothing.
	// Default: every IPv4 route matches.
	// +optional
	// +kubebuilder:validation:MaxLength=18
	// +kubebuilder:validation:XValidation:rule="self.size() == 0 || isCIDR(self) && cidr(self).ip().family() == 4",message="must be a range of IPv4, such as 203.0.113.0/24"
	CIDR string `json:"cidr,omitempty"`

	// How long the prefix of the route is. Default: any length.
	// +optional
	PrefixLength *BGPFilterPrefixLengthV4 `json:"prefixLength,omitempty"`
}

// BGPFilterRuleV6 is a rule about IPv6 routes.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:fieldPath=".matchOperator",rule=`(self.?cidr.orValue("").size() > 0) == has(self.matchOperator)`,message="goes with cidr; set both, or none of the two"
// +kubebuilder:validation:XValidation:fieldPath=".prefixLength",rule=`!has(self.prefixLength) || self.?cidr.orValue("").size() > 0`,message="needs cidr; set it, such as ::/0 for all routes"
type BGPFilterRuleV6 struct {
	BGPFilterRule `json:",inline"`

	// A range that the route is compared with, by matchOperator, such as 2001:db8::/32. Bits behind the prefix count for nothing.
	// Default: every IPv6 route matches.
	// +optional
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="self.size() == 0 || isCIDR(self) && cidr(self).ip().family() == 6",message="must be a range of IPv6, such as 2001:db8::/32"
	CIDR string `json:"cidr,omitempty"`

	// How long the prefix of the route is. Default: any length.
	// +optional
	PrefixLength *BGPFilterPrefixLengthV6 `json:"prefixLength,omitempty"`
}

// BGPFilterRule is what rules of both families have. It names every field that Calico's rules have: without those that Sallyport
// does not have, a rule would match more routes than it says, or spread them further, so that they are refused.
type BGPFilterRule struct {
	// What becomes of a route that the rule matches.
	// +required
	Action BGPFilterAction `json:"action"`

	// How the route compares with cidr: it is that range (Equal), or lies in it (In), with a prefix of prefixLength; or it does not
	// (NotEqual, NotIn). Set together with cidr.
	// +optional
	MatchOperator *BGPFilterMatchOperator `json:"matchOperator,omitempty"`

	// Match only routes that the node was told of itself (RemotePeers), and not its own blocks. Default: all.
	// +optional
	Source *BGPFilterSource `json:"source,omitempty"`

	// Refused, since Sallyport does not match by it.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="self.size() == 0",message="is nothing that Sallyport matches by, and without it the rule would match more routes; remove the rule, or write it with cidr"
	Interface string `json:"interface,omitempty"`

	// Refused, since Sallyport does not match by it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="false",message="is nothing that Sallyport matches by, and without it the rule would match more routes; remove the rule, or write it with cidr"
	Communities *BGPFilterCommunities `json:"communities,omitempty"`

	// Refused, since Sallyport does not match by it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.size() == 0",message="is nothing that Sallyport matches by, and without it the rule would match more routes; remove the rule, or write it with cidr"
	ASPathPrefix []int64 `json:"asPathPrefix,omitempty"`

	// Refused, since Sallyport does not match by it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.size() == 0",message="is nothing that Sallyport matches by, and without it the rule would match more routes; remove the rule, or name the filter in other BGPPeers alone"
	PeerType BGPFilterPeerType `json:"peerType,omitempty"`

	// Refused, since Sallyport does not match by it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="false",message="is nothing that Sallyport matches by, and without it the rule would match more routes; remove the rule, or write it with cidr"
	Priority *int64 `json:"priority,omitempty"`

	// Refused, since Sallyport does not change routes: without a community that they should get, they could spread further.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.size() == 0",message="changes routes, which Sallyport does not; remove it (prefixAdvertisements of a BGPConfiguration give communities to blocks)"
	Operations []BGPFilterOperation `json:"operations,omitempty"`
}

// BGPFilterAction is what becomes of a route.
// +kubebuilder:validation:Enum=Accept;Reject
type BGPFilterAction string

// The values of BGPFilterAction.
const (
	BGPFilterActionAccept BGPFilterAction = "Accept"
	BGPFilterActionReject BGPFilterAction = "Reject"
)

// BGPFilterMatchOperator is how a route compares with a range.
// +kubebuilder:validation:Enum=Equal;NotEqual;In;NotIn
type BGPFilterMatchOperator string

// The values of BGPFilterMatchOperator.
const (
	BGPFilterMatchOperatorEqual    BGPFilterMatchOperator = "Equal"
	BGPFilterMatchOperatorNotEqual BGPFilterMatchOperator = "NotEqual"
	BGPFilterMatchOperatorIn       BGPFilterMatchOperator = "In"
	BGPFilterMatchOperatorNotIn    BGPFilterMatchOperator = "NotIn"
)

// BGPFilterSource is from where a route is.
// +kubebuilder:validation:Enum=RemotePeers
type BGPFilterSource string

// BGPFilterSourceRemotePeers is the value of BGPFilterSource.
const BGPFilterSourceRemotePeers BGPFilterSource = "RemotePeers"

// BGPFilterPeerType is the kind of a peer.
// +kubebuilder:validation:Enum=eBGP;iBGP
type BGPFilterPeerType string

// BGPFilterPrefixLengthV4 is a range of lengths.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:fieldPath=".max",rule="!has(self.min) || !has(self.max) || self.min <= self.max",message="is less than min; no route would match"
type BGPFilterPrefixLengthV4 struct {
	// The least length, in bits, 0 to 32. Default: that of cidr.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=32
	Min *int32 `json:"min,omitempty"`

	// The greatest length, in bits, 0 to 32. Default: 32.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=32
	Max *int32 `json:"max,omitempty"`
}

// BGPFilterPrefixLengthV6 is a range of lengths.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:fieldPath=".max",rule="!has(self.min) || !has(self.max) || self.min <= self.max",message="is less than min; no route would match"
type BGPFilterPrefixLengthV6 struct {
	// The least length, in bits, 0 to 128. Default: that of cidr.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	Min *int32 `json:"min,omitempty"`

	// The greatest length, in bits, 0 to 128. Default: 128.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	Max *int32 `json:"max,omitempty"`
}

// BGPFilterCommunities are communities of a route.
//
// +structType=atomic
type BGPFilterCommunities struct {
	// Communities.
	// +optional
	// +listType=atomic
	Values []string `json:"values,omitempty"`
}

// BGPFilterOperation changes a route.
//
// +structType=atomic
type BGPFilterOperation struct {
	// Add a community.
	// +optional
	AddCommunity *BGPFilterAddCommunity `json:"addCommunity,omitempty"`

	// Put AS numbers before the AS path.
	// +optional
	PrependASPath *BGPFilterPrependASPath `json:"prependASPath,omitempty"`

	// Give a priority.
	// +optional
	SetPriority *BGPFilterSetPriority `json:"setPriority,omitempty"`
}

// BGPFilterAddCommunity adds a community.
//
// +structType=atomic
type BGPFilterAddCommunity struct {
	// The community.
	// +optional
	Value string `json:"value,omitempty"`
}

// BGPFilterPrependASPath puts AS numbers before the AS path.
//
// +structType=atomic
type BGPFilterPrependASPath struct {
	// The AS numbers.
	// +optional
	// +listType=atomic
	Prefix []int64 `json:"prefix,omitempty"`
}

// BGPFilterSetPriority gives a priority.
//
// +structType=atomic
type BGPFilterSetPriority struct {
	// The priority.
	// +optional
	Value int64 `json:"value,omitempty"`
}

// BGPFilterStatus is what was observed of a BGPFilter.
type BGPFilterStatus struct {
	// The conditions of the filter. Accepted says whether nodes use it as it is, with reason OK or Invalid.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BGPFilterList is a list of BGPFilters.
//
// +kubebuilder:object:root=true
type BGPFilterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []BGPFilter `json:"items"`
}
