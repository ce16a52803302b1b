// Package podlab makes nodes with pods out of hosts of a lab, for the demo and the benchmark. It puts into their kernels what an agent
// puts there that is the pod network: the links of pods, the routes to other nodes, the overlay, and all rules. The drivers are the
// agent's; what they are to hold is compiled from a snapshot that the caller makes, where an agent has it from the API of a cluster.
//
// It touches the hosts of a lab alone.
package podlab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/driver/route"
	"github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// Uplink is the interface of a node that leads to the other nodes.
const Uplink = "eth0"

// mtu is that of the links of a lab, in bytes.
const mtu = 1500

// Node is a host of a lab that has pods.
type Node struct {
	*lab.Host

	local  model.Local
	mtu    int // of pods
	nat    *nat.Driver
	links  *workload.Driver
	routes *route.Driver
}

// NewNode opens the drivers in a host. It changes nothing there. The addresses are those of its interface Uplink, with their
// subnets. Tunnels are those for its VXLAN devices, out of a block of its own. The caller closes it before the host.
func NewNode(h *lab.Host, addresses []netip.Prefix, tunnels ...netip.Addr) (_ *Node, err error) {
	log := slog.New(slog.DiscardHandler)
	n := &Node{Host: h, local: model.Local{Name: h.Name(), Network: true, Interfaces: addresses, Tunnels: tunnels,
		Links: []model.Link{{Name: Uplink, MTU: mtu, Addresses: addresses, Default4: true, Default6: true}}}}
	if n.nat, err = nat.New(nftables.Options{Log: log, NetNS: h.FD()}); err != nil {
		return nil, err
	}
	if n.links, err = workload.New(workload.Options{Log: log, NetNS: h.FD()}); err != nil {
		return nil, errors.Join(err, n.nat.Close())
	}
	if n.routes, err = route.New(route.Options{Log: log, NetNS: h.FD()}); err != nil {
		return nil, errors.Join(err, n.links.Close(), n.nat.Close())
	}
	return n, nil
}

// Declared is the node as its agent announces it to others.
func (n *Node) Declared() model.Node {
	out := model.Node{Name: n.Name(), Tunnels: n.local.Tunnels}
	for _, a := range n.local.Interfaces {
		out.Addresses = append(out.Addresses, a.Addr())
	}
	out.NetworkAddresses = out.Addresses
	return out
}

// Apply makes the kernel hold what a snapshot means for the node's pods and routes, and returns the whole plan.
func (n *Node) Apply(ctx context.Context, s *model.Snapshot) (*compile.Plan, error) {
	plan := compile.Compile(s, n.local)
	n.mtu = plan.Workloads.MTU
	if len(plan.Network.Problems) > 0 {
		return nil, fmt.Errorf("the snapshot leaves node %s with problems: %q", n.Name(), plan.Network.Problems)
	}
	return plan, n.Do(func() error { // the driver of routes sets sysctls of the thread's namespace
		return errors.Join(n.links.Apply(ctx, plan.Workloads), n.routes.Apply(ctx, plan.Routes))
	})
}

// Translate makes the kernel hold the rest of a plan: the rules that translate. It is for nodes without an agent.
func (n *Node) Translate(ctx context.Context, plan *compile.Plan) error {
	return n.nat.Apply(ctx, plan.NAT)
}

// Add connects a pod to the node, as the CNI plugin has the agent do it: its interface is eth0.
func (n *Node) Add(ctx context.Context, pod *lab.Host, addresses ...netip.Addr) error {
	var ns, sock *os.File
	err := pod.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		sock = os.NewFile(uintptr(fd), "rtnetlink")
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err == nil {
		_, err = n.links.Add(ctx, workload.Workload{Network: cni.NetworkHash("lab"), ContainerID: strings.ReplaceAll(pod.Name(), " ", "-"), Interface: "eth0", Addresses: addresses}, ns, sock, n.mtu)
	}
	for _, f := range []*os.File{ns, sock} {
		if f != nil {
			_ = f.Close() // the driver has closed the socket
		}
	}
	return err
}

// Close closes the drivers. The kernel keeps what it holds.
func (n *Node) Close() error {
	return errors.Join(n.nat.Close(), n.links.Close(), n.routes.Close())
}
