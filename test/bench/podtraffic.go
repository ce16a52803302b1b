package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// podMeasurement is one kind of traffic of pods, and what is read off it.
type podMeasurement struct {
	run   func(*podPaths, time.Duration) (slot, error)
	reads []quantity
}

func podMeasurements() []podMeasurement {
	pairs := func(to string, ends func(*podPaths) udpEnds) podMeasurement {
		return podMeasurement{func(p *podPaths, d time.Duration) (slot, error) { return p.pairs(d, ends(p)) }, []quantity{
			{"CPU per pair of UDP packets, " + to, "ns", func(s, _ slot) float64 { return s.cost }},
			{"forwarding CPU per pair, " + to, "ns", func(s, without slot) float64 { return s.cost - without.cost }},
		}}
	}
	gigabits := func(s, _ slot) float64 { return 8 / s.cost }
	return []podMeasurement{
		pairs("pod to pod on a node", func(p *podPaths) udpEnds { return p.toNeighbour }),
		pairs("pod to outside", func(p *podPaths) udpEnds { return p.toOutside }),
		pairs("pod to pod by VXLAN", func(p *podPaths) udpEnds { return p.toFar }),
		{func(p *podPaths, d time.Duration) (slot, error) {
			return p.sockets.stream(d, p.stream.pod, p.stream.server)
		},
			[]quantity{{"TCP, pod to pod by VXLAN", "Gbit/s", gigabits}}},
	}
}

// measurePodTraffic measures what the rules of the pod network, and its overlay, cost packets: all variants stand side by side, and
// take turns in each round.
func measurePodTraffic(ctx context.Context, o options, _ string) (_ []result, err error) {
	list := podVariants()
	paths := make([]*podPaths, len(list))
	defer func() {
		for _, p := range paths {
			if p != nil {
				err = errors.Join(err, p.close())
			}
		}
	}()
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, v := range list {
		wg.Go(func() { paths[i], errs[i] = newPodPaths(ctx, v) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	values := map[string][][]float64{} // by quantity, then variant and round
	kinds := podMeasurements()
	for round := -1; round < o.trafficRounds; round++ {
		for _, m := range kinds {
			slots, err := podRound(ctx, o, list, paths, m, max(round, 0))
			if err != nil {
				return nil, err
			}
			if round >= 0 { // the first warms up
				record(values, m.reads, slots)
			}
		}
	}
	var out []result
	for _, m := range kinds {
		for _, q := range m.reads {
			out = append(out, comparePods(list, q, values[q.Name])...)
		}
	}
	return out, nil
}

// podRound measures all variants once, in turn.
func podRound(ctx context.Context, o options, list []podVariant, paths []*podPaths, m podMeasurement, round int) ([]slot, error) {
	cpu, err := lastCPU()
	if err != nil {
		return nil, err
	}
	slots := make([]slot, len(list))
	for _, i := range rotated(len(list), round) {
		err := ctx.Err()
		if err == nil {
			err = pinned(paths[i].pod, cpu, func() (err error) {
				slots[i], err = m.run(paths[i], o.slot)
				return err
			})
		}
		time.Sleep(o.slot / 4) // what others want to do on that CPU
		if err != nil {
			return nil, fmt.Errorf("variant %q: measuring %s: %w", list[i].name, m.reads[0].Name, err)
		}
	}
	return slots, nil
}

// comparePods is a line for each variant, with the median of the ratios of ours to it, round by round.
func comparePods(list []podVariant, q quantity, values [][]float64) []result {
	var out []result
	ours := values[1]
	for i, v := range list {
		if i == 0 && spreadOf(values[0]).Max == 0 { // forwarding without a node
			continue
		}
		r := summary(q.Name+": "+v.name, q.Unit, values[i])
		if i != 1 {
			r.Ratio = spreadOf(ratios(ours, values[i])).Median
		}
		out = append(out, r)
	}
	return out
}
