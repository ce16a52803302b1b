package validatetest

import "strings"

// Reservation is an IPReservation, named r, with a spec.
func Reservation(spec string) string {
	return "{apiVersion: projectcalico.org/v3, kind: IPReservation, metadata: {name: r}, spec: " + spec + "}"
}

// NetworkConfiguration is a NodeNetworkConfiguration, named c, with a spec.
func NetworkConfiguration(spec string) string {
	return "{apiVersion: sallyport.dev/v1alpha1, kind: NodeNetworkConfiguration, metadata: {name: c}, spec: " + spec + "}"
}

// Block is an IPBlock; text is its name, and its spec after a space.
func Block(text string) string {
	name, spec, _ := strings.Cut(text, " ")
	return "{apiVersion: sallyport.dev/v1alpha1, kind: IPBlock, metadata: {name: " + name + "}, spec: " + spec + "}"
}

// Reservations are specs of new IPReservations.
func Reservations() []Case {
	return []Case{
		right("{}"),
		right("{reservedCIDRs: []}"),
		right("{reservedCIDRs: [10.244.0.0/28, 10.244.0.1/32, 'fd00::/120']}"),
		right("{reservedCIDRs: [10.244.0.1/28]}"),
		wrong("null", "spec", "is missing"),
		wrong("{reservedCIDRs: [10.244.0.1]}", "spec.reservedCIDRs[0]", `"10.244.0.1" must be a CIDR`),
		wrong("{reservedCIDRs: [10.0.0.0/8, 10.0.0.0/33]}", "spec.reservedCIDRs[1]", "must be a CIDR"),
		wrong("{reservedCIDRs: ['::ffff:10.0.0.0/104']}", "spec.reservedCIDRs[0]", "must be a CIDR"),
		wrong("{reservedCIDRs: [10.0.0.0/8, 10.0.0.0/8]}", "spec.reservedCIDRs[1]", "stands more than once"),
		wrong("{reservedCIDRs: 10.0.0.0/8}", "spec.reservedCIDRs", "must be a list, not text"),
		wrong("{reservedCIDR: [10.0.0.0/8]}", "spec.reservedCIDR", "did you mean reservedCIDRs?"),
	}
}

// NetworkConfigurations are specs of new NodeNetworkConfigurations.
func NetworkConfigurations() []Case {
	return []Case{
		right("{}"),
		right("{nodeSelector: has(a), priority: -5, nodeAddress: {interface: 'eth*', cidrs: [192.0.2.0/24, '2001:db8::/64']}, mtu: 1500}"),
		right("{vxlan: {port: 4790, vni: 16777215}}"),
		right("{nodeSelector: '', vxlan: {port: 65535}}"),
		right("{nodeSelector: all(), vxlan: {vni: 1}}"),
		right("{nodeSelector: has(a), vxlan: null}"),
		right("{nodeAddress: {}}"),
		wrong("null", "spec", "is missing"),
		wrong("{nodeSelector: zone}", "spec.nodeSelector", "at character 5").accepted(noSelectors),
		wrong("{nodeSelector: global()}", "spec.nodeSelector", "use all()"),
		wrong("{nodeSelector: has(a), vxlan: {port: 4790}}", "spec.vxlan", "must be the same on all nodes"),
		wrong("{vxlan: {port: 0}}", "spec.vxlan.port", "greater than or equal to 1"),
		wrong("{vxlan: {port: 65536}}", "spec.vxlan.port", "less than or equal to 65535"),
		wrong("{vxlan: {vni: 0}}", "spec.vxlan.vni", "greater than or equal to 1"),
		wrong("{vxlan: {vni: 16777216}}", "spec.vxlan.vni", "less than or equal to 16777215"),
		wrong("{vxlan: {id: 1}}", "spec.vxlan.id", "is no field that exists; remove it, or use one of port, vni"),
		wrong("{vxlan: {ports: 1}}", "spec.vxlan.ports", "did you mean port?"),
		wrong("{vxlan: 4789}", "spec.vxlan", "must be a mapping of fields to values, not a whole number"),
		wrong("{mtu: 1279}", "spec.mtu", "greater than or equal to 1280"),
		wrong("{mtu: 65536}", "spec.mtu", "less than or equal to 65535"),
		wrong("{mtu: 1500.5}", "spec.mtu", "must be a whole number"),
		right("{nodeAddress: {interface: eth0.100}}"),
		wrong("{nodeAddress: {interface: ''}}", "spec.nodeAddress.interface", "name of an interface"),
		wrong("{nodeAddress: {interface: 'et*0'}}", "spec.nodeAddress.interface", "name of an interface"),
		wrong("{nodeAddress: {interface: sixteen-bytes-no}}", "spec.nodeAddress.interface", "too long"),
		wrong("{nodeAddress: {interface: [eth0]}}", "spec.nodeAddress.interface", "must be text, not a list"),
		wrong("{nodeAddress: {interfaces: eth0}}", "spec.nodeAddress.interfaces", "did you mean interface?"),
		wrong("{nodeAddress: {cidrs: [192.0.2.0]}}", "spec.nodeAddress.cidrs[0]", "must be a CIDR"),
		wrong("{nodeAddress: eth0}", "spec.nodeAddress", "must be a mapping"),
		right("{bgp: {}}"),
		right("{nodeSelector: has(a), bgp: {holdTime: 9s, maxPrefixes: 1000000, bfd: {interval: 300ms, multiplier: 3}}}"),
		right("{bgp: {bfd: {interval: 0s}}}"),
		wrong("{bgp: {holdTime: 2s}}", "spec.bgp.holdTime", "must be a duration of 3s to 65535s"),
		wrong("{bgp: {holdTime: 65536s}}", "spec.bgp.holdTime", "must be a duration of 3s to 65535s"),
		wrong("{bgp: {maxPrefixes: 0}}", "spec.bgp.maxPrefixes", "greater than or equal to 1"),
		wrong("{bgp: {maxPrefixes: 1000001}}", "spec.bgp.maxPrefixes", "less than or equal to 1000000"),
		wrong("{bgp: {bfd: {}}}", "spec.bgp.bfd.interval", "is missing"),
		wrong("{bgp: {bfd: {interval: 10ms}}}", "spec.bgp.bfd.interval", "must be a duration of 50ms to 10s"),
		wrong("{bgp: {bfd: {interval: 11s}}}", "spec.bgp.bfd.interval", "must be a duration of 50ms to 10s"),
		wrong("{bgp: {bfd: {interval: 1s, multiplier: 1}}}", "spec.bgp.bfd.multiplier", "greater than or equal to 2"),
		wrong("{bgp: {bfd: {interval: 1s, multiplier: 51}}}", "spec.bgp.bfd.multiplier", "less than or equal to 50"),
	}
}

// Blocks are names and specs of new IPBlocks.
func Blocks() []Case {
	const four, six = "4-10-244-1-0-26", "6-fd00-0010-0000-0000-0000-0000-0000-0040-122"
	const rest = ", node: n1, pool: p, poolUID: u}"
	const misnamed = "is not what metadata.name stands for"
	return []Case{
		right(four + " {cidr: 10.244.1.0/26" + rest),
		right("4-10-244-1-5-32 {cidr: 10.244.1.5/32" + rest),
		right("4-0-0-0-0-0 {cidr: 0.0.0.0/0" + rest),
		right(six + " {cidr: 'fd00:10::40/122'" + rest),
		right(six + " {cidr: 'FD00:0010:0:0::40/122'" + rest),
		right("6-0000-0000-0000-0000-0000-0000-0000-0001-128 {cidr: '::1/128'" + rest),
		wrong("4-10-244-1-0-27 {cidr: 10.244.1.0/26"+rest, "spec.cidr", misnamed),
		wrong("4-10-244-1-64-26 {cidr: 10.244.1.0/26"+rest, "spec.cidr", misnamed),
		wrong("4-010-244-1-0-26 {cidr: 10.244.1.0/26"+rest, "spec.cidr", misnamed),
		wrong("block {cidr: 10.244.1.0/26"+rest, "spec.cidr", misnamed),
		wrong("a {cidr: 'fd00:10::40/122'"+rest, "spec.cidr", misnamed),
		wrong(six+" {cidr: 10.244.1.0/26"+rest, "spec.cidr", misnamed),
		wrong(four+" {cidr: 'fd00:10::40/122'"+rest, "spec.cidr", misnamed),
		wrong("6-fd00-10-0-0-0-0-0-40-122 {cidr: 'fd00:10::40/122'"+rest, "spec.cidr", misnamed),
		wrong("6-fd00-0010-0000-0000-0000-0000-0000-0040-0122 {cidr: 'fd00:10::40/122'"+rest, "spec.cidr", misnamed),
		wrong("6-fd00-0010-0000-0000-0000-0000-0000-0040-129 {cidr: 'fd00:10::40/122'"+rest, "spec.cidr", misnamed),
		wrong("6-fd00-0010-0000-0000-0000-0000-0000-0080-122 {cidr: 'fd00:10::40/122'"+rest, "spec.cidr", misnamed),
		wrong("4-10-244-1-1-26 {cidr: 10.244.1.1/26"+rest, "spec.cidr", "has bits set behind the prefix; write 10.244.1.0/26"),
		wrong(four+" {cidr: 10.244.1.0"+rest, "spec.cidr", "must be a CIDR"),
		wrong(four+" {cidr: 10.244.1.0/26, pool: p, poolUID: u}", "spec.node", "is missing"),
		wrong(four+" {cidr: 10.244.1.0/26, node: '', pool: p, poolUID: u}", "spec.node", "at least 1"),
		wrong(four+" {cidr: 10.244.1.0/26, node: n1, pool: p}", "spec.poolUID", "is missing"),
		wrong(four+" {cidr: 10.244.1.0/26, nodes: n1, pool: p, poolUID: u}", "spec.nodes", "did you mean node?"),
	}
}

// BlockUpdates are names and specs of IPBlocks that are to replace others.
func BlockUpdates() []Update {
	const block = "4-10-244-1-0-26 {cidr: 10.244.1.0/26, node: n1, pool: p, poolUID: u}"
	return []Update{
		rightAfter(block, block),
		wrongAfter(block, "4-10-244-1-0-26 {cidr: 10.244.1.0/26, node: n2, pool: p, poolUID: u}", "spec", "cannot be changed"),
		wrongAfter(block, "4-10-244-1-0-26 {cidr: 10.244.1.0/26, node: n1, pool: p, poolUID: v}", "spec", "cannot be changed"),
	}
}
