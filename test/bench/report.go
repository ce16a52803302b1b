package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// report is everything that was measured; it is the JSON file.
type report struct {
	Machine  machine    `json:"machine"`
	Variants []variant  `json:"variants"`
	Traffic  []compared `json:"traffic"`
	Agent    []result   `json:"agent"`
	Pods     []result   `json:"pods"`
	Cluster  []result   `json:"cluster"`
}

// result is one line about the agent.
type result struct {
	What string `json:"what"`
	// Answer is what happened, where that is not a number.
	Answer  string  `json:"answer,omitempty"`
	Unit    string  `json:"unit,omitempty"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Min     float64 `json:"min"`
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
	s := spreadOf(vs)
	return result{What: what, Unit: unit, P50: s.Median, P99: quantile(vs, 0.99), Min: s.Min, Max: s.Max, Samples: s.Samples}
}

// against adds, to the other's summary, the median of the pairwise ratios ours / theirs.
func (r result) against(ours, theirs []time.Duration) result {
	var rs []float64
	for i := range min(len(ours), len(theirs)) {
		rs = append(rs, float64(ours[i])/float64(theirs[i]))
	}
	r.Ratio = spreadOf(rs).Median
	return r
}

// print writes the report as tables.
func (r *report) print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, r.Machine)
	if len(r.Traffic) > 0 {
		r.printRatios(w)
	}
	last := ""
	for _, c := range r.Traffic {
		if c.Quantity != last {
			fmt.Fprintf(w, "\n%s, %s\tMEDIAN\tMIN – MAX\tRATIO\tMIDDLE HALF\tMIN – MAX\n", strings.ToUpper(c.Quantity), c.Unit)
			last = c.Quantity
		}
		v, ratio := c.Value, c.Ratio
		fmt.Fprintf(w, "%s\t%s\t%s – %s\t%.3f\t%.3f – %.3f\t%.3f – %.3f\n", c.Variant, number(v.Median), number(v.Min), number(v.Max),
			ratio.Median, ratio.Lower, ratio.Upper, ratio.Min, ratio.Max)
	}
	printResults(w, "the agent", r.Agent)
	printResults(w, "the pod network", r.Pods)
	printResults(w, "the agent in a cluster", r.Cluster)
	return w.Flush()
}

// printResults writes lines of one part.
func printResults(w io.Writer, part string, rs []result) {
	if len(rs) > 0 {
		fmt.Fprintf(w, "\n%s\tP50\tP99\tMIN\tMAX\tUNIT\tSAMPLES\tOURS / THIS\n", strings.ToUpper(part))
	}
	for _, a := range rs {
		if a.Answer != "" {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t\t\t%s\n", a.What, a.Answer)
			continue
		}
		ratio := ""
		if a.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", a.Ratio)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%s\t%d\t%s\n", a.What, a.P50, a.P99, a.Min, a.Max, a.Unit, a.Samples, ratio)
	}
}

// printRatios writes the medians of the ratios, a line for each quantity.
func (r *report) printRatios(w io.Writer) {
	fmt.Fprintf(w, "\nRATIO TO %s", strings.ToUpper(baseline))
	for _, v := range r.Variants {
		if v.Name != withoutNode && v.Name != baseline {
			fmt.Fprintf(w, "\t%s", v.Name)
		}
	}
	last := ""
	for _, c := range r.Traffic {
		if c.Quantity != last {
			fmt.Fprintf(w, "\n%s", c.Quantity)
			last = c.Quantity
		}
		if c.Variant != withoutNode && c.Variant != baseline {
			fmt.Fprintf(w, "\t%.3f", c.Ratio.Median)
		}
	}
	fmt.Fprintln(w)
}

// number writes a value with as many digits as it deserves.
func number(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// write writes the report as JSON.
func (r *report) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, append(b, '\n'), 0o644))
}

// machine is where it was measured.
type machine struct {
	When     string `json:"when"`
	Kernel   string `json:"kernel"`
	CPU      string `json:"cpu"`
	CPUs     int    `json:"cpus"`
	Iptables string `json:"iptables"`
	Program  string `json:"program"`
	Rounds   int    `json:"trafficRounds"`
	SlotMS   int64  `json:"slotMilliseconds"`
	// Load are the load averages over a minute before and after; what is measured makes load itself.
	Load []string `json:"load"`
}

func (m machine) String() string {
	return fmt.Sprintf("%s, Linux %s, %d CPUs (%s), %s, %s, %d rounds of %d ms, load %s", m.When, m.Kernel, m.CPUs,
		cmp.Or(m.CPU, "unknown"), m.Iptables, m.Program, m.Rounds, m.SlotMS, strings.Join(m.Load, " to "))
}
