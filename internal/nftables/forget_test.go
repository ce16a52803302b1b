package nftables

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
)

// TestLabelsThatComeAndGo has labels of ever new names beside some that stay: the engine remembers some of the
// names, and all that the table has.
func TestLabelsThatComeAndGo(t *testing.T) {
	t.Parallel()
	const staying, rounds = 20, 3 * maxGone
	e := newEngine(ours, FamilyInet, nil, slog.New(slog.DiscardHandler))
	most := 0
	for round := range rounds {
		s := Set{Name: "s", Key: []Type{IPv4Addr}, Ranges: true, Counters: true}
		add := func(label string, b, c byte) {
			a := netip.AddrFrom4([4]byte{10, b, c, 0})
			s.AddRange(a, a, label)
		}
		for i := range staying {
			// A range that the same label had elsewhere before: its old element is gone, with its count.
			add(fmt.Sprintf("stays-%d", i), byte(i), byte(round%2))
		}
		add(fmt.Sprintf("round-%d", round), 100, 0)
		wanted := &Table{Sets: []Set{s}}
		held := e.held
		if held == nil {
			held = &Table{}
		}
		e.settle(wanted, diff(held, wanted), nil)
		for s := range counted(wanted) {
			for i := range s.n {
				s.setCount(i, s.count(i)+1)
			}
		}
		most = max(most, len(e.carried))
	}
	if most > 2*(staying+maxGone) {
		t.Errorf("%d names were remembered", most)
	}
	for i := range staying {
		if n := e.carried[fmt.Sprintf("stays-%d", i)]; n != rounds-1 {
			t.Fatalf("a label that stayed has counted %d by earlier ranges, want %d", n, rounds-1)
		}
	}
}
