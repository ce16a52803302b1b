package workload

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/ipam"
)

// Usage is what a node gives out.
type Usage struct {
	Blocks    []ipam.Usage // sorted by CIDR
	Workloads []links.Held // as the kernel has them, those that go included; sorted by their first address
	// Shortened counts the addresses that were given out before they had cooled down, since the agent started.
	Shortened uint64
	// Faults are where the kernel, the agent and the datastore do not agree.
	Faults []string
}

// Usage reads what the kernel has, and compares it with what the manager and the datastore say.
func (m *Manager) Usage(ctx context.Context) (*Usage, error) {
	held, err := m.opts.Links.Held(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(held, func(a, b links.Held) int {
		return cmp.Or(slices.CompareFunc(a.Addresses, b.Addresses, netip.Addr.Compare), cmp.Compare(a.Link, b.Link))
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Usage{Blocks: m.space.Usage(time.Now()), Workloads: held, Shortened: m.space.Shortened(), Faults: m.faults(held)}, nil
}

// Pods are the pods that have addresses of this node, as NAMESPACE/NAME, by address. Where there is no cluster, nothing is
// known of pods.
func (m *Manager) Pods() map[netip.Addr]string {
	if m.opts.Pods == nil {
		return nil
	}
	names := m.opts.Pods.Names()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[netip.Addr]string, len(m.held))
	for _, h := range m.held {
		if name, known := names[h.UID]; known {
			for _, a := range h.Addresses {
				out[a] = name
			}
		}
	}
	return out
}

// Counts are how much a node gives out.
type Counts struct {
	Blocks    []ipam.Usage // sorted by CIDR
	Workloads int
	Tunnels   []netip.Addr // of the node's VXLAN devices
	Shortened uint64       // see Usage
}

// Counts asks nothing of the kernel.
func (m *Manager) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Counts{m.space.Usage(time.Now()), len(m.held), slices.Clone(m.tunnels), m.space.Shortened()}
}

// faults compares the links that the kernel has with what is known of them. Requests go on meanwhile, so that one that is at
// work may look like a fault. mu is held.
func (m *Manager) faults(held []links.Held) (out []string) {
	if !m.began || m.declared == nil {
		return []string{"the agent does not know yet what the kernel and the datastore have"}
	}
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	users, seen := map[netip.Addr]string{}, map[string]bool{}
	for _, h := range held {
		if h.Leaving {
			continue
		}
		seen[h.Link] = true
		if _, known := m.held[h.Link]; !known {
			say("the kernel has link %s of container %s, of which the agent does not know: if it stays, restart the agent", h.Link, h.ContainerID)
		}
		for _, a := range h.Addresses {
			if other := users[a]; other != "" {
				say("links %s and %s both have address %s: delete one of the two pods", other, h.Link, a)
			}
			users[a] = h.Link
			if fault := m.fault(a); fault != "" {
				say("link %s has address %s, %s", h.Link, a, fault)
			}
		}
	}
	for name := range m.held {
		if !seen[name] {
			say("the agent knows of link %s, which the kernel does not have: if it stays, restart the agent", name)
		}
	}
	slices.Sort(out)
	return out
}

// fault says what is wrong with an address that is in use, or "". mu is held.
func (m *Manager) fault(a netip.Addr) string {
	d := m.declared
	if !slices.ContainsFunc(d.pools, func(p ipam.Pool) bool { return p.CIDR.Contains(a) }) {
		return "which is in no pool: it is not translated, and other nodes do not reach it; restart the pod, or create the pool again"
	}
	if m.standalone() {
		return ""
	}
	b, there := d.holding(a)
	for cidr, p := range m.pending {
		if p.fate == claimed && cidr.Contains(a) {
			return ""
		}
	}
	switch {
	case !there:
		return "which is in no IPBlock: other nodes do not reach it, and one of them may claim it; restart the pod"
	case b.Node != m.opts.Node:
		return fmt.Sprintf("which is in an IPBlock of node %s: restart the pod", b.Node)
	}
	return ""
}
