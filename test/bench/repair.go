package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/model"
	engine "github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// tampering is what others might do to the agent's table.
type tampering struct {
	what string
	do   func(*nftables.Conn)
}

// measureRepair tampers with a new agent in each round, since one that is tampered with again and again takes
// its time, and waits for the first flow that is translated again. Where the kernel can own tables there
// is nothing to wait for; what others would have to wait for is measured there with a table left open.
func measureRepair(ctx context.Context, o options, tmp string) ([]result, error) {
	var out []result
	for _, t := range []tampering{
		{"table deleted by others, to first translated packet", func(c *nftables.Conn) {
			c.DelTable(&nftables.Table{Name: nat.TableName, Family: nftables.TableFamilyINet})
		}},
		{"ruleset flushed by others, to first translated packet", (*nftables.Conn).FlushRuleset},
	} {
		r, err := t.repairs(ctx, o, func() (*flipper, error) { return newAgentFlipper(ctx, o, tmp, 10, filesOf) })
		if err != nil {
			return out, err
		}
		if out = append(out, r); r.Answer == "" {
			continue
		}
		t.what = "the same, were the table open as before Linux 6.9"
		if r, err = t.repairs(ctx, o, func() (*flipper, error) { return newOpenFlipper(ctx) }); err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// repairs times the repair by one new flipper after the other.
func (t tampering) repairs(ctx context.Context, o options, fresh func() (*flipper, error)) (result, error) {
	var ds []time.Duration
	for range o.rounds {
		f, err := fresh()
		if err != nil {
			return result{}, err
		}
		d, answer, err := t.repair(ctx, f)
		if err = errors.Join(err, f.close()); err != nil {
			return result{}, fmt.Errorf("%s: %w", t.what, err)
		}
		if answer != "" {
			return result{What: t.what, Answer: answer}, nil
		}
		ds = append(ds, d)
	}
	return milliseconds(t.what, ds), nil
}

// repair tampers once and says how long it took until a new flow was translated again, or why there was nothing to
// repair.
func (t tampering) repair(ctx context.Context, f *flipper) (d time.Duration, answer string, err error) {
	before, err := tableHandle(ctx, f.node)
	if err != nil {
		return 0, "", err
	}
	conn, err := nftables.New(nftables.WithNetNSFd(f.node.FD()))
	if err != nil {
		return 0, "", fmt.Errorf("opening a netlink socket to tamper with the table: %w", err)
	}
	t.do(conn)
	start := time.Now()
	err = conn.Flush()
	if errors.Is(err, unix.EPERM) {
		return 0, "refused by the kernel: the table is owned", nil
	}
	if err != nil {
		return 0, "", err
	}
	tampered := time.Since(start)
	if d, err = f.await(true, func() error { return nil }); err != nil {
		return 0, "", err
	}
	after, err := tableHandle(ctx, f.node)
	if err == nil && after == before {
		answer = "passed over by the kernel: the table is owned"
	}
	return tampered + d, answer, err
}

// newOpenFlipper has the loop and the driver of an agent, and a table that others may change as well.
func newOpenFlipper(ctx context.Context) (*flipper, error) {
	return newFlipper(ctx, func(f *flipper) error {
		log := slog.New(slog.DiscardHandler)
		d, err := nat.New(engine.Options{Log: log, NetNS: f.node.FD(), Unowned: true})
		if err != nil {
			return err
		}
		f.closes = append(f.closes, d.Close)
		loop := reconcile.New(reconcile.Options{Drivers: []reconcile.Driver{openDriver{d}}, Log: log})
		loop.SetSnapshot(&model.Snapshot{Pools: []*model.Pool{{
			Name: "pods", CIDR: netip.PrefixFrom(podAddr, 24).Masked(), NATOutgoing: true, AllowedUses: model.UseWorkload,
		}}}, 1)
		loop.SetLocal(model.Local{Name: "node", Interfaces: []netip.Prefix{netip.PrefixFrom(nodeAddr, 24)}})

		running, stop := context.WithCancel(ctx)
		var done sync.WaitGroup
		done.Go(func() { loop.Run(running) })
		f.closes = append(f.closes, func() error { stop(); done.Wait(); return nil })
		for {
			state, changed := loop.State()
			if ok, _ := state.Ready(); ok {
				return nil
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

// openDriver gives the driver its part of the plan, as the agent does.
type openDriver struct{ *nat.Driver }

func (openDriver) Name() string { return "nat" }

func (d openDriver) Apply(ctx context.Context, p *compile.Plan) error {
	return d.Driver.Apply(ctx, p.NAT)
}
