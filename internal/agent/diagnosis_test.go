package agent

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/model"
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

// TestNewPlanIsJudgedByWhatWasRead reads the node once for plans that translate to the same, and again for one that does
// not and after a while.
func TestNewPlanIsJudgedByWhatWasRead(t *testing.T) {
	t.Parallel()
	reads := 0
	table := conntrack.NewTableOn(func() (nfnetlink.Socket, error) { reads++; return nil, errors.New("refused") })
	a := &Agent{table: table}
	s := &model.Snapshot{}
	plan := func(to string) *compile.Plan {
		p := &compile.Plan{}
		if to != "" {
			p.NAT.To4 = netip.MustParseAddr(to)
		}
		return p
	}
	for i, step := range []struct {
		plan  *compile.Plan
		later time.Duration
		reads int
	}{
		{plan(""), 0, 1},
		{plan(""), 0, 1},
		{plan("192.0.2.1"), 0, 2},
		{plan("192.0.2.1"), portsEvery, 3},
	} {
		a.diagnosis.factsAt = a.diagnosis.factsAt.Add(-step.later)
		a.diagnosis.portsAt = a.diagnosis.portsAt.Add(-step.later)
		if !a.examine(t.Context(), s, step.plan) || reads != step.reads {
			t.Errorf("step %d: read %d times, want %d", i, reads, step.reads)
		}
		if got := a.diagnosis.get(); !got.at.Equal(a.diagnosis.factsAt) || len(got.report.Problems) == 0 {
			t.Errorf("step %d: examined %v, read %v; problems: %v", i, got.at, a.diagnosis.factsAt, got.report.Problems)
		}
	}
}
