package workload

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TableName is the name of both our tables: that of family netdev, which sees what comes from workloads, and that of family
// inet, which sees what comes to the node.
const TableName = "sallyport-workloads"

// The chains and sets of the netdev table, which sees a packet before anything else of the node does:
//
//	sly….7    base chain of one device (and its index), drops what no rule accepts: the workload's sources go to from4 and
//	          from6, ARP from its addresses passes, the rest goes to rest
//	from4, 6  packets that are for nodes, and may be of the overlay, go to node, all else passes
//	node      counts and drops what is injected: VXLAN, and IP in IP
//	rest      link-local and unspecified IPv6 sources go to local; counts and drops what is spoofed: another source, another
//	          sender of ARP, another protocol, a VLAN
//	local     what a host must say from such addresses to discover neighbours passes; counts and drops the rest
//	nodes4,6  the addresses of nodes
//	local6    link-local addresses, and none
//
// At each transaction the kernel goes through all rules that a packet may come to from each of the base chains, so they are few.
//
// What it accepts of IPv4 and IPv6 has no VLAN tag, and comes from an address of the workload. It sees fragments: of a
// datagram that is cut up, the first part has the ports, and without it the kernel puts nothing together again.
//
// The inet table, where the node has devices of the overlay:
//
//	input     what is for the overlay goes to overlay
//	overlay   passes what comes from a node to this node's own address, unless a service turned it here; counts and drops the rest
//
// and where there is an overlay at all, also without them:
//
//	detour    what a translation of others has turned towards a node's overlay on its way, such as a service whose endpoint is one, goes to
//	          injected, and VXLAN of a workload to anything else keeps its source; of type nat, so that it sees the first packet of a
//	          connection alone
//	injected  counts and drops
const (
	chainFrom     = "from"
	chainNode     = "node"
	chainRest     = "rest"
	chainLocal    = "local"
	chainInjected = "injected"
	chainInput    = "input"
	chainOverlay  = "overlay"
	chainDetour   = "detour"
	setNodes      = "nodes"
	setLocal      = "local6"
)

const (
	// ingressPriority is before flow tables, and other chains of others (0).
	ingressPriority = -500
	// inputPriority is before the filters of others.
	inputPriority = -150
	// detourPriority is before every translation of sources: NF_IP_PRI_NAT_SRC is 100 (linux/netfilter_ipv4.h).
	detourPriority = 50

	hopLimitOffset = 7   // in the IPv6 header (RFC 8200)
	hopLimitOnLink = 255 // of neighbour discovery (RFC 4861): who forwards a packet lowers it
)

// deviceChain is the chain of a device. Most packets are found by the first rule, or by the first of the family.
func deviceChain(name, device string, addresses []netip.Addr) nftables.Chain {
	c := nftables.Chain{Name: name, Hook: nftables.Hook{Kind: nftables.KindFilter, Number: unix.NF_NETDEV_INGRESS,
		Priority: ingressPriority, Drop: true, Device: device}}
	add := func(terms ...nftables.Term) { c.Rules = append(c.Rules, nftables.NewRule(terms...)) }
	for _, a := range addresses {
		f := familyOf(a)
		add(f.frame, is(network(f.Source, f.AddrLen), a.AsSlice()), nftables.GoTo(chainFrom+f.suffix))
	}
	for _, a := range addresses {
		if a.Is4() {
			add(frame(unix.ETH_P_ARP), is(network(0, arpFixedLen), arpFixed()), is(network(arpSender, 4), a.AsSlice()), nftables.Accept())
		}
	}
	add(nftables.GoTo(chainRest))
	return c
}

// What ARP begins with that asks for, or says, the MAC address of an IPv4 address (RFC 826): hardware type 1, protocol type
// 0x0800, lengths 6 and 4. The operation and the sender's MAC address come between that and the sender's IPv4 address.
func arpFixed() []byte { return []byte{0, 1, 8, 0, 6, 4} }

const (
	arpFixedLen = 6
	arpSender   = 14
)

// family is what the rules must know of an address family.
type family struct {
	nftables.Family
	suffix   string // of names
	frame    nftables.Term
	protocol uint32 // offset of the protocol, or of the next header, in the network header
}

func families() []family {
	return []family{{nftables.IPv4(), "4", frame(unix.ETH_P_IP), 9}, {nftables.IPv6(), "6", frame(unix.ETH_P_IPV6), 6}}
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return families()[0]
	}
	return families()[1]
}

// nodes is the set of the nodes of a family.
func (f family) nodes(plan *compile.Workloads) nftables.Set {
	s := nftables.Set{Name: setNodes + f.suffix, Key: []nftables.Type{f.Addr}}
	seen := map[netip.Addr]bool{}
	for _, a := range append([]netip.Addr{plan.Node4, plan.Node6}, plan.Nodes...) {
		if a.IsValid() && a.Is4() == (f.Proto == unix.NFPROTO_IPV4) && !seen[a] {
			seen[a] = true
			s.Add(nftables.Element{Key: a.AsSlice()})
		}
	}
	return s
}

// frame matches frames of an Ethernet type that have no VLAN tag: the kernel takes a tag off before, but the type that is read
// here is still that of the tag (nft_payload_copy_vlan of net/netfilter/nft_payload.c).
func frame(kind uint16) nftables.Term {
	return is(&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseLLHeader, Offset: 12, Len: 2, DestRegister: nftables.Reg1},
		binary.BigEndian.AppendUint16(nil, kind))
}

func network(offset, size uint32) expr.Any {
	return &expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size, DestRegister: nftables.Reg1}
}

// is matches packets of which an expression loads a value.
func is(load expr.Any, value []byte) nftables.Term {
	return nftables.Expr(load, &expr.Cmp{Op: expr.CmpOpEq, Register: nftables.Reg1, Data: value})
}

// toPort matches packets to a port of UDP, or those to another one. Fragments other than the first have no port: they
// match neither.
func toPort(op expr.CmpOp, port uint16) nftables.Term {
	return nftables.Terms{nftables.ProtocolIs(unix.IPPROTO_UDP), nftables.Expr(
		&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: nftables.Reg1},
		&expr.Cmp{Op: op, Register: nftables.Reg1, Data: binary.BigEndian.AppendUint16(nil, port)})}
}

// overlayTerms each match packets of an overlay: IP in IP, and VXLAN.
func overlayTerms(port uint16) []nftables.Term {
	list := []nftables.Term{nftables.ProtocolIs(unix.IPPROTO_IPIP), nftables.ProtocolIs(unix.IPPROTO_IPV6)}
	if port != 0 {
		list = append(list, toPort(expr.CmpOpEq, port))
	}
	return list
}

// turned matches packets of connections whose destination was translated, such as those to a service. Nodes send each other
// packets of the overlay directly.
func turned() nftables.Term {
	const destinationTranslated = 1 << 5 // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h
	return nftables.Connection(expr.CtKeySTATUS, destinationTranslated)
}

// keepSource keeps chains that come later from translating the source, by a translation to itself. A node that this one has not heard of
// yet would take VXLAN from this node's address for that of a node. Where such a connection was to be translated, the leak guard
// drops its packets.
func keepSource(f family) nftables.Term {
	return nftables.Terms{nftables.Needs("nat", "nft_nat"), nftables.Expr(network(f.Source, f.AddrLen),
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.Proto), RegAddrMin: nftables.Reg1, RegAddrMax: nftables.Reg1})}
}

// netdevTable is the table of family netdev without the chains of devices.
func netdevTable(plan *compile.Workloads) *nftables.Table {
	t := &nftables.Table{Chains: []nftables.Chain{nodeChain(plan), restChain(), localChain()}}
	local := nftables.Set{Name: setLocal, Key: []nftables.Type{nftables.IPv6Addr}, Ranges: true}
	local.AddRange(netip.IPv6Unspecified(), netip.IPv6Unspecified(), "")
	local.AddRange(netip.MustParseAddr("fe80::"), netip.MustParseAddr("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "")
	t.Sets = append(t.Sets, local)
	for _, f := range families() {
		t.Sets = append(t.Sets, f.nodes(plan))
		rules := []nftables.Rule{nftables.NewRule(is(network(f.protocol, 1), []byte{unix.IPPROTO_TCP}), nftables.Accept())}
		if plan.VXLANPort != 0 {
			rules = append(rules, nftables.NewRule(toPort(expr.CmpOpNeq, plan.VXLANPort), nftables.Accept()))
		}
		t.Chains = append(t.Chains, nftables.Chain{Name: chainFrom + f.suffix, Rules: append(rules,
			nftables.NewRule(nftables.In(setNodes+f.suffix, nftables.Destination(f.Family)), nftables.GoTo(chainNode)),
			nftables.NewRule(nftables.Accept()))})
	}
	return t
}

// nodeChain drops packets of the overlay, and those whose transport protocol the kernel does not find, since extension headers
// are broken or cut up: what they are shows only when the node has put them together.
func nodeChain(plan *compile.Workloads) nftables.Chain {
	c := nftables.Chain{Name: chainNode, Tally: true}
	for _, term := range overlayTerms(plan.VXLANPort) {
		c.Rules = append(c.Rules, nftables.NewRule(term, nftables.Count(), nftables.Drop()))
	}
	known := nftables.Expr(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: nftables.Reg1}, &expr.Cmp{Op: expr.CmpOpGte, Register: nftables.Reg1, Data: []byte{0}})
	c.Rules = append(c.Rules, nftables.NewRule(known, nftables.Accept()), nftables.NewRule(nftables.Count(), nftables.Drop()))
	return c
}

func restChain() nftables.Chain {
	f := families()[1]
	return nftables.Chain{Name: chainRest, Tally: true, Rules: []nftables.Rule{
		nftables.NewRule(f.frame, nftables.In(setLocal, nftables.Source(f.Family)), nftables.GoTo(chainLocal)),
		nftables.NewRule(nftables.Count(), nftables.Drop())}}
}

// The types of ICMPv6 that a host says from a link-local address, or from none (RFC 4861, RFC 2710, RFC 3810). Advertisements of
// routers, and redirects, are not for workloads to say.
const (
	routerSolicitation     = 133
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
	listenerReport         = 131
	listenerDone           = 132
	listenerReport2        = 143
)

// localChain passes neighbour discovery that was not forwarded. What workloads' kernels say about multicast groups, which no
// node forwards, is dropped and does not count. So are their questions for routers: a node answers none, and keeps a neighbour for
// each source of one, until its table is full.
func localChain() nftables.Chain {
	icmp := func(kind byte, verdict nftables.Term, more ...nftables.Term) nftables.Rule {
		return nftables.NewRule(nftables.ProtocolIs(unix.IPPROTO_ICMPV6), nftables.Terms(more), is(&expr.Payload{OperationType: expr.PayloadLoad,
			Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1, DestRegister: nftables.Reg1}, []byte{kind}), verdict)
	}
	onLink := is(network(hopLimitOffset, 1), []byte{hopLimitOnLink})
	c := nftables.Chain{Name: chainLocal, Tally: true}
	for _, kind := range []byte{neighbourSolicitation, neighbourAdvertisement} {
		c.Rules = append(c.Rules, icmp(kind, nftables.Accept(), onLink))
	}
	for _, kind := range []byte{listenerReport2, listenerReport, listenerDone, routerSolicitation} {
		c.Rules = append(c.Rules, icmp(kind, nftables.Drop()))
	}
	c.Rules = append(c.Rules, nftables.NewRule(nftables.Count(), nftables.Drop()))
	return c
}

// inetTable is the table of family inet.
func inetTable(plan *compile.Workloads) *nftables.Table {
	t := &nftables.Table{}
	if plan.VXLANPort == 0 {
		return t
	}
	detour := nftables.Chain{Name: chainDetour, Hook: nftables.Hook{Kind: nftables.KindNAT, Number: unix.NF_INET_POST_ROUTING, Priority: detourPriority}}
	overlay := nftables.Chain{Name: chainOverlay, Rules: []nftables.Rule{nftables.NewRule(turned(), nftables.GoTo(chainInjected))}}
	for _, f := range families() {
		t.Sets = append(t.Sets, f.nodes(plan))
		fromNode, toNode := nftables.SourceIn(f.Family, setNodes+f.suffix), nftables.DestinationIn(f.Family, setNodes+f.suffix)
		// The node of a workload that asks a service may have translated the source to its own address.
		for _, term := range overlayTerms(plan.VXLANPort) {
			detour.Rules = append(detour.Rules, nftables.NewRule(turned(), term, toNode, nftables.GoTo(chainInjected)))
		}
		detour.Rules = append(detour.Rules, nftables.NewRule(fromNode, nftables.Return()))
		for _, term := range overlayTerms(plan.VXLANPort) {
			detour.Rules = append(detour.Rules, nftables.NewRule(term, toNode, nftables.GoTo(chainInjected)))
		}
		detour.Rules = append(detour.Rules, nftables.NewRule(nftables.InBy(cni.LinkPrefix+"*"), nftables.InFamily(f.Family), toPort(expr.CmpOpEq, plan.VXLANPort), keepSource(f)))
		own := plan.Node4
		if f.Proto == unix.NFPROTO_IPV6 {
			own = plan.Node6
		}
		if own.IsValid() {
			overlay.Rules = append(overlay.Rules, nftables.NewRule(fromNode, is(network(f.Destination, f.AddrLen), own.AsSlice()), nftables.Return()))
		}
	}
	t.Chains = []nftables.Chain{{Name: chainInjected, Tally: true, Rules: []nftables.Rule{nftables.NewRule(nftables.Count(), nftables.Drop())}}, detour}
	if plan.VXLAN {
		overlay.Rules = append(overlay.Rules, nftables.NewRule(nftables.GoTo(chainInjected)))
		t.Chains = append(t.Chains, overlay, nftables.Chain{Name: chainInput,
			Hook:  nftables.Hook{Kind: nftables.KindFilter, Number: unix.NF_INET_LOCAL_IN, Priority: inputPriority},
			Rules: []nftables.Rule{nftables.NewRule(toPort(expr.CmpOpEq, plan.VXLANPort), nftables.GoTo(chainOverlay))}})
	}
	return t
}
