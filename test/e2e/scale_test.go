package e2e

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TestOnePoolAmongMany changes one of 10,000 pools at a time and compiles anew: what reaches the kernel
// is one transaction of a few elements, and nothing is read back. Only where the largest ranges that hold pods
// become others, a chain of the leak guard is filled anew with it, whose rules name them.
func TestOnePoolAmongMany(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	driver, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: h.FD()})
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, driver.Close()) })
	pools := manyPools(10_000)
	apply := func() nftables.Stats {
		t.Helper()
		labtest.Must(t, driver.Apply(t.Context(), compile.Compile(snapshot(nil, slices.Clone(pools)...), model.Local{Name: "node"}).NAT))
		return driver.Stats()
	}
	before := apply()
	if before.Elements < 15_000 {
		t.Fatalf("%+v; the plan is smaller than this test means it to be", before)
	}
	for _, change := range []struct {
		what     string
		change   func()
		elements int // added and deleted, both ends of ranges
		messages int // at most
	}{
		{"natOutgoing off", func() { pools[5000].NATOutgoing = false }, 4, 6},
		{"natOutgoing on", func() { pools[5000].NATOutgoing = true }, 4, 6},
		{"an IPv6 pool off", func() { pools[5001].NATOutgoing = false }, 4, 6},
		{"a pool deleted", func() { pools = slices.Delete(pools, 3000, 3001) }, 6, 6},
		{"a pool that joins two exempt ranges", func() { pools = append(pools, pool("joins 20.0.1.0/24 nat")) }, 14, 20},
		{"a pool within a pool", func() { pools = append(pools, pool("within 20.0.4.64/26 nat")) }, 8, 6},
		{"a pool disabled", func() { pools[10].Disabled = true }, 0, 20},
	} {
		change.change()
		now := apply()
		want := before
		want.Elements = now.Elements
		if change.elements > 0 {
			want.Transactions, want.LastElements, want.LastMessages = want.Transactions+1, change.elements, now.LastMessages
		}
		if now != want || now.LastMessages > change.messages {
			t.Errorf("%s: from %+v to %+v, want %+v", change.what, before, now, want)
		}
		before = now
	}
	if drift, err := driver.Observe(t.Context()); drift != 0 || err != nil || driver.Stats().FullReads != before.FullReads {
		t.Errorf("observing what nobody changed: %d differences, %v, %+v", drift, err, driver.Stats())
	}
}

// manyPools are pools with natOutgoing that neither overlap nor touch, in turn IPv4 and IPv6.
func manyPools(n int) []*model.Pool {
	pools := make([]*model.Pool, 0, n)
	for i := range n {
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24)
		if i%2 == 1 {
			cidr = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 4: byte(i >> 8), 5: byte(i)}), 48)
		}
		pools = append(pools, pool(fmt.Sprintf("p%05d %s nat", i, cidr)))
	}
	return pools
}
