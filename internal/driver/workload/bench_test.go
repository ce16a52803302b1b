package workload

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// cpu is the time that this process has used, on behalf of which the kernel worked too.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAdd adds a workload beside 250 others, and says how many system calls of rtnetlink on the node that takes.
func BenchmarkAdd(b *testing.B) {
	calls := new(atomic.Int64)
	n := newNode(b, Options{Wrap: func(s nfnetlink.Socket) nfnetlink.Socket {
		return &faulty{Socket: s, calls: calls, fail: func(int64, bool) error { return nil }}
	}})
	for i := range 250 {
		n.run(i)
	}
	p := n.newPod(1000)
	calls.Store(0)
	b.ReportAllocs()
	var used time.Duration
	for b.Loop() {
		ns, sock, err := p.files()
		labtest.Must(b, err)
		before := cpu()
		if _, err := n.driver.Add(b.Context(), p.Workload, ns, sock, 1400); err != nil {
			b.Fatal(err)
		}
		used += cpu() - before
		_ = ns.Close()
		b.StopTimer()
		labtest.Must(b, n.driver.Leave(b.Context(), []string{p.Device()}))
		eventually(b, "it has left", func() bool { n.driver.mu.Lock(); defer n.driver.mu.Unlock(); return len(n.driver.links) == 250 })
		eventually(b, "its rules are deleted", func() bool {
			n.driver.rules.mu.Lock()
			defer n.driver.rules.mu.Unlock()
			return n.driver.rules.settled()
		})
		b.StartTimer()
	}
	b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(calls.Load())/float64(b.N), "calls/op")
}
