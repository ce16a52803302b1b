package convert

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Of the FelixConfigurations, Calico reads the one that is called default, and node.NAME on the node of that name.
const (
	felixDefault    = "default"
	felixNodePrefix = "node."
)

// nodePriority puts the settings of one node before those of all.
const nodePriority = 10

// The fields of a FelixConfiguration that decide about outgoing NAT (api/pkg/apis/projectcalico/v3/felixconfig.go).
const (
	felixAddress    = "natOutgoingAddress"
	felixPortRange  = "natPortRange"
	felixExclusions = "natOutgoingExclusions"
	felixInterface  = "iptablesNATOutgoingInterfaceFilter"
	felixFeatures   = "featureDetectOverride"
)

// none is how a FelixConfiguration sets a field to nothing, against what others say.
const none = "none"

var (
	nodeName   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
	objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	// interfaceName is what a NATConfiguration takes.
	interfaceName = regexp.MustCompile(`^[^/:*[:space:]]{1,15}$`)
)

// felixConfig is what one FelixConfiguration says of outgoing NAT. A nil pointer is a field that it does not set.
type felixConfig struct {
	place    place
	spec     map[string]any // of the NATConfiguration
	address  *string        // "" where it is set to nothing
	features *string
}

// felixConfiguration reads one.
func (c *calicoConverter) felixConfiguration(p place, tree map[string]any) {
	node, ofNode := strings.CutPrefix(p.name, felixNodePrefix)
	switch {
	case !ofNode && p.name != felixDefault:
		c.note(p, "metadata.name", "is neither default nor node.NAME, so that Calico does not read it: left out, and nothing is to be done")
		return
	case ofNode && !nodeName.MatchString(node):
		c.fault(p, "metadata.name", "%s is not the name of a node", quote(node))
		return
	case c.felix[p.name] != nil:
		c.fault(p, "", "stands in the input twice: leave one of the two out")
		return
	}
	f := &felixConfig{place: p, spec: map[string]any{}}
	c.felix[p.name] = f
	spec, ok := tree["spec"].(map[string]any)
	if !ok && tree["spec"] != nil {
		c.fault(p, "spec", "must be a mapping of fields to values, not %s", typeName(tree["spec"]))
	}
	for _, field := range slices.Sorted(maps.Keys(spec)) {
		c.felixField(f, field, spec[field])
	}
}

// felixField takes over one field.
func (c *calicoConverter) felixField(f *felixConfig, field string, v any) {
	p := f.place
	p.within = "spec."
	if v == nil || v == "" {
		return
	}
	text, isText := v.(string)
	switch field {
	case felixPortRange:
		c.felixPorts(f, p, v)
		return
	case "ipv6Support":
		if v == false {
			c.note(p, field, "false lets Calico leave IPv6 alone; Sallyport translates it like IPv4. Set natOutgoing: false on pools of IPv6 that must not be translated")
		}
		return
	case "bpfEnabled":
		if v == true {
			c.note(p, field, "with Calico's eBPF data plane, packets of pods may pass the kernel's netfilter by, where Sallyport translates, unless Calico itself "+
				"translates them: leave natOutgoing to Calico, or let it run without eBPF")
		}
		return
	case felixAddress, felixExclusions, felixInterface, felixFeatures:
	default:
		if l := strings.ToLower(field); strings.HasPrefix(l, "nat") || strings.Contains(l, "egress") {
			c.note(p, field, "may have to do with outgoing NAT, and is not known here: look it up in Calico's documentation before you move")
		}
		return
	}
	if !isText {
		c.fault(p, field, "must be text, not %s", typeName(v))
		return
	}
	c.felixText(f, p, field, text)
}

// felixText takes over a field that is text.
func (c *calicoConverter) felixText(f *felixConfig, p place, field, text string) {
	nothing := strings.EqualFold(text, none)
	switch field {
	case felixFeatures:
		f.features = &text
	case felixExclusions:
		if text != "IPPoolsOnly" && text != "IPPoolsAndHostIPs" {
			c.fault(p, field, "%s must be IPPoolsOnly or IPPoolsAndHostIPs", quote(text))
		}
		f.spec["exclusions"] = text
	case felixAddress:
		if nothing {
			f.address, f.spec["addresses"] = new(string), []any{}
			return
		}
		a, err := netip.ParseAddr(text)
		if err != nil || !usable(a) {
			c.fault(p, field, "%s is no address to which others can answer: write a unicast address that is neither loopback nor link-local", quote(text))
			return
		}
		if a.Is6() {
			c.note(p, field, "Calico uses this address for IPv4 alone, for which %s is none. Here it is used for IPv6; see that this is meant", a)
		}
		f.address, f.spec["addresses"] = &text, []any{a.String()}
	case felixInterface:
		c.felixInterface(f, p, text)
	}
}

// felixInterface takes over a name in iptables' way, where "+" at the end stands for any rest.
func (c *calicoConverter) felixInterface(f *felixConfig, p place, text string) {
	name, wild := strings.CutSuffix(text, "+")
	if strings.EqualFold(text, none) || wild && name == "" {
		f.spec["outInterfaces"] = []any{}
		return
	}
	if !interfaceName.MatchString(name) || len(text) > 15 || name == "." || name == ".." {
		c.fault(p, felixInterface, "%s is not the name of an interface: write 1 to 15 bytes without \"/\", \":\" and \"*\", such as eth0, or the beginning of one and \"+\", such as eth+", quote(text))
		return
	}
	if wild {
		name += "*"
	}
	f.spec["outInterfaces"] = []any{name}
}

// felixPorts takes over natPortRange, a number or text such as 32768:65535.
func (c *calicoConverter) felixPorts(f *felixConfig, p place, v any) {
	text, isText := v.(string)
	if n, ok := integer(v); ok {
		text, isText = strconv.FormatInt(n, 10), true
	}
	if !isText {
		c.fault(p, felixPortRange, "must be text such as 32768:65535, not %s", typeName(v))
		return
	}
	if text == "0" || text == "0:0" { // as good as not set
		return
	}
	if strings.EqualFold(text, none) {
		f.spec["portRange"] = "Any"
		return
	}
	r, wrong := parsePorts(text, ":")
	if wrong != "" {
		c.fault(p, felixPortRange, "%s", wrong)
		return
	}
	f.spec["portRange"] = r.String()
	c.note(p, felixPortRange, "Calico takes the ports of TCP and UDP from this range, Sallyport those of SCTP too. Nothing is to be done unless SCTP must keep its ports")
}

// felixConfigurations writes a NATConfiguration for each FelixConfiguration that says something, default first.
func (c *calicoConverter) felixConfigurations() {
	base := c.felix[felixDefault]
	if base == nil {
		base = &felixConfig{}
	}
	random := randomFully(base.address, base.features)
	if base.spec != nil {
		if !random {
			base.spec["portAllocation"] = "Preserve"
		}
		c.felixManifest(base, "calico-default", "For all nodes.", map[string]any{})
	}
	for _, name := range slices.Sorted(maps.Keys(c.felix)) {
		f := c.felix[name]
		node, ofNode := strings.CutPrefix(name, felixNodePrefix)
		if !ofNode {
			continue
		}
		own := randomFully(or(f.address, base.address), or(f.features, base.features))
		switch {
		case own == random:
		case own:
			f.spec["portAllocation"] = "FullyRandom"
		default:
			f.spec["portAllocation"] = "Preserve"
		}
		c.felixManifest(f, felixName(node),
			"For the node that has this label; a node of Kubernetes has it with its name unless a cloud says otherwise (kubectl get nodes -L kubernetes.io/hostname). "+
				"Without Kubernetes, a Node manifest gives it the label.",
			map[string]any{"nodeSelector": "kubernetes.io/hostname == '" + node + "'", "priority": nodePriority})
	}
}

// felixManifest adds a configuration if there is anything in it.
func (c *calicoConverter) felixManifest(f *felixConfig, name, comment string, spec map[string]any) {
	if len(f.spec) == 0 {
		return
	}
	if f.spec["exclusions"] == "IPPoolsAndHostIPs" {
		comment += " The addresses of nodes are those of Node objects: without Kubernetes, write a manifest for each."
	}
	maps.Copy(spec, f.spec)
	c.result.Manifests = append(c.result.Manifests, configuration(name, comment, spec))
}

// randomFully says whether Calico picks source ports at random: where the kernel can, which every kernel of ours
// can, unless the features are overridden. Which one counts depends on whether an address is set
// (felix/iptables/actions.go, MasqAction and SNATAction).
func randomFully(address, features *string) bool {
	if features == nil {
		return true
	}
	feature := "MASQFullyRandom"
	if address != nil && *address != "" {
		feature = "SNATFullyRandom"
	}
	for pair := range strings.SplitSeq(*features, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if strings.EqualFold(name, feature) && strings.EqualFold(value, "false") {
			return false
		}
	}
	return true
}

// or is v, or the default where v is not set.
func or(v, def *string) *string {
	if v != nil {
		return v
	}
	return def
}

// felixName is the name of the configuration of a node: the node's own where that can be one, and in any case one
// that no other node gives.
func felixName(node string) string {
	if name := "calico-node." + node; objectName.MatchString(name) && len(name) <= 253 {
		return name
	}
	sum := sha256.Sum256([]byte(node))
	return "calico-node." + hex.EncodeToString(sum[:8])
}
