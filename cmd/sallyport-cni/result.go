package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/sallyport/sallyport/internal/cni"
)

// resultOf is what the agent has made, as CNI prints it: the device on the node first, then the pod's, which has all addresses.
func resultOf(made *cni.Result, netns string, dns types.DNS) *current.Result {
	r := &current.Result{CNIVersion: current.ImplementedSpecVersion, DNS: dns, Interfaces: []*current.Interface{
		{Name: made.Host.Name, Mac: made.Host.MAC, Mtu: made.Host.MTU},
		{Name: made.Pod.Name, Mac: made.Pod.MAC, Mtu: made.Pod.MTU, Sandbox: netns},
	}}
	for _, a := range made.Addresses {
		gateway := made.Gateway4
		if a.Is6() {
			gateway = made.Gateway6
		}
		r.IPs = append(r.IPs, &current.IPConfig{Interface: current.Int(1), Address: network(netip.PrefixFrom(a, a.BitLen())), Gateway: gateway.AsSlice()})
		r.Routes = append(r.Routes, &types.Route{Dst: network(everything(a)), GW: gateway.AsSlice()})
	}
	return r
}

// everything is the prefix of all addresses of the family of a.
func everything(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, 0).Masked()
}

func network(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// previous reads, out of what all plugins of the list have said at ADD, the part that is ours.
func previous(c *config, r *cni.Request) (*cni.Result, error) {
	if len(c.RawPrevResult) == 0 {
		return nil, &cni.Error{Code: cni.CodeConfig, Message: "CHECK needs the result of ADD, and the network configuration has no prevResult"}
	}
	err := version.ParsePrevResult(&c.PluginConf)
	var all *current.Result
	if err == nil {
		all, err = current.NewResultFromResult(c.PrevResult)
	}
	if err != nil {
		return nil, &cni.Error{Code: cni.CodeConfig, Message: "reading the prevResult of the network configuration", Details: err.Error()}
	}
	prev, pod := &cni.Result{}, -1
	name := cni.LinkName(cni.NetworkHash(r.Network), r.ContainerID, r.Interface)
	for i, l := range all.Interfaces {
		switch {
		case l.Sandbox == "" && l.Name == name:
			prev.Host = cni.Link{Name: l.Name, MAC: l.Mac, MTU: l.Mtu}
		case l.Sandbox != "" && l.Name == r.Interface:
			prev.Pod, pod = cni.Link{Name: l.Name, MAC: l.Mac, MTU: l.Mtu}, i
		}
	}
	if prev.Host.Name == "" || pod < 0 {
		return nil, &cni.Error{Code: cni.CodeConfig, Message: fmt.Sprintf("the prevResult has no interfaces %s on the node and %s in the pod: it is of another network", name, r.Interface)}
	}
	for _, ip := range all.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok && ip.Interface != nil && *ip.Interface == pod {
			prev.Addresses = append(prev.Addresses, a.Unmap())
		}
	}
	return prev, nil
}
