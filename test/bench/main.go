// Command bench measures what users wait for and pay for: how soon a manifest changes real packets, how
// long ten thousand pools take, and what the agent uses. Where somebody else's tool does a comparable
// thing on this machine, it is measured in turn with ours in the same run and given as a ratio.
//
// It works in network namespaces of its own and sends packets nowhere else.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
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
	program string // the agent's binary
	out     string // JSON file; empty: none
	rounds  int    // of the slow measurements
	flips   int    // changes whose first packet is awaited
	idle    time.Duration
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.program, "program", "bin/sallyport", "binary to measure")
	flag.StringVar(&o.out, "json", "bench-result.json", "file for the results; empty for none")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each slow measurement")
	flag.IntVar(&o.flips, "flips", 100, "changes whose first packet is awaited")
	flag.DurationVar(&o.idle, "idle", 5*time.Second, "time over which an idle agent's CPU is counted")
	flag.Parse()
	var err error
	if o.program, err = filepath.Abs(o.program); err != nil {
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

	var results []result
	for _, measure := range []func(context.Context, options, string) ([]result, error){
		measureChange, measureFootprint, measureManyPools, measureDriver,
	} {
		rs, err := measure(ctx, o, tmp)
		results = append(results, rs...)
		if err != nil {
			return errors.Join(err, report(results, ""))
		}
	}
	return report(results, o.out)
}

// result is one line of the table.
type result struct {
	What    string  `json:"what"`
	Unit    string  `json:"unit"`
	Min     float64 `json:"min"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
	Samples int     `json:"samples"`
	// Ratio is the median of ours divided by this one's, pair by pair; 0 where nothing was compared.
	Ratio float64 `json:"ratio,omitempty"`
}

// milliseconds sums up durations.
func milliseconds(what string, ds []time.Duration) result {
	vs := make([]float64, len(ds))
	for i, d := range ds {
		vs[i] = float64(d) / float64(time.Millisecond)
	}
	return summary(what, "ms", vs)
}

func summary(what, unit string, vs []float64) result {
	if len(vs) == 0 {
		return result{What: what, Unit: unit}
	}
	s := slices.Sorted(slices.Values(vs))
	at := func(q float64) float64 { return s[int(q*float64(len(s)-1)+0.5)] }
	return result{What: what, Unit: unit, Min: s[0], P50: at(0.5), P99: at(0.99), Max: s[len(s)-1], Samples: len(s)}
}

// against adds, to the other's summary, the median of the pairwise ratios ours / theirs.
func (r result) against(ours, theirs []time.Duration) result {
	var ratios []float64
	for i := range min(len(ours), len(theirs)) {
		ratios = append(ratios, float64(ours[i])/float64(theirs[i]))
	}
	r.Ratio = summary("", "", ratios).P50
	return r
}

func report(results []result, file string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tP50\tP99\tMIN\tMAX\tUNIT\tSAMPLES\tOURS / THIS")
	for _, r := range results {
		ratio := ""
		if r.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%s\t%d\t%s\n", r.What, r.P50, r.P99, r.Min, r.Max, r.Unit, r.Samples, ratio)
	}
	if err := w.Flush(); err != nil || file == "" {
		return err
	}
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
