// Command bench measures what Sallyport costs and how fast it is: what a node's forwarding takes beside
// other ways to translate and to connect pods, how soon a manifest changes real packets, how long ten thousand pools take,
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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

func main() {
	if os.Getenv(speakerEnv) != "" {
		if err := speak(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "speaker:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are how much is measured.
type options struct {
	program string   // the agent's binary
	before  string   // another version of it to compare with; empty: none
	env     []string // that it gets, besides this program's

	trafficRounds int           // of the comparison of traffic
	slot          time.Duration // of one kind of traffic on one variant in one round

	rounds   int // of the slow measurements
	flips    int // changes whose first packet is awaited
	pools    int // of a large node
	prefixes int // of a large table
	nodes    int // of a large cluster
	changes  int // of a pool of it

	agents int           // of a crowd
	still  time.Duration // over which their requests are counted while nothing changes
	away   time.Duration // for which they have no API server
	settle time.Duration
	idle   time.Duration // over which an idle agent's CPU is counted

	connections int // that a node tracks while a change's CPU is counted

	plugin     string // the CNI plugin's binary
	reference  string // directory of the reference CNI plugins
	pairs      int    // of pods that are added and deleted one after the other
	podsOfNode int    // of a node that has many

	bgpRoutes int // that a peer tells of
	clients   int // of a route reflector
}

// thorough gives figures, in a few minutes; quick shows in seconds that each variant is valid and each
// measurement gives a number, which then says little.
var (
	thorough = options{trafficRounds: 100, slot: 20 * time.Millisecond, rounds: 5, flips: 100,
		pools: 10_000, prefixes: 100_000, nodes: 5000, changes: 50,
		agents: 1000, still: 2 * time.Minute, away: 30 * time.Second, settle: 8 * time.Second, idle: time.Minute, connections: 25_000, pairs: 100, podsOfNode: 250, bgpRoutes: 10_000, clients: 100}
	quick = options{trafficRounds: 1, slot: 5 * time.Millisecond, rounds: 1, flips: 2,
		pools: 100, prefixes: 1000, nodes: 50, changes: 2,
		agents: 20, still: time.Second, away: 10 * time.Millisecond, settle: 10 * time.Millisecond, idle: 100 * time.Millisecond, connections: 10, pairs: 2, podsOfNode: 10, bgpRoutes: 100, clients: 3}
)

// find says where the programs are.
func (o *options) find(program, plugin, reference string) (err error) {
	for to, file := range map[*string]string{&o.program: program, &o.plugin: plugin, &o.reference: reference} {
		if *to, err = filepath.Abs(file); err != nil {
			return err
		}
	}
	return nil
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	program := flag.String("program", "bin/sallyport", "binary to measure")
	before := flag.String("before", "", "binary of another version, whose traffic and agent are measured in the same run")
	out := flag.String("json", "bin/bench.json", "file for the results; empty for none")
	fast := flag.Bool("quick", false, "only see that everything can be measured; the figures say little")
	rounds := flag.Int("traffic-rounds", thorough.trafficRounds, "rounds of the comparison of traffic")
	only := flag.String("only", "", "measure one part alone: traffic, change (of one pool), agent (on a directory of manifests), pods (added and deleted), network (the packets of pods), blocks (an agent with those of many nodes), bgp (the driver of BGP), cluster (an agent in a large one) or fleet (many agents)")
	still := flag.Duration("still", thorough.still, "how long the requests of many agents are counted while nothing changes; watches are renewed after 5 to 10 minutes")
	plugin := flag.String("plugin", "bin/sallyport-cni", "CNI plugin to measure")
	reference := flag.String("reference", "bin/reference", "directory of the reference CNI plugins ptp and host-local")
	agents := flag.Int("agents", thorough.agents, "how many agents ask one API server")
	flag.Parse()
	o := thorough
	o.trafficRounds, o.still, o.agents = *rounds, *still, *agents
	if *fast {
		o = quick
	}
	if parts := []string{partTraffic, partChange, partAgent, partPods, partNetwork, partBlocks, partBGP, partCluster, partFleet}; *only != "" && !slices.Contains(parts, *only) {
		return fmt.Errorf("-only %s: the parts are %s", *only, strings.Join(parts, ", "))
	}
	var err error
	if err := o.find(*program, *plugin, *reference); err != nil {
		return err
	}
	if *before != "" {
		if o.before, err = filepath.Abs(*before); err != nil {
			return err
		}
	}
	if *only == "" || *only == partBlocks || *only == partCluster || *only == partFleet {
		if err := cluster.FindBinaries(); err != nil {
			return err
		}
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

// The parts of the benchmark.
const (
	partTraffic = "traffic"
	partChange  = "change"
	partAgent   = "agent"
	partPods    = "pods"
	partNetwork = "network"
	partBlocks  = "blocks"
	partBGP     = "bgp"
	partCluster = "cluster"
	partFleet   = "fleet"
)

// measureAll measures everything, or one part of it. With an error, the report has what was measured before.
func measureAll(ctx context.Context, o options, tmp, only string) (*report, error) {
	kind, version, err := whichIptables(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{Machine: describeMachine(ctx, o, version), Variants: variants(o)}
	for _, part := range []struct {
		name    string
		measure func() error
	}{
		{partTraffic, func() (err error) { r.Traffic, err = measureTraffic(ctx, o, tmp, kind); return err }},
		{partChange, func() error { return withBefore(ctx, o, tmp, &r.Agent, measureChange, measureChangeCPU) }},
		{partAgent, func() error {
			return withBefore(ctx, o, tmp, &r.Agent, measureFootprint, measureManyPools, measureDriver, measureRepair)
		}},
		{partPods, func() error { return each(ctx, o, tmp, &r.Pods, measurePods) }},
		{partNetwork, func() error { return each(ctx, o, tmp, &r.Pods, measurePodTraffic) }},
		{partBlocks, func() error { return each(ctx, o, tmp, &r.Pods, measureRoutes, measureBlocks) }},
		{partBGP, func() error { return each(ctx, o, tmp, &r.Pods, measureBGP, measureReflector) }},
		{partCluster, func() error { return each(ctx, o, tmp, &r.Cluster, measureLarge) }},
		{partFleet, func() error { return each(ctx, o, tmp, &r.Cluster, measureCrowd) }},
	} {
		if only != "" && only != part.name {
			continue
		}
		if err := part.measure(); err != nil {
			return r, err
		}
	}
	r.Machine.Load = append(r.Machine.Load, load())
	return r, nil
}

// withBefore is each, and measures the other version as well, if there is one.
func withBefore(ctx context.Context, o options, tmp string, to *[]result, measure ...func(context.Context, options, string) ([]result, error)) error {
	if o.before == "" {
		return each(ctx, o, tmp, to, measure...)
	}
	other := o
	other.program = o.before
	for _, m := range measure {
		var ours, theirs []result
		if err := errors.Join(each(ctx, o, tmp, &ours, m), each(ctx, other, tmp, &theirs, m)); err != nil {
			return err
		}
		for i, r := range ours {
			*to = append(*to, r)
			if b := theirs[i]; b.Samples > 0 && b.P50 != 0 {
				b.What, b.Ratio = "before: "+b.What, r.P50/b.P50
				*to = append(*to, b)
			}
		}
	}
	return nil
}

// each adds what measurements give.
func each(ctx context.Context, o options, tmp string, to *[]result, measure ...func(context.Context, options, string) ([]result, error)) error {
	for _, m := range measure {
		rs, err := m(ctx, o, tmp)
		*to = append(*to, rs...)
		if err != nil {
			return err
		}
	}
	return nil
}
