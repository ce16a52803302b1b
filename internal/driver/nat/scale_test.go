package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
)

// largePlan has n source ranges and as many exempt ones, half of them in each family.
func largePlan(n int) compile.NAT {
	plan := compile.NAT{Allocation: model.PortsFullyRandom}
	for i := range n {
		var first, last netip.Addr
		if i < n/2 {
			b := binary.BigEndian.AppendUint32(nil, 0x0a000000+uint32(i)*128)
			first = netip.AddrFrom4([4]byte(b))
			b[3] |= 63
			last = netip.AddrFrom4([4]byte(b))
		} else {
			b := [16]byte{0: 0xfd}
			binary.BigEndian.PutUint32(b[4:], uint32(i)*2)
			first = netip.AddrFrom16(b)
			copy(b[8:], []byte{255, 255, 255, 255, 255, 255, 255, 255})
			last = netip.AddrFrom16(b)
		}
		r := netipx.IPRangeFrom(first, last)
		plan.Sources = append(plan.Sources, compile.Source{Range: r, Pool: "p"})
		plan.Exempt = append(plan.Exempt, r)
	}
	return plan
}

// TestLargePlan loads 100,000 ranges and then changes one: a handful of elements, no reading back.
func TestLargePlan(t *testing.T) {
	t.Parallel()
	size := 50_000 // sources, and as many exemptions
	if testing.Short() {
		size = 5_000
	}
	ns := newNamespace(t)
	d := ns.driver()
	plan := largePlan(size)
	before := heap()
	start := time.Now()
	mustApply(t, d, plan)
	t.Logf("%d ranges loaded and confirmed in %v, %.1f MB of heap held", d.Stats().Elements, time.Since(start), float64(heap()-before)/1e6)

	changed := plan
	changed.Sources = slices.Delete(slices.Clone(plan.Sources), size/2, size/2+1)
	s := d.Stats()
	start = time.Now()
	mustApply(t, d, changed)
	t.Logf("one range deleted in %v", time.Since(start))
	now := d.Stats()
	if now.FullReads != s.FullReads || now.Transactions != s.Transactions+1 || now.LastElements != 2 || now.LastMessages != 1 || now.Elements != 2*size-1 {
		t.Errorf("one range deleted: from %+v to %+v; want 1 transaction of 2 elements and no full read", s, now)
	}
	mustHold(t, ns, changed)
}

// TestReadingUnderChange reads while somebody else changes other tables without a pause.
func TestReadingUnderChange(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	plan := largePlan(500)
	mustApply(t, ns.driver(), plan)
	ctx, stop := context.WithCancel(t.Context())
	churned := make(chan error, 1)
	go func() { churned <- churn(ctx, ns) }()
	for range 20 {
		// A reading may give up, but must never find what is not there.
		d := ns.driver()
		if err := d.Apply(t.Context(), plan); err != nil && !errors.Is(err, nfnetlink.ErrInterrupted) {
			t.Error(err)
		}
		if s := d.Stats(); s.Transactions != 0 {
			t.Errorf("%+v; want no transaction, since nothing differs", s)
		}
	}
	stop()
	if err := <-churned; err != nil {
		t.Error(err)
	}
	mustHold(t, ns, plan)
}

// churn makes and deletes a table of its own until told to stop.
func churn(ctx context.Context, ns *namespace) error {
	for ctx.Err() == nil {
		if out, err := ns.tryNFT("add table ip other; delete table ip other"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkChange changes one of 10,000 source ranges at a time.
func BenchmarkChange(b *testing.B) { benchmarkChange(b, 10_000) }

// BenchmarkSmallChange changes one of 10 source ranges at a time.
func BenchmarkSmallChange(b *testing.B) { benchmarkChange(b, 10) }

func benchmarkChange(b *testing.B, size int) {
	ns := newNamespace(b)
	d, err := New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: ns.fd})
	labtest.Must(b, err)
	defer d.Close()
	plan := largePlan(size)
	plan.Exempt, plan.LeakGuard = ranges(b, "10.0.0.0/8", "fd00::/16"), true
	mustApply(b, d, plan)
	less := plan
	at := size * 3 / 10
	less.Sources = slices.Delete(slices.Clone(plan.Sources), at, at+1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		mustApply(b, d, []compile.NAT{less, plan}[i%2])
	}
}

// BenchmarkLoad loads 100,000 source ranges into an empty kernel and reads them back.
func BenchmarkLoad(b *testing.B) {
	plan := largePlan(100_000)
	plan.Exempt = nil
	b.ReportAllocs()
	for b.Loop() {
		ns := newNamespace(b)
		d := ns.driver()
		mustApply(b, d, plan)
	}
}
