package conntrack

import (
	"fmt"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// BenchmarkWalk judges every flow of an empty table, and of one with 25,000 connections. It gives the CPU time of
// one walk in the kernel and in this process; the machine's own table of flows may be smaller.
func BenchmarkWalk(b *testing.B) {
	for _, n := range []int{0, 25_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			h := labtest.NewHost(b, "node")
			d := New(NewTable(h.FD()), slog.New(slog.DiscardHandler))
			change := compile.Change{Stood: []*compile.Plan{plan(false, model.FlowsMove)}, Now: plan(true, model.FlowsMove)}
			trackMany(b, h, n, func(i int, buf []byte, seq uint32) []byte {
				e := entry{protocol: compile.TCP, from: fmt.Sprintf("10.0.0.2:%d", 1024+i), to: "198.51.100.7:80", answered: true, established: true}
				return e.message(buf, seq)
			})
			var before, after unix.Rusage
			b.ReportAllocs()
			_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
			for b.Loop() {
				if w, err := d.walk(b.Context(), change, n); err != nil || w.tracked != n {
					b.Fatal(w, err)
				}
			}
			_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
			b.ReportMetric(float64(after.Utime.Nano()-before.Utime.Nano())/1e6/float64(b.N), "user-ms/op")
			b.ReportMetric(float64(after.Stime.Nano()-before.Stime.Nano())/1e6/float64(b.N), "system-ms/op")
		})
	}
}
