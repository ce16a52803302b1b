package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindIPReservation is the kind of an IPReservation.
const KindIPReservation = "IPReservation"

// IPReservation names addresses that no pool gives out. An address that is in use already stays in use.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="CIDRs",type=string,JSONPath=`.spec.reservedCIDRs`,description="The addresses that no pool gives out"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IPReservation struct {
	metav1.TypeMeta `json:",inline"`

	// Standard object metadata. The name is a DNS subdomain (RFC 1123): lower case letters, digits, "-" and
	// ".", at most 253 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// Which addresses are reserved.
	// +required
	Spec IPReservationSpec `json:"spec"`
}

// IPReservationSpec says which addresses are reserved.
type IPReservationSpec struct {
	// Ranges of addresses that no pool gives out, such as 10.244.0.0/28, or 10.244.0.1/32 for one address; at most
	// 4096. Bits behind the prefix count for nothing. Default: none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4096
	// +kubebuilder:validation:items:MaxLength=48
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR, such as 10.244.0.0/28, or 10.244.0.1/32 for one address"
	ReservedCIDRs []string `json:"reservedCIDRs,omitempty"`
}

// IPReservationList is a list of IPReservations.
//
// +kubebuilder:object:root=true
type IPReservationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []IPReservation `json:"items"`
}
