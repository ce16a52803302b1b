package main

import (
	"math"
	"slices"
	"testing"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		values []float64
		q      float64
		want   float64
	}{
		{"one value", []float64{7}, 0.5, 7},
		{"median of an odd number", []float64{3, 1, 2}, 0.5, 2},
		{"median of an even number lies between", []float64{4, 1, 3, 2}, 0.5, 2.5},
		{"the least", []float64{5, 4, 6}, 0, 4},
		{"the greatest", []float64{5, 4, 6}, 1, 6},
		{"between neighbours", []float64{0, 10}, 0.25, 2.5},
		{"p99 of a hundred and one", ascending(101), 0.99, 99},
	} {
		if got := quantile(c.values, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v, want no number", got)
	}
}

func ascending(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = float64(i)
	}
	return out
}

func TestSpread(t *testing.T) {
	t.Parallel()
	values := []float64{9, 1, 5, 3, 7}
	want := spread{Median: 5, Lower: 3, Upper: 7, Min: 1, Max: 9, Samples: 5}
	if got := spreadOf(values); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !slices.Equal(values, []float64{9, 1, 5, 3, 7}) {
		t.Errorf("the values were reordered: %v", values)
	}
	if got := spreadOf(nil); got != (spread{}) {
		t.Errorf("of nothing: got %+v", got)
	}
}

// TestRatios: round by round, so that what slows a whole round down does not show.
func TestRatios(t *testing.T) {
	t.Parallel()
	if got, want := ratios([]float64{2, 40, 6}, []float64{1, 20, 3}), []float64{2, 2, 2}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRotated: every round has all, each comes first equally often, and none always follows the same.
func TestRotated(t *testing.T) {
	t.Parallel()
	const n = 5
	first, follows := map[int]int{}, map[[2]int]int{}
	for round := range 2 * n {
		order := rotated(n, round)
		if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, []int{0, 1, 2, 3, 4}) {
			t.Fatalf("round %d: %v is not all of them", round, order)
		}
		first[order[0]]++
		for i := range n - 1 {
			follows[[2]int{order[i], order[i+1]}]++
		}
	}
	for i := range n {
		if first[i] != 2 {
			t.Errorf("%d came first %d times, want 2", i, first[i])
		}
		if a, b := follows[[2]int{i, (i + 1) % n}], follows[[2]int{(i + 1) % n, i}]; a != b {
			t.Errorf("%d came %d times before its neighbour, and %d times after it", i, a, b)
		}
	}
}
