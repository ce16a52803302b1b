package nat

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// TestPoolsThatComeAndGo has pools of ever new names beside some that stay: the driver remembers some of the
// names, and all that the plan has.
func TestPoolsThatComeAndGo(t *testing.T) {
	t.Parallel()
	const staying, rounds = 20, 3 * maxGone
	d := newDriver(nil, slog.New(slog.DiscardHandler))
	most := 0
	for round := range rounds {
		nat := compile.NAT{Allocation: model.PortsFullyRandom}
		for i := range staying {
			// A range that the same pool had elsewhere before: its old element is gone, with its count.
			nat.Sources = append(nat.Sources, source(fmt.Sprintf("stays-%d", i), byte(i), byte(round%2)))
		}
		nat.Sources = append(nat.Sources, source(fmt.Sprintf("round-%d", round), 100, 0))
		wanted, err := layout(nat)
		if err != nil {
			t.Fatal(err)
		}
		held := d.held
		if held == nil {
			held = &table{}
		}
		d.settle(wanted, diff(held, wanted), nil)
		for _, s := range countedSets(wanted) {
			for i := range s.segments {
				s.segments[i].count++
			}
		}
		most = max(most, len(d.carried))
	}
	if most > 2*(staying+maxGone) {
		t.Errorf("%d names were remembered", most)
	}
	for i := range staying {
		if n := d.carried[fmt.Sprintf("stays-%d", i)]; n != rounds-1 {
			t.Fatalf("a pool that stayed has %d connections of earlier ranges, want %d", n, rounds-1)
		}
	}
}

func source(pool string, b, c byte) compile.Source {
	a := netip.AddrFrom4([4]byte{10, b, c, 0})
	return compile.Source{Range: netipx.IPRangeFrom(a, a), Pool: pool}
}
