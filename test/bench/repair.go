package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// measureRepair does to the agent's table what others might do, and waits for the first flow that is
// translated again. Where the kernel does not let others touch the table there is nothing to wait for.
func measureRepair(ctx context.Context, o options, tmp string) (_ []result, err error) {
	f, err := newAgentFlipper(ctx, o, tmp, 10)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	var out []result
	for _, t := range []struct{ what, ruleset string }{
		{"table deleted by others, to first translated packet", "delete table inet sallyport\n"},
		{"ruleset flushed by others, to first translated packet", "flush ruleset\n"},
	} {
		r, err := tamper(ctx, o, f.network, f.prober, t.what, t.ruleset)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// tamper loads a ruleset again and again, and counts from when it is in force.
func tamper(ctx context.Context, o options, n *network, p *prober, what, ruleset string) (result, error) {
	var ds []time.Duration
	for range o.rounds {
		before, err := tableHandle(ctx, n.node)
		if err != nil {
			return result{}, err
		}
		err = nftLoad(ctx, n.node, ruleset)
		if err != nil && strings.Contains(err.Error(), "Operation not permitted") {
			return result{What: what, Answer: "refused by the kernel: the table is owned"}, nil
		}
		if err != nil {
			return result{}, err
		}
		d, err := p.await(true, func() error { return nil })
		if err != nil {
			return result{}, fmt.Errorf("%s: %w", what, err)
		}
		after, err := tableHandle(ctx, n.node)
		if err != nil {
			return result{}, err
		}
		if after == before {
			return result{What: what, Answer: "passed over by the kernel: the table is owned"}, nil
		}
		ds = append(ds, d)
	}
	return milliseconds(what, ds), nil
}
