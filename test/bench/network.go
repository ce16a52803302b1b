package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
)

// The network: pod — node — outside.
var (
	podAddr     = netip.MustParseAddr("10.244.0.2")
	podRange    = netip.PrefixFrom(podAddr, 24).Masked()
	nodeAddr    = netip.MustParseAddr("198.51.100.1")
	outsideAddr = netip.MustParseAddr("198.51.100.2")
	exemptAddr  = netip.MustParseAddr("172.16.126.2") // of outside too; in the last of the exempt ranges
	peerAddr    = netip.MustParseAddr("10.244.1.2")   // of outside too; in the pods' range, as if a pod of another node were there
)

// network is one node with one pod and one host outside, which knows a way back to the pod.
type network struct {
	pod, node, outside *lab.Host
}

// newNetwork makes the network, or one in which pod and outside are joined directly: then the node has no
// part in it.
func newNetwork(throughNode bool) (*network, error) {
	n := &network{}
	var err error
	for name, h := range map[string]**lab.Host{"pod": &n.pod, "node": &n.node, "outside": &n.outside} {
		if *h, err = lab.NewHost(name); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	for _, h := range []*lab.Host{n.pod, n.outside} {
		// Without pacing, whatever the machine's default is: it waits for timers, and here for nothing.
		if err := h.Sysctl("ipv4/tcp_congestion_control", "reno"); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	wire := n.wire
	if !throughNode {
		wire = n.wireDirectly
	}
	if err := wire(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

var everywhere = netip.MustParsePrefix("0.0.0.0/0")

func (n *network) wire() error {
	port := func(h *lab.Host, name string, addrs ...netip.Prefix) lab.Port {
		return lab.Port{Host: h, Name: name, Addresses: addrs}
	}
	gateway := netip.MustParseAddr("10.244.0.1")
	return errors.Join(
		lab.Link(port(n.pod, "eth0", netip.PrefixFrom(podAddr, 24)), port(n.node, "pod0", netip.PrefixFrom(gateway, 24))),
		lab.Link(port(n.node, "eth0", netip.PrefixFrom(nodeAddr, 24)),
			port(n.outside, "eth0", netip.PrefixFrom(outsideAddr, 24), netip.PrefixFrom(exemptAddr, 32), netip.PrefixFrom(peerAddr, 32))),
		n.node.Forward(),
		n.pod.AddRoute(lab.Route{To: everywhere, Via: gateway}),
		n.node.AddRoute(lab.Route{To: netip.PrefixFrom(exemptAddr, 32), Via: outsideAddr}),
		n.node.AddRoute(lab.Route{To: netip.PrefixFrom(peerAddr, 32), Via: outsideAddr}),
		n.outside.AddRoute(lab.Route{To: everywhere, Via: nodeAddr}),
	)
}

func (n *network) wireDirectly() error {
	end := func(h *lab.Host, addrs ...netip.Addr) lab.Port {
		p := lab.Port{Host: h, Name: "eth0"}
		for _, a := range addrs {
			p.Addresses = append(p.Addresses, netip.PrefixFrom(a, 32))
		}
		return p
	}
	return errors.Join(
		lab.Link(end(n.pod, podAddr), end(n.outside, outsideAddr, exemptAddr, peerAddr)),
		n.pod.AddRoute(lab.Route{To: everywhere, Dev: "eth0"}),
		n.outside.AddRoute(lab.Route{To: everywhere, Dev: "eth0"}),
	)
}

func (n *network) close() error {
	var errs []error
	for _, h := range []*lab.Host{n.pod, n.node, n.outside} {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(errs...)
}

// seenFrom opens a connection from the pod to an address of outside and says from which address it came.
func (n *network) seenFrom(ctx context.Context, protocol string, to netip.Addr) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if protocol == "tcp4" {
		return n.tcpSeenFrom(ctx, to)
	}
	server, err := n.outside.ListenPacket(protocol, netip.AddrPortFrom(to, 0).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer server.Close()
	client, err := n.pod.Dial(ctx, protocol, server.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer client.Close()
	deadline, _ := ctx.Deadline()
	if err := server.SetDeadline(deadline); err != nil {
		return netip.Addr{}, err
	}
	if _, err := client.Write([]byte{1}); err != nil {
		return netip.Addr{}, err
	}
	_, from, err := server.ReadFrom(make([]byte, 1))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("waiting for the pod's message: %w", err)
	}
	return addressOf(from), nil
}

func (n *network) tcpSeenFrom(ctx context.Context, to netip.Addr) (netip.Addr, error) {
	server, err := n.outside.Listen("tcp4", netip.AddrPortFrom(to, 0).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer server.Close()
	client, err := n.pod.Dial(ctx, "tcp4", server.Addr().String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer client.Close()
	accepted, err := server.Accept()
	if err != nil {
		return netip.Addr{}, err
	}
	return addressOf(accepted.RemoteAddr()), accepted.Close()
}

func addressOf(a net.Addr) netip.Addr {
	return netip.MustParseAddrPort(a.String()).Addr().Unmap()
}

// flows is how many connections a host tracks.
func flows(h *lab.Host) (n int, err error) {
	err = h.Do(func() error {
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if errors.Is(err, os.ErrNotExist) {
			return nil // the kernel cannot track at all
		}
		if err != nil {
			return err
		}
		n, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err
	})
	return n, err
}
