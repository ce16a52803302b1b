package workload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/model"
)

// reportPause is the time between two reports of how much of a block is in use, in a whole cluster: each agent hears of each.
const reportPause = 30 * time.Millisecond

// tend gives back the blocks that are not needed, and reports how much of the others is in use.
func (m *Manager) tend(ctx context.Context) {
	now := time.Now()
	m.mu.Lock()
	if m.declared == nil || !m.began {
		m.mu.Unlock()
		return
	}
	m.own(now)
	maps.DeleteFunc(m.refused, func(_ string, r refusal) bool { return now.Sub(r.last) > forgetAfter })
	d := m.declared
	for _, b := range m.space.Spare(now, d.serves) {
		m.disown(b.CIDR, now)
	}
	back := m.empty()
	usage := m.usage(now)
	m.tell()
	m.mu.Unlock()
	if m.standalone() {
		return
	}
	for _, cidr := range back {
		if err := m.giveBack(ctx, cidr); err != nil {
			m.opts.Log.Error("giving back a block failed; it is tried again", "block", cidr, "error", err, "retry_in", lookEvery)
		}
	}
	if now.Before(m.reportAt) {
		return
	}
	pause := max(lookEvery, reportPause*time.Duration(len(d.blocks)))
	m.reportAt = now.Add(pause)
	if err := m.opts.Claims.Usage(ctx, usage); err != nil && ctx.Err() == nil {
		m.opts.Log.Warn("reporting how much of this node's blocks is in use failed; it is tried again", "error", err, "retry_in", pause)
	}
}

// giveBack gives back one block, unless it has become this node's again meanwhile. It claims none at the same time.
func (m *Manager) giveBack(ctx context.Context, cidr netip.Prefix) error {
	select {
	case m.claiming <- struct{}{}:
		defer func() { <-m.claiming }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m.mu.Lock()
	still := slices.Contains(m.empty(), cidr)
	m.mu.Unlock()
	if !still {
		return nil
	}
	err := m.opts.Claims.GiveBack(ctx, cidr)
	if err == nil {
		m.opts.Log.Info("gave back a block", "block", cidr)
	}
	return err
}

// Release gives back a block of this node at once, although it is the last of its family or addresses of it still cool down. It is
// an error where an address of it is in use, and changes nothing then.
func (m *Manager) Release(ctx context.Context, cidr netip.Prefix) error {
	if err := m.disownUnused(cidr); err != nil || m.standalone() {
		return err
	}
	if err := m.giveBack(ctx, cidr); err != nil {
		return fmt.Errorf("giving back block %s: %w; no address of it is given out any more, and the agent tries again", cidr, err)
	}
	return nil
}

// disownUnused disowns a block of this node that has no address in use.
func (m *Manager) disownUnused(cidr netip.Prefix) error {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.declared == nil || !m.began {
		return errors.New("the agent does not know yet what the kernel and the datastore have: try again")
	}
	all := m.space.Usage(now)
	i := slices.IndexFunc(all, func(u ipam.Usage) bool { return u.CIDR == cidr })
	if i < 0 {
		return fmt.Errorf("%s is not a block of this node: \"sallyport ipam show\" lists them", cidr)
	}
	if n := all[i].Used; n > 0 {
		return fmt.Errorf("addresses of block %s are in use (%d): delete the workloads that have them, which \"sallyport ipam show\" lists", cidr, n)
	}
	m.disown(cidr, now)
	m.tell()
	return nil
}

// disown ends that a block is this node's: no request gets an address of it from here on, and in a cluster it is to be given back.
// mu is held.
func (m *Manager) disown(cidr netip.Prefix, now time.Time) {
	m.space.Disown(cidr)
	if !m.standalone() {
		was, there := m.pending[cidr]
		m.pending[cidr] = pending{givenBack, now, there && was.fate == claimed}
	}
}

// serves says whether a pool gives out addresses.
func (d *declared) serves(pool string) bool {
	return slices.ContainsFunc(d.pools, func(p ipam.Pool) bool { return p.Name == pool && p.Why == "" })
}

// empty is this node's blocks that are to go back, or that are being deleted, and in which no address is in use. mu is held.
func (m *Manager) empty() (out []netip.Prefix) {
	for cidr, p := range m.pending {
		if p.fate == givenBack {
			out = append(out, cidr)
		}
	}
	for _, b := range m.declared.blocks {
		if b.Node != m.opts.Node || !b.Terminating {
			continue
		}
		if _, counted := m.pending[b.CIDR]; !counted && !m.space.UsedIn(b.CIDR) {
			out = append(out, b.CIDR)
		}
	}
	return out
}

// usage is that of each block of this node. mu is held.
func (m *Manager) usage(now time.Time) (out []datastore.BlockUsage) {
	for _, u := range m.space.Usage(now) {
		out = append(out, datastore.BlockUsage{CIDR: u.CIDR, Allocated: u.Used, Cooling: u.Cooling})
	}
	return out
}

// tell says which blocks a node without a cluster owns, where that has changed. mu is held.
func (m *Manager) tell() {
	if !m.standalone() {
		return
	}
	var now []model.Block
	for _, u := range m.space.Usage(time.Now()) {
		now = append(now, model.Block{CIDR: u.CIDR, Pool: u.Pool, Node: m.opts.Node})
	}
	if !slices.Equal(now, m.told) {
		m.told = now
		m.opts.Owns(now)
	}
}

// holding is the block that has an address.
func (d *declared) holding(a netip.Addr) (model.Block, bool) {
	for _, b := range d.blocks {
		if b.CIDR.Contains(a) {
			return *b, true
		}
	}
	return model.Block{}, false
}
