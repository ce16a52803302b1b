package workload

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/model"
)

// tunnelName is what has a tunnel address, where workloads have the names of their links.
func tunnelName(v6 bool) string {
	if v6 {
		return "tunnel IPv6"
	}
	return "tunnel IPv4"
}

// Tunnels makes the node have a tunnel address of each family that is wanted, and of no other. An address stays as long as
// it is in a block of this node, of a pool that is for tunnels. With an error, the node has the addresses that are returned, and
// lacks one of the other family. It is for one goroutine at a time.
func (m *Manager) Tunnels(ctx context.Context, v4, v6 bool) ([]netip.Addr, error) {
	if _, err := m.ready(ctx); err != nil {
		return nil, err
	}
	var out []netip.Addr
	var errs []error
	for _, family := range []struct{ wanted, v6 bool }{{v4, false}, {v6, true}} {
		if a := m.tunnel(family.v6); a.IsValid() && m.keepsTunnel(a, family.wanted) {
			out = append(out, a)
			continue
		}
		if !family.wanted {
			continue
		}
		m.mu.Lock()
		labels := m.declared.labels
		m.mu.Unlock()
		addresses, _, err := m.assign(ctx, &ipam.Request{Workload: tunnelName(family.v6), V4: !family.v6, V6: family.v6,
			Wish: ipam.Wish{Use: model.UseTunnel, Node: m.opts.Node, NodeLabels: labels}})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m.mu.Lock()
		m.tunnels = append(m.tunnels, addresses...)
		m.mu.Unlock()
		out = append(out, addresses...)
	}
	return out, errors.Join(errs...)
}

// tunnel is the tunnel address of a family that the node has.
func (m *Manager) tunnel(v6 bool) netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.tunnels {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// keepsTunnel says whether a tunnel address stays. One that does not is given back.
func (m *Manager) keepsTunnel(a netip.Addr, wanted bool) bool {
	m.mu.Lock()
	keeps := wanted && slices.ContainsFunc(m.space.Usage(time.Now()), func(u ipam.Usage) bool {
		return u.CIDR.Contains(a) && slices.ContainsFunc(m.declared.pools, func(p ipam.Pool) bool { return p.Name == u.Pool && p.AllowedUses&model.UseTunnel != 0 })
	})
	if !keeps {
		m.tunnels = slices.DeleteFunc(m.tunnels, func(b netip.Addr) bool { return a == b })
	}
	m.mu.Unlock()
	if !keeps {
		m.release(tunnelName(a.Is6()), "", []netip.Addr{a})
	}
	return keeps
}
