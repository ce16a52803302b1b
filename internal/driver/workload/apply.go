package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// sourceFor is the address from which the node itself speaks to an address; invalid where the kernel chooses.
func sourceFor(plan *compile.Workloads, a netip.Addr) netip.Addr {
	if a.Is4() {
		return plan.Node4
	}
	return plan.Node6
}

// Apply makes the kernel equal to a plan: the routes to the workloads, their neighbours, and the rules. The MTU is for links
// that are made later: see Add. It finishes what killed agents have left. Called again with an equal plan it does nothing,
// unless Observe has found a difference, or the call before failed. The plan must not be changed afterwards. The rules
// are brought to the kernel also where a route or a neighbour fails: see RulesStand.
func (d *Driver) Apply(ctx context.Context, plan compile.Workloads) error {
	d.gate.Lock()
	defer d.gate.Unlock()
	before := d.plan.Load()
	again := before != nil && equalPlans(before, &plan)
	if again && d.settled {
		return nil
	}
	d.plan.Store(&plan)
	d.settled = false
	if again {
		_, _ = d.rules.observe(ctx) // while a route fails, no other Observe comes; apply repairs, and reads back itself after an error
	}
	rules := d.relist(ctx) // without it, it is not known which devices need rules
	var routes error
	if rules == nil {
		_, routes = d.converge(ctx, &plan, true)
	}
	rules = errors.Join(rules, d.rules.apply(ctx, &plan))
	d.standing.Store(&standing{plan: &plan, err: rules})
	err := errors.Join(routes, rules)
	d.settled = err == nil
	return err
}

// standing says of which plan the kernel holds the rules.
type standing struct {
	plan *compile.Workloads
	err  error // why it does not hold them; nil: it does
}

// errUndone is why the rules do not stand where a third party has changed them.
var errUndone = errors.New("a third party changed the rules of workloads; the agent repairs them")

// RulesStand says whether the kernel holds the rules of a plan, and if not why. Unlike Apply it leaves out routes and
// neighbours: one that a foreign route keeps away concerns one workload alone. It waits for nothing.
func (d *Driver) RulesStand(plan *compile.Workloads) error {
	switch s := d.standing.Load(); {
	case s == nil:
		return ErrNoPlan
	case !equalPlans(s.plan, plan):
		return errors.New("the newest rules of workloads are not programmed yet")
	default:
		return s.err
	}
}

func equalPlans(a, b *compile.Workloads) bool {
	return a.MTU == b.MTU && a.Node4 == b.Node4 && a.Node6 == b.Node6 && a.VXLANPort == b.VXLANPort && a.VXLAN == b.VXLAN && slices.Equal(a.Nodes, b.Nodes)
}

// Observe reads the kernel back and returns how many things differ from the plan last applied, of which the next Apply makes
// each what it should be. Before the first Apply nothing differs.
func (d *Driver) Observe(ctx context.Context) (drift int, err error) {
	d.gate.Lock()
	defer d.gate.Unlock()
	plan := d.plan.Load()
	if plan == nil {
		return 0, nil
	}
	if err = d.relist(ctx); err == nil {
		drift, err = d.converge(ctx, plan, false)
	}
	rules, rulesErr := d.rules.observe(ctx)
	if rules > 0 || rulesErr != nil {
		d.standing.Store(&standing{plan: plan, err: cmp.Or(rulesErr, errUndone)})
	}
	drift, err = drift+rules, errors.Join(err, rulesErr)
	d.settled = d.settled && err == nil && drift == 0
	return drift, err
}

// converge counts what differs from the plan, and if it is to repair makes it what it should be.
func (d *Driver) converge(ctx context.Context, plan *compile.Workloads, repair bool) (drift int, err error) {
	err = d.with(func(c *rtnetlink.Conn) error {
		k, err := readKernel(ctx, c)
		if err != nil {
			return err
		}
		var r request
		d.mu.Lock()
		for _, l := range d.links {
			if l.pending || l.Leaving {
				continue
			}
			if err = k.repair(&r, l, plan); err != nil {
				break
			}
		}
		d.mu.Unlock()
		k.strays(&r)
		if drift = r.Len(); err != nil || !repair {
			return err
		}
		if err := explainNode(send(ctx, c, &r, absent)); err != nil {
			if errors.Is(err, unix.EEXIST) {
				err = fmt.Errorf("%w: a route to that address is there which is not Sallyport's: delete it", err)
			}
			return err
		}
		return nil
	})
	return drift, err
}

// kernel is what the kernel holds beside devices.
type kernel struct {
	devices    map[int]*device
	routes     map[place][]routeTo
	neighbours map[place]neighbour
}

// place is an address on a link.
type place struct {
	index int
	addr  netip.Addr
}

func readKernel(ctx context.Context, c *rtnetlink.Conn) (*kernel, error) {
	devices, err := readDevices(ctx, c)
	if err != nil {
		return nil, err
	}
	k := &kernel{devices: make(map[int]*device, len(devices)), routes: map[place][]routeTo{}, neighbours: map[place]neighbour{}}
	for i := range devices {
		k.devices[devices[i].index] = &devices[i]
	}
	routes, err := readRoutes(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if k.devices[r.index] != nil {
			at := place{r.index, r.to}
			k.routes[at] = append(k.routes[at], r)
		}
	}
	neighbours, err := readNeighbours(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, n := range neighbours {
		if k.devices[n.index] != nil {
			k.neighbours[place{n.index, n.addr}] = n
		}
	}
	return k, nil
}

// repair appends what makes a link what it should be. Nothing is appended for a link that is as it should be.
func (k *kernel) repair(r *request, l *link, plan *compile.Workloads) error {
	dev := k.devices[l.Index]
	if dev == nil {
		return nil // it has just gone
	}
	text, err := l.alias.text()
	if err != nil {
		return err
	}
	if dev.name != l.Link {
		r.rename(l.Index, l.Link, "renaming "+dev.name+" to "+l.Link+" again")
	}
	if dev.alias != text {
		r.alias(l.Link, text)
	}
	if dev.master != 0 {
		r.free(l.Index, "taking "+l.Link+" out of the bridge or other device that it was made a port of")
	}
	if !dev.up {
		r.up(l.Index, "setting "+l.Link+" up")
	}
	for _, a := range l.Addresses {
		at, from := place{l.Index, a}, sourceFor(plan, a)
		switch have := k.routes[at]; {
		case len(have) == 0:
			r.routeTo(unix.NLM_F_EXCL, l.Index, a, from, rtnetlink.RouteProtocol, "adding the route to "+a.String())
		case have[0].from != from:
			r.routeTo(unix.NLM_F_REPLACE, l.Index, a, from, rtnetlink.RouteProtocol, "changing the route to "+a.String())
		}
		delete(k.routes, at)
		if n := k.neighbours[at]; !n.permanent || n.mac != l.alias.mac {
			r.neighbour(l.Index, a, l.alias.mac, "adding the neighbour "+a.String())
		}
	}
	return nil
}

// strays appends what deletes routes of ours by devices of ours that no workload has.
func (k *kernel) strays(r *request) {
	for at := range k.routes {
		if dev := k.devices[at.index]; dev.ours() != nil && dev.ours().state == held {
			r.noRouteTo(at.index, at.addr, "deleting the route to "+at.addr.String()+" by "+dev.name)
		}
	}
}

// Cleanup removes all links of workloads. That there is none is not an error.
func (d *Driver) Cleanup(ctx context.Context) error {
	d.gate.Lock()
	defer d.gate.Unlock()
	d.plan.Store(nil)
	d.standing.Store(nil)
	d.settled = false
	return d.with(func(c *rtnetlink.Conn) error {
		list, err := readDevices(ctx, c)
		if err != nil {
			return err
		}
		var r request
		var removed []int
		for i := range list {
			if dev := &list[i]; dev.ours() != nil {
				r.remove(dev.index, "removing "+dev.name)
				removed = append(removed, dev.index)
			}
		}
		if err := send(ctx, c, &r, absent); err != nil {
			return err
		}
		d.vanished(removed...)
		return d.rules.cleanup(ctx)
	})
}
