package validatetest

import (
	"fmt"
	"slices"
	"strings"
)

// Configurations are specs of new NATConfigurations.
func Configurations() []Case {
	return slices.Concat(configurationFields(), configurationAddresses(), configurationPorts(), configurationInterfaces())
}

// configurationFields are about the spec as a whole, and its small fields.
func configurationFields() []Case {
	return []Case{
		right("{}"),
		right("{nodeSelector: has(a), priority: 10, exclusions: IPPoolsAndHostIPs, addresses: [192.0.2.1, '2001:db8::1'], portRange: 32768-65535, portAllocation: Random, outInterfaces: [eth0, 'wl*']}"),
		wrong("null", "spec", "is missing"),

		right("{nodeSelector: ''}"),
		wrong("{nodeSelector: zone}", "spec.nodeSelector", "at character 5").accepted(noSelectors),
		wrong("{nodeSelector: global()}", "spec.nodeSelector", "use all()"),
		wrong("{namespaceSelector: has(a)}", "spec.namespaceSelector", "no field"),

		right("{priority: -2147483648}"),
		right("{priority: 2147483647}"),
		wrong("{priority: 2147483648}", "spec.priority", "2147483647"),
		wrong("{priority: -2147483649}", "spec.priority", "-2147483648"),
		wrong("{priority: high}", "spec.priority", "must be a whole number, not text"),
		wrong("{priority: 1.5}", "spec.priority", "must be a whole number"),

		right("{exclusions: IPPoolsOnly}"),
		right("{exclusions: null}"),
		wrong("{exclusions: None}", "spec.exclusions", "IPPoolsOnly, IPPoolsAndHostIPs"),
		wrong("{exclusions: [10.0.0.0/8]}", "spec.exclusions", "IPPoolsOnly, IPPoolsAndHostIPs"),

		wrong("{ports: 1-2}", "spec.ports", "no field"),
		wrong("{portrange: 1-2}", "spec.portrange", "did you mean portRange?"),
		wrong("{outInterface: [eth0]}", "spec.outInterface", "did you mean outInterfaces?"),
	}
}

// configurationAddresses are about spec.addresses.
func configurationAddresses() []Case {
	return []Case{
		right("{addresses: []}"),
		right("{addresses: [192.0.2.1]}"),
		right("{addresses: ['2001:db8::1']}"),
		right("{addresses: ['2001:db8::1', 192.0.2.1]}"),
		right("{addresses: [10.1.2.3]}"),
		wrong("{addresses: 192.0.2.1}", "spec.addresses", "must be a list, not text"),
		wrong("{addresses: [192.0.2.1, 192.0.2.2]}", "spec.addresses", "two addresses of one family"),
		wrong("{addresses: [192.0.2.1, 192.0.2.1]}", "spec.addresses", "two addresses of one family"),
		wrong("{addresses: ['2001:db8::1', '2001:db8::2']}", "spec.addresses", "two addresses of one family"),
		wrong("{addresses: [192.0.2.1, '2001:db8::1', 192.0.2.2]}", "spec.addresses", "too many entries (3); it must have at most 2"),
		wrong("{addresses: [node]}", "spec.addresses[0]", `"node" must be an IP address`),
		wrong("{addresses: ['']}", "spec.addresses[0]", "must be an IP address"),
		wrong("{addresses: [192.0.2.1/24]}", "spec.addresses[0]", "must be an IP address"),
		wrong("{addresses: [192.0.2.1, 192.0.2]}", "spec.addresses[1]", "must be an IP address"),
		wrong("{addresses: ['fe80::1%eth0']}", "spec.addresses[0]", "must be an IP address"),
		wrong("{addresses: ['::ffff:192.0.2.1']}", "spec.addresses[0]", "must be an IP address"),
		wrong("{addresses: [0.0.0.0]}", "spec.addresses[0]", "unicast"),
		wrong("{addresses: ['::']}", "spec.addresses[0]", "unicast"),
		wrong("{addresses: [127.0.0.1]}", "spec.addresses[0]", "unicast"),
		wrong("{addresses: ['::1']}", "spec.addresses[0]", "unicast"),
		wrong("{addresses: [224.0.0.1]}", "spec.addresses[0]", "unicast"),
		wrong("{addresses: ['ff02::1']}", "spec.addresses[0]", "unicast"),
		wrong("{addresses: [255.255.255.255]}", "spec.addresses[0]", "unicast"),
		wrong("{addresses: [169.254.1.1]}", "spec.addresses[0]", "unicast"),
		wrong("{addresses: [192.0.2.1, 'fe80::1']}", "spec.addresses[1]", "unicast"),
		wrong("{addresses: ["+strings.Repeat("x", 46)+"]}", "spec.addresses[0]", "too long"),
		wrong("{addresses: [null]}", "spec.addresses[0]", "must be text"),
	}
}

// configurationPorts are about ports, and the flows that have them.
func configurationPorts() []Case {
	return []Case{
		right("{portRange: 32768-65535}"),
		right("{portRange: 1-1}"),
		right("{portRange: Any}"),
		wrong("{portRange: any}", "spec.portRange", "or Any"),
		wrong("{portRange: Any-Any}", "spec.portRange", "or Any"),
		right("{portRange: 4788-4789}"),
		right("{portRange: 4790-4790}"),
		wrong("{portRange: 4789-4789}", "spec.portRange", "VXLAN"),
		wrong("{portRange: 0-100}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: 1-65536}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: 70000-80000}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: 70000-60000}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: 65535-32768}", "spec.portRange", `"65535-32768" ends before it begins; write 32768-65535`),
		wrong("{portRange: '1000'}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: 1000}", "spec.portRange", "must be text, not a whole number; put it in quotes"),
		wrong("{portRange: ''}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: '1000 - 2000'}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: 1000:2000}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: 01000-2000}", "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: -1-5}", "spec.portRange", "FIRST-LAST"),
		wrong(`{portRange: "1-2\n"}`, "spec.portRange", "FIRST-LAST"),
		wrong("{portRange: "+strings.Repeat("x", 33)+"}", "spec.portRange", "too long"),
		wrong("{portRange: [1, 2]}", "spec.portRange", "must be text, not a list"),

		right("{portAllocation: FullyRandom}"),
		right("{portAllocation: Preserve}"),
		right("{leakGuard: Enabled}"),
		right("{leakGuard: Disabled}"),
		wrong("{leakGuard: disabled}", "spec.leakGuard", `"disabled" is not one of the values it can have: Enabled, Disabled`),
		wrong("{leakGuard: Off}", "spec.leakGuard", `false is not one of the values it can have: Enabled, Disabled`),
		right("{linkLocal: Translate}"),
		right("{linkLocal: Keep}"),
		right("{linkLocal: null}"),
		wrong("{linkLocal: keep}", "spec.linkLocal", `"keep" is not one of the values it can have: Translate, Keep`),
		wrong("{linkLocal: true}", "spec.linkLocal", `true is not one of the values it can have: Translate, Keep`),
		wrong("{portAllocation: random}", "spec.portAllocation", "FullyRandom, Random, Preserve"),

		right("{existingFlows: Move}"),
		right("{existingFlows: Keep}"),
		right("{existingFlows: Reset}"),
		wrong("{existingFlows: reset}", "spec.existingFlows", "Move, Keep, Reset"),
	}
}

// configurationInterfaces are about spec.outInterfaces.
func configurationInterfaces() []Case {
	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprintf("eth%d", i))
	}
	return []Case{
		right("{outInterfaces: []}"),
		right("{outInterfaces: [eth0, eth1.100, 'br-*', enp0s31f6, a]}"),
		right("{outInterfaces: [fifteenbytes-ok]}"),
		right("{outInterfaces: ['fourteenbytes*']}"),
		right("{outInterfaces: [eth0@if3]}"),
		wrong("{outInterfaces: ['']}", "spec.outInterfaces[0]", "name of an interface"),
		wrong("{outInterfaces: ['*']}", "spec.outInterfaces[0]", "name of an interface"),
		wrong("{outInterfaces: ['et*0']}", "spec.outInterfaces[0]", "name of an interface"),
		wrong("{outInterfaces: [eth/0]}", "spec.outInterfaces[0]", "name of an interface"),
		wrong("{outInterfaces: ['eth0:1']}", "spec.outInterfaces[0]", "name of an interface"),
		wrong("{outInterfaces: [eth0, 'eth 1']}", "spec.outInterfaces[1]", "name of an interface"),
		wrong(`{outInterfaces: ["eth0\n"]}`, "spec.outInterfaces[0]", "name of an interface"),
		wrong("{outInterfaces: [..]}", "spec.outInterfaces[0]", "name of an interface"),
		wrong("{outInterfaces: [äääääääää]}", "spec.outInterfaces[0]", "name of an interface"),
		wrong("{outInterfaces: [sixteen-bytes-no]}", "spec.outInterfaces[0]", "too long"),
		wrong("{outInterfaces: [eth0, eth0]}", "spec.outInterfaces[1]", `"eth0" stands more than once`),
		wrong("{outInterfaces: eth0}", "spec.outInterfaces", "must be a list"),
		wrong("{outInterfaces: ["+strings.Join(many, ", ")+"]}", "spec.outInterfaces", "at most 64"),
	}
}
