package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// TestPortsThatCannotBeCounted makes sure that every examination says so, not only the one that tried: an alert
// waits for a problem to stay.
func TestPortsThatCannotBeCounted(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	table := conntrack.NewTableOn(func() (nfnetlink.Socket, error) { return nil, refused })
	var d diagnosis
	plan := &compile.Plan{}
	for range 3 {
		if ports, err := d.usedPorts(t.Context(), table, plan); ports != nil || !errors.Is(err, refused) {
			t.Errorf("counted %v, %v", ports, err)
		}
	}
}

// TestDropsAreCompared makes sure that what was dropped is noticed however rare examinations are, and that where they
// are frequent it is that of a window.
func TestDropsAreCompared(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{30 * time.Second, conntrackWindow, 2 * conntrackWindow} {
		var d diagnosis
		now := time.Now()
		for i := range 40 {
			f := &diagnose.Facts{Conntrack: &diagnose.Conntrack{InsertFailed: uint64(i)}}
			d.remember(now.Add(time.Duration(i)*every), f)
			if i == 0 {
				continue
			}
			if f.Earlier == nil || f.Window > max(every, conntrackWindow) || f.Conntrack.InsertFailed <= f.Earlier.InsertFailed {
				t.Fatalf("every %v: compared with %v, %v ago", every, f.Earlier, f.Window)
			}
		}
		if len(d.history) > int(conntrackWindow/every)+2 {
			t.Errorf("every %v: %d samples are kept", every, len(d.history))
		}
	}
}
