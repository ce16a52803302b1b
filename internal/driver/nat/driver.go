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
	wanted, err := d.layouts.of(nat)
	if err != nil {
		return err
	}
	if err := d.Engine.Apply(ctx, wanted, parts()...); err != nil {
		return err
	}
	d.applied = &nat
	return nil
}

// Preview says what Apply would change, and changes nothing.
func (d *Driver) Preview(ctx context.Context, nat compile.NAT) (*nftables.Preview, error) {
	wanted, err := layout(nat)
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
