package workload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/datastore"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/waiting"
)

// The codes of errors of ours, beside those of package cni.
const (
	codeNoAddress = 110 // no pool serves
	codeExists    = 111 // the workload has its interface already
)

// limited is an answer to STATUS.
func limited(err error) error { return &cni.Error{Code: cni.CodeLimited, Message: err.Error()} }

// again asks the runtime to try again later.
func again(doing string, err error) error {
	return &cni.Error{Code: cni.CodeTryAgain, Message: doing + ": " + err.Error()}
}

// Add gives a workload its addresses and its link. Where it fails, nothing is left.
func (m *Manager) Add(ctx context.Context, r *cni.Request, ns, sock *os.File) (*cni.Result, error) {
	name := linkName(r.Network, r.ContainerID, r.Interface)
	free, err := m.names.take(ctx, name)
	if err != nil {
		return nil, again("adding a workload", err)
	}
	defer free()
	begin, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	d, err := m.ready(begin)
	if err != nil {
		return nil, again("no address can be given yet", err)
	}
	if err := m.vacant(name, r); err != nil {
		return nil, err
	}
	ask, err := m.request(ctx, name, r)
	if err != nil {
		return nil, err
	}
	addresses, version, err := m.assign(ctx, ask)
	if err != nil {
		return nil, err
	}
	w := links.Workload{Network: cni.NetworkHash(r.Network), ContainerID: r.ContainerID, Interface: r.Interface, UID: r.UID, Addresses: addresses}
	made, err := m.connect(ctx, max(version, d.version), w, ns, sock, r.MTU)
	if err != nil {
		m.release(name, r.UID, addresses)
		return nil, err
	}
	m.mu.Lock()
	m.held[name] = links.Held{Workload: w, Link: name}
	m.mu.Unlock()
	out := &cni.Result{Host: made.Host, Pod: made.Pod, Addresses: addresses}
	for _, a := range addresses {
		if a.Is4() {
			out.Gateway4 = links.Gateway4()
		} else {
			out.Gateway6 = links.Gateway6()
		}
	}
	return out, nil
}

// connect makes the link once the rules stand that its addresses depend on.
func (m *Manager) connect(ctx context.Context, version uint64, w links.Workload, ns, sock *os.File, mtu int) (links.Made, error) {
	wait, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	if err := m.opts.Stands(wait, version); err != nil {
		return links.Made{}, again("the rules of this node do not stand, and a pod must not start before them", err)
	}
	return m.opts.Links.Add(ctx, w, ns, sock, mtu)
}

// vacant says that no link of this name is there.
func (m *Manager) vacant(name string, r *cni.Request) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.held[name]; there {
		return &cni.Error{Code: codeExists, Message: fmt.Sprintf("container %s has its interface %s in network %s already: delete it first", r.ContainerID, r.Interface, r.Network)}
	}
	return nil
}

// tries bounds how many blocks one request tries to claim.
const tries = 16

// assign gives a request its addresses, and claims blocks as needed. The version is that of the snapshot that was used.
func (m *Manager) assign(ctx context.Context, r *ipam.Request) ([]netip.Addr, uint64, error) {
	out, version, err := m.try(r)
	if err != nil || len(out.Addresses) > 0 {
		return out.Addresses, version, err
	}
	select { // what one claims usually serves those that wait too
	case m.claiming <- struct{}{}:
		defer func() { <-m.claiming }()
	case <-ctx.Done():
		return nil, 0, again("claiming a block, behind other requests", ctx.Err())
	}
	for range tries {
		out, version, err = m.try(r)
		if err != nil && m.refusedLately() && waiting.Sleep(ctx, nil, refusedFor) {
			continue
		}
		if err != nil || len(out.Addresses) > 0 {
			return out.Addresses, version, err
		}
		if err := m.claim(ctx, out.Claim); err != nil {
			return nil, 0, err
		}
	}
	return nil, 0, again("claiming a block", fmt.Errorf("other nodes were faster %d times", tries))
}

// refusedLately says whether a pool has begun a moment ago to refuse blocks, such as a new one that the controller has not
// taken up yet: that is worth a short wait, since a runtime tries again only after many seconds.
func (m *Manager) refusedLately() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.refused {
		if time.Since(r.since) < settle {
			return true
		}
	}
	return false
}

// try asks for addresses of the blocks that the node owns now.
func (m *Manager) try(r *ipam.Request) (ipam.Answer, uint64, error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.space.Shortened()
	out, err := m.space.Assign(now, r, m.cluster(now))
	if err != nil {
		return out, 0, &cni.Error{Code: codeNoAddress, Message: err.Error()}
	}
	if m.space.Shortened() != before {
		m.opts.Log.Warn("an address was given out before it had cooled down, since no other one is free: create or enlarge a pool", "addresses", out.Addresses)
	}
	return out, m.declared.version, nil
}

// claim makes the node own a block, or notes why it cannot.
func (m *Manager) claim(ctx context.Context, b ipam.Block) error {
	var err error
	if !m.standalone() {
		err = m.opts.Claims.Claim(ctx, b.CIDR, b.Pool)
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	var other *datastore.TakenError
	var refused *datastore.RefusedError
	switch {
	case err == nil:
		m.space.Own(b)
		delete(m.refused, b.Pool)
		if !m.standalone() {
			m.pending[b.CIDR] = pending{fate: claimed, since: now}
		}
		m.tell()
		m.opts.Log.Info("claimed a block", "block", b.CIDR, "pool", b.Pool)
	case errors.As(err, &other):
		m.pending[b.CIDR] = pending{fate: taken, since: now}
	case errors.As(err, &refused):
		since := now
		if r, again := m.refused[b.Pool]; again {
			since = r.since
		}
		m.refused[b.Pool] = refusal{refused.Error(), now, since}
	default:
		return again(fmt.Sprintf("claiming block %s of pool %s", b.CIDR, b.Pool), err)
	}
	return nil
}

// request is what a workload asks for.
func (m *Manager) request(ctx context.Context, name string, r *cni.Request) (*ipam.Request, error) {
	var pod datastore.PodInfo
	if m.opts.Pods != nil && r.Pod != "" {
		var err error
		if pod, err = m.opts.Pods.Pod(ctx, r.Namespace, r.Pod, r.UID); err != nil {
			return nil, again(fmt.Sprintf("reading pod %s/%s", r.Namespace, r.Pod), err)
		}
	}
	m.mu.Lock()
	d := m.declared
	m.mu.Unlock()
	out := &ipam.Request{Workload: name, Pod: r.UID, Addresses: r.Addresses,
		Wish: ipam.Wish{Use: model.UseWorkload, Node: m.opts.Node, NodeLabels: d.labels, Namespace: r.Namespace, NamespaceLabels: pod.NamespaceLabels}}
	if err := annotated(out, &pod); err != nil {
		return nil, err
	}
	if err := families(out, r.Families, d.pools); err != nil {
		return nil, err
	}
	return out, nil
}

// families says which families are asked for: those that the configuration names, or else those of the pools that are there for
// such a workload, whether they have an address left or not.
func families(out *ipam.Request, named []string, pools []ipam.Pool) error {
	if len(out.Addresses) > 0 {
		for _, a := range out.Addresses {
			out.V4, out.V6 = out.V4 || a.Is4(), out.V6 || a.Is6()
		}
		if len(out.Addresses) > 1 && !(out.V4 && out.V6) || len(out.Addresses) > 2 {
			return &cni.Error{Code: codeNoAddress, Message: fmt.Sprintf("the addresses %v are asked for: ask for at most one of each family", out.Addresses)}
		}
		return nil
	}
	if len(named) > 0 {
		out.V4, out.V6 = slices.Contains(named, cni.IPv4), slices.Contains(named, cni.IPv6)
		return nil
	}
	var meant []ipam.Pool
	for _, p := range pools {
		if !p.Disabled && !p.Terminating {
			meant = append(meant, ipam.Pool{Pool: p.Pool})
		}
	}
	v4, _ := ipam.Choose(meant, false, &out.Wish)
	v6, _ := ipam.Choose(meant, true, &out.Wish)
	out.V4, out.V6 = len(v4) > 0, len(v6) > 0
	if !out.V4 && !out.V6 { // each says why none serves
		out.V4, out.V6 = true, slices.ContainsFunc(pools, func(p ipam.Pool) bool { return p.CIDR.Addr().Is6() })
	}
	return nil
}

// release gives addresses back that a workload has.
func (m *Manager) release(name, pod string, addresses []netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addresses {
		m.space.Release(a, name, pod, time.Now())
	}
}

// Check says what of a workload is not as it was made.
func (m *Manager) Check(ctx context.Context, r *cni.Request, sock *os.File) error {
	name := linkName(r.Network, r.ContainerID, r.Interface)
	m.mu.Lock()
	h, there := m.held[name]
	m.mu.Unlock()
	if !there {
		return fmt.Errorf("container %s has no interface %s in network %s on this node", r.ContainerID, r.Interface, r.Network)
	}
	if r.Prev != nil && !slices.Equal(r.Prev.Addresses, h.Addresses) {
		return fmt.Errorf("the addresses are %v, and the runtime was told %v", h.Addresses, r.Prev.Addresses)
	}
	return m.opts.Links.Check(ctx, h.Workload, sock)
}
