package validatetest

import (
	"slices"
	"strings"
)

// Pools are specs of new IPPools.
func Pools() []Case {
	return slices.Concat(poolRanges(), poolBlocks(), poolEncapsulation(), poolSwitches(), poolUses(), poolSelectors(), poolFields())
}

// poolRanges are about spec.cidr.
func poolRanges() []Case {
	return []Case{
		right("{cidr: 10.244.0.0/16}"),
		right("{cidr: 10.0.0.0/8}"),
		wrong("{cidr: 0.0.0.0/0, disabled: true}", "spec.cidr", "overlaps the link-local range 169.254.0.0/16"),
		right("{cidr: 192.0.2.1/32, blockSize: 32}"),
		right("{cidr: 'fd00:10:244::/56'}"),
		right("{cidr: '2001:db8::/122'}"),
		right("{cidr: '2001:db8::1/128', blockSize: 128}"),
		wrong("{}", "spec.cidr", "is missing"),
		wrong("{cidr: null}", "spec.cidr", "is missing"),
		wrong("{cidr: ''}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: 10.244.0.0}", "spec.cidr", `"10.244.0.0" must be a CIDR`),
		wrong("{cidr: 10.244.0.0/33}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: 10.244.0.0/-1}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: 10.244.0/16}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: 10.244.0.0/016}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: 010.244.0.0/16}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: 10.244.0.0/255.255.0.0}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: ' 10.244.0.0/16'}", "spec.cidr", "must be a CIDR"),
		wrong(`{cidr: "10.244.0.0/16\n"}`, "spec.cidr", "must be a CIDR"),
		wrong("{cidr: 'fd00::/129'}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: 'fd00::%eth0/64'}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: '::ffff:10.0.0.0/104'}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: nonsense, blockSize: 5, ipipMode: Always}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: "+strings.Repeat("1", 49)+"}", "spec.cidr", "must be text"),
		wrong("{cidr: '"+strings.Repeat("1", 48)+"'}", "spec.cidr", "must be a CIDR"),
		wrong("{cidr: '"+strings.Repeat("1", 49)+"'}", "spec.cidr", "is too long"),
		wrong("{cidr: 10.244.0.1/16}", "spec.cidr", "write 10.244.0.0/16"),
		wrong("{cidr: 'fd00::1/64'}", "spec.cidr", "write fd00::/64"),
		wrong("{cidr: 'FD00::1/64'}", "spec.cidr", "write fd00::/64"),
		right("{cidr: 'FD00::/64'}"),
		right("{cidr: 'fd00:0:0:0::/64'}"),
		right("{cidr: 'fd00:0010::/64'}"),
		right("{cidr: 'fd00:0010:0244:0000:0000:0000:0000:0000/56'}"),
		wrong("{cidr: 'FE80::/64'}", "spec.cidr", "fe80::/10"),
		wrong("{cidr: 169.254.0.0/16}", "spec.cidr", "169.254.0.0/16"),
		wrong("{cidr: 169.254.1.0/24}", "spec.cidr", "169.254.0.0/16"),
		wrong("{cidr: 169.254.255.255/32, blockSize: 32}", "spec.cidr", "169.254.0.0/16"),
		wrong("{cidr: 168.0.0.0/6}", "spec.cidr", "169.254.0.0/16"),
		right("{cidr: 169.253.0.0/16}"),
		right("{cidr: 169.255.0.0/16}"),
		wrong("{cidr: 'fe80::/10'}", "spec.cidr", "fe80::/10"),
		wrong("{cidr: 'fe80::/64'}", "spec.cidr", "fe80::/10"),
		wrong("{cidr: 'febf:ffff::/64'}", "spec.cidr", "fe80::/10"),
		wrong("{cidr: 'fe00::/7'}", "spec.cidr", "fe80::/10"),
		right("{cidr: 'fec0::/10'}"),
		right("{cidr: 'fe00::/9'}"),
		wrong("{cidr: '::/0', disabled: true}", "spec.cidr", "fe80::/10"),
		wrong("{cidr: 10}", "spec.cidr", "must be text, not a whole number"),
		wrong("{cidr: [10.244.0.0/16]}", "spec.cidr", "must be text, not a list"),
	}
}

// poolBlocks are about spec.blockSize.
func poolBlocks() []Case {
	return []Case{
		right("{cidr: 10.244.0.0/16, blockSize: 0}"),
		right("{cidr: 10.244.0.0/16, blockSize: 20}"),
		right("{cidr: 10.244.0.0/16, blockSize: 32}"),
		right("{cidr: 10.244.0.0/16, blockSize: 26.0}"),
		wrong("{cidr: 10.244.0.0/16, blockSize: 19}", "spec.blockSize", "must be 20 to 32 for IPv4"),
		wrong("{cidr: 10.244.0.0/16, blockSize: 33}", "spec.blockSize", "20 to 32"),
		wrong("{cidr: 10.244.0.0/16, blockSize: -1}", "spec.blockSize", "20 to 32"),
		wrong("{cidr: 10.244.0.0/16, blockSize: 122}", "spec.blockSize", "20 to 32"),
		wrong("{cidr: 10.244.0.0/28, blockSize: 19}", "spec.blockSize", "20 to 32"),
		right("{cidr: 'fd00::/64', blockSize: 116}"),
		right("{cidr: 'fd00::/64', blockSize: 128}"),
		wrong("{cidr: 'fd00::/64', blockSize: 115}", "spec.blockSize", "116 to 128"),
		wrong("{cidr: 'fd00::/64', blockSize: 129}", "spec.blockSize", "116 to 128"),
		wrong("{cidr: 'fd00::/64', blockSize: 26}", "spec.blockSize", "116 to 128"),
		right("{cidr: 10.244.0.0/26}"),
		wrong("{cidr: 10.244.0.0/27}", "spec.blockSize", "the default block, /26, is larger than the pool 10.244.0.0/27; set blockSize to 27 or more"),
		wrong("{cidr: 10.244.0.0/28, blockSize: 0}", "spec.blockSize", "set blockSize to 28"),
		wrong("{cidr: 10.244.0.0/28, blockSize: 27}", "spec.blockSize", "a block of this size is larger than the pool 10.244.0.0/28; set blockSize to 28"),
		right("{cidr: 10.244.0.0/28, blockSize: 28}"),
		right("{cidr: 10.244.0.0/28, disabled: true}"),
		right("{cidr: 10.244.0.0/28, blockSize: 24, disabled: true}"),
		wrong("{cidr: 10.244.0.0/28, blockSize: 12, disabled: true}", "spec.blockSize", "20 to 32"),
		wrong("{cidr: 'fd00::/123'}", "spec.blockSize", "the default block, /122, is larger than the pool fd00::/123; set blockSize to 123"),
		right("{cidr: 'fd00::/122'}"),
		right("{cidr: 'fd00::/124', blockSize: 124}"),
		right("{cidr: 'fd00::/124', disabled: true}"),
		wrong("{cidr: 10.244.0.0/16, blockSize: '26'}", "spec.blockSize", "must be a whole number, not text"),
		wrong("{cidr: 10.244.0.0/16, blockSize: 26.5}", "spec.blockSize", "must be a whole number, not a fraction"),
		wrong("{cidr: 10.244.0.0/16, blockSize: 1e30}", "spec.blockSize", ""),
		wrong("{cidr: 10.244.0.0/16, blockSize: 99999999999}", "spec.blockSize", "20 to 32"),
		wrong("{cidr: 10.244.0.0/16, blockSize: true}", "spec.blockSize", "not true or false"),
	}
}

// poolEncapsulation are about spec.vxlanMode and spec.ipipMode.
func poolEncapsulation() []Case {
	return []Case{
		right("{cidr: 10.244.0.0/16, vxlanMode: Never, ipipMode: Never}"),
		right("{cidr: 10.244.0.0/16, vxlanMode: CrossSubnet}"),
		right("{cidr: 10.244.0.0/16, vxlanMode: Always, ipipMode: Never}"),
		right("{cidr: 10.244.0.0/16, ipipMode: Always}"),
		right("{cidr: 'fd00::/64', vxlanMode: Always}"),
		right("{cidr: 'fd00::/64', ipipMode: Never}"),
		wrong("{cidr: 10.244.0.0/16, vxlanMode: Always, ipipMode: Always}", "spec.vxlanMode", "exclude each other"),
		wrong("{cidr: 10.244.0.0/16, vxlanMode: CrossSubnet, ipipMode: Always}", "spec.vxlanMode", "exclude each other"),
		wrong("{cidr: 'fd00::/64', ipipMode: Always}", "spec.ipipMode", "IPv4 only"),
		wrong("{cidr: 'fd00::/64', ipipMode: CrossSubnet}", "spec.ipipMode", "IPv4 only"),
		wrong("{cidr: 'fd00::/64', ipipMode: CrossSubnet, vxlanMode: Always}", "spec.ipipMode", "IPv4 only"),
		wrong("{cidr: 10.244.0.0/16, vxlanMode: always}", "spec.vxlanMode", `"always" is not one of the values it can have: Never, Always, CrossSubnet`),
		wrong("{cidr: 10.244.0.0/16, vxlanMode: ''}", "spec.vxlanMode", "Never, Always, CrossSubnet"),
		wrong("{cidr: 10.244.0.0/16, ipipMode: Off, vxlanMode: Always}", "spec.ipipMode", "Never, Always, CrossSubnet"),
		wrong("{cidr: 10.244.0.0/16, ipipMode: off}", "spec.ipipMode", "Never, Always, CrossSubnet"),
		wrong("{cidr: 10.244.0.0/16, ipipMode: 1}", "spec.ipipMode", "1 is not one of the values it can have"),
	}
}

// poolSwitches are about what is true or false.
func poolSwitches() []Case {
	return []Case{
		right("{cidr: 10.244.0.0/16, natOutgoing: true, disabled: false, disableBGPExport: true}"),
		wrong("{cidr: 10.244.0.0/16, natOutgoing: 'true'}", "spec.natOutgoing", "must be true or false, not text"),
		wrong("{cidr: 10.244.0.0/16, natOutgoing: 1}", "spec.natOutgoing", "must be true or false"),
		wrong("{cidr: 10.244.0.0/16, disabled: yes please}", "spec.disabled", "must be true or false"),
		wrong("{cidr: 10.244.0.0/16, disableBGPExport: {}}", "spec.disableBGPExport", "must be true or false"),
		right("{cidr: 10.244.0.0/16, natOutgoing: null}"),

		right("{cidr: 10.244.0.0/16, assignmentMode: Automatic}"),
		right("{cidr: 10.244.0.0/16, assignmentMode: Manual}"),
		wrong("{cidr: 10.244.0.0/16, assignmentMode: manual}", "spec.assignmentMode", "Automatic, Manual"),
	}
}

// poolUses are about spec.allowedUses.
func poolUses() []Case {
	return []Case{
		right("{cidr: 10.244.0.0/16, allowedUses: [Workload, Tunnel]}"),
		right("{cidr: 10.244.0.0/16, allowedUses: []}"),
		right("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer]}"),
		right("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], vxlanMode: Never, ipipMode: Never}"),
		right("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], namespaceSelector: has(a)}"),
		right("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: all()}"),
		right("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], namespaceSelector: '', disableBGPExport: false, natOutgoing: true}"),
		right("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: null}"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: ''}", "spec.nodeSelector", "belong to no node"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], disableBGPExport: true}", "spec.disableBGPExport", "set disableBGPExport to false"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: has(a)}", "spec.nodeSelector", "belong to no node"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: (}", "spec.nodeSelector", "belong to no node"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [Tunnel], namespaceSelector: (}", "spec.namespaceSelector", "tunnels"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer, Workload]}", "spec.allowedUses", "stands alone"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [Tunnel, LoadBalancer]}", "spec.allowedUses", "stands alone"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [Workload, Tunnel, LoadBalancer]}", "spec.allowedUses", "stands alone"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer, Workload], vxlanMode: Always}", "spec.allowedUses", "stands alone"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], vxlanMode: Always}", "spec.vxlanMode", "never encapsulated"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], ipipMode: CrossSubnet}", "spec.ipipMode", "never encapsulated"),
		wrong("{cidr: 'fd00::/64', allowedUses: [LoadBalancer], ipipMode: Always}", "spec.ipipMode", "IPv4 only"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [Workload, Workload]}", "spec.allowedUses[1]", `"Workload" stands more than once`),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer, LoadBalancer]}", "spec.allowedUses[1]", "more than once"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [workload]}", "spec.allowedUses[0]", "Workload, Tunnel, LoadBalancer"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [Workload, HostSecondary]}", "spec.allowedUses[1]", "Workload, Tunnel, LoadBalancer"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: Workload}", "spec.allowedUses", "must be a list, not text"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [Workload, 3]}", "spec.allowedUses[1]", "Workload, Tunnel"),
		wrong("{cidr: 10.244.0.0/16, allowedUses: [Workload, null]}", "spec.allowedUses[1]", "Workload, Tunnel"),
	}
}

// poolSelectors are about spec.nodeSelector and spec.namespaceSelector.
func poolSelectors() []Case {
	long := strings.Repeat("x", 262144-7)
	return []Case{
		right("{cidr: 10.244.0.0/16, nodeSelector: all()}"),
		right("{cidr: 10.244.0.0/16, nodeSelector: ''}"),
		right("{cidr: 10.244.0.0/16, nodeSelector: 'zone in {\"a\", \"b\"} && !has(gpu)'}"),
		wrong("{cidr: 10.244.0.0/16, nodeSelector: zone = 'a'}", "spec.nodeSelector", "at character 6").accepted(noSelectors),
		wrong("{cidr: 10.244.0.0/16, nodeSelector: '(has(a)'}", "spec.nodeSelector", "at character 8: expected &&, || or ), found the end").accepted(noSelectors),
		wrong("{cidr: 10.244.0.0/16, nodeSelector: global()}", "spec.nodeSelector", "use all()"),
		wrong("{cidr: 10.244.0.0/16, nodeSelector: '!global() || has(a)'}", "spec.nodeSelector", "use all()"),
		wrong("{cidr: 10.244.0.0/16, nodeSelector: \"a == 'global()'\"}", "spec.nodeSelector", "use all()"),
		wrong("{cidr: 10.244.0.0/16, nodeSelector: {matchLabels: {a: b}}}", "spec.nodeSelector", "must be text, not a mapping").blames("spec.nodeSelector.matchLabels", unknownFirst),
		right("{cidr: 10.244.0.0/16, nodeSelector: \"a == '" + long + "'\"}"),
		wrong("{cidr: 10.244.0.0/16, nodeSelector: \"a == 'x"+long+"'\"}", "spec.nodeSelector", "is too long"),
		wrong("{cidr: 10.244.0.0/16, nodeSelector: \"a == 'ä"+long[1:]+"'\"}", "spec.nodeSelector", "at most 262144 bytes").accepted("the API server counts characters, not bytes"),
		right("{cidr: 10.244.0.0/16, namespaceSelector: team == 'a'}"),
		right("{cidr: 10.244.0.0/16, namespaceSelector: team == 'a', allowedUses: []}"),
		right("{cidr: 10.244.0.0/16, namespaceSelector: team == 'a', allowedUses: [Workload]}"),
		right("{cidr: 10.244.0.0/16, namespaceSelector: '', allowedUses: [Workload, Tunnel]}"),
		wrong("{cidr: 10.244.0.0/16, namespaceSelector: team == 'a', allowedUses: [Workload, Tunnel]}", "spec.namespaceSelector", "remove namespaceSelector, or Tunnel"),
		wrong("{cidr: 10.244.0.0/16, namespaceSelector: all(), allowedUses: [Tunnel]}", "spec.namespaceSelector", "remove namespaceSelector, or Tunnel"),
		wrong("{cidr: 10.244.0.0/16, namespaceSelector: team is a}", "spec.namespaceSelector", "at character 6").accepted(noSelectors),
		wrong("{cidr: 10.244.0.0/16, namespaceSelector: global()}", "spec.namespaceSelector", "use all()"),
	}
}

// poolFields are about fields that do not exist, and about specs that are none.
func poolFields() []Case {
	return []Case{
		wrong("{cidr: 10.244.0.0/16, natOutGoing: true}", "spec.natOutGoing", "did you mean natOutgoing?"),
		wrong("{cidr: 10.244.0.0/16, nat-outgoing: true}", "spec.nat-outgoing", "did you mean natOutgoing?"),
		wrong("{CIDR: 10.244.0.0/16}", "spec.CIDR", "did you mean cidr?"),
		wrong("{cidr: 10.244.0.0/28, blocksize: 28}", "spec.blocksize", "did you mean blockSize?"),
		wrong("{cidr: 10.244.0.0/16, ipip: {mode: always}}", "spec.ipip", ""),
		wrong("{cidr: 10.244.0.0/16, colour: blue}", "spec.colour", "use one of allowedUses, assignmentMode, blockSize"),
		wrong("{cidr: 10.244.0.0/16, "+strings.Repeat("x", 500)+": blue}", "spec."+strings.Repeat("x", 59)+"...", "no field"),
		right("{cidr: 10.244.0.0/16, colour: null}").refused("spec.colour", "to the API server null is a value, until it has found the field"),
		wrong("text", "spec", "must be a mapping of fields to values, not text"),
		wrong("[]", "spec", "must be a mapping of fields to values, not a list"),
		wrong("null", "spec", "is missing"),
	}
}
