package validate

import (
	"fmt"
	"strings"
	"testing"
)

func TestCreateConfiguration(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprintf("eth%d", i))
	}
	for _, test := range []specCase{
		{"{}", "", ""},
		{"{nodeSelector: has(a), priority: 10, exclusions: IPPoolsAndHostIPs, addresses: [192.0.2.1, '2001:db8::1'], portRange: 32768-65535, portAllocation: Random, outInterfaces: [eth0, 'wl*']}", "", ""},
		{"null", "spec", "is missing"},

		{"{nodeSelector: ''}", "", ""},
		{"{nodeSelector: zone}", "spec.nodeSelector", "at character 5"},
		{"{nodeSelector: global()}", "spec.nodeSelector", "use all()"},
		{"{namespaceSelector: has(a)}", "spec.namespaceSelector", "no field"},

		{"{priority: -2147483648}", "", ""},
		{"{priority: 2147483647}", "", ""},
		{"{priority: 2147483648}", "spec.priority", "2147483647"},
		{"{priority: -2147483649}", "spec.priority", "-2147483648"},
		{"{priority: high}", "spec.priority", "must be a whole number, not text"},
		{"{priority: 1.5}", "spec.priority", "must be a whole number"},

		{"{exclusions: IPPoolsOnly}", "", ""},
		{"{exclusions: null}", "", ""},
		{"{exclusions: None}", "spec.exclusions", "IPPoolsOnly, IPPoolsAndHostIPs"},
		{"{exclusions: [10.0.0.0/8]}", "spec.exclusions", "IPPoolsOnly, IPPoolsAndHostIPs"},

		{"{addresses: []}", "", ""},
		{"{addresses: [192.0.2.1]}", "", ""},
		{"{addresses: ['2001:db8::1']}", "", ""},
		{"{addresses: ['2001:db8::1', 192.0.2.1]}", "", ""},
		{"{addresses: [10.1.2.3]}", "", ""},
		{"{addresses: 192.0.2.1}", "spec.addresses", "must be a list, not text"},
		{"{addresses: [192.0.2.1, 192.0.2.2]}", "spec.addresses", "two addresses of one family"},
		{"{addresses: [192.0.2.1, 192.0.2.1]}", "spec.addresses", "two addresses of one family"},
		{"{addresses: ['2001:db8::1', '2001:db8::2']}", "spec.addresses", "two addresses of one family"},
		{"{addresses: [192.0.2.1, '2001:db8::1', 192.0.2.2]}", "spec.addresses", "too many entries (3); it must have at most 2"},
		{"{addresses: [node]}", "spec.addresses[0]", `"node" must be an IP address`},
		{"{addresses: ['']}", "spec.addresses[0]", "must be an IP address"},
		{"{addresses: [192.0.2.1/24]}", "spec.addresses[0]", "must be an IP address"},
		{"{addresses: [192.0.2.1, 192.0.2]}", "spec.addresses[1]", "must be an IP address"},
		{"{addresses: ['fe80::1%eth0']}", "spec.addresses[0]", "must be an IP address"},
		{"{addresses: ['::ffff:192.0.2.1']}", "spec.addresses[0]", "must be an IP address"},
		{"{addresses: [0.0.0.0]}", "spec.addresses[0]", "unicast"},
		{"{addresses: ['::']}", "spec.addresses[0]", "unicast"},
		{"{addresses: [127.0.0.1]}", "spec.addresses[0]", "unicast"},
		{"{addresses: ['::1']}", "spec.addresses[0]", "unicast"},
		{"{addresses: [224.0.0.1]}", "spec.addresses[0]", "unicast"},
		{"{addresses: ['ff02::1']}", "spec.addresses[0]", "unicast"},
		{"{addresses: [255.255.255.255]}", "spec.addresses[0]", "unicast"},
		{"{addresses: [169.254.1.1]}", "spec.addresses[0]", "unicast"},
		{"{addresses: [192.0.2.1, 'fe80::1']}", "spec.addresses[1]", "unicast"},
		{"{addresses: [" + strings.Repeat("x", 46) + "]}", "spec.addresses[0]", "too long"},
		{"{addresses: [null]}", "spec.addresses[0]", "must be text"},

		{"{portRange: 32768-65535}", "", ""},
		{"{portRange: 1-1}", "", ""},
		{"{portRange: 4788-4789}", "", ""},
		{"{portRange: 4790-4790}", "", ""},
		{"{portRange: 4789-4789}", "spec.portRange", "VXLAN"},
		{"{portRange: 0-100}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: 1-65536}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: 70000-80000}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: 70000-60000}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: 65535-32768}", "spec.portRange", `"65535-32768" ends before it begins; write 32768-65535`},
		{"{portRange: '1000'}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: 1000}", "spec.portRange", "must be text, not a whole number; put it in quotes"},
		{"{portRange: ''}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: '1000 - 2000'}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: 1000:2000}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: 01000-2000}", "spec.portRange", "FIRST-LAST"},
		{"{portRange: -1-5}", "spec.portRange", "FIRST-LAST"},
		{`{portRange: "1-2\n"}`, "spec.portRange", "FIRST-LAST"},
		{"{portRange: " + strings.Repeat("x", 33) + "}", "spec.portRange", "too long"},
		{"{portRange: [1, 2]}", "spec.portRange", "must be text, not a list"},

		{"{portAllocation: FullyRandom}", "", ""},
		{"{portAllocation: Preserve}", "", ""},
		{"{leakGuard: Enforce}", "", ""},
		{"{leakGuard: 'Off'}", "", ""},
		{"{leakGuard: Off}", "spec.leakGuard", `false is not one of the values it can have: Enforce, Off; write "Off" with the quotes, since YAML reads it without them as false`},
		{"{leakGuard: on}", "spec.leakGuard", `true is not one of the values it can have: Enforce, Off`},
		{"{leakGuard: off}", "spec.leakGuard", `write "Off" with the quotes`},
		{"{portAllocation: random}", "spec.portAllocation", "FullyRandom, Random, Preserve"},

		{"{existingFlows: Move}", "", ""},
		{"{existingFlows: Keep}", "", ""},
		{"{existingFlows: Reset}", "", ""},
		{"{existingFlows: reset}", "spec.existingFlows", "Move, Keep, Reset"},

		{"{outInterfaces: []}", "", ""},
		{"{outInterfaces: [eth0, eth1.100, 'br-*', enp0s31f6, a]}", "", ""},
		{"{outInterfaces: [fifteenbytes-ok]}", "", ""},
		{"{outInterfaces: ['fourteenbytes*']}", "", ""},
		{"{outInterfaces: [eth0@if3]}", "", ""},
		{"{outInterfaces: ['']}", "spec.outInterfaces[0]", "name of an interface"},
		{"{outInterfaces: ['*']}", "spec.outInterfaces[0]", "name of an interface"},
		{"{outInterfaces: ['et*0']}", "spec.outInterfaces[0]", "name of an interface"},
		{"{outInterfaces: [eth/0]}", "spec.outInterfaces[0]", "name of an interface"},
		{"{outInterfaces: ['eth0:1']}", "spec.outInterfaces[0]", "name of an interface"},
		{"{outInterfaces: [eth0, 'eth 1']}", "spec.outInterfaces[1]", "name of an interface"},
		{`{outInterfaces: ["eth0\n"]}`, "spec.outInterfaces[0]", "name of an interface"},
		{"{outInterfaces: [..]}", "spec.outInterfaces[0]", "name of an interface"},
		{"{outInterfaces: [äääääääää]}", "spec.outInterfaces[0]", "name of an interface"},
		{"{outInterfaces: [sixteen-bytes-no]}", "spec.outInterfaces[0]", "too long"},
		{"{outInterfaces: [eth0, eth0]}", "spec.outInterfaces[1]", `"eth0" stands more than once`},
		{"{outInterfaces: eth0}", "spec.outInterfaces", "must be a list"},
		{"{outInterfaces: [" + strings.Join(many, ", ") + "]}", "spec.outInterfaces", "at most 64"},

		{"{ports: 1-2}", "spec.ports", "no field"},
		{"{portrange: 1-2}", "spec.portrange", "did you mean portRange?"},
		{"{outInterface: [eth0]}", "spec.outInterface", "did you mean outInterfaces?"},
	} {
		run(t, configuration(test.spec), v.Create, test.field, test.message)
	}
}
