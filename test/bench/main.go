// Command bench measures what Sallyport costs and how fast it is: what a node's forwarding takes beside
// other ways to translate, how soon a manifest changes real packets, how long ten thousand pools take,
// how soon tampering is undone, and what the agent uses. What is compared is measured in turn in the same
// run and given as ratios. docs/benchmark.md says how.
//
// It works in network namespaces of its own and sends packets nowhere else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are how much is measured.
type options struct {
	program string   // the agent's binary
	env     []string // that it gets, besides this program's

	trafficRounds int           // of the comparison of traffic
	slot          time.Duration // of one kind of traffic on one variant in one round

	rounds   int // of the slow measurements
	flips    int // changes whose first packet is awaited
	pools    int // of a large node
	prefixes int // of a large table
	settle   time.Duration
	idle     time.Duration // over which an idle agent's CPU is counted
}

// thorough gives figures, in a few minutes; quick shows in seconds that each variant is valid and each
// measurement gives a number, which then says little.
var (
	thorough = options{trafficRounds: 100, slot: 20 * time.Millisecond, rounds: 5, flips: 100,
		pools: 10_000, prefixes: 100_000, settle: 5 * time.Second, idle: time.Minute}
	quick = options{trafficRounds: 1, slot: 5 * time.Millisecond, rounds: 1, flips: 2,
		pools: 100, prefixes: 1000, settle: 10 * time.Millisecond, idle: 100 * time.Millisecond}
)

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	program := flag.String("program", "bin/sallyport", "binary to measure")
	out := flag.String("json", "bin/bench.json", "file for the results; empty for none")
	fast := flag.Bool("quick", false, "only see that everything can be measured; the figures say little")
	rounds := flag.Int("traffic-rounds", thorough.trafficRounds, "rounds of the comparison of traffic")
	only := flag.Bool("traffic-only", false, "compare traffic, and nothing else")
	flag.Parse()
	o := thorough
	o.trafficRounds = *rounds
	if *fast {
		o = quick
	}
	var err error
	if o.program, err = filepath.Abs(*program); err != nil {
		return err
	}
	inside, status, err := lab.Isolate(ctx)
	if err != nil {
		return err
	}
	if !inside {
		if status != 0 {
			return fmt.Errorf("ended with status %d", status)
		}
		return nil
	}
	tmp, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	r, err := measureAll(ctx, o, tmp, *only)
	if r == nil {
		return err
	}
	err = errors.Join(err, r.print(os.Stdout))
	if err == nil && *out != "" {
		err = r.write(*out)
	}
	return err
}

// measureAll measures everything. With an error, the report has what was measured before.
func measureAll(ctx context.Context, o options, tmp string, trafficOnly bool) (*report, error) {
	kind, version, err := whichIptables(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{Machine: describeMachine(ctx, o, version), Variants: variants()}
	if r.Traffic, err = measureTraffic(ctx, o, tmp, kind); err != nil || trafficOnly {
		return r, err
	}
	for _, measure := range []func(context.Context, options, string) ([]result, error){
		measureChange, measureFootprint, measureManyPools, measureDriver, measureRepair,
	} {
		rs, err := measure(ctx, o, tmp)
		r.Agent = append(r.Agent, rs...)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}
