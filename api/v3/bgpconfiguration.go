package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindBGPConfiguration is the kind of a BGPConfiguration.
const KindBGPConfiguration = "BGPConfiguration"

// The names of the BGPConfigurations that are used: the one for all nodes, and the beginning of the name of one for a node.
const (
	BGPConfigurationDefault    = "default"
	BGPConfigurationNodePrefix = "node."
)

// BGPConfiguration says how nodes speak BGP. The one named default is for all nodes. One named node.NAME is for the node NAME, and
// decides about listenPort, bindMode and prefixAdvertisements where it sets them. No other is used.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName={bgpconfig,bgpconfigs}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="ASN",type=string,JSONPath=`.spec.asNumber`,description="The AS number of the nodes"
// +kubebuilder:printcolumn:name="Mesh",type=boolean,JSONPath=`.spec.nodeToNodeMeshEnabled`,description="Whether all nodes speak with each other"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
//
// +kubebuilder:validation:XValidation:fieldPath=".spec.asNumber",rule="self.metadata.name == 'default' || self.spec.?asNumber.orValue(0) == 0",message="can only be set in the BGPConfiguration named default; the annotation projectcalico.org/ASNumber of a Node sets that of one node"
// +kubebuilder:validation:XValidation:fieldPath=".spec.nodeToNodeMeshEnabled",rule="self.metadata.name == 'default' || !has(self.spec.nodeToNodeMeshEnabled)",message="can only be set in the BGPConfiguration named default"
// +kubebuilder:validation:XValidation:fieldPath=".spec.nodeMeshPassword",rule="self.metadata.name == 'default' || !has(self.spec.nodeMeshPassword)",message="can only be set in the BGPConfiguration named default"
// +kubebuilder:validation:XValidation:fieldPath=".spec.nodeMeshMaxRestartTime",rule="self.metadata.name == 'default' || !has(self.spec.nodeMeshMaxRestartTime)",message="can only be set in the BGPConfiguration named default"
type BGPConfiguration struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is default, or node. and the name of a node.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// How nodes speak BGP.
	// +required
	Spec BGPConfigurationSpec `json:"spec"`

	// What was observed of the configuration. Written by the system; ignored in manifests.
	// +optional
	Status *BGPConfigurationStatus `json:"status,omitempty"`
}

// BGPConfigurationSpec says how nodes speak BGP.
//
// +kubebuilder:validation:XValidation:fieldPath=".nodeMeshPassword",rule="!has(self.nodeMeshPassword) || self.?nodeToNodeMeshEnabled.orValue(true)",message="is that of the mesh between nodes, which nodeToNodeMeshEnabled: false turns off; remove one of the two"
// +kubebuilder:validation:XValidation:fieldPath=".nodeMeshMaxRestartTime",rule="!has(self.nodeMeshMaxRestartTime) || self.?nodeToNodeMeshEnabled.orValue(true)",message="is that of the mesh between nodes, which nodeToNodeMeshEnabled: false turns off; remove one of the two"
// +kubebuilder:validation:XValidation:fieldPath=".communities",rule="self.?communities.orValue([]).size() == 0 || self.?prefixAdvertisements.orValue([]).size() > 0",message="names communities that no entry of prefixAdvertisements uses; add one, or remove them"
type BGPConfigurationSpec struct {
	// The AS number of nodes, 1 to 4294967295. The annotation projectcalico.org/ASNumber of a Node sets that of one node. 0 is the
	// same as no value. Default: 64512.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	ASNumber int64 `json:"asNumber,omitempty"`

	// Whether every node has a session with every other one, but for route reflectors. Nodes reach each other's blocks without it
	// wherever they know of each other, so that a cluster needs none. Default: true; without a BGPConfiguration named default,
	// there is no mesh.
	// +optional
	NodeToNodeMeshEnabled *bool `json:"nodeToNodeMeshEnabled,omitempty"`

	// The password of the sessions of the mesh (TCP MD5, RFC 2385). Default: none.
	// +optional
	NodeMeshPassword *BGPPassword `json:"nodeMeshPassword,omitempty"`

	// How long nodes of the mesh keep the routes of one while its agent restarts (graceful restart, RFC 4724), 1s to 4095s, such as
	// 120s; parts of a second are rounded. Default: 120s.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(ns|us|ms|s|m|h)){1,6}$') && duration(self) >= duration('1s') && duration(self) <= duration('4095s')",message="must be a duration of 1s to 4095s, such as 120s"
	NodeMeshMaxRestartTime string `json:"nodeMeshMaxRestartTime,omitempty"`

	// The TCP port on which nodes listen, 1 to 65535. Default: 179.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	ListenPort int32 `json:"listenPort,omitempty"`

	// Where nodes listen: at all their addresses (None), or at those alone by which other nodes reach them (NodeIP). Default: None.
	// +optional
	BindMode *BGPBindMode `json:"bindMode,omitempty"`

	// Names of communities, for prefixAdvertisements; at most 500.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Communities []BGPCommunity `json:"communities,omitempty"`

	// The communities that blocks are announced with; at most 500. A block gets those of all entries that it lies in.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	PrefixAdvertisements []BGPPrefixAdvertisement `json:"prefixAdvertisements,omitempty"`

	// Sallyport does not act on it: it reads no routes of interfaces.
	// +optional
	// +listType=set
	IgnoredInterfaces []string `json:"ignoredInterfaces,omitempty"`

	// Sallyport does not act on it: the agent's log level is one for all that it does.
	// +optional
	// +kubebuilder:validation:Pattern=`^(?i)(Trace|Debug|Info|Warning|Error|Fatal)?$`
	LogSeverityScreen string `json:"logSeverityScreen,omitempty"`

	// Sallyport does not act on it.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483646
	IPv4NormalRoutePriority *int64 `json:"ipv4NormalRoutePriority,omitempty"`

	// Sallyport does not act on it.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483646
	IPv6NormalRoutePriority *int64 `json:"ipv6NormalRoutePriority,omitempty"`

	// Sallyport does not act on it: pods are no peers.
	// +optional
	LocalWorkloadPeeringIPv4 string `json:"localWorkloadPeeringIPV4,omitempty"`

	// Sallyport does not act on it: pods are no peers.
	// +optional
	LocalWorkloadPeeringIPv6 string `json:"localWorkloadPeeringIPV6,omitempty"`

	// Sallyport does not act on it: the agent makes the routes between nodes by itself.
	// +optional
	ProgramClusterRoutes *BGPProgramClusterRoutes `json:"programClusterRoutes,omitempty"`

	// Sallyport does not act on it: it does not announce services.
	// +optional
	// +listType=atomic
	ServiceClusterIPs []BGPServiceBlock `json:"serviceClusterIPs,omitempty"`

	// Sallyport does not act on it: it does not announce services.
	// +optional
	// +listType=atomic
	ServiceExternalIPs []BGPServiceBlock `json:"serviceExternalIPs,omitempty"`

	// Sallyport does not act on it: it does not announce services.
	// +optional
	// +listType=atomic
	ServiceLoadBalancerIPs []BGPServiceBlock `json:"serviceLoadBalancerIPs,omitempty"`

	// Sallyport does not act on it: it does not announce services.
	// +optional
	ServiceLoadBalancerAggregation *BGPServiceAggregation `json:"serviceLoadBalancerAggregation,omitempty"`
}

// BGPBindMode says where nodes listen.
// +kubebuilder:validation:Enum=None;NodeIP
type BGPBindMode string

// The values of BGPBindMode.
const (
	BGPBindModeNone   BGPBindMode = "None"
	BGPBindModeNodeIP BGPBindMode = "NodeIP"
)

// BGPProgramClusterRoutes says which routes between nodes BGP makes.
// +kubebuilder:validation:Enum=Enabled;Disabled;EnabledIPIPOnly;EnabledNoEncapOnly
type BGPProgramClusterRoutes string

// BGPServiceAggregation says how addresses of services are announced.
// +kubebuilder:validation:Enum=Enabled;Disabled
type BGPServiceAggregation string

// BGPServiceAggregationEnabled is what Calico's definition fills in.
const BGPServiceAggregationEnabled BGPServiceAggregation = "Enabled"

// BGPCommunity is a community with a name.
//
// +structType=atomic
type BGPCommunity struct {
	// The name, for prefixAdvertisements.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// The community: aa:nn with two numbers up to 65535 (RFC 1997), or aa:nn:mm with three up to 4294967295 (RFC 8092). The first
	// one is an AS number.
	// +required
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9]{1,5}:[0-9]{1,5}$|^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$')",message="must be aa:nn with two numbers up to 65535, such as 65000:100, or aa:nn:mm with three up to 4294967295"
	Value string `json:"value"`
}

// BGPPrefixAdvertisement says with which communities blocks are announced.
//
// +structType=atomic
type BGPPrefixAdvertisement struct {
	// The range that these blocks lie in, such as 203.0.113.0/24. Bits behind the prefix count for nothing.
	// +required
	// +kubebuilder:validation:MaxLength=48
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR, such as 203.0.113.0/24 or 2001:db8::/32"
	CIDR string `json:"cidr"`

	// The communities: names of spec.communities, or values such as 65000:100; at most 50.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:MaxLength=253
	Communities []string `json:"communities,omitempty"`
}

// BGPServiceBlock is a range of addresses of services.
//
// +structType=atomic
type BGPServiceBlock struct {
	// The range.
	// +optional
	CIDR string `json:"cidr,omitempty"`
}

// BGPConfigurationStatus is what was observed of a BGPConfiguration.
type BGPConfigurationStatus struct {
	// The conditions of the configuration. Accepted says whether nodes act on all of it, with reason OK, FieldsIgnored or Invalid.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BGPConfigurationList is a list of BGPConfigurations.
//
// +kubebuilder:object:root=true
type BGPConfigurationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []BGPConfiguration `json:"items"`
}
