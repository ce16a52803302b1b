package workload

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
)

// Drops is how many packets the rules have dropped since the kernel has them. The numbers never decrease while the driver
// lives.
type Drops struct {
	// Spoofed were not from an address of the workload that sent them.
	Spoofed uint64
	// Injected were for the overlay between the nodes, and not from a node.
	Injected uint64
}

// rules keeps both tables.
type rules struct {
	driver       *Driver
	netdev, inet *nftables.Engine

	mu     sync.Mutex // guards the rest; taken before Driver.mu
	plan   *compile.Workloads
	shared *nftables.Table // the netdev table without the devices' chains

	want struct { // guarded by Driver.mu
		chains  map[string]nftables.Chain // of devices, by name
		version uint64                    // of chains
		gone    []string                  // names of those that stand, perhaps, of devices that are gone
	}
	stands uint64 // the version that the kernel has
}

func newRules(d *Driver) (*rules, error) {
	r := &rules{driver: d}
	r.want.chains = map[string]nftables.Chain{}
	o := nftables.Options{Log: d.opts.Log, NetNS: d.opts.NetNS, Unowned: d.opts.Unowned, Family: nftables.FamilyNetdev}
	var err error
	if r.netdev, err = nftables.New(TableName, o); err != nil {
		return nil, err
	}
	o.Family = nftables.FamilyInet
	if r.inet, err = nftables.New(TableName, o); err != nil {
		return nil, errors.Join(err, r.netdev.Close())
	}
	return r, nil
}

func (r *rules) close() error { return errors.Join(r.netdev.Close(), r.inet.Close()) }

// guard makes the rules of a device stand, beside those of all others. Several calls at a time share transactions.
func (r *rules) guard(ctx context.Context, l *link) error {
	d := r.driver
	d.mu.Lock()
	r.add(l)
	version := r.want.version
	d.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plan == nil {
		return ErrNoPlan
	}
	if r.stands >= version {
		return nil
	}
	return r.program(ctx, chainName(l))
}

// add wants the chain of a device. Driver.mu is held.
func (r *rules) add(l *link) {
	name := chainName(l)
	if _, ok := r.want.chains[name]; !ok {
		r.want.chains[name] = deviceChain(name, l.Link, l.Addresses)
		r.want.version++
	}
}

// drop wants the chain of a device no more. Driver.mu is held.
func (r *rules) drop(l *link) {
	if name := chainName(l); r.want.chains[name].Name != "" {
		delete(r.want.chains, name)
		r.want.version++
		r.want.gone = append(r.want.gone, name)
	}
}

// chainName is the name of the chain of a device. It is another one for each device, so that none that an earlier device of
// the same name has left is taken for that of this one.
func chainName(l *link) string { return l.Link + "." + strconv.Itoa(l.Index) }

// apply makes the rules of a plan stand.
func (r *rules) apply(ctx context.Context, plan *compile.Workloads) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plan == nil || !equalPlans(r.plan, plan) {
		r.plan, r.shared = plan, netdevTable(plan)
	}
	return errors.Join(r.program(ctx, ""), r.inet.Apply(ctx, inetTable(plan)))
}

// program brings the netdev table to the kernel. A device that has just gone makes the kernel refuse its chain, and is left
// out, unless it is the one that matters.
func (r *rules) program(ctx context.Context, matters string) error {
	for {
		t, version, gone := r.table()
		err := r.netdev.Recheck(ctx, gone)
		if err == nil {
			err = r.netdev.Apply(ctx, t)
		}
		if err == nil {
			r.stands = version
			return nil
		}
		name := refusedDevice(err, t)
		if name == "" || name == matters {
			return err
		}
		r.driver.mu.Lock()
		delete(r.want.chains, name)
		r.want.version++
		r.driver.mu.Unlock()
	}
}

// table is the netdev table that is wanted now, and the chains that were given up since it was last asked for.
func (r *rules) table() (t *nftables.Table, version uint64, gone []string) {
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	t = &nftables.Table{Sets: r.shared.Sets, Chains: make([]nftables.Chain, 0, len(r.shared.Chains)+len(r.want.chains))}
	t.Chains = append(t.Chains, r.shared.Chains...)
	for _, c := range r.want.chains {
		t.Chains = append(t.Chains, c)
	}
	gone, r.want.gone = r.want.gone, nil
	return t, r.want.version, gone
}

// refusedDevice is the device whose chain the kernel refused since there is no such device; empty if that is not so.
func refusedDevice(err error, t *nftables.Table) string {
	var refused *nfnetlink.Refusal
	if !errors.As(err, &refused) || refused.Errno != unix.ENOENT && refused.Errno != unix.ENODEV {
		return ""
	}
	for i := range t.Chains {
		if c := &t.Chains[i]; c.Hook.Device != "" && refused.Doing == nftables.CreatingChain+c.Name {
			return c.Name
		}
	}
	return ""
}

// tidy deletes the chains of devices that are gone, where the kernel has not done so itself.
func (r *rules) tidy(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refresh(ctx)
}

// refresh programs the chains of devices that have come or gone.
func (r *rules) refresh(ctx context.Context) error {
	if r.plan == nil || r.settled() {
		return nil
	}
	return r.program(ctx, "")
}

// observe counts what differs in both tables from what was applied.
func (r *rules) observe(ctx context.Context) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refresh(ctx); err != nil {
		return 0, err
	}
	one, err := r.netdev.Observe(ctx)
	other, otherErr := r.inet.Observe(ctx)
	return one + other, errors.Join(err, otherErr)
}

// settled says whether the kernel has the chains that are wanted, as far as is known. mu is held.
func (r *rules) settled() bool {
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	return r.stands == r.want.version
}

func (r *rules) cleanup(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan, r.shared = nil, nil
	return errors.Join(r.netdev.Cleanup(ctx), r.inet.Cleanup(ctx))
}

// drops reads what was dropped.
func (r *rules) drops(ctx context.Context) (Drops, error) {
	netdev, err := r.netdev.Tallies(ctx)
	inet, otherErr := r.inet.Tallies(ctx)
	return Drops{Spoofed: netdev[chainRest] + netdev[chainLocal], Injected: netdev[chainNode] + inet[chainInjected]}, errors.Join(err, otherErr)
}
