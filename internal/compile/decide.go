package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

// Decide says what the plan does to a flow and why. Both addresses must be valid and of one family.
func (p *Plan) Decide(f Flow) Verdict {
	v := Verdict{
		Action:      Keep,
		Source:      Endpoint{f.Source, p.poolName(f.Source)},
		Destination: Endpoint{f.Destination, p.poolName(f.Destination)},
	}
	src, translated := p.NAT.source(f.Source)
	exempted := p.NAT.exempts(f.Destination)
	switch {
	case p.isLocal(f.Destination):
		v.Reason = fmt.Sprintf("%s is this node's own address: what a pod says to its node never passes the translation", f.Destination)
	case f.OutInterface != "" && !p.covers(f.OutInterface):
		v.Reason = fmt.Sprintf("it leaves by %s, and outInterfaces covers only %s", f.OutInterface, strings.Join(p.NAT.OutInterfaces, ", "))
	case exempted:
		v.Decider, v.Reason = p.whyExempt(f.Destination)
	case !translated:
		v.Reason = p.whyNoSource(f.Source)
	case p.overlaid(f):
		v.Decider = src.Pool
		v.Reason = fmt.Sprintf("UDP port %d is that of the overlay between nodes, into which no pod may send with its node's address", f.DestinationPort)
		if p.NAT.LeakGuard {
			v.Reason += fmt.Sprintf("; pool %s asks for a translation, so that the leak guard drops the packets", src.Pool)
		}
	default:
		v.Action = Translate
		v.Decider = src.Pool
		v.To = &Target{Address: "node", Ports: p.NAT.PortsFor(f.Protocol).String()}
		if a := p.NAT.To(f.Source); a.IsValid() {
			v.To.Address = a.String()
		}
		v.Reason = fmt.Sprintf("pool %s has natOutgoing: true and no pool holds %s", src.Pool, f.Destination)
		if p.hosts != nil {
			v.Reason += ", nor is it a node's address"
		}
		if v.Destination.Pool != "" {
			v.Reason = fmt.Sprintf("pool %s has natOutgoing: true, and pool %s, which holds %s, is for load balancers alone and exempts nothing",
				src.Pool, v.Destination.Pool, f.Destination)
		}
	}
	return v
}

// overlaid says whether a flow would look like one of the overlay. The table of workloads keeps the source of such a flow.
func (p *Plan) overlaid(f Flow) bool {
	return p.Workloads.VXLANPort != 0 && f.Protocol == UDP && f.DestinationPort == p.Workloads.VXLANPort
}

// source is the range of sources that holds an address.
func (n *NAT) source(a netip.Addr) (Source, bool) {
	i, ok := find(len(n.Sources), func(i int) *netipx.IPRange { return &n.Sources[i].Range }, a)
	if !ok {
		return Source{}, false
	}
	return n.Sources[i], true
}

// exempts says whether a destination is one that is never translated.
func (n *NAT) exempts(a netip.Addr) bool {
	_, ok := find(len(n.Exempt), func(i int) *netipx.IPRange { return &n.Exempt[i] }, a)
	return ok
}

// PortsFor is the range from which a protocol's source port is taken; zero where the kernel chooses
// freely or the protocol has no ports.
func (n *NAT) PortsFor(proto Protocol) model.PortRange {
	switch proto {
	case TCP, SCTP:
		return n.Ports
	case UDP:
		return n.UDPPorts
	default:
		return model.PortRange{}
	}
}

// To is the configured address that sources of this family are translated to, or the zero Addr.
func (n *NAT) To(source netip.Addr) netip.Addr {
	if source.Is4() {
		return n.To4
	}
	return n.To6
}

// find looks an address up in n disjoint, sorted ranges. It is asked for each flow of a node, some ten thousand times
// for one change, and so copies no ranges.
func find(n int, at func(int) *netipx.IPRange, a netip.Addr) (int, bool) {
	i := sort.Search(n, func(i int) bool { return !at(i).To().Less(a) })
	return i, i < n && at(i).Contains(a)
}

// poolName is the most specific pool that holds an address, the oldest of equals, or "".
func (p *Plan) poolName(a netip.Addr) string {
	if best := p.mostSpecific(a, func(*model.Pool) bool { return true }); best != nil {
		return best.Name
	}
	return ""
}

func (p *Plan) mostSpecific(a netip.Addr, want func(*model.Pool) bool) *model.Pool {
	var best *model.Pool
	for _, q := range p.pools {
		if !q.CIDR.Contains(a) || !want(q) {
			continue
		}
		if best == nil || q.CIDR.Bits() > best.CIDR.Bits() || q.CIDR == best.CIDR && q.Older(best) {
			best = q
		}
	}
	return best
}

func (p *Plan) isLocal(a netip.Addr) bool {
	_, own := p.own[a]
	return own || a.IsLoopback()
}

// covers says whether what leaves by an interface is translated at all.
func (p *Plan) covers(name string) bool { return p.NAT.Covers(name) }

// Covers says whether what leaves by an interface is translated at all.
func (n *NAT) Covers(name string) bool {
	return len(n.OutInterfaces) == 0 || slices.ContainsFunc(n.OutInterfaces, func(pattern string) bool {
		if prefix, wild := strings.CutSuffix(pattern, "*"); wild {
			return strings.HasPrefix(name, prefix)
		}
		return name == pattern
	})
}

func (p *Plan) whyExempt(a netip.Addr) (decider, reason string) {
	for _, n := range never {
		if n.prefix.Contains(a) {
			return "", fmt.Sprintf("%s is %s, which is never translated", a, n.what)
		}
	}
	if p.keepLinkLocal && linkLocal.Contains(a) {
		return "", fmt.Sprintf("%s is a link-local address, and linkLocal is Keep", a)
	}
	if q := p.mostSpecific(a, func(q *model.Pool) bool { return !q.LoadBalancerOnly() }); q != nil {
		what := "and nothing is translated between pools"
		if q.Disabled {
			what = "disabled: it only exempts its range"
		}
		return q.Name, fmt.Sprintf("%s lies in pool %s, %s", a, q.Name, what)
	}
	if node, ok := p.hosts[a]; ok {
		return "", fmt.Sprintf("%s is an address of node %s, and exclusions is IPPoolsAndHostIPs", a, node)
	}
	return "", fmt.Sprintf("%s is the broadcast address of a subnet of this node", a)
}

func (p *Plan) whyNoSource(a netip.Addr) string {
	holder := p.mostSpecific(a, func(q *model.Pool) bool { return !q.LoadBalancerOnly() })
	switch {
	case holder != nil:
		return fmt.Sprintf("pool %s has natOutgoing: false, and no other pool that holds %s says true", holder.Name, a)
	case p.poolName(a) != "":
		return fmt.Sprintf("pool %s, which holds %s, is for load balancers alone and holds no pod", p.poolName(a), a)
	default:
		return fmt.Sprintf("no pool holds %s", a)
	}
}
