package nat

import (
	"context"
	"slices"
	"sync"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nftables"
)

// Driver makes the kernel hold the NAT part of plans, and reads back what it holds: what the engine of its table does,
// for plans. Its methods may be called from several goroutines; they wait for each other.
type Driver struct {
	*nftables.Engine

	mu sync.Mutex
	// applied is the plan last applied; nil before the first, and after an error.
	applied *compile.NAT
	layouts layouts
	// hooked says that the kernel has hooked chains, since an agent has translated connections.
	hooked bool
}

// New opens a driver. It changes nothing. The error is an *nfnetlink.UnsupportedError if the kernel has no
// netfilter. Close it after use; what it programmed stays.
func New(o nftables.Options) (*Driver, error) {
	e, err := nftables.New(TableName, o)
	if err != nil {
		return nil, err
	}
	return &Driver{Engine: e}, nil
}

// Apply makes our table what the plan wants, as nftables.Engine.Apply does; each family by itself where the kernel
// refuses something of one. Applied again, an equal plan costs nothing. The plan must not be changed afterwards.
func (d *Driver) Apply(ctx context.Context, nat compile.NAT) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.applied != nil && equalNAT(d.applied, &nat) && d.Settled() {
		return nil
	}
	d.applied = nil
	hooked, err := d.hooks(ctx, &nat)
	if err != nil {
		return err
	}
	d.hooked = hooked
	wanted, err := d.layouts.of(nat, hooked)
	if err != nil {
		return err
	}
	if err := d.Engine.Apply(ctx, wanted, parts()...); err != nil {
		return err
	}
	d.applied = &nat
	return nil
}

// hooks says whether the chains of a plan have to be hooked. Packets need not pass them before a pool translates for the first
// time since the node's boot. Afterwards they do, whatever the plan: without a hook the kernel would stop to translate the connections
// that are open. Chains without hooks keep connection tracking on all the same, which tells connections of before from new ones when a
// pool does begin to translate.
func (d *Driver) hooks(ctx context.Context, nat *compile.NAT) (bool, error) {
	if d.hooked || len(nat.Sources) > 0 {
		return true, nil
	}
	return d.HasChain(ctx, chainPostrouting)
}

// Preview says what Apply would change, and changes nothing.
func (d *Driver) Preview(ctx context.Context, nat compile.NAT) (*nftables.Preview, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hooked, err := d.hooks(ctx, &nat)
	if err != nil {
		return nil, err
	}
	wanted, err := layout(nat, hooked)
	if err != nil {
		return nil, err
	}
	return d.Engine.Preview(ctx, wanted)
}

// equalNAT compares two plans.
func equalNAT(a, b *compile.NAT) bool {
	return a.To4 == b.To4 && a.To6 == b.To6 && a.Ports == b.Ports && a.UDPPorts == b.UDPPorts && a.Allocation == b.Allocation &&
		a.LeakGuard == b.LeakGuard && a.ExistingFlows == b.ExistingFlows &&
		slices.Equal(a.OutInterfaces, b.OutInterfaces) && slices.Equal(a.Exempt, b.Exempt) && slices.Equal(a.Sources, b.Sources)
}
