package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
)

// measurement is one kind of traffic, and the quantities that are read off it.
type measurement struct {
	run   func(*path, time.Duration) (slot, error)
	reads []quantity
}

// quantity is one number per round and variant. With, besides, what the same traffic gave without a node.
type quantity struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	of   func(s, withoutNode slot) float64
}

// Rates are per second of the one CPU that sends, forwards and receives; time in which others ran on it
// does not count.
func measurements() []measurement {
	rate := func(scale float64) func(s, _ slot) float64 {
		return func(s, _ slot) float64 { return 1e9 / s.cost * scale }
	}
	forwarding := func(s, without slot) float64 { return s.cost - without.cost }
	lap := func(q float64) func(s, _ slot) float64 {
		return func(s, _ slot) float64 {
			us := make([]float64, len(s.laps))
			for i, d := range s.laps {
				us[i] = float64(d) / float64(time.Microsecond)
			}
			return quantile(us, q)
		}
	}
	return []measurement{
		{(*path).udpPairs, []quantity{
			{"forwarding CPU per pair of UDP packets", "ns", forwarding},
			{"UDP packets, both ways", "1000/s", rate(2e-3)},
		}},
		{(*path).exemptPairs, []quantity{{"forwarding CPU per pair, exempt destination", "ns", forwarding}}},
		{(*path).peerPairs, []quantity{{"forwarding CPU per pair, pod to pod", "ns", forwarding}}},
		{(*path).upload, []quantity{{"TCP from the pod", "Gbit/s", rate(8e-9)}}},
		{(*path).download, []quantity{{"TCP to the pod", "Gbit/s", rate(8e-9)}}},
		{(*path).connections, []quantity{
			{"new TCP connections", "1000/s", rate(1e-3)},
			{"forwarding CPU per new TCP connection", "ns", forwarding},
		}},
		{(*path).roundTrips, []quantity{{"round trip, p50", "µs", lap(0.5)}, {"round trip, p99", "µs", lap(0.99)}}},
	}
}

// compared is what one quantity was for one variant.
type compared struct {
	Quantity string `json:"quantity"`
	Unit     string `json:"unit"`
	Variant  string `json:"variant"`
	Value    spread `json:"value"`
	// Ratio is the value divided by the baseline's of the same round.
	Ratio spread `json:"ratio"`
}

// measureTraffic builds all variants side by side, then measures all in each round, in turn.
func measureTraffic(ctx context.Context, o options, tmp, iptables string) (_ []compared, err error) {
	list := variants(o)
	paths := make([]*path, len(list))
	defer func() {
		for _, p := range paths {
			if p != nil {
				err = errors.Join(err, p.close())
			}
		}
	}()
	build := func(i int) (err error) {
		paths[i], err = list[i].build(ctx, o, tmp, iptables)
		return err
	}
	if err := atOnce(len(list), build); err != nil {
		return nil, err
	}
	pods := make([]*lab.Host, len(paths))
	for i, p := range paths {
		pods[i] = p.pod
	}
	kinds := measurements()
	values := map[string][][]float64{} // by quantity, then variant and round
	for round := -1; round < o.trafficRounds; round++ {
		for _, m := range kinds {
			name := func(i int) string { return fmt.Sprintf("variant %q: measuring %s", list[i].Name, m.reads[0].Name) }
			slots, err := inRound(ctx, o, round, pods, name, func(i int) (slot, error) { return m.run(paths[i], o.slot) })
			if err != nil {
				return nil, err
			}
			if round >= 0 { // the first warms up
				record(values, m.reads, slots)
			}
		}
	}
	return compare(list, kinds, values), nil
}

// inRound measures each variant once, all on one CPU, by threads in the namespaces of their pods. Another one begins in each round.
func inRound(ctx context.Context, o options, round int, pods []*lab.Host, name func(int) string, measure func(int) (slot, error)) ([]slot, error) {
	cpu, err := lastCPU()
	if err != nil {
		return nil, err
	}
	slots := make([]slot, len(pods))
	for _, i := range rotated(len(pods), max(round, 0)) {
		err := ctx.Err()
		if err == nil {
			err = pinned(pods[i], cpu, func() (err error) {
				slots[i], err = measure(i)
				return err
			})
		}
		time.Sleep(o.slot / 4) // what others want to do on that CPU
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name(i), err)
		}
	}
	return slots, nil
}

// atOnce builds variants all at once: most of it is waiting for interfaces to come up.
func atOnce(n int, build func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = build(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// record reads one round off its slots, of which the first is the one without a node.
func record(values map[string][][]float64, reads []quantity, slots []slot) {
	for _, q := range reads {
		if values[q.Name] == nil {
			values[q.Name] = make([][]float64, len(slots))
		}
		for i, s := range slots {
			values[q.Name][i] = append(values[q.Name][i], q.of(s, slots[0]))
		}
	}
}

func compare(list []variant, kinds []measurement, values map[string][][]float64) []compared {
	base := slices.IndexFunc(list, func(v variant) bool { return v.Name == baseline })
	var out []compared
	for _, m := range kinds {
		for _, q := range m.reads {
			for i, v := range list {
				vs := values[q.Name]
				out = append(out, compared{q.Name, q.Unit, v.Name, spreadOf(vs[i]), spreadOf(ratios(vs[i], vs[base]))})
			}
		}
	}
	return out
}
