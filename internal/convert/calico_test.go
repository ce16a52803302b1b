package convert

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/validate"
)

func felix(name, spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

func TestCalicoFaults(t *testing.T) {
	t.Parallel()
	ippool := func(version, spec string) string {
		return "apiVersion: " + version + "\nkind: IPPool\nmetadata: {name: a}\nspec: " + spec + "\n"
	}
	const v3 = "projectcalico.org/v3"
	for _, tc := range []struct{ what, text, want string }{
		{"nothing", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "there is neither an IPPool nor a FelixConfiguration"},
		{"a list", "[]", "calico.yaml:1: is a list"},
		{"no kind", "spec: {}", "kind: is missing"},
		{"old", "apiVersion: v1\nkind: ipPool\nmetadata: {cidr: 10.0.0.0/8}", "calicoctl"},
		{"another group", ippool("crd.antrea.io/v1", "{}"), `apiVersion: "crd.antrea.io/v1" is not Calico's`},
		{"no name", "apiVersion: projectcalico.org/v3\nkind: IPPool\nspec: {}", "metadata.name: is missing"},
		{"no spec", ippool(v3, "null"), `calico.yaml:4: IPPool "a": spec: must be a mapping of fields to values, not nothing`},
		{"twice", ippool(v3, "{cidr: 10.0.0.0/8}") + "---\n" + ippool(v3, "{cidr: 11.0.0.0/8}"), "twice, and not alike"},
		{"felix twice", felix("default", "{}") + "---\n" + felix("default", "{}"), "twice"},
		{"felix no spec", felix("default", "[]"), "must be a mapping"},
		{"node", felix("node.'", "{}"), "is not the name of a node"},
		{"address", felix("default", "{natOutgoingAddress: 127.0.0.1}"), `calico.yaml:4: FelixConfiguration "default": spec.natOutgoingAddress: "127.0.0.1" is no address`},
		{"address of another type", felix("default", "{natOutgoingAddress: 1}"), "must be text, not a number"},
		{"exclusions", felix("default", "{natOutgoingExclusions: All}"), "must be IPPoolsOnly or IPPoolsAndHostIPs"},
		{"ports", felix("default", "{natPortRange: web}"), `"web" is no range of ports: write FIRST:LAST`},
		{"ports backwards", felix("default", "{natPortRange: '9:1'}"), "write 1:9"},
		{"ports of another type", felix("default", "{natPortRange: [1]}"), "not a list"},
		{"port of VXLAN", felix("default", "{natPortRange: 4789}"), "widen the range"},
		{"interface", felix("default", "{iptablesNATOutgoingInterfaceFilter: 'eth0:1'}"), "is not the name of an interface"},
		{"long interface", felix("default", "{iptablesNATOutgoingInterfaceFilter: abcdefghijklmno+}"), "is not the name of an interface"},
	} {
		r, faults := Calico(documents(t, "calico.yaml", tc.text))
		if r != nil || len(faults) != 1 || !strings.Contains(faults[0].String(), tc.want) {
			t.Errorf("%s: %v; want one fault with %q", tc.what, faults, tc.want)
		}
	}
}

func TestCalicoNotes(t *testing.T) {
	t.Parallel()
	v := validate.New()
	for _, tc := range []struct{ text, want string }{
		{felix("default", "{bpfEnabled: true}"), "spec.bpfEnabled: with Calico's eBPF data plane"},
		{felix("default", "{ipv6Support: false}"), "spec.ipv6Support: false lets Calico leave IPv6 alone"},
		{felix("default", "{egressIPSupport: Enabled}"), "spec.egressIPSupport: may have to do with outgoing NAT"},
		{felix("default", "{natOutgoingAddress: 2001:db8::1}"), "Here it is used for IPv6"},
		{felix("default", "{natPortRange: 100}"), "Sallyport those of SCTP too"},
		{felix("other", "{natPortRange: web}"), "is neither default nor node.NAME"},
		{felix("default", "{logSeverityScreen: Info}"), "look for FELIX_NATPORTRANGE"},
		{felix("default", "{logSeverityScreen: Info}"), "never translates towards multicast"},
	} {
		docs := documents(t, "a", tc.text+"---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.0.0.0/8}\n")
		r, faults := Calico(docs)
		if len(faults) > 0 {
			t.Errorf("%s: %v", tc.text, faults)
			continue
		}
		valid(t, v, r)
		if !noted(r, tc.want) || strings.Contains(tc.text, "logSeverity") && noted(r, "logSeverity") {
			t.Errorf("%s: %v; want a note with %q", tc.text, r.Notes, tc.want)
		}
	}
}

// A name of a node that is none of an object gives one all the same, and different nodes give different ones.
func TestNamesOfNodes(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, node := range []string{"a", "A", "a_b", "a.b", "a..b", "a-b", strings.Repeat("a", 250), strings.Repeat("a", 249) + "B"} {
		name := felixName(node)
		if was, twice := seen[name]; twice || !objectName.MatchString(name) || len(name) > 253 {
			t.Errorf("%s gives %q, as does %q", node, name, was)
		}
		seen[name] = node
	}
}
