package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
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
	build := func(i int) (err error) {
		paths[i], err = newPodPaths(ctx, list[i])
		return err
	}
	if err := atOnce(len(list), build); err != nil {
		return nil, err
	}
	pods := make([]*lab.Host, len(paths))
	for i, p := range paths {
		pods[i] = p.pod
	}
	values := map[string][][]float64{} // by quantity, then variant and round
	kinds := podMeasurements()
	for round := -1; round < o.trafficRounds; round++ {
		for _, m := range kinds {
			name := func(i int) string { return fmt.Sprintf("variant %q: measuring %s", list[i].name, m.reads[0].Name) }
			slots, err := inRound(ctx, o, round, pods, name, func(i int) (slot, error) { return m.run(paths[i], o.slot) })
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
