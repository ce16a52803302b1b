package nat

import (
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// TestDroppedGoesOnCounting checks that what was dropped is counted once, whatever becomes of the rules that
// count it. The counts are written into the kernel's rules instead of sending packets.
func TestDroppedGoesOnCounting(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d, plan := ns.driver(), simplePlan(t)
	guarded := func(flows model.ExistingFlows, guard bool) compile.NAT {
		plan.ExistingFlows, plan.LeakGuard = flows, guard
		return plan
	}
	count := func(packets int) {
		ns.nft(fmt.Sprintf("flush chain inet %s leak; add rule inet %[1]s leak counter packets %d bytes 0 drop", TableName, packets))
	}
	want := func(when string, total uint64) {
		t.Helper()
		if got, err := d.Dropped(t.Context()); err != nil || got != (Dropped{Out: total}) {
			t.Errorf("%s: %+v, %v; want %d", when, got, err, total)
		}
	}
	mustApply(t, d, guarded(model.FlowsMove, true))
	count(5)
	want("at first", 5)
	mustApply(t, d, guarded(model.FlowsKeep, true)) // has other rules
	count(10)
	want("after new rules that have counted more than the old ones", 15)
	mustApply(t, d, guarded(model.FlowsKeep, false))
	want("without the guard", 15)
	mustApply(t, d, guarded(model.FlowsKeep, true))
	count(20)
	want("with the guard again", 35)
	count(8)
	want("after somebody renewed the rule", 43)
	ns.nft("delete table inet " + TableName)
	want("without the table", 43)
	if _, err := d.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustApply(t, d, guarded(model.FlowsKeep, true))
	count(60)
	want("after the table was made anew", 103)
}
