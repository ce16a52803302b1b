package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Options say where a driver works.
type Options struct {
	NetNS   int    // a descriptor of the network namespace; 0: the calling thread's
	ProcSys string // where its sysctls are; empty: /host/proc/sys where that exists, and else /proc/sys
	Log     *slog.Logger
	// Beside is, of a Keeper, the driver that it works beside, and of whose changes it need not hear. It may be nil.
	Beside *Driver
}

// Driver makes the kernel hold the routes of plans, and reads back what it holds. Its methods may be called from several
// goroutines; they wait for each other.
type Driver struct {
	netns   int
	log     *slog.Logger
	sysctls sysctls

	mu      sync.Mutex
	conn    *rtnetlink.Conn
	batch   rtnetlink.Batch
	applied *compile.Routes // last applied; nil before the first
	held    *state          // what the kernel has; nil: not known
	settled bool            // held is what applied wants; it need not have the routes then
	refused []error         // of the Apply under way

	indexes [2]atomic.Int32 // of our devices, for Watch; 0 where there is none
}

// New opens a driver. It changes nothing. Close it after use; what it programmed stays.
func New(o Options) (*Driver, error) {
	conn, err := rtnetlink.Dial(o.NetNS)
	if err != nil {
		return nil, err
	}
	return &Driver{netns: o.NetNS, log: o.Log, conn: conn, sysctls: newSysctls(o.ProcSys)}, nil
}

// Close closes the driver.
func (d *Driver) Close() error { return d.conn.Close() }

// Apply makes the kernel's routes what the plan wants. What it refuses becomes unreachable, and is named in the error, with the
// route or device of others that stands in the way. Applied again, an equal plan costs nothing. The plan must not be changed
// afterwards.
func (d *Driver) Apply(ctx context.Context, plan compile.Routes) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var was *compile.Routes
	if d.settled {
		was = d.applied
	}
	if was != nil && equal(was, &plan) {
		d.applied = &plan // its routes are mostly the very ones of the next
		return nil
	}
	d.applied, d.settled, d.refused = &plan, false, nil
	if err := d.sysctls.set(func() ([]string, error) { return d.notPods(ctx) }, wantsV6(&plan)); err != nil {
		d.refused = append(d.refused, err)
	}
	err := d.converge(ctx, was, &plan)
	if err = errors.Join(append(d.refused, err)...); err != nil {
		d.held = nil // read back before the next attempt
		return err
	}
	d.settled = true
	d.batch = rtnetlink.Batch{} // that of a start may be a megabyte
	return nil
}

// converge brings the kernel from what it has to what the plan wants. What it has is what another plan wanted, unless that
// is nil.
func (d *Driver) converge(ctx context.Context, was, plan *compile.Routes) error {
	switch {
	case d.held == nil:
		if err := d.reread(ctx); err != nil {
			return err
		}
	case was != nil && slices.EqualFunc(was.Devices, plan.Devices, equalDevices):
		gone, come := differing(was.Routes, plan.Routes)
		devices := d.usable(d.held.devices)
		return d.exchange(ctx, d.held.devices, wantedRoutes(gone, was.Devices, devices), wantedRoutes(come, plan.Devices, devices))
	case was != nil:
		d.held.routes = wantedRoutes(was.Routes, was.Devices, d.usable(d.held.devices))
	}
	var wanted [2]*device
	for i := range plan.Devices {
		at := slices.Index(deviceNames[:], plan.Devices[i].Name)
		wanted[at] = wantedDevice(&plan.Devices[i])
	}
	changed := false
	for f := range wanted {
		c, err := d.ensure(ctx, f, wanted[f])
		if err != nil {
			return err
		}
		changed = changed || c
	}
	if changed {
		if err := d.reread(ctx); err != nil {
			return err
		}
	}
	return d.exchange(ctx, wanted, d.held.routes, wantedRoutes(plan.Routes, plan.Devices, d.usable(wanted)))
}

// exchange makes the devices carry what is wanted, and the routes held those that are wanted. Of both, those may be left out that
// stay.
func (d *Driver) exchange(ctx context.Context, wanted [2]*device, held, routes []entry) error {
	shielded, err := d.put(ctx, wanted, held, routes)
	if err != nil {
		return err
	}
	if err := d.drop(ctx, wanted, held, routes, shielded); err != nil {
		return err
	}
	d.remember(wanted)
	return nil
}

// reread reads what the kernel has.
func (d *Driver) reread(ctx context.Context) (err error) {
	if d.held, err = d.read(ctx); err != nil {
		d.held = nil
		return err
	}
	for f, dev := range d.held.devices {
		d.indexes[f].Store(0)
		if dev != nil {
			d.indexes[f].Store(dev.index)
		}
	}
	return nil
}

// usable are the devices that the kernel has and the plan wants.
func (d *Driver) usable(wanted [2]*device) [2]*device {
	held := d.held.devices
	for f := range held {
		if wanted[f] == nil || held[f] != nil && held[f].kind != "vxlan" {
			held[f] = nil
		}
	}
	return held
}

// put adds and replaces what is wanted, what carries a route before it. Where the kernel refuses a route, the block becomes
// unreachable, unless another route is there; those blocks are returned.
func (d *Driver) put(ctx context.Context, wanted [2]*device, held, routes []entry) (shielded []netip.Prefix, err error) {
	d.batch.Reset()
	for f, has := range d.usable(wanted) {
		if has == nil || has == wanted[f] {
			continue
		}
		at, want := has.index, wanted[f]
		difference(has.addresses, want.addresses, netip.Prefix.Compare, func(p netip.Prefix, _ bool) { putAddress(&d.batch, at, p) }, func(netip.Prefix) {})
		difference(has.forwards, want.forwards, forward.compare, func(t forward, _ bool) { putForward(&d.batch, at, t) }, func(forward) {})
		difference(has.neighbours, want.neighbours, neighbour.compare, func(n neighbour, _ bool) { putNeighbour(&d.batch, at, n) }, func(neighbour) {})
	}
	difference(held, routes, entry.compare, func(e entry, there bool) { putRoute(&d.batch, e, there) }, func(entry) {})
	refused, err := d.conn.Execute(ctx, &d.batch)
	if err != nil {
		return nil, fmt.Errorf("programming routes: %w", err)
	}
	for _, r := range refused {
		m := d.batch.At(r.Index)
		failure := r.Error(describe(m))
		if e, ok, _ := parseRoute(m); ok && m.Kind == unix.RTM_NEWROUTE { // it is our own message
			if r.Errno == unix.EEXIST && len(d.refused) < named {
				failure = d.inTheWay(ctx, e)
			}
			if r.Errno != unix.EEXIST && e.kind == unix.RTN_UNICAST {
				shielded = append(shielded, e.to)
			}
		}
		d.refuse(failure)
	}
	return shielded, d.shield(ctx, shielded)
}

// named bounds how many refusals are named.
const named = 5

// refuse notes what the kernel refused.
func (d *Driver) refuse(err error) {
	switch n := len(d.refused); {
	case n < named:
		d.refused = append(d.refused, err)
	case n == named:
		d.refused = append(d.refused, errors.New("the kernel refused more than that"))
	}
}

// shield makes prefixes unreachable.
func (d *Driver) shield(ctx context.Context, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	d.batch.Reset()
	for _, p := range prefixes {
		putRoute(&d.batch, unreachable(p), false)
	}
	refused, err := d.conn.Execute(ctx, &d.batch)
	if err != nil {
		return fmt.Errorf("making what cannot be routed unreachable: %w", err)
	}
	for _, r := range refused {
		if r.Errno != unix.EEXIST {
			d.refuse(r.Error(describe(d.batch.At(r.Index))))
		}
	}
	return nil
}

// drop removes what is not wanted, what carries a route after it.
func (d *Driver) drop(ctx context.Context, wanted [2]*device, held, routes []entry, shielded []netip.Prefix) error {
	d.batch.Reset()
	difference(held, routes, entry.compare, func(entry, bool) {}, func(e entry) {
		if !(e.kind == unix.RTN_UNREACHABLE && slices.Contains(shielded, e.to)) {
			dropRoute(&d.batch, e)
		}
	})
	for f, has := range d.held.devices {
		if has == nil || has.kind != "vxlan" || has == wanted[f] {
			continue
		}
		at, want := has.index, wanted[f]
		if want == nil {
			deleteDevice(&d.batch, at)
			continue
		}
		difference(has.neighbours, want.neighbours, neighbour.compare, func(neighbour, bool) {}, func(n neighbour) { dropNeighbour(&d.batch, at, n) })
		difference(has.forwards, want.forwards, forward.compare, func(forward, bool) {}, func(t forward) { dropForward(&d.batch, at, t) })
		difference(has.addresses, want.addresses, netip.Prefix.Compare, func(netip.Prefix, bool) {}, func(p netip.Prefix) { dropAddress(&d.batch, at, p) })
	}
	return d.remove(ctx)
}

// remove carries out a batch that removes: what is gone already is removed.
func (d *Driver) remove(ctx context.Context) error {
	refused, err := d.conn.Execute(ctx, &d.batch)
	if err != nil {
		return fmt.Errorf("removing routes: %w", err)
	}
	for _, r := range refused {
		if !slices.Contains([]unix.Errno{unix.ESRCH, unix.ENOENT, unix.ENODEV, unix.EADDRNOTAVAIL}, r.Errno) {
			d.refuse(r.Error(describe(d.batch.At(r.Index))))
		}
	}
	return nil
}

// remember notes that the kernel has what was wanted. The routes can be made again of their plan.
func (d *Driver) remember(wanted [2]*device) {
	for f, want := range wanted {
		held := d.held.devices[f]
		switch {
		case held == nil || held.kind != "vxlan":
		case want == nil:
			d.held.devices[f] = nil
		default:
			want.index = held.index
			if want.mtu == 0 {
				want.mtu = held.mtu
			}
			d.held.devices[f] = want
		}
	}
	d.held.routes = nil
}

// Observe reads the kernel back, and says how much differs from the plan last applied. The next Apply goes on from there.
func (d *Driver) Observe(ctx context.Context) (drift int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.applied == nil {
		return 0, nil
	}
	if err := d.reread(ctx); err != nil {
		d.settled = false
		return 0, err
	}
	held := d.held
	var wanted [2]*device
	for i := range d.applied.Devices {
		wanted[slices.Index(deviceNames[:], d.applied.Devices[i].Name)] = wantedDevice(&d.applied.Devices[i])
	}
	for f, want := range wanted {
		drift += deviceDrift(held.devices[f], want)
	}
	drift += count(held.routes, wantedRoutes(d.applied.Routes, d.applied.Devices, d.usable(wanted)), entry.compare)
	off, err := d.sysctls.off(wantsV6(d.applied))
	if drift += off; drift > 0 || err != nil {
		d.settled = false
	}
	if d.settled {
		held.routes = nil // as remember does
	}
	return drift, err
}

// deviceDrift is how much a device differs from what is wanted.
func deviceDrift(held, wanted *device) int {
	switch {
	case wanted == nil && (held == nil || held.kind != "vxlan"):
		return 0
	case wanted == nil || held == nil:
		return 1
	}
	n := count(held.addresses, wanted.addresses, netip.Prefix.Compare) + count(held.neighbours, wanted.neighbours, neighbour.compare) +
		count(held.forwards, wanted.forwards, forward.compare)
	if !fits(held, wanted) || !held.up || held.local != wanted.local || held.mac != wanted.mac || wanted.mtu != 0 && held.mtu != wanted.mtu {
		n++
	}
	return n
}

// Stands says whether the kernel has the route to a block that the plan wants, be it an unreachable one.
func (d *Driver) Stands(ctx context.Context, block netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled {
		_, found := slices.BinarySearchFunc(d.applied.Routes, block, func(r *compile.Route, to netip.Prefix) int { return r.CIDR.Compare(to) })
		return found
	}
	held, err := d.read(ctx) // of all that the plan wants, another route may be missing
	return err == nil && slices.ContainsFunc(held.routes, func(e entry) bool { return e.to == block })
}

// Cleanup removes all of ours, also where nothing is. That the node forwards packets stays: others may count on it by now.
func (d *Driver) Cleanup(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied, d.settled, d.refused = nil, false, nil
	if err := d.reread(ctx); err != nil {
		return err
	}
	err := d.drop(ctx, [2]*device{}, d.held.routes, nil, nil)
	d.held = nil
	return errors.Join(append(d.refused, err)...)
}

// wantsV6 says whether a plan routes IPv6.
func wantsV6(plan *compile.Routes) bool {
	n := len(plan.Routes)
	return n > 0 && plan.Routes[n-1].CIDR.Addr().Is6() // IPv4 comes first
}

// equal compares two plans.
func equal(a, b *compile.Routes) bool {
	return slices.EqualFunc(a.Routes, b.Routes, func(a, b *compile.Route) bool { return a == b || *a == *b }) &&
		slices.EqualFunc(a.Devices, b.Devices, equalDevices)
}

func equalDevices(a, b compile.VXLAN) bool {
	return a.Name == b.Name && a.V6 == b.V6 && a.VNI == b.VNI && a.Port == b.Port && a.Local == b.Local && a.Address == b.Address &&
		a.MTU == b.MTU && a.MAC == b.MAC && slices.Equal(a.Peers, b.Peers)
}
