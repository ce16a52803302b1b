package main

import (
	"fmt"
	"strings"
)

// What every variant declares, each in its own words: pods of one range are translated, except towards
// that range and exemptRanges others, which neither touch nor overlap.
const (
	translatedRange = "10.244.0.0/16"
	exemptRanges    = 64
)

// exemptRange is the i-th of them.
func exemptRange(i int) string { return fmt.Sprintf("172.16.%d.0/24", 2*i) }

// exemptList is what is exempt, the pods' own range included, with something between the ranges.
func exemptList(separator string) string {
	list := []string{translatedRange}
	for i := range exemptRanges {
		list = append(list, exemptRange(i))
	}
	return strings.Join(list, separator)
}

// trackRules make the kernel track connections, and are never evaluated.
func trackRules() string {
	return `table ip hand {
	chain never { ct state new accept; }
}
`
}

// handRules are what a person would write by hand for nftables.
func handRules() string {
	return `table ip hand {
	set exempt { type ipv4_addr; flags interval; elements = { ` + exemptList(", ") + ` }; }
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr ` + translatedRange + ` ip daddr != @exempt masquerade fully-random
	}
}
`
}

// poolSets are the two sets of the iptables variants, as input of ipset restore.
func poolSets() string {
	return "create pools hash:net family inet\nadd pools " + translatedRange + "\n" +
		"create all hash:net family inet\nadd all " + exemptList("\nadd all ") + "\n"
}

// oneRule is translation by a single iptables rule.
const oneRule = `*nat
-A POSTROUTING -m set --match-set pools src -m set ! --match-set all dst -j MASQUERADE --random-fully
COMMIT
`

// felixLike is the shape of what Calico's agent makes iptables do with a packet on its way from a pod,
// and back to it: marks are cleared and set, sources checked, established connections accepted, and all
// of that in chains of chains. No policy is in force. About twenty rules look at each packet.
const felixLike = `*raw
:cali-PREROUTING - [0:0]
:cali-rpf-skip - [0:0]
:cali-from-host-endpoint - [0:0]
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000
-A cali-PREROUTING -i pod+ -j MARK --set-xmark 0x40000/0x40000
-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -j cali-rpf-skip
-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
-A cali-PREROUTING -m mark --mark 0x0/0x40000 -j cali-from-host-endpoint
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
COMMIT
*mangle
:cali-PREROUTING - [0:0]
:cali-from-host-endpoint - [0:0]
:cali-POSTROUTING - [0:0]
:cali-to-host-endpoint - [0:0]
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-PREROUTING -j cali-from-host-endpoint
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
-A POSTROUTING -j cali-POSTROUTING
-A cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-POSTROUTING -j MARK --set-xmark 0x0/0xf0000
-A cali-POSTROUTING -m conntrack --ctstate DNAT -j cali-to-host-endpoint
-A cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
COMMIT
*filter
:cali-FORWARD - [0:0]
:cali-from-hep-forward - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-to-wl-dispatch - [0:0]
:cali-to-hep-forward - [0:0]
:cali-cidr-block - [0:0]
:cali-fw-pod0 - [0:0]
:cali-tw-pod0 - [0:0]
:cali-pro-default - [0:0]
-A FORWARD -j cali-FORWARD
-A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -j MARK --set-xmark 0x10000/0x10000
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -m mark --mark 0x0/0x10000 -j cali-from-hep-forward
-A cali-FORWARD -i pod+ -j cali-from-wl-dispatch
-A cali-FORWARD -o pod+ -j cali-to-wl-dispatch
-A cali-FORWARD -j cali-to-hep-forward
-A cali-FORWARD -j cali-cidr-block
-A cali-from-wl-dispatch -i pod0 -g cali-fw-pod0
-A cali-from-wl-dispatch -j DROP
-A cali-to-wl-dispatch -o pod0 -g cali-tw-pod0
-A cali-to-wl-dispatch -j DROP
-A cali-fw-pod0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-fw-pod0 -m conntrack --ctstate INVALID -j DROP
-A cali-fw-pod0 -j MARK --set-xmark 0x0/0x30000
-A cali-fw-pod0 -p udp -m multiport --dports 4789 -j DROP
-A cali-fw-pod0 -p 4 -j DROP
-A cali-fw-pod0 -j cali-pro-default
-A cali-fw-pod0 -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-fw-pod0 -j DROP
-A cali-tw-pod0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-tw-pod0 -m conntrack --ctstate INVALID -j DROP
-A cali-tw-pod0 -j MARK --set-xmark 0x0/0x30000
-A cali-tw-pod0 -j cali-pro-default
-A cali-tw-pod0 -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-tw-pod0 -j DROP
-A cali-pro-default -j MARK --set-xmark 0x10000/0x10000
COMMIT
*nat
:cali-PREROUTING - [0:0]
:cali-fip-dnat - [0:0]
:cali-POSTROUTING - [0:0]
:cali-fip-snat - [0:0]
:cali-nat-outgoing - [0:0]
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -j cali-fip-dnat
-A POSTROUTING -j cali-POSTROUTING
-A cali-POSTROUTING -j cali-fip-snat
-A cali-POSTROUTING -j cali-nat-outgoing
-A cali-nat-outgoing -m set --match-set pools src -m set ! --match-set all dst -j MASQUERADE --random-fully
COMMIT
`

// masqAgentRules are the chain of ip-masq-agent: a rule for each range that is not translated, tried one
// after the other.
func masqAgentRules() string {
	var b strings.Builder
	b.WriteString("*nat\n:IP-MASQ - [0:0]\n-A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ\n")
	for i := range exemptRanges {
		fmt.Fprintf(&b, "-A IP-MASQ -d %s -j RETURN\n", exemptRange(i))
	}
	b.WriteString("-A IP-MASQ -d " + translatedRange + " -j RETURN\n")
	b.WriteString("-A IP-MASQ -j MASQUERADE --random-fully\nCOMMIT\n")
	return b.String()
}
