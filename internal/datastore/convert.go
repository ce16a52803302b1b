// Package datastore turns API objects into the values of package model. It is the one place where the
// defaults of absent fields are filled in; every store of resources goes through it.
//
// It takes objects that validation has accepted. What it cannot turn into a value all the same is an error
// that names the field, never a guess.
package datastore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/model"
)

// Default prefix lengths of a block, as Calico documents them for blockSize.
const (
	defaultBlockSize4 = 26
	defaultBlockSize6 = 122
)

// everything is the selector that chooses everything.
const everything = "all()"

// Value converts the JSON of an object of a kind that a store may hold, which has been accepted or not: to a *model.Pool or
// *model.Block, or a model.NATConfiguration, Node, Reservation, NodeNetworkConfiguration, BGPPeer, BGPConfiguration or BGPFilter.
func Value(kind string, data []byte) (any, error) {
	switch kind {
	case KindIPPool:
		return decoded(data, Pool)
	case KindNATConfiguration:
		return decoded(data, NATConfiguration)
	case KindNode:
		n, err := Node(data)
		if err != nil {
			return nil, err
		}
		return n, nil
	case KindIPReservation:
		return decoded(data, Reservation)
	case KindNodeNetworkConfiguration:
		return decoded(data, NodeNetworkConfiguration)
	case KindIPBlock:
		return decoded(data, Block)
	case KindBGPPeer:
		return decoded(data, BGPPeer)
	case KindBGPConfiguration:
		return decoded(data, BGPConfiguration)
	case KindBGPFilter:
		return decoded(data, BGPFilter)
	}
	return nil, fmt.Errorf("the kind %s is not known", kind)
}

func decoded[In, Out any](data []byte, convert func(*In) (Out, error)) (any, error) {
	var in In
	err := json.Unmarshal(data, &in)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return nil, fmt.Errorf("%s: is a %s, which this version does not understand", wrong.Field, wrong.Value)
	case err != nil:
		return nil, err
	}
	out, err := convert(&in)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Pool converts an IPPool. What only a server writes, when it was created and whether it was allocatable, is taken
// from there; a store that has no server fills it in itself.
func Pool(in *apiv3.IPPool) (*model.Pool, error) {
	cidr, err := netip.ParsePrefix(in.Spec.CIDR)
	if err != nil {
		return nil, fmt.Errorf("spec.cidr: %w", err)
	}
	uses, err := allowedUses(in.Spec.AllowedUses)
	if err != nil {
		return nil, err
	}
	out := &model.Pool{
		Name:              in.Name,
		CIDR:              netip.PrefixFrom(cidr.Addr().Unmap(), cidr.Bits()).Masked(),
		NATOutgoing:       in.Spec.NATOutgoing,
		Disabled:          in.Spec.Disabled,
		DisableBGPExport:  in.Spec.DisableBGPExport,
		VXLANMode:         or(model.Mode(in.Spec.VXLANMode), model.ModeNever),
		IPIPMode:          or(model.Mode(in.Spec.IPIPMode), model.ModeNever),
		AllowedUses:       uses,
		ManualAssignment:  in.Spec.AssignmentMode != nil && *in.Spec.AssignmentMode == apiv3.Manual,
		BlockSize:         in.Spec.BlockSize,
		NodeSelector:      or(in.Spec.NodeSelector, everything),
		NamespaceSelector: or(in.Spec.NamespaceSelector, everything),
		Rank:              uint64(max(0, in.CreationTimestamp.Unix())),
		Terminating:       in.DeletionTimestamp != nil,
	}
	if in.Status != nil {
		out.WasAllocatable = meta.IsStatusConditionTrue(in.Status.Conditions, apiv3.IPPoolConditionAllocatable)
	}
	if cidr.Addr().Is4In6() || !out.CIDR.IsValid() {
		return nil, fmt.Errorf("spec.cidr: %q is not a range of IPv4 or IPv6", in.Spec.CIDR)
	}
	if out.BlockSize == 0 {
		out.BlockSize = defaultBlockSize4
		if cidr.Addr().Is6() {
			out.BlockSize = defaultBlockSize6
		}
	}
	return out, nil
}

// allowedUses converts the field of that name; none mean workloads and tunnels.
func allowedUses(in []apiv3.IPPoolAllowedUse) (model.Uses, error) {
	if len(in) == 0 {
		return model.UseWorkload | model.UseTunnel, nil
	}
	var out model.Uses
	for i, use := range in {
		switch use {
		case apiv3.IPPoolAllowedUseWorkload:
			out |= model.UseWorkload
		case apiv3.IPPoolAllowedUseTunnel:
			out |= model.UseTunnel
		case apiv3.IPPoolAllowedUseLoadBalancer:
			out |= model.UseLoadBalancer
		default:
			return 0, fmt.Errorf("spec.allowedUses[%d]: %q is not Workload, Tunnel or LoadBalancer", i, use)
		}
	}
	return out, nil
}

// NATConfiguration converts a NATConfiguration. Fields that are absent stay so, since configurations are
// merged before defaults apply; an empty list is not an absent one.
func NATConfiguration(in *v1alpha1.NATConfiguration) (model.NATConfiguration, error) {
	out := model.NATConfiguration{
		Name:         in.Name,
		NodeSelector: or(in.Spec.NodeSelector, everything),
		Priority:     in.Spec.Priority,
	}
	if in.Spec.Exclusions != nil {
		v := model.Exclusions(*in.Spec.Exclusions)
		out.Exclusions = &v
	}
	if in.Spec.PortAllocation != nil {
		v := model.PortAllocation(*in.Spec.PortAllocation)
		out.PortAllocation = &v
	}
	if in.Spec.ExistingFlows != nil {
		v := model.ExistingFlows(*in.Spec.ExistingFlows)
		out.ExistingFlows = &v
	}
	if in.Spec.LinkLocal != nil {
		v := model.LinkLocal(*in.Spec.LinkLocal)
		out.LinkLocal = &v
	}
	if in.Spec.LeakGuard != nil {
		v := leakGuard(*in.Spec.LeakGuard)
		out.LeakGuard = &v
	}
	if in.Spec.PortRange != nil {
		v, err := portRange(*in.Spec.PortRange)
		if err != nil {
			return model.NATConfiguration{}, fmt.Errorf("spec.portRange: %w", err)
		}
		out.PortRange = &v
	}
	if in.Spec.Addresses != nil {
		out.Addresses = make([]netip.Addr, 0, len(in.Spec.Addresses))
		for i, s := range in.Spec.Addresses {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return model.NATConfiguration{}, fmt.Errorf("spec.addresses[%d]: %w", i, err)
			}
			out.Addresses = append(out.Addresses, a.Unmap())
		}
	}
	if in.Spec.OutInterfaces != nil {
		out.OutInterfaces = append([]string{}, in.Spec.OutInterfaces...)
	}
	return out, nil
}

// leakGuard converts the field of that name. Saved state and stored API objects may still have the values of an earlier version.
func leakGuard(in v1alpha1.LeakGuard) model.LeakGuard {
	switch in {
	case "Off":
		return model.LeakGuardDisabled
	case "Enforce":
		return model.LeakGuardEnabled
	}
	return model.LeakGuard(in)
}

// anyPort is the portRange by which the kernel chooses.
const anyPort = "Any"

// portRange parses FIRST-LAST, or Any, which is the zero range.
func portRange(s string) (model.PortRange, error) {
	if s == anyPort {
		return model.PortRange{}, nil
	}
	first, last, ok := strings.Cut(s, "-")
	lo, err1 := strconv.ParseUint(first, 10, 16)
	hi, err2 := strconv.ParseUint(last, 10, 16)
	if !ok || err1 != nil || err2 != nil || lo == 0 || lo > hi {
		return model.PortRange{}, fmt.Errorf("%q is not a range of ports such as 32768-65535", s)
	}
	return model.PortRange{First: uint16(lo), Last: uint16(hi)}, nil
}

// or is v, or the default where v is the zero value.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
