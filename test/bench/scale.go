package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// measureFootprint looks at an agent with ten pools that has nothing to do.
func measureFootprint(ctx context.Context, o options, tmp string) (_ []result, err error) {
	dir, state, err := manifests(tmp, 10)
	if err != nil {
		return nil, err
	}
	n, err := newNetwork(true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	a, err := startAgent(ctx, o, n, dir, state)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	time.Sleep(o.settle) // what starting needed
	before, err := a.cpu()
	if err != nil {
		return nil, err
	}
	time.Sleep(o.idle)
	after, err := a.cpu()
	if err != nil {
		return nil, err
	}
	rss, err := a.resident()
	if err != nil {
		return nil, err
	}
	return []result{
		summary("agent with ten pools, resident", "MiB", []float64{rss}),
		summary("the same, CPU while nothing changes", "ms/s", []float64{float64(after-before) / float64(time.Millisecond) / o.idle.Seconds()}),
	}, nil
}

// measureManyPools starts agents on as many pools as a cluster might have, and a very large one, and changes one pool of
// the latter.
func measureManyPools(ctx context.Context, o options, tmp string) ([]result, error) {
	out, err := startsOf(ctx, o, tmp, o.pools/10)
	if err != nil {
		return out, err
	}
	more, err := startsOf(ctx, o, tmp, o.pools)
	out = append(out, more...)
	if err != nil {
		return out, err
	}
	for _, layout := range []struct {
		name  string
		write func(tmp string, pools int) (*pools, error)
	}{{"a file each", filesOf}, {"in one file", oneFileOf}} {
		changes, err := changeOne(ctx, o, tmp, layout.write)
		if err != nil {
			return out, err
		}
		out = append(out, milliseconds(fmt.Sprintf("%d pools, %s: one changed to first translated packet", o.pools, layout.name), changes))
	}
	return out, nil
}

// startsOf starts agents on that many pools.
func startsOf(ctx context.Context, o options, tmp string, pools int) ([]result, error) {
	var cold, warm, theirs []time.Duration
	var resident []float64
	for range o.rounds {
		s, err := startMany(ctx, o, tmp, pools)
		if err != nil {
			return nil, err
		}
		cold, warm, theirs, resident = append(cold, s.cold), append(warm, s.warm), append(theirs, s.theirs), append(resident, s.resident)
	}
	many := fmt.Sprintf("%d pools", pools)
	return []result{
		milliseconds(many+": agent started to programmed, nothing there before", cold),
		milliseconds("the same ranges: nft -f of a ready file", theirs).against(cold, theirs),
		milliseconds(many+": agent restarted on its own table and state", warm),
		summary(many+": resident after the restart", "MiB", resident),
	}, nil
}

// changeOne switches translation for one of many pools.
func changeOne(ctx context.Context, o options, tmp string, write func(tmp string, pools int) (*pools, error)) (_ []time.Duration, err error) {
	f, err := newAgentFlipper(ctx, o, tmp, o.pools, write)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	ds, err := flipInTurn(o.flips, f)
	if err != nil {
		return nil, err
	}
	return ds[0], nil
}

// manyStarts are a first start, a second one on what the first has left, with the memory that it took,
// and nft's load of as many ranges.
type manyStarts struct {
	cold, warm, theirs time.Duration
	resident           float64 // MiB
}

func startMany(ctx context.Context, o options, tmp string, pools int) (s manyStarts, err error) {
	dir, state, err := manifests(tmp, pools)
	if err != nil {
		return s, err
	}
	n, err := newNetwork(true)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	for _, took := range []*time.Duration{&s.cold, &s.warm} {
		begin := time.Now()
		a, err := startAgent(ctx, o, n, dir, state)
		if err != nil {
			return s, err
		}
		err = a.ready(ctx)
		*took = time.Since(begin)
		if err == nil {
			s.resident, err = a.resident()
		}
		if err := errors.Join(err, a.stop()); err != nil {
			return s, err
		}
	}
	ruleset := nftRanges(pools)
	begin := time.Now()
	err = nftLoad(ctx, n.outside, ruleset)
	s.theirs = time.Since(begin)
	return s, err
}

// measureDriver loads 100,000 prefixes by the driver alone, in turn with the nft binary.
func measureDriver(ctx context.Context, o options, _ string) ([]result, error) {
	var ours, change, theirs []time.Duration
	for range o.rounds {
		h, err := lab.NewHost("driver")
		if err != nil {
			return nil, err
		}
		d, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: h.FD()})
		if err != nil {
			return nil, errors.Join(err, h.Close())
		}
		part := compile.NAT{Allocation: model.PortsFullyRandom}
		for i := range o.prefixes {
			part.Sources = append(part.Sources, compile.Source{Range: netipx.RangeOfPrefix(nth(i)), Pool: "p"})
		}
		load := func() time.Duration {
			begin := time.Now()
			err = errors.Join(err, d.Apply(ctx, part))
			return time.Since(begin)
		}
		ours = append(ours, load())
		part.Sources = part.Sources[:o.prefixes-1]
		change = append(change, load())
		begin := time.Now()
		err = errors.Join(err, nftLoad(ctx, h, nftRanges(o.prefixes)))
		theirs = append(theirs, time.Since(begin))
		if err := errors.Join(err, d.Close(), h.Close()); err != nil {
			return nil, err
		}
	}
	return []result{
		milliseconds(fmt.Sprintf("driver: %d prefixes loaded and read back", o.prefixes), ours),
		milliseconds("the same: nft -f, not read back", theirs).against(ours, theirs),
		milliseconds("driver: one of them removed", change),
	}, nil
}

// nth is the i-th of many prefixes that neither overlap nor touch.
func nth(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(11 + i>>15), byte(i >> 7), byte(i << 1), 0}), 25)
}

// nftRanges is a ruleset with one set of that many prefixes.
func nftRanges(n int) string {
	var b bytes.Buffer
	b.WriteString("table inet hand {\nset s {\ntype ipv4_addr; flags interval; counter\nelements = {")
	for i := range n {
		fmt.Fprintf(&b, "%s,\n", nth(i))
	}
	b.WriteString("}\n}\n}\n")
	return b.String()
}
