package main

import (
	"context"
	"errors"
	"time"
)

// measureChange flips natOutgoing of the pod's pool and waits for the first packet that shows it. In
// turn with it, a person's shortest way is measured: loading a masquerade rule with the nft binary.
func measureChange(ctx context.Context, o options, tmp string) (_ []result, err error) {
	manifest, err := newAgentFlipper(ctx, o, tmp, 1, filesOf)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, manifest.close()) }()
	hand, err := newHandFlipper(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, hand.close()) }()
	ds, err := flipInTurn(o.flips, manifest, hand)
	if err != nil {
		return nil, err
	}
	return []result{
		milliseconds("manifest written to first translated packet", ds[0]),
		milliseconds("the same by hand: nft -f with one masquerade rule", ds[1]).against(ds[0], ds[1]),
	}, nil
}

// flipper is a network in which translation can be switched on and off.
type flipper struct {
	*network
	*prober
	flip   func(translate bool) error
	closes []func() error // in the order of being made
}

func (f *flipper) close() error {
	var errs []error
	for i := range f.closes {
		errs = append(errs, f.closes[len(f.closes)-1-i]())
	}
	return errors.Join(errs...)
}

// newFlipper makes the network and starts what is to translate in it.
func newFlipper(ctx context.Context, start func(*flipper) error) (*flipper, error) {
	n, err := newNetwork(true)
	if err != nil {
		return nil, err
	}
	f := &flipper{network: n, closes: []func() error{n.close}}
	if err = start(f); err == nil {
		f.prober, err = startProber(ctx, n)
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	f.closes = append(f.closes, f.prober.close)
	return f, nil
}

// newAgentFlipper writes the manifest of one pool among others.
func newAgentFlipper(ctx context.Context, o options, tmp string, count int, write func(tmp string, count int) (*pools, error)) (*flipper, error) {
	p, err := write(tmp, count)
	if err != nil {
		return nil, err
	}
	return newFlipper(ctx, func(f *flipper) error {
		a, err := startAgent(ctx, o, f.network, p.dir, p.state)
		if err != nil {
			return err
		}
		f.closes = append(f.closes, a.stop)
		f.flip = p.flip
		return a.ready(ctx)
	})
}

// newHandFlipper is the floor: one rule, loaded by the nft binary in the node.
func newHandFlipper(ctx context.Context) (*flipper, error) {
	return newFlipper(ctx, func(f *flipper) error {
		f.flip = func(translate bool) error {
			rule := ""
			if translate {
				rule = "ip saddr 10.244.0.0/24 ip daddr != 10.244.0.0/24 masquerade fully-random"
			}
			return nftLoad(ctx, f.node, "table inet hand\ndelete table inet hand\ntable inet hand {\nchain c {\ntype nat hook postrouting priority srcnat;\n"+rule+"\n}\n}\n")
		}
		return nil
	})
}

// once switches translation off and on again, and returns how long the switching on took.
func (f *flipper) once() (time.Duration, error) {
	if _, err := f.await(false, func() error { return f.flip(false) }); err != nil {
		return 0, err
	}
	time.Sleep(10 * time.Millisecond) // idle, as most nodes are when somebody changes a pool
	d, err := f.await(true, func() error { return f.flip(true) })
	time.Sleep(10 * time.Millisecond)
	return d, err
}

// flipInTurn switches each of the flippers that many times, one after the other in each round.
func flipInTurn(times int, list ...*flipper) ([][]time.Duration, error) {
	ds := make([][]time.Duration, len(list))
	for round := range times {
		for _, i := range rotated(len(list), round) {
			d, err := list[i].once()
			if err != nil {
				return nil, err
			}
			ds[i] = append(ds[i], d)
		}
	}
	return ds, nil
}
