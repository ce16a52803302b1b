package validatetest

import (
	"slices"
	"strings"
)

// BGPPeer is a BGPPeer, named p, with a spec.
func BGPPeer(spec string) string {
	return "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: p}, spec: " + spec + "}"
}

// BGPFilter is a BGPFilter, named f, with a spec.
func BGPFilter(spec string) string {
	return "{apiVersion: projectcalico.org/v3, kind: BGPFilter, metadata: {name: f}, spec: " + spec + "}"
}

// BGPConfiguration is a BGPConfiguration; text is its name, and its spec after a space.
func BGPConfiguration(text string) string {
	name, spec, _ := strings.Cut(text, " ")
	return "{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: " + name + "}, spec: " + spec + "}"
}

// BGPPeers are specs of new BGPPeers.
func BGPPeers() []Case { return slices.Concat(bgpPeers(), bgpPeerAddresses(), bgpPeerTimes()) }

func bgpPeers() []Case {
	return []Case{
		right("{peerIP: 192.0.2.1, asNumber: 65001}"),
		right("{peerIP: '2001:db8::1', asNumber: 4294967295, localASNumber: 65000, node: a}"),
		right("{peerSelector: role == 'reflector', nodeSelector: all(), reversePeering: Manual}"),
		right("{peerSelector: all(), asNumber: 0}"),
		right("{peerIP: '', peerSelector: all()}"),
		right("{peerIP: 192.0.2.1, asNumber: 65001, node: '', nodeSelector: has(rack), filters: [a, b], sourceAddress: None, nextHopMode: Self, " +
			"keepaliveTime: 20s, maxRestartTime: 2m30s, ttlSecurity: 1, numAllowedLocalASNumbers: 2, password: {secretKeyRef: {name: bgp, key: rack.a, optional: true}}}"),
		right("{peerIP: 192.0.2.1, asNumber: 65001, reachableBy: 192.0.2.254}"),
		right("{localWorkloadSelector: has(router), asNumber: 65001}"),
		right("{peerIP: 192.0.2.1, asNumber: 65001, keepOriginalNextHop: true}"),
		right("{peerIP: 192.0.2.1, asNumber: 65001, keepOriginalNextHop: false, nextHopMode: Auto}"),
		right("{peerIP: 192.0.2.1, asNumber: 65001, password: {}}"),
		wrong("null", "spec", "is missing"),
		wrong("{}", "spec.peerIP", "is missing; set peerIP and asNumber"),
		wrong("{asNumber: 65001}", "spec.peerIP", "is missing"),
		wrong("{peerIP: 192.0.2.1}", "spec.asNumber", "is missing; set the AS number of the router"),
		wrong("{peerIP: 192.0.2.1, asNumber: 0}", "spec.asNumber", "is missing"),
		wrong("{peerIP: 192.0.2.1, asNumber: -1}", "spec.asNumber", "greater than or equal to 0"),
		wrong("{peerIP: 192.0.2.1, asNumber: 4294967296}", "spec.asNumber", "less than or equal to 4294967295"),
		wrong("{peerIP: 192.0.2.1, asNumber: '65001'}", "spec.asNumber", "must be a whole number, not text"),
		wrong("{peerIP: 192.0.2.1, asNumber: 65001, localASNumber: 4294967296}", "spec.localASNumber", "less than or equal to"),
		wrong("{peerIP: 192.0.2.1, asNumber: 65001, peerSelector: all()}", "spec.peerSelector", "excludes peerIP"),
		wrong("{peerSelector: all(), asNumber: 65001}", "spec.asNumber", "must be absent beside peerSelector"),
		wrong("{peerSelector: all(), localWorkloadSelector: all()}", "spec.localWorkloadSelector", "excludes peerIP and peerSelector"),
		wrong("{localWorkloadSelector: all()}", "spec.asNumber", "localWorkloadSelector needs it"),
		wrong("{peerSelector: all(), reachableBy: 192.0.2.254}", "spec.reachableBy", "is the way to peerIP, which is missing"),
		wrong("{peerSelector: all(), node: a, nodeSelector: has(a)}", "spec.nodeSelector", "excludes node"),
		wrong("{peerSelector: zone}", "spec.peerSelector", "is not a selector").accepted(noSelectors),
		wrong("{peerSelector: all(), nodeSelector: zone}", "spec.nodeSelector", "is not a selector").accepted(noSelectors),
		wrong("{peerSelector: all(), keepOriginalNextHop: true, nextHopMode: Keep}", "spec.keepOriginalNextHop", "is the old form of nextHopMode"),
		wrong("{peerSelector: all(), nextHopMode: keep}", "spec.nextHopMode", "values it can have: Auto, Self, Keep"),
		wrong("{peerSelector: all(), sourceAddress: node}", "spec.sourceAddress", "values it can have: UseNodeIP, None"),
		wrong("{peerSelector: all(), reversePeering: None}", "spec.reversePeering", "values it can have: Auto, Manual"),
		wrong("{peerSelector: all(), ttlSecurity: 256}", "spec.ttlSecurity", "less than or equal to 255"),
		wrong("{peerSelector: all(), numAllowedLocalASNumbers: -1}", "spec.numAllowedLocalASNumbers", "greater than or equal to 0"),
		wrong("{peerSelector: all(), filters: a}", "spec.filters", "must be a list"),
		wrong("{peerSelector: all(), password: bgp}", "spec.password", "must be a mapping"),
		wrong("{peerSelector: all(), password: {secretKeyRef: {name: bgp}}}", "spec.password.secretKeyRef.key", "is missing"),
		wrong("{peerSelector: all(), password: {secretKeyRef: {key: a}}}", "spec.password.secretKeyRef.name", "is missing"),
		wrong("{peerSelector: all(), password: {secretKeyRef: {name: ../etc, key: a}}}", "spec.password.secretKeyRef.name", "must be the name of a Secret"),
		wrong("{peerSelector: all(), password: {secretKeyRef: {name: bgp, key: ..}}}", "spec.password.secretKeyRef.key", "must be a key of a Secret"),
		wrong("{peerSelector: all(), password: {secretKeyRef: {name: bgp, key: a/b}}}", "spec.password.secretKeyRef.key", "must be a key of a Secret"),
		wrong("{peerSelector: all(), passwords: {}}", "spec.passwords", "did you mean password?"),
	}
}

func bgpPeerAddresses() (out []Case) {
	const form, local = "must be an address", "must name the interface where it is link-local"
	for _, peer := range []Case{
		right("192.0.2.1:179"), right("192.0.2.1:65535"), right("[2001:db8::1]:1179"), right("fe80::1%eth0"), right("FE80::1%br-lan.100"), right("[fe80::1%eth0]:179"),
		right("169.254.1.1"), right("febf::1%e"), right("127.0.0.1:1179"),
		wrong("router", "", form), wrong("192.0.2", "", form), wrong("192.0.2.1:", "", form), wrong("192.0.2.1:0", "", form), wrong("192.0.2.1:65536", "", form),
		wrong("192.0.2.1/24", "", form), wrong("[192.0.2.1]:179", "", form), wrong("[2001:db8::1]", "", form), wrong("[2001:db8::1]:99999", "", form),
		wrong("::ffff:192.0.2.1", "", form), wrong(" 192.0.2.1", "", form), wrong("192.0.2.1 ", "", form), wrong("fe80::1%eth0%eth1", "", form),
		wrong("fe80::1", "", local), wrong("[fe80::1]:179", "", local), wrong("2001:db8::1%eth0", "", local),
	} {
		peer.Text = "{peerIP: '" + peer.Text + "', asNumber: 65001}"
		if peer.Message != "" {
			peer.Field = "spec.peerIP"
		}
		out = append(out, peer)
	}
	return out
}

func bgpPeerTimes() (out []Case) {
	for field, most := range map[string]string{"keepaliveTime": "21845s", "maxRestartTime": "4095s"} {
		for _, v := range []string{"1s", "1m", "1.5s", "1h1m1s"} {
			out = append(out, right("{peerSelector: all(), "+field+": "+v+"}"))
		}
		for _, v := range []string{"''", "0s", "-1s", "30", "1d", "999ms", "999999999h", "99999h99999h99999h99999h99999h99999h", "forever"} {
			fault := wrong("{peerSelector: all(), "+field+": "+v+"}", "spec."+field, "must be a duration of 1s to "+most)
			if v == "30" {
				fault.Message = "must be text, not a whole number"
			}
			out = append(out, fault)
		}
	}
	return out
}

// BGPFilters are specs of new BGPFilters.
func BGPFilters() []Case {
	rule := func(list, rule string) string { return "{" + list + ": [" + rule + "]}" }
	const narrower = "without it the rule would match more routes"
	out := []Case{
		right("{}"),
		right("{importV4: [{action: Accept, cidr: 0.0.0.0/0, matchOperator: Equal}, {action: Reject}], exportV6: [{action: Reject, source: RemotePeers}]}"),
		right(rule("importV6", "{action: Accept, cidr: '2001:db8::/32', matchOperator: In, prefixLength: {min: 48, max: 64}}")),
		right(rule("exportV4", "{action: Accept, cidr: 10.0.0.1/8, matchOperator: NotIn, prefixLength: {max: 24}}")),
		right(rule("exportV4", "{action: Accept, asPathPrefix: []}")),
		wrong("null", "spec", "is missing"),
		wrong(rule("importV4", "{}"), "spec.importV4[0].action", "is missing"),
		wrong(rule("importV4", "{action: Drop}"), "spec.importV4[0].action", "values it can have: Accept, Reject"),
		wrong(rule("importV4", "{action: Accept}, {action: Accept, cidr: '2001:db8::/32', matchOperator: In}"), "spec.importV4[1].cidr", "must be a range of IPv4"),
		wrong(rule("importV6", "{action: Accept, cidr: 10.0.0.0/8, matchOperator: In}"), "spec.importV6[0].cidr", "must be a range of IPv6"),
		wrong(rule("exportV6", "{action: Accept, cidr: '::ffff:10.0.0.0/104', matchOperator: In}"), "spec.exportV6[0].cidr", "must be a range of IPv6"),
		wrong(rule("exportV4", "{action: Accept, cidr: 10.0.0.0, matchOperator: In}"), "spec.exportV4[0].cidr", "must be a range of IPv4"),
		wrong(rule("exportV4", "{action: Accept, cidr: 10.0.0.0/8}"), "spec.exportV4[0].matchOperator", "goes with cidr"),
		wrong(rule("exportV4", "{action: Accept, matchOperator: In}"), "spec.exportV4[0].matchOperator", "goes with cidr"),
		wrong(rule("exportV4", "{action: Accept, cidr: 10.0.0.0/8, matchOperator: Inside}"), "spec.exportV4[0].matchOperator", "values it can have: Equal, NotEqual, In, NotIn"),
		wrong(rule("exportV4", "{action: Accept, prefixLength: {min: 24}}"), "spec.exportV4[0].prefixLength", "needs cidr"),
		wrong(rule("exportV4", "{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 33}}"), "spec.exportV4[0].prefixLength.min", "less than or equal to 32"),
		wrong(rule("exportV4", "{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 25, max: 24}}"), "spec.exportV4[0].prefixLength.max", "is less than min"),
		wrong(rule("exportV6", "{action: Accept, cidr: '::/0', matchOperator: In, prefixLength: {max: 129}}"), "spec.exportV6[0].prefixLength.max", "less than or equal to 128"),
		wrong(rule("exportV4", "{action: Accept, source: Local}"), "spec.exportV4[0].source", "values it can have: RemotePeers"),
		wrong(rule("exportV4", "{action: Accept, peerTypes: eBGP}"), "spec.exportV4[0].peerTypes", "did you mean peerType?"),
		wrong(rule("exportV4", "{action: Accept, operations: [{setPriority: {value: 1}}]}"), "spec.exportV4[0].operations", "changes routes, which Sallyport does not"),
	}
	for _, list := range []string{"importV4", "exportV4", "importV6", "exportV6"} {
		for field, value := range map[string]string{"interface": "eth0", "communities": "{values: ['65000:1']}", "asPathPrefix": "[65000]", "peerType": "eBGP", "priority": "1024"} {
			out = append(out, wrong(rule(list, "{action: Reject, "+field+": "+value+"}"), "spec."+list+"[0]."+field, narrower))
		}
	}
	return out
}

// BGPConfigurations are names and specs of new BGPConfigurations.
func BGPConfigurations() []Case {
	return []Case{
		right("default {}"),
		right("other {}"),
		right("default {asNumber: 4200000000, nodeToNodeMeshEnabled: false, listenPort: 1179, bindMode: NodeIP}"),
		right("node.a {listenPort: 1179, bindMode: None, prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['65000:1']}]}"),
		right("default {nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}, nodeMeshMaxRestartTime: 200s}"),
		right("default {nodeToNodeMeshEnabled: true, nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}}"),
		right("default {communities: [{name: lan, value: '65000:65535'}, {name: wan, value: '4294967295:1:2'}], prefixAdvertisements: [{cidr: '2001:db8::1/32', communities: [lan, wan, '1:2', '1:2:3']}]}"),
		right("default {communities: []}"),
		// What Sallyport does not act on.
		right("default {logSeverityScreen: Debug, ignoredInterfaces: [eth1], programClusterRoutes: Enabled, serviceClusterIPs: [{cidr: 10.96.0.0/12}], " +
			"serviceExternalIPs: [], serviceLoadBalancerIPs: [{cidr: 192.0.2.0/24}], serviceLoadBalancerAggregation: Disabled, " +
			"ipv4NormalRoutePriority: 1024, ipv6NormalRoutePriority: 1, localWorkloadPeeringIPV4: 169.254.1.2, localWorkloadPeeringIPV6: 'fe80::2'}"),
		wrong("default null", "spec", "is missing"),
		wrong("other {asNumber: 65001}", "spec.asNumber", "can only be set in the BGPConfiguration named default"),
		wrong("node.a {nodeToNodeMeshEnabled: false}", "spec.nodeToNodeMeshEnabled", "can only be set in the BGPConfiguration named default"),
		wrong("node.a {nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}}", "spec.nodeMeshPassword", "can only be set in the BGPConfiguration named default"),
		wrong("node.a {nodeMeshMaxRestartTime: 10s}", "spec.nodeMeshMaxRestartTime", "can only be set in the BGPConfiguration named default"),
		wrong("default {nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}}", "spec.nodeMeshPassword", "nodeToNodeMeshEnabled: false turns off"),
		wrong("default {nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: 10s}", "spec.nodeMeshMaxRestartTime", "nodeToNodeMeshEnabled: false turns off"),
		wrong("default {nodeMeshMaxRestartTime: 4096s}", "spec.nodeMeshMaxRestartTime", "must be a duration of 1s to 4095s"),
		wrong("default {asNumber: 4294967296}", "spec.asNumber", "less than or equal to"),
		wrong("default {listenPort: 0}", "spec.listenPort", "greater than or equal to 1"),
		wrong("default {listenPort: 65536}", "spec.listenPort", "less than or equal to 65535"),
		wrong("default {bindMode: All}", "spec.bindMode", "values it can have: None, NodeIP"),
		wrong("default {communities: [{name: lan, value: '65000:1'}]}", "spec.communities", "no entry of prefixAdvertisements uses"),
		wrong("default {communities: [{name: lan, value: '65536:1'}], prefixAdvertisements: [{cidr: 10.0.0.0/8}]}", "spec.communities[0].value", "must be aa:nn").
			accepted("CEL cannot read so many numbers within its limits"),
		wrong("default {communities: [{name: lan, value: '1:2:4294967296'}], prefixAdvertisements: [{cidr: 10.0.0.0/8}]}", "spec.communities[0].value", "must be aa:nn").
			accepted("CEL cannot read so many numbers within its limits"),
		wrong("default {communities: [{name: lan, value: lan}], prefixAdvertisements: [{cidr: 10.0.0.0/8}]}", "spec.communities[0].value", "must be aa:nn"),
		wrong("default {communities: [{value: '1:2'}], prefixAdvertisements: [{cidr: 10.0.0.0/8}]}", "spec.communities[0].name", "is missing"),
		wrong("default {prefixAdvertisements: [{communities: ['1:2']}]}", "spec.prefixAdvertisements[0].cidr", "is missing"),
		wrong("default {prefixAdvertisements: [{cidr: 10.0.0.0}]}", "spec.prefixAdvertisements[0].cidr", "must be a CIDR"),
		wrong("default {prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['1:2', wan]}]}", "spec.prefixAdvertisements[0].communities[1]", `"wan" is neither a community`).
			accepted("CEL cannot look up each of 25000 communities among 500: the API server stores them as they are, and agents report the fault"),
		wrong("default {prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['65536:2']}]}", "spec.prefixAdvertisements[0].communities[0]", "is neither a community").
			accepted("as above"),
		wrong("default {logSeverityScreen: Loud}", "spec.logSeverityScreen", "should match"),
		wrong("default {meshEnabled: true}", "spec.meshEnabled", "is no field that exists"),
	}
}
