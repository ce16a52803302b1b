package datastore

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/model"
)

// Reservation converts an IPReservation.
func Reservation(in *apiv3.IPReservation) (model.Reservation, error) {
	cidrs, err := prefixes("spec.reservedCIDRs", in.Spec.ReservedCIDRs)
	if err != nil {
		return model.Reservation{}, err
	}
	return model.Reservation{Name: in.Name, CIDRs: cidrs}, nil
}

// NodeNetworkConfiguration converts a NodeNetworkConfiguration. Fields that are absent stay so, since configurations are
// merged before defaults apply.
func NodeNetworkConfiguration(in *v1alpha1.NodeNetworkConfiguration) (model.NodeNetworkConfiguration, error) {
	fault := func(field string, value int32) (model.NodeNetworkConfiguration, error) {
		return model.NodeNetworkConfiguration{}, fmt.Errorf("%s: %d is out of range", field, value)
	}
	out := model.NodeNetworkConfiguration{
		Name:         in.Name,
		NodeSelector: or(in.Spec.NodeSelector, everything),
		Priority:     in.Spec.Priority,
		Interface:    in.Spec.NodeAddress.Interface,
	}
	var err error
	if out.CIDRs, err = prefixes("spec.nodeAddress.cidrs", in.Spec.NodeAddress.CIDRs); err != nil {
		return model.NodeNetworkConfiguration{}, err
	}
	if v := in.Spec.MTU; v != nil {
		if *v < 1 || *v > maxPort {
			return fault("spec.mtu", *v)
		}
		n := int(*v)
		out.MTU = &n
	}
	if err := bgpOf(&out, in.Spec.BGP); err != nil {
		return model.NodeNetworkConfiguration{}, err
	}
	vxlan := in.Spec.VXLAN
	if vxlan == nil {
		return out, nil
	}
	if out.NodeSelector != everything {
		return model.NodeNetworkConfiguration{}, fmt.Errorf("spec.vxlan: is the same on all nodes, and cannot be set for those that %q selects", out.NodeSelector)
	}
	if v := vxlan.Port; v != nil {
		if *v < 1 || *v > maxPort {
			return fault("spec.vxlan.port", *v)
		}
		n := uint16(*v)
		out.VXLANPort = &n
	}
	if v := vxlan.VNI; v != nil {
		if *v < 1 || *v > maxVNI {
			return fault("spec.vxlan.vni", *v)
		}
		n := uint32(*v)
		out.VXLANVNI = &n
	}
	return out, nil
}

// bgpOf fills in the field bgp.
func bgpOf(out *model.NodeNetworkConfiguration, in *v1alpha1.BGP) error {
	if in == nil {
		return nil
	}
	if in.HoldTime != nil {
		v, err := seconds("spec.bgp.holdTime", *in.HoldTime, model.DefaultBGPHold, maxHold)
		if err != nil {
			return err
		}
		out.Hold = &v
	}
	if in.MaxPrefixes != nil {
		if *in.MaxPrefixes < 1 {
			return fmt.Errorf("spec.bgp.maxPrefixes: %d is out of range", *in.MaxPrefixes)
		}
		v := uint32(*in.MaxPrefixes)
		out.MaxPrefixes = &v
	}
	if in.BFD == nil {
		return nil
	}
	interval, err := time.ParseDuration(in.BFD.Interval)
	if err != nil || interval < 0 || interval > time.Minute {
		return fmt.Errorf("spec.bgp.bfd.interval: %q is not a duration such as 300ms", in.BFD.Interval)
	}
	bfd := model.BFD{Interval: interval, Multiplier: model.DefaultBFDMultiplier}
	if m := in.BFD.Multiplier; m != nil {
		if *m < 1 || *m > 255 {
			return fmt.Errorf("spec.bgp.bfd.multiplier: %d is out of range", *m)
		}
		bfd.Multiplier = uint8(*m)
	}
	if interval == 0 {
		bfd = model.BFD{}
	}
	out.BFD = &bfd
	return nil
}

// Bounds of numbers on the wire. The MTU has that of a length of 16 bits too.
const (
	maxPort = 1<<16 - 1
	maxVNI  = 1<<24 - 1
)

// Block converts an IPBlock. Whether its name stands for its CIDR is the definition's to check.
func Block(in *v1alpha1.IPBlock) (*model.Block, error) {
	cidr, err := prefix(in.Spec.CIDR)
	if err != nil {
		return nil, fmt.Errorf("spec.cidr: %w", err)
	}
	return &model.Block{CIDR: cidr, Pool: in.Spec.Pool, Node: in.Spec.Node, Terminating: in.DeletionTimestamp != nil}, nil
}

// prefixes converts a list of ranges of addresses.
func prefixes(field string, in []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, s := range in {
		p, err := prefix(s)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// prefix converts a range of addresses.
func prefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, err
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q is not a range of IPv4 or IPv6", s)
	}
	return p.Masked(), nil
}

// Announced reads the addresses that an agent says of its node in an annotation: at most one of each family.
func Announced(annotation, value string) ([]netip.Addr, error) {
	if value == "" {
		return nil, nil
	}
	var out []netip.Addr
	for text := range strings.SplitSeq(value, ",") {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil || a.Zone() != "" || a.Is4In6() || !a.IsGlobalUnicast():
			return nil, fmt.Errorf("metadata.annotations[%s]: %q is not an address by which a node can be reached", annotation, text)
		case slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Is4() == b.Is4() }):
			return nil, fmt.Errorf("metadata.annotations[%s]: holds two addresses of one family: %q", annotation, value)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

// AnnouncedText is the annotation that Announced reads; empty: there are no addresses.
func AnnouncedText(addresses []netip.Addr) string {
	text := make([]string, len(addresses))
	for i, a := range slices.SortedFunc(slices.Values(addresses), netip.Addr.Compare) {
		text[i] = a.String()
	}
	return strings.Join(text, ",")
}
