package main

import (
	"math"
	"slices"
)

// spread is what the samples of one quantity come to. Values are in the quantity's own unit.
type spread struct {
	Median  float64 `json:"median"`
	Lower   float64 `json:"lower"` // a quarter lies below
	Upper   float64 `json:"upper"` // a quarter lies above
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Samples int     `json:"samples"`
}

func spreadOf(vs []float64) spread {
	if len(vs) == 0 {
		return spread{}
	}
	return spread{
		Median: quantile(vs, 0.5), Lower: quantile(vs, 0.25), Upper: quantile(vs, 0.75),
		Min: slices.Min(vs), Max: slices.Max(vs), Samples: len(vs),
	}
}

// quantile is the value below which the share q of the values lies, from 0 to 1, interpolated between
// neighbours; not a number if there are no values.
func quantile(vs []float64, q float64) float64 {
	if len(vs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(vs))
	at := q * float64(len(s)-1)
	low := int(at)
	high := min(low+1, len(s)-1)
	return s[low] + (at-float64(low))*(s[high]-s[low])
}

// ratios divides value by value: what was measured in the same round belongs together.
func ratios(ours, theirs []float64) []float64 {
	out := make([]float64, 0, len(ours))
	for i := range min(len(ours), len(theirs)) {
		out = append(out, ours[i]/theirs[i])
	}
	return out
}

// rotated is the numbers below n in a different order each round: each comes first in turn, and in every
// second round of n the order is backwards, so that none always follows the same other one.
func rotated(n, round int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = (i + round) % n
	}
	if round/n%2 == 1 {
		slices.Reverse(out)
	}
	return out
}
