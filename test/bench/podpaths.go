package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/sallyport/sallyport/internal/cli/podlab"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/model"
)

// Two nodes with their pods, and a host outside:
//
//	pod 10.244.0.2 ── node here 192.0.2.1 ── node there 192.0.2.2 ── pod 10.244.1.2
//	pod 10.244.0.3 ──┘    └── outside 198.51.100.2
//
// What the pods of two nodes say to each other goes by VXLAN.
var (
	neighbourAddr = netip.MustParseAddr("10.244.0.3") // a pod of the same node as podAddr
	farAddr       = netip.MustParseAddr("10.244.1.2") // a pod of the other node
	hereAddr      = netip.MustParseAddr("192.0.2.1")
	thereAddr     = netip.MustParseAddr("192.0.2.2")
	hereTunnel    = netip.MustParseAddr("10.244.0.1")
	thereTunnel   = netip.MustParseAddr("10.244.1.1")
)

// blockBits is the prefix length of the blocks of pods.
const blockBits = 26

// otherNodes is how many nodes there are besides.
const otherNodes = 100

// podVariant is one way to connect pods.
type podVariant struct {
	name       string
	tracked    bool // connections are
	translated bool // what leaves the pods' range is
	build      []func(*podPaths, context.Context) error
}

// What the CPU of the generator is, and what is compared with the others.
const (
	podsDirectly = "pods joined directly"
	podsOurs     = "Sallyport"
)

func podVariants() []podVariant {
	program := func(translated bool) func(*podPaths, context.Context) error {
		return func(p *podPaths, ctx context.Context) error { return p.program(ctx, translated) }
	}
	type steps = []func(*podPaths, context.Context) error
	return []podVariant{
		{podsDirectly, false, false, steps{(*podPaths).joinDirectly}},
		{podsOurs, true, false, steps{program(false)}},
		{podsOurs + ", pods translated", true, true, steps{program(true)}},
		{"its links and routes, no rules", false, false, steps{program(false), (*podPaths).dropRules}},
		{"the same, tracked and NAT hooks", true, false, steps{program(false), (*podPaths).dropRules, (*podPaths).likeKubeProxy}},
		{"the same again", true, false, steps{program(false), (*podPaths).dropRules, (*podPaths).likeKubeProxy}},
		{"by hand, no rules", false, false, steps{(*podPaths).byHand}},
		{"by hand, tracked and NAT hooks", true, false, steps{(*podPaths).byHand, (*podPaths).likeKubeProxy}},
	}
}

// podPaths are the hosts of a variant, with the sockets that traffic is measured on.
type podPaths struct {
	sockets
	pod, neighbour, far, here, there, outside *lab.Host
	nodes                                     []*podlab.Node
	toNeighbour, toOutside, toFar             udpEnds
	stream                                    tcpEnds // to the pod of the other node
}

// newPodPaths makes the hosts, connects them as the variant does, and opens the sockets.
func newPodPaths(ctx context.Context, v podVariant) (_ *podPaths, err error) {
	p := &podPaths{sockets: newSockets()}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("variant %q: %w", v.name, err), p.close())
		}
	}()
	for name, h := range map[string]**lab.Host{"pod": &p.pod, "neighbour": &p.neighbour, "far": &p.far, "here": &p.here, "there": &p.there, "outside": &p.outside} {
		if *h, err = lab.NewHost(name); err != nil {
			return nil, err
		}
	}
	for _, step := range v.build {
		if err := step(p, ctx); err != nil {
			return nil, err
		}
	}
	to := [3]*lab.Host{p.neighbour, p.outside, p.far}
	if v.name == podsDirectly {
		to = [3]*lab.Host{p.outside, p.outside, p.outside}
	}
	for i, ends := range []*udpEnds{&p.toNeighbour, &p.toOutside, &p.toFar} {
		if *ends, err = p.openUDP(ctx, p.pod, to[i], []netip.Addr{neighbourAddr, outsideAddr, farAddr}[i]); err != nil {
			return nil, err
		}
	}
	if p.stream, err = p.openTCP(ctx, p.pod, to[2], farAddr); err != nil {
		return nil, err
	}
	return p, p.check(ctx, v)
}

// check compares who the host outside sees, and whether connections are tracked, with what the variant says.
func (p *podPaths) check(ctx context.Context, v podVariant) error {
	want := podAddr
	if v.translated {
		want = nodeAddr
	}
	between := &network{pod: p.pod, node: p.here, outside: p.outside}
	saw, err := between.seenFrom(ctx, "udp4", outsideAddr)
	if err == nil && saw != want {
		err = fmt.Errorf("not valid: %s saw the pod as %s, want %s", outsideAddr, saw, want)
	}
	tracked, failed := flows(p.here)
	if failed == nil && (tracked > 0) != v.tracked {
		failed = fmt.Errorf("not valid: the node tracks %d flows, and is to track some: %t", tracked, v.tracked)
	}
	return errors.Join(err, failed)
}

// joinDirectly leaves the nodes out.
func (p *podPaths) joinDirectly(context.Context) error {
	return errors.Join(
		lab.Link(podPort(p.pod, podAddr), podPort(p.outside, neighbourAddr, outsideAddr, farAddr)),
		p.pod.AddRoute(lab.Route{To: everywhere, Dev: "eth0"}),
		p.outside.AddRoute(lab.Route{To: everywhere, Dev: "eth0"}),
	)
}

// podMTU is that of pods, in bytes: what VXLAN leaves.
const podMTU = 1450

func podPort(h *lab.Host, addrs ...netip.Addr) lab.Port {
	p := lab.Port{Host: h, Name: "eth0", MTU: podMTU}
	for _, a := range addrs {
		p.Addresses = append(p.Addresses, netip.PrefixFrom(a, 32))
	}
	return p
}

// wire joins the nodes, and the host outside.
func (p *podPaths) wire() error {
	port := func(h *lab.Host, name string, a netip.Addr) lab.Port {
		return lab.Port{Host: h, Name: name, Addresses: []netip.Prefix{netip.PrefixFrom(a, 24)}}
	}
	return errors.Join(
		lab.Link(port(p.here, podlab.Uplink, hereAddr), port(p.there, podlab.Uplink, thereAddr)),
		lab.Link(port(p.here, "eth1", nodeAddr), port(p.outside, "eth0", outsideAddr)),
		p.outside.AddRoute(lab.Route{To: everywhere, Via: nodeAddr}),
		p.here.Forward(), p.there.Forward(),
	)
}

// program has the drivers of the agent connect the pods. All their rules stand, of which no pool wants any translation unless
// pods are translated.
func (p *podPaths) program(ctx context.Context, translated bool) error {
	err := p.wire()
	s := &model.Snapshot{
		Pools: []*model.Pool{{Name: "pods", CIDR: netip.MustParsePrefix("10.244.0.0/16"), NATOutgoing: translated, VXLANMode: model.ModeAlways,
			BlockSize: blockBits, AllowedUses: model.UseWorkload | model.UseTunnel}},
		Blocks: []*model.Block{{CIDR: netip.PrefixFrom(podAddr, blockBits).Masked(), Pool: "pods", Node: "here"}, {CIDR: netip.PrefixFrom(farAddr, blockBits).Masked(), Pool: "pods", Node: "there"}},
	}
	for i := range exemptRanges {
		s.Pools = append(s.Pools, &model.Pool{Name: fmt.Sprintf("q%02d", i), CIDR: netip.MustParsePrefix(exemptRange(i)), Disabled: true, AllowedUses: model.UseWorkload, BlockSize: blockBits})
	}
	for i, h := range []*lab.Host{p.here, p.there} {
		address, tunnel := []netip.Addr{hereAddr, thereAddr}[i], []netip.Addr{hereTunnel, thereTunnel}[i]
		n, failed := podlab.NewNode(h, []netip.Prefix{netip.PrefixFrom(address, 24)}, tunnel)
		if err = errors.Join(err, failed); err != nil {
			return err
		}
		p.nodes = append(p.nodes, n)
		s.Nodes = append(s.Nodes, n.Declared())
	}
	for i := range otherNodes {
		s.Nodes = append(s.Nodes, model.Node{Name: fmt.Sprintf("w%03d", i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)})}})
	}
	for _, n := range p.nodes {
		plan, failed := n.Apply(ctx, s)
		if err = errors.Join(err, failed); err != nil {
			return err
		}
		err = n.Translate(ctx, plan)
	}
	return errors.Join(err, p.nodes[0].Add(ctx, p.pod, podAddr), p.nodes[0].Add(ctx, p.neighbour, neighbourAddr), p.nodes[1].Add(ctx, p.far, farAddr))
}

// dropRules takes away all rules, and leaves links and routes.
func (p *podPaths) dropRules(ctx context.Context) error {
	var errs []error
	for _, n := range p.nodes {
		errs = append(errs, n.Close())
	}
	p.nodes = nil
	return errors.Join(append(errs, nftLoad(ctx, p.here, "flush ruleset\n"), nftLoad(ctx, p.there, "flush ruleset\n"))...)
}

// likeKubeProxy has the nodes track connections, and has the kernel ask each connection whether it is translated, as on every node
// that has services. No rule is evaluated.
func (p *podPaths) likeKubeProxy(ctx context.Context) error {
	rules := trackRules() + "table ip services {\nchain postrouting { type nat hook postrouting priority srcnat; }\n}\n"
	return errors.Join(nftLoad(ctx, p.here, rules), nftLoad(ctx, p.there, rules))
}

// byHand has a person connect the pods, with the kernel's own means and the same settings.
func (p *podPaths) byHand(ctx context.Context) error {
	err := errors.Join(p.wire(), addByHand(p.here, p.pod, "pod0", podAddr), addByHand(p.here, p.neighbour, "pod1", neighbourAddr), addByHand(p.there, p.far, "pod0", farAddr))
	for i, h := range []*lab.Host{p.here, p.there} {
		local, remote := []netip.Addr{hereAddr, thereAddr}[i], []netip.Addr{thereAddr, hereAddr}[i]
		address, via := []netip.Addr{hereTunnel, thereTunnel}[i], []netip.Addr{thereTunnel, hereTunnel}[i]
		block := netip.PrefixFrom(via, blockBits).Masked()
		mac := [2]string{macText(compile.MAC(h.Name())), macText(compile.MAC([]string{"there", "here"}[i]))}
		commands := fmt.Sprintf("link add vxlan0 address %s mtu %d type vxlan id %d dstport %d local %s nolearning\nlink set vxlan0 up\naddress add %s/32 dev vxlan0\n"+
			"neigh add %s lladdr %s dev vxlan0 nud permanent\nroute add %s via %s dev vxlan0 onlink src %s\n",
			mac[0], podMTU, model.DefaultVXLANVNI, model.VXLANPort, local, address, via, mac[1], block, via, address)
		_, failed := pipe(ctx, h, commands, "ip", "-batch", "-")
		err = errors.Join(err, failed)
		_, failed = pipe(ctx, h, fmt.Sprintf("fdb add %s dev vxlan0 dst %s self permanent\n", mac[1], remote), "bridge", "-batch", "-")
		err = errors.Join(err, failed)
	}
	return err
}

func macText(m [6]byte) string { return net.HardwareAddr(m[:]).String() }

// addByHand connects a pod to a node.
func addByHand(node, pod *lab.Host, name string, address netip.Addr) error {
	gateway := netip.MustParseAddr("169.254.1.1")
	err := lab.Link(podPort(pod, address), lab.Port{Host: node, Name: name, MTU: podMTU})
	mac, failed := node.MAC(name)
	return errors.Join(err, failed,
		pod.AddNeighbour("eth0", gateway, mac),
		pod.AddRoute(lab.Route{To: everywhere, Via: gateway, Dev: "eth0"}),
		node.AddRoute(lab.Route{To: netip.PrefixFrom(address, 32), Dev: name}),
	)
}

func (p *podPaths) close() error {
	errs := []error{p.sockets.close()}
	for _, n := range p.nodes {
		errs = append(errs, n.Close())
	}
	for _, h := range []*lab.Host{p.pod, p.neighbour, p.far, p.here, p.there, p.outside} {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(errs...)
}
