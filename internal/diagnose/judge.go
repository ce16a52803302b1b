package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// Judge says what is wrong with a node that is to hold the plan of a snapshot.
func Judge(s *model.Snapshot, plan *compile.Plan, f *Facts) Report {
	var found []Problem
	if f.Node != nil {
		found = append(found, overlaps(s.Pools, plan.ForPodNetwork(), f.Node)...)
		found = append(found, missingAddresses(s, &plan.NAT, f.Node)...)
		found = append(found, forwarding(s.Pools, plan.ForPodNetwork(), f.Node)...)
		if f.Rules != nil {
			found = append(found, judgeRules(s, plan, f.Node, f.Rules)...)
		}
	}
	if f.Rules != nil {
		found = append(found, overlapsServices(s.Pools, f.Rules.Services)...)
	}
	if f.Conntrack != nil {
		found = append(found, conntrack(f.Conntrack, f.Earlier, f)...)
	}
	if f.Ports != nil {
		found = append(found, usedUp(f.Ports)...)
	}
	for _, u := range f.Unread {
		found = append(found, Problem{Kind: NotExamined, Object: u.What, What: fmt.Sprintf("could not be read: %v", u.Why),
			Remedy: "the agent needs CAP_NET_ADMIN, and /proc/sys/net of its network namespace; rules that are too many are to be looked at by hand: nft list ruleset, iptables-save -t nat"})
	}
	return report(found)
}

// holdsPods says whether a pool's addresses may be those of pods on some node. A pool that is disabled and
// translates nothing is the usual way to exempt a range, and one for load balancers alone exempts nothing.
func holdsPods(p *model.Pool) bool {
	return !p.LoadBalancerOnly() && (!p.Disabled || p.NATOutgoing)
}

// overlaps finds pools that overlap a subnet of the node's own. That is the subnet of an interface by which
// a default route leaves, or of a physical one: a bridge or a veth that carries a pool's own addresses
// towards pods is neither.
func overlaps(pools []*model.Pool, podNetwork bool, n *Node) []Problem {
	then := "a pod may get the address of one of them"
	remedy := "give the pool a range that no machine has; where pods are meant to share the subnet, leave it as it is"
	if podNetwork { // see ipam.Kept
		then = "this node gives out no address of a block that overlaps it"
		remedy = "give the pool a range that no machine has"
	}
	var found []Problem
	for _, i := range n.Interfaces {
		if i.Loopback || !i.Physical && !i.uplink() {
			continue
		}
		for _, a := range i.Addresses {
			for _, p := range pools {
				if !holdsPods(p) || !p.CIDR.Overlaps(a.Masked()) {
					continue
				}
				found = append(found, Problem{Kind: PoolOverlapsSubnet, Object: "IPPool " + p.Name, Field: "spec.cidr",
					What: fmt.Sprintf("%s overlaps %s, the subnet of this node's interface %s: what pods say to its hosts is not translated, and %s",
						p.CIDR, a.Masked(), i.Name, then),
					Remedy: remedy})
			}
		}
	}
	return found
}

// overlapsServices finds pools for pods that hold addresses of services, which are sorted.
func overlapsServices(pools []*model.Pool, services []netip.Addr) []Problem {
	var found []Problem
	for _, p := range pools {
		i, _ := slices.BinarySearchFunc(services, p.CIDR.Addr(), netip.Addr.Compare)
		if !holdsPods(p) || p.AllowedUses&model.UseLoadBalancer != 0 || i == len(services) || !p.CIDR.Contains(services[i]) {
			continue
		}
		found = append(found, Problem{Kind: PoolOverlapsServices, Object: "IPPool " + p.Name, Field: "spec.cidr",
			What:   fmt.Sprintf("%s holds %s, the address of a service: what is said to it goes to the service, and never to a pod that has it", p.CIDR, services[i]),
			Remedy: "give the pool a range outside of the API server's --service-cluster-ip-range"})
	}
	return found
}

// missingAddresses finds the addresses to translate to that are not the node's.
func missingAddresses(s *model.Snapshot, nat *compile.NAT, n *Node) []Problem {
	var found []Problem
	for _, a := range []netip.Addr{nat.To4, nat.To6} {
		if local, known := n.Local[a]; !known || local {
			continue
		}
		var by []string
		for i := range s.NATConfigurations {
			if c := &s.NATConfigurations[i]; slices.Contains(c.Addresses, a) {
				by = append(by, c.Name)
			}
		}
		found = append(found, Problem{Kind: AddressMissing, Object: "NATConfiguration " + strings.Join(by, ", "), Field: "spec.addresses",
			What: fmt.Sprintf("this node does not have %s: connections leave with it, and no answer comes back unless the network routes it here", a),
			Remedy: fmt.Sprintf("give the node the address (where it is routed here: ip address add %s dev lo), or take it out of the configuration",
				netip.PrefixFrom(a, a.BitLen()))})
	}
	return found
}

// forwarding finds the settings that keep packets of pods from being forwarded. Those of the node as a whole are the agent's own
// where it is the pod network: its driver of routes turns them on with the first block of a family, and reports what hinders it.
func forwarding(pools []*model.Pool, podNetwork bool, n *Node) []Problem {
	var ours [2][]netip.Prefix
	for _, p := range pools {
		if holdsPods(p) {
			f := family(p.CIDR.Addr())
			ours[f] = append(ours[f], p.CIDR)
		}
	}
	var found []Problem
	off := func(object, sysctl, what string) { found = append(found, forwardingOff(object, sysctl, what)) }
	forced := slices.ContainsFunc(n.Interfaces, func(i Interface) bool { return i.ForwardIPv6 })
	if !podNetwork {
		found = nodeForwarding(len(ours[0]) > 0, len(ours[1]) > 0 && !forced, n)
	}
	for _, i := range n.Interfaces {
		name := strings.ReplaceAll(i.Name, ".", "/")
		relevant := func(f int) bool { return len(ours[f]) > 0 && !i.Loopback && (i.uplinkOf(f) || i.carries(ours[f])) }
		if n.ForwardIPv4 && !i.ForwardIPv4 && relevant(0) {
			off("interface "+i.Name, "net.ipv4.conf."+name+".forwarding", "is 0: the kernel drops IPv4 packets that come in by it and are for others")
		}
		if forced && !n.ForwardIPv6 && !i.ForwardIPv6 && relevant(1) {
			off("interface "+i.Name, "net.ipv6.conf."+name+".force_forwarding", "is 0, and so is net.ipv6.conf.all.forwarding: the kernel drops IPv6 packets that come in by it and are for others")
		}
	}
	return found
}

// nodeForwarding finds the settings of the node as a whole that keep packets of a family from being forwarded.
func nodeForwarding(v4, v6 bool, n *Node) []Problem {
	var found []Problem
	if v4 && !n.ForwardIPv4 {
		found = append(found, forwardingOff("this node", "net.ipv4.ip_forward", "is 0, and there are IPv4 pools: the kernel drops every packet between pods and other machines"))
	}
	if v6 && !n.ForwardIPv6 && !n.NoIPv6 {
		p := forwardingOff("this node", "net.ipv6.conf.all.forwarding", "is 0, and there are IPv6 pools: the kernel drops every packet between pods and other machines")
		p.Remedy = keepRouters(n) + p.Remedy
		found = append(found, p)
	}
	return found
}

func forwardingOff(object, sysctl, what string) Problem {
	return Problem{Kind: ForwardingOff, Object: object, Field: sysctl, What: what, Remedy: "sysctl -w " + sysctl + "=1, and keep it in a file below /etc/sysctl.d"}
}

// keepRouters is what has to be done before a node forwards IPv6. The kernel forgets default routes that it has
// learned from router advertisements then, and learns none, but for interfaces with accept_ra 2
// (addrconf_fixup_forwarding and rt6_purge_dflt_routers in net/ipv6).
func keepRouters(n *Node) string {
	var first []string
	for _, i := range n.Interfaces {
		if i.uplinkOf(1) {
			first = append(first, "sysctl -w net.ipv6.conf."+strings.ReplaceAll(i.Name, ".", "/")+".accept_ra=2")
		}
	}
	if len(first) == 0 {
		return ""
	}
	return "first, where routers advertise this node's default route, which it would lose: " + strings.Join(first, "; ") + "; then "
}

// carries says whether addresses of the prefixes, and no others, are on the interface or are reached by it.
func (i *Interface) carries(prefixes []netip.Prefix) bool {
	for _, list := range [][]netip.Prefix{i.Addresses, i.Routes} {
		for _, a := range list {
			if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Bits() <= a.Bits() && p.Overlaps(a) }) {
				return true
			}
		}
	}
	return false
}

// family is 0 for IPv4 and 1 for IPv6.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
