package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/route"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/model"
)

// measureRoutes has the driver alone program the routes to the blocks of many nodes, and one more, in turn with ip and bridge,
// which do the same and read nothing back.
func measureRoutes(ctx context.Context, o options, _ string) ([]result, error) {
	var cold, change, theirCold, theirChange []time.Duration
	before, after := routesOf(o.nodes, blocksOfNode*o.nodes), routesOf(o.nodes, blocksOfNode*o.nodes+1)
	byHand := routesByHand(&before)
	for range o.rounds {
		took, err := onNode(func(h *lab.Host) ([]func() error, func() error, error) {
			d, err := route.New(route.Options{NetNS: h.FD(), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return nil, nil, err
			}
			return []func() error{func() error { return d.Apply(ctx, before) }, func() error { return d.Apply(ctx, after) }}, d.Close, nil
		})
		if err != nil {
			return nil, err
		}
		cold, change = append(cold, took[0]), append(change, took[1])
		took, err = onNode(func(h *lab.Host) ([]func() error, func() error, error) {
			added := after.Routes[len(after.Routes)-1]
			return []func() error{
				func() error {
					_, err := pipe(ctx, h, byHand[0], "ip", "-batch", "-")
					_, failed := pipe(ctx, h, byHand[1], "bridge", "-batch", "-")
					return errors.Join(err, failed)
				},
				func() error { _, err := pipe(ctx, h, handRoute(added), "ip", "-batch", "-"); return err },
			}, func() error { return nil }, nil
		})
		if err != nil {
			return nil, err
		}
		theirCold, theirChange = append(theirCold, took[0]), append(theirChange, took[1])
	}
	what := fmt.Sprintf("%d routes and %d tunnel entries", len(before.Routes), len(before.Devices[0].Peers))
	return []result{
		milliseconds("driver: "+what+" programmed and read back, nothing there before", cold),
		milliseconds("the same: ip -batch and bridge -batch, not read back", theirCold).against(cold, theirCold),
		milliseconds("driver: one route more", change),
		milliseconds("the same: ip", theirChange).against(change, theirChange),
	}, nil
}

// onNode makes a node, does things there one after the other, and says how long each took.
func onNode(begin func(*lab.Host) (steps []func() error, end func() error, err error)) (took []time.Duration, err error) {
	h, err := lab.NewHost("node")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	peer, err := lab.NewHost("peer")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, peer.Close()) }()
	if err := lab.Link(lab.Port{Host: h, Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(nodeAt(measuredNode), 16)}}, lab.Port{Host: peer, Name: "eth0"}); err != nil {
		return nil, err
	}
	err = h.Do(func() error { // the driver sets sysctls of the thread's namespace
		steps, end, err := begin(h)
		if err != nil {
			return err
		}
		for _, step := range steps {
			began := time.Now()
			if err := step(); err != nil {
				return errors.Join(err, end())
			}
			took = append(took, time.Since(began))
		}
		return end()
	})
	return took, err
}

// routesOf is what a node has of that many nodes with that many blocks.
func routesOf(nodes, blocks int) compile.Routes {
	s := &model.Snapshot{Pools: []*model.Pool{{Name: "pods", CIDR: blockPool, VXLANMode: model.ModeAlways, BlockSize: blockBits, AllowedUses: model.UseWorkload | model.UseTunnel}}}
	for i := range nodes {
		own := []netip.Addr{nodeAt(i)}
		s.Nodes = append(s.Nodes, model.Node{Name: nodeName(i), Addresses: own, NetworkAddresses: own, Tunnels: []netip.Addr{tunnelAt(i)}})
	}
	for i := range blocks {
		s.Blocks = append(s.Blocks, &model.Block{CIDR: blockAt(i), Pool: "pods", Node: nodeName(i / blocksOfNode % nodes)})
	}
	own := []netip.Prefix{netip.PrefixFrom(nodeAt(measuredNode), 16)}
	return compile.Compile(s, model.Local{Name: nodeName(measuredNode), Network: true, Interfaces: own, Tunnels: []netip.Addr{tunnelAt(measuredNode)},
		Links: []model.Link{{Name: "eth0", MTU: 1500, Addresses: own, Default4: true}}}).Routes
}

// routesByHand are the same routes and tunnel entries as commands for ip and for bridge.
func routesByHand(r *compile.Routes) (commands [2]string) {
	var ip, bridge strings.Builder
	v := r.Devices[0]
	fmt.Fprintf(&ip, "link add vxlan0 address %s type vxlan id %d dstport %d local %s nolearning\nlink set vxlan0 up\naddress add %s/32 dev vxlan0\n", macText(v.MAC), v.VNI, v.Port, v.Local, v.Address)
	for _, p := range v.Peers {
		fmt.Fprintf(&ip, "neigh add %s lladdr %s dev vxlan0 nud permanent\n", p.Tunnel, macText(p.MAC))
		fmt.Fprintf(&bridge, "fdb add %s dev vxlan0 dst %s self permanent\n", macText(p.MAC), p.Node)
	}
	for _, e := range r.Routes {
		ip.WriteString(handRoute(e))
	}
	return [2]string{ip.String(), bridge.String()}
}

func handRoute(r *compile.Route) string {
	if !r.Via.IsValid() {
		return fmt.Sprintf("route add unreachable %s\n", r.CIDR)
	}
	return fmt.Sprintf("route add %s via %s dev vxlan0 onlink src %s proto 115\n", r.CIDR, r.Via, r.Source)
}
