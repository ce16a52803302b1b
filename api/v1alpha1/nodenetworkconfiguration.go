package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindNodeNetworkConfiguration is the kind of a NodeNetworkConfiguration.
const KindNodeNetworkConfiguration = "NodeNetworkConfiguration"

// NodeNetworkConfiguration says how the nodes that it selects reach each other, where Sallyport is the pod network.
// Several may select one node. They are merged field by field: for each field, the configuration with the highest
// priority among those that set it decides, and of equal priorities the one lower in name. Defaults are filled in
// after that. A field that is absent is not set.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nodenet
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.spec.nodeSelector`,description="The nodes it is for"
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`,description="The highest decides"
// +kubebuilder:printcolumn:name="Interface",type=string,JSONPath=`.spec.nodeAddress.interface`,description="The interface that has the node's address"
// +kubebuilder:printcolumn:name="CIDRs",type=string,JSONPath=`.spec.nodeAddress.cidrs`,description="The ranges that the node's address is in"
// +kubebuilder:printcolumn:name="MTU",type=integer,JSONPath=`.spec.mtu`,description="The MTU of the network between the nodes, in bytes"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeNetworkConfiguration struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is a DNS subdomain (RFC 1123): lower case letters, digits, "-" and
	// ".", at most 253 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// How the nodes reach each other.
	// +required
	Spec NodeNetworkConfigurationSpec `json:"spec"`
}

// NodeNetworkConfigurationSpec says how nodes reach each other.
//
// +kubebuilder:validation:XValidation:fieldPath=".vxlan",rule="!has(self.vxlan) || self.?nodeSelector.orValue('all()') == 'all()' || self.nodeSelector.size() == 0",message="must be the same on all nodes, which would part in silence otherwise; move it to a configuration without nodeSelector"
type NodeNetworkConfigurationSpec struct {
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

	// Which of a node's addresses is the one by which other nodes reach it. Default: of each family, the first InternalIP of
	// the Node that is on one of its interfaces, else such an ExternalIP, else an address on the interface of the default route.
	// +optional
	NodeAddress NodeAddress `json:"nodeAddress,omitzero"`

	// The MTU of the network between the nodes, in bytes, 1280 to 65535. Pods get it less what an overlay takes.
	// Default: that of the interface that has the node's address.
	// +optional
	// +kubebuilder:validation:Minimum=1280
	// +kubebuilder:validation:Maximum=65535
	MTU *int32 `json:"mtu,omitempty"`

	// How packets between nodes are carried in VXLAN (RFC 7348). It is the same on all nodes, so that it can only be set
	// where nodeSelector is absent or all().
	// +optional
	VXLAN *VXLAN `json:"vxlan,omitempty"`

	// How nodes speak BGP, beside what BGPPeers and BGPConfigurations say.
	// +optional
	BGP *BGP `json:"bgp,omitempty"`
}

// NodeAddress says which of a node's addresses is the one by which other nodes reach it. Where both fields are set, the
// address fits both.
type NodeAddress struct {
	// The name of the interface that has the address, 1 to 15 bytes; a "*" at the end matches any rest, so eth*
	// means eth0, eth1 and so on. Default: any interface.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^/:*[:space:]]{1,15}$|^[^/:*[:space:]]{1,14}[*]$') && bytes(self).size() <= 15 && !(self in ['.', '..'])",message="must be the name of an interface, 1 to 15 bytes without '/', ':' and white space, such as eth0, or the beginning of one and '*', such as eth*"
	Interface *string `json:"interface,omitempty"`

	// Ranges that the address is in, such as 192.0.2.0/24; the first range of a family that holds an address of the node
	// decides. At most 64. Default: any address.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=48
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR, such as 192.0.2.0/24 or 2001:db8::/64"
	CIDRs []string `json:"cidrs,omitempty"`
}

// VXLAN says how packets between nodes are carried in VXLAN.
type VXLAN struct {
	// The UDP port on which nodes receive VXLAN, 1 to 65535. Default: 4789.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	// The VXLAN network identifier, 1 to 16777215. The default is another one than Calico's, 4096. Default: 4097.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16777215
	VNI *int32 `json:"vni,omitempty"`
}

// BGP says how nodes speak BGP.
type BGP struct {
	// After how long without a sign of life a session ends, and with it the routes that the peer told of, 3s to 65535s, such as 30s;
	// parts of a second are rounded. The lesser one of node and peer counts. Default: 90s.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(ns|us|ms|s|m|h)){1,6}$') && duration(self) >= duration('3s') && duration(self) <= duration('65535s')",message="must be a duration of 3s to 65535s, such as 30s"
	HoldTime *string `json:"holdTime,omitempty"`

	// How many routes of a family a peer may tell of, 1 to 1000000. A peer that tells of more has its session closed. Default: 10000.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	MaxPrefixes *int32 `json:"maxPrefixes,omitempty"`

	// How failures of routers on the link are detected by BFD (RFC 5880, RFC 5881), in less than a second. It costs graceful restart: it
	// ends with the agent, so that a router which does not know better withdraws the node's routes at each restart of the agent.
	// Nodes do not use it among each other. Default: no BFD.
	// +optional
	BFD *BFD `json:"bfd,omitempty"`
}

// BFD says how failures of routers are detected.
type BFD struct {
	// The time between packets, both ways, 50ms to 10s, such as 300ms; or 0s, which turns BFD off, against a configuration with a
	// lower priority.
	// +required
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(ns|us|ms|s|m|h)){1,6}$') && (duration(self) == duration('0s') || duration(self) >= duration('50ms') && duration(self) <= duration('10s'))",message="must be a duration of 50ms to 10s, such as 300ms, or 0s for no BFD"
	Interval string `json:"interval"`

	// How many packets must be missing, 2 to 50. Default: 3.
	// +optional
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=50
	Multiplier *int32 `json:"multiplier,omitempty"`
}

// NodeNetworkConfigurationList is a list of NodeNetworkConfigurations.
//
// +kubebuilder:object:root=true
type NodeNetworkConfigurationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []NodeNetworkConfiguration `json:"items"`
}
