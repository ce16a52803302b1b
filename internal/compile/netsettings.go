package compile

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/model"
)

// netSettings are what the NodeNetworkConfigurations come to for one node, with the defaults filled in.
type netSettings struct {
	address nodeAddress
	mtu     int // 0: that of the uplink
	port    uint16
	vni     uint32

	hold        time.Duration
	maxPrefixes uint32
	bfd         model.BFD
}

// NetworkSetting is one field of what the NodeNetworkConfigurations come to for a node, and the configuration that decided it.
type NetworkSetting struct {
	Field string `json:"field"` // of the spec, such as vxlan.port
	// Value is the one in force: "" for an address and an MTU that are found on the node, and for no BFD.
	Value string `json:"value"`
	// NodeNetworkConfiguration is the one that decided it; absent where the default is in force.
	NodeNetworkConfiguration string `json:"nodeNetworkConfiguration,omitempty"`
	// Overridden are the others that select the node and set this field, in the order in which they would decide.
	Overridden []string `json:"overridden,omitempty"`
}

// mergeNetwork merges the configurations that select a node, field by field: the highest priority wins, then the lower name. Nodes
// that differ in port or VNI part in silence, so that these two are taken from configurations for all nodes alone.
func mergeNetwork(s *model.Snapshot, node string) (netSettings, []NetworkSetting) {
	chosen := selecting(s, node, s.NodeNetworkConfigurations, func(c *model.NodeNetworkConfiguration) string { return c.NodeSelector })
	slices.SortFunc(chosen, func(a, b *model.NodeNetworkConfiguration) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
	})
	everywhere := slices.DeleteFunc(slices.Clone(chosen), func(c *model.NodeNetworkConfiguration) bool {
		return c.NodeSelector != "" && c.NodeSelector != "all()"
	})
	m := netMerger{origins: make([]NetworkSetting, 0, 7)}
	return netSettings{
		address: firstOf(&m, chosen, "nodeAddress", nodeAddress{}, addressField, nodeAddress.String),
		mtu:     firstOf(&m, chosen, "mtu", 0, func(c *model.NodeNetworkConfiguration) *int { return c.MTU }, mtuText),
		port:    firstOf(&m, everywhere, "vxlan.port", model.VXLANPort, func(c *model.NodeNetworkConfiguration) *uint16 { return c.VXLANPort }, number[uint16]),
		vni:     firstOf(&m, everywhere, "vxlan.vni", model.DefaultVXLANVNI, func(c *model.NodeNetworkConfiguration) *uint32 { return c.VXLANVNI }, number[uint32]),

		hold:        firstOf(&m, chosen, "bgp.holdTime", model.DefaultBGPHold, func(c *model.NodeNetworkConfiguration) *time.Duration { return c.Hold }, time.Duration.String),
		maxPrefixes: firstOf(&m, chosen, "bgp.maxPrefixes", model.DefaultMaxPrefixes, func(c *model.NodeNetworkConfiguration) *uint32 { return c.MaxPrefixes }, number[uint32]),
		bfd:         firstOf(&m, chosen, "bgp.bfd", model.BFD{}, func(c *model.NodeNetworkConfiguration) *model.BFD { return c.BFD }, bfdText),
	}, m.origins
}

// netMerger notes where settings are from.
type netMerger struct{ origins []NetworkSetting }

func firstOf[T any](m *netMerger, chosen []*model.NodeNetworkConfiguration, name string, def T, field func(*model.NodeNetworkConfiguration) *T, text func(T) string) T {
	value, by, overridden := decide(chosen, def, func(c *model.NodeNetworkConfiguration) string { return c.Name }, field)
	m.origins = append(m.origins, NetworkSetting{name, text(value), by, overridden})
	return value
}

// addressField is the field nodeAddress: one configuration decides its two parts.
func addressField(c *model.NodeNetworkConfiguration) *nodeAddress {
	if c.Interface == nil && c.CIDRs == nil {
		return nil
	}
	n := &nodeAddress{cidrs: c.CIDRs}
	if c.Interface != nil {
		n.link = *c.Interface
	}
	return n
}

// String is "" for any address.
func (n nodeAddress) String() string {
	var parts []string
	if n.link != "" {
		parts = append(parts, "interface "+n.link)
	}
	for _, p := range n.cidrs {
		parts = append(parts, netip.Prefix.String(p))
	}
	return strings.Join(parts, ",")
}

func mtuText(v int) string {
	if v == 0 {
		return ""
	}
	return strconv.Itoa(v)
}

// bfdText is "" for no BFD.
func bfdText(b model.BFD) string {
	if b.Interval == 0 {
		return ""
	}
	return strconv.Itoa(int(b.Multiplier)) + " × " + b.Interval.String()
}

func number[T uint16 | uint32](v T) string { return strconv.FormatUint(uint64(v), 10) }
