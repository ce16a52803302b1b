package dir

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// manyPools makes a directory of files with one pool each.
func manyPools(b *testing.B, n int) string {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "resources")
	must(b, os.Mkdir(dir, 0o755))
	for i := range n {
		write(b, filepath.Join(dir, fmt.Sprintf("p%05d.yaml", i)), nth(i, "natOutgoing: true"))
	}
	return dir
}

func nth(i int, more ...string) string {
	return pool(fmt.Sprintf("p%05d", i), fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), more...)
}

// run runs a Store until stop; states are sent to the channel.
func run(b *testing.B, dir, state string) (states chan State, stop func()) {
	b.Helper()
	s, err := Open(Options{Dir: dir, StateDir: state, Log: slog.New(slog.DiscardHandler), Validator: validator()})
	must(b, err)
	states = make(chan State, 64)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func(s State) { states <- s }) }()
	return states, func() {
		cancel()
		must(b, <-done)
		must(b, s.Close())
	}
}

// BenchmarkStart is the time from Open to the first snapshot, with and without a last good state.
func BenchmarkStart(b *testing.B) {
	for _, n := range []int{10, 10000} {
		dir := manyPools(b, n)
		validator()
		b.Run(fmt.Sprintf("fresh/%d", n), func(b *testing.B) {
			for range b.N {
				states, stop := run(b, dir, b.TempDir())
				if s := <-states; len(s.Snapshot.Pools) != n {
					b.Fatal(len(s.Snapshot.Pools), s.Faults)
				}
				b.StopTimer()
				stop()
				b.StartTimer()
			}
		})
		state := b.TempDir()
		states, stop := run(b, dir, state)
		<-states
		stop()
		b.Run(fmt.Sprintf("again/%d", n), func(b *testing.B) {
			for range b.N {
				states, stop := run(b, dir, state)
				<-states
				b.StopTimer()
				stop()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkChange is the time from the rename that changes one pool to the snapshot that has it.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := manyPools(b, n)
			states, stop := run(b, dir, b.TempDir())
			defer stop()
			<-states
			time.Sleep(time.Second) // the first state is being saved
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				time.Sleep(5 * time.Millisecond)
				temp := filepath.Join(dir, ".new")
				write(b, temp, nth(n/2, fmt.Sprintf("natOutgoing: %v", i%2 == 1)))
				b.StartTimer()
				begin := time.Now()
				must(b, os.Rename(temp, filepath.Join(dir, fmt.Sprintf("p%05d.yaml", n/2))))
				<-states
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkChangeInOneFile is the time from the rename of a file of 10,000 pools, of which one is changed, to the
// snapshot that has it.
func BenchmarkChangeInOneFile(b *testing.B) {
	const n = 10000
	dir := filepath.Join(b.TempDir(), "resources")
	must(b, os.Mkdir(dir, 0o755))
	text := func(translate bool) string {
		var all strings.Builder
		for i := range n {
			all.WriteString("---\n" + nth(i, fmt.Sprintf("natOutgoing: %v", translate || i != n/2)))
		}
		return all.String()
	}
	texts := []string{text(false), text(true)}
	write(b, filepath.Join(dir, "all.yaml"), texts[1])
	states, stop := run(b, dir, b.TempDir())
	defer stop()
	<-states
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		write(b, filepath.Join(dir, ".new"), texts[i%2])
		b.StartTimer()
		must(b, os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "all.yaml")))
		<-states
	}
}
