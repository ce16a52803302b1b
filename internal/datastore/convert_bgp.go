package datastore

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/model"
)

// BGPPeer converts a BGPPeer.
func BGPPeer(in *apiv3.BGPPeer) (model.BGPPeer, error) {
	spec := &in.Spec
	out := model.BGPPeer{
		Name:             in.Name,
		Generation:       in.Generation,
		Node:             spec.Node,
		NodeSelector:     or(spec.NodeSelector, everything),
		PeerSelector:     spec.PeerSelector,
		Manual:           spec.ReversePeering == apiv3.BGPReversePeeringManual,
		AnySource:        spec.SourceAddress == apiv3.BGPSourceAddressNone,
		NextHopSelf:      spec.NextHopMode != nil && *spec.NextHopMode == apiv3.BGPNextHopModeSelf,
		Password:         password(spec.Password),
		TTLSecurity:      uint8(spec.TTLSecurity),
		AllowedLocalASNs: uint8(spec.NumAllowedLocalASNumbers),
		Filters:          slices.Clone(spec.Filters),
		Ignored:          set(field{"reachableBy", spec.ReachableBy != ""}, field{"localWorkloadSelector", spec.LocalWorkloadSelector != ""}),
	}
	var errs [6]error
	if spec.PeerIP != "" {
		out.Address, out.Port, errs[0] = peerAddress(spec.PeerIP)
	}
	out.ASN, errs[1] = asn("spec.asNumber", spec.ASNumber)
	out.LocalASN, errs[2] = asn("spec.localASNumber", spec.LocalASNumber)
	out.Keepalive, errs[3] = seconds("spec.keepaliveTime", spec.KeepaliveTime, 0, maxKeepalive)
	out.Restart, errs[4] = seconds("spec.maxRestartTime", spec.MaxRestartTime, model.DefaultBGPRestart, maxRestart)
	switch {
	case spec.TTLSecurity < 0 || spec.TTLSecurity > 255:
		errs[5] = fmt.Errorf("spec.ttlSecurity: %d is out of range", spec.TTLSecurity)
	case spec.NumAllowedLocalASNumbers < 0 || spec.NumAllowedLocalASNumbers > 255:
		errs[5] = fmt.Errorf("spec.numAllowedLocalASNumbers: %d is out of range", spec.NumAllowedLocalASNumbers)
	}
	// Two that exclude each other would make a session that the operator has not asked for.
	switch {
	case out.Address.IsValid() && out.PeerSelector != "":
		errs[5] = errors.New("spec.peerSelector: excludes peerIP")
	case out.Address.IsValid() && out.ASN == 0:
		errs[5] = errors.New("spec.asNumber: is missing beside peerIP")
	case spec.Node != "" && spec.NodeSelector != "":
		errs[5] = errors.New("spec.nodeSelector: excludes node")
	}
	if err := errors.Join(errs[:]...); err != nil {
		return model.BGPPeer{}, err
	}
	return out, nil
}

// Bounds of times on the wire, in whole seconds: the hold time has 16 bits (RFC 4271, section 4.2) and is three keepalive times, the
// restart time has 12 (RFC 4724, section 3).
const (
	maxHold      = (1<<16 - 1) * time.Second
	maxKeepalive = maxHold / 3
	maxRestart   = (1<<12 - 1) * time.Second
)

// seconds reads a duration in whole seconds, which are at least one; empty: the default.
func seconds(field, text string, def, most time.Duration) (time.Duration, error) {
	if text == "" {
		return def, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > most {
		return 0, fmt.Errorf("%s: %q is not a duration of 1s to %ds, such as 30s", field, text, most/time.Second)
	}
	return d.Round(time.Second), nil
}

func asn(field string, n int64) (uint32, error) {
	if n < 0 || n > 1<<32-1 {
		return 0, fmt.Errorf("%s: %d is not an AS number", field, n)
	}
	return uint32(n), nil
}

// field is a field of a spec, and whether it is set.
type field struct {
	name string
	set  bool
}

// set are the fields that are.
func set(fields ...field) []string {
	var out []string
	for _, f := range fields {
		if f.set {
			out = append(out, "spec."+f.name)
		}
	}
	return out
}

func password(in *apiv3.BGPPassword) model.BGPPassword {
	if in == nil || in.SecretKeyRef == nil {
		return model.BGPPassword{}
	}
	ref := in.SecretKeyRef
	return model.BGPPassword{Name: ref.Name, Key: ref.Key, Optional: ref.Optional != nil && *ref.Optional}
}

// peerAddress reads an address with or without a port: 192.0.2.1, 192.0.2.1:179, fe80::1%eth0, [fe80::1%eth0]:179.
func peerAddress(text string) (netip.Addr, uint16, error) {
	fault := func(what string) (netip.Addr, uint16, error) {
		return netip.Addr{}, 0, fmt.Errorf("spec.peerIP: %q %s", text, what)
	}
	addr, err := netip.ParseAddr(text)
	port := uint16(0)
	if err != nil {
		both, err := netip.ParseAddrPort(text)
		if err != nil || both.Port() == 0 {
			return fault("is not an address, with or without a port")
		}
		addr, port = both.Addr(), both.Port()
	}
	local := addr.Is6() && addr.IsLinkLocalUnicast()
	switch {
	case addr.Is4In6() || addr.IsUnspecified() || addr.IsMulticast():
		return fault("is not the address of a router")
	case local != (addr.Zone() != ""):
		return fault("must name the interface where it is link-local, such as fe80::1%eth0, and only there")
	}
	return addr, port, nil
}

// BGPConfiguration converts a BGPConfiguration. Names of communities become what they stand for.
func BGPConfiguration(in *apiv3.BGPConfiguration) (model.BGPConfiguration, error) {
	spec := &in.Spec
	out := model.BGPConfiguration{
		Name:         in.Name,
		NoMesh:       spec.NodeToNodeMeshEnabled != nil && !*spec.NodeToNodeMeshEnabled,
		MeshPassword: password(spec.NodeMeshPassword),
		Ignored: set(
			field{"ignoredInterfaces", len(spec.IgnoredInterfaces) > 0},
			field{"logSeverityScreen", spec.LogSeverityScreen != "" && !strings.EqualFold(spec.LogSeverityScreen, "Info")}, // what Calico's definition fills in
			field{"ipv4NormalRoutePriority", spec.IPv4NormalRoutePriority != nil},
			field{"ipv6NormalRoutePriority", spec.IPv6NormalRoutePriority != nil},
			field{"localWorkloadPeeringIPV4", spec.LocalWorkloadPeeringIPv4 != ""},
			field{"localWorkloadPeeringIPV6", spec.LocalWorkloadPeeringIPv6 != ""},
			field{"programClusterRoutes", spec.ProgramClusterRoutes != nil},
			field{"serviceClusterIPs", len(spec.ServiceClusterIPs) > 0},
			field{"serviceExternalIPs", len(spec.ServiceExternalIPs) > 0},
			field{"serviceLoadBalancerIPs", len(spec.ServiceLoadBalancerIPs) > 0},
			field{"serviceLoadBalancerAggregation", spec.ServiceLoadBalancerAggregation != nil && *spec.ServiceLoadBalancerAggregation != apiv3.BGPServiceAggregationEnabled}),
	}
	if spec.BindMode != nil {
		v := *spec.BindMode == apiv3.BGPBindModeNodeIP
		out.NodeIP = &v
	}
	var errs [4]error
	out.ASN, errs[0] = asn("spec.asNumber", spec.ASNumber)
	out.MeshRestart, errs[1] = seconds("spec.nodeMeshMaxRestartTime", spec.NodeMeshMaxRestartTime, model.DefaultBGPRestart, maxRestart)
	if out.Port = uint16(spec.ListenPort); spec.ListenPort < 0 || spec.ListenPort > maxPort {
		errs[2] = fmt.Errorf("spec.listenPort: %d is out of range", spec.ListenPort)
	}
	out.Advertisements, errs[3] = advertisements(spec)
	if err := errors.Join(errs[:]...); err != nil {
		return model.BGPConfiguration{}, err
	}
	return out, nil
}

// advertisements converts the field prefixAdvertisements.
func advertisements(spec *apiv3.BGPConfigurationSpec) ([]model.PrefixAdvertisement, error) {
	named := make(map[string]model.Community, len(spec.Communities))
	for i, c := range spec.Communities {
		value, ok := model.ParseCommunity(c.Value)
		if !ok {
			return nil, fmt.Errorf("spec.communities[%d].value: %q is not a community such as 65000:100", i, c.Value)
		}
		named[c.Name] = value
	}
	var out []model.PrefixAdvertisement
	for i, a := range spec.PrefixAdvertisements {
		cidr, err := prefix(a.CIDR)
		if err != nil {
			return nil, fmt.Errorf("spec.prefixAdvertisements[%d].cidr: %w", i, err)
		}
		one := model.PrefixAdvertisement{CIDR: cidr}
		for j, text := range a.Communities {
			value, ok := named[text]
			if !ok {
				value, ok = model.ParseCommunity(text)
			}
			if !ok {
				return nil, fmt.Errorf("spec.prefixAdvertisements[%d].communities[%d]: %q is neither a community such as 65000:100 nor the name of one in spec.communities", i, j, text)
			}
			one.Communities = append(one.Communities, value)
		}
		out = append(out, one)
	}
	return out, nil
}

// BGPFilter converts a BGPFilter. One with a rule that has more than Sallyport matches by is not converted: without that, the
// rule would be about more routes.
func BGPFilter(in *apiv3.BGPFilter) (model.BGPFilter, error) {
	out := model.BGPFilter{Name: in.Name}
	var errs [4]error
	out.Import4, errs[0] = filterRules("importV4", in.Spec.ImportV4, rule4)
	out.Import6, errs[1] = filterRules("importV6", in.Spec.ImportV6, rule6)
	out.Export4, errs[2] = filterRules("exportV4", in.Spec.ExportV4, rule4)
	out.Export6, errs[3] = filterRules("exportV6", in.Spec.ExportV6, rule6)
	if err := errors.Join(errs[:]...); err != nil {
		return model.BGPFilter{}, err
	}
	return out, nil
}

// filterRule is a rule of either family.
type filterRule struct {
	*apiv3.BGPFilterRule
	v4       bool
	cidr     string
	length   bool // prefixLength is set
	min, max *int32
}

func rule4(r *apiv3.BGPFilterRuleV4) filterRule {
	out := filterRule{BGPFilterRule: &r.BGPFilterRule, v4: true, cidr: r.CIDR}
	if l := r.PrefixLength; l != nil {
		out.length, out.min, out.max = true, l.Min, l.Max
	}
	return out
}

func rule6(r *apiv3.BGPFilterRuleV6) filterRule {
	out := filterRule{BGPFilterRule: &r.BGPFilterRule, cidr: r.CIDR}
	if l := r.PrefixLength; l != nil {
		out.length, out.min, out.max = true, l.Min, l.Max
	}
	return out
}

func filterRules[In any](list string, in []In, of func(*In) filterRule) ([]model.BGPFilterRule, error) {
	var out []model.BGPFilterRule
	for i := range in {
		r, err := of(&in[i]).convert()
		if err != nil {
			return nil, fmt.Errorf("spec.%s[%d].%w", list, i, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// convert makes the rule, or says which field is wrong.
func (r filterRule) convert() (model.BGPFilterRule, error) {
	out := model.BGPFilterRule{Accept: r.Action == apiv3.BGPFilterActionAccept, Learned: r.Source != nil}
	fault := func(field, what string) (model.BGPFilterRule, error) {
		return model.BGPFilterRule{}, fmt.Errorf("%s: %s", field, what)
	}
	for _, more := range []field{{"interface", r.Interface != ""}, {"communities", r.Communities != nil}, {"asPathPrefix", len(r.ASPathPrefix) > 0},
		{"peerType", r.PeerType != ""}, {"priority", r.Priority != nil}, {"operations", len(r.Operations) > 0}} {
		if more.set {
			return fault(more.name, "is nothing that Sallyport has, and without it the rule would be about more routes")
		}
	}
	if !out.Accept && r.Action != apiv3.BGPFilterActionReject {
		return fault("action", fmt.Sprintf("%q is not Accept or Reject", r.Action))
	}
	if r.Source != nil && *r.Source != apiv3.BGPFilterSourceRemotePeers {
		return fault("source", fmt.Sprintf("%q is not RemotePeers", *r.Source))
	}
	if (r.cidr == "") != (r.MatchOperator == nil) || r.cidr == "" && r.length {
		return fault("matchOperator", "goes with cidr, and prefixLength needs both")
	}
	if r.cidr == "" {
		return out, nil
	}
	var err error
	if out.CIDR, err = prefix(r.cidr); err != nil || out.CIDR.Addr().Is4() != r.v4 {
		return fault("cidr", fmt.Sprintf("%q is not a range of this family", r.cidr))
	}
	if out.Operator = model.MatchOperator(*r.MatchOperator); !slices.Contains([]model.MatchOperator{model.MatchEqual, model.MatchNotEqual, model.MatchIn, model.MatchNotIn}, out.Operator) {
		return fault("matchOperator", fmt.Sprintf("%q is not Equal, NotEqual, In or NotIn", out.Operator))
	}
	for _, bound := range []struct {
		field string
		in    *int32
		out   **uint8
	}{{"min", r.min, &out.Min}, {"max", r.max, &out.Max}} {
		if bound.in == nil {
			continue
		}
		if *bound.in < 0 || *bound.in > int32(out.CIDR.Addr().BitLen()) {
			return fault("prefixLength."+bound.field, fmt.Sprintf("%d is out of range", *bound.in))
		}
		n := uint8(*bound.in)
		*bound.out = &n
	}
	return out, nil
}

// ASNumber reads the annotation of that name. Empty: there is none.
func ASNumber(value string) (uint32, error) {
	n, ok := model.ParseASN(value)
	if !ok && value != "" {
		return 0, fmt.Errorf("metadata.annotations[%s]: %q is not an AS number, 1 to 4294967295", model.AnnotationASNumber, value)
	}
	return n, nil
}

// ClusterID reads the annotation of that name. Empty: there is none.
func ClusterID(value string) (netip.Addr, error) {
	id, ok := model.ParseClusterID(value)
	if !ok && value != "" {
		return netip.Addr{}, fmt.Errorf("metadata.annotations[%s]: %q is not the cluster ID of a route reflector, which has the form of an IPv4 address, such as 244.0.0.1", model.AnnotationClusterID, value)
	}
	return id, nil
}
