package nat

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// TestHooks makes sure that packets pass our chains from the first translation on, and not before.
func TestHooks(t *testing.T) {
	t.Parallel()
	idle := compile.NAT{Allocation: model.PortsFullyRandom, LeakGuard: true, Exempt: ranges(t, "10.0.0.0/8", "fd00::/16")}
	translating := simplePlan(t)
	translating.LeakGuard = true
	ns := newNamespace(t)
	d := ns.driver()
	hooked := func(when string, plan compile.NAT, want bool) {
		t.Helper()
		mustApply(t, d, plan)
		mustHold(t, ns, plan)
		list := ns.nft("list", "table", "inet", TableName)
		if got := strings.Contains(list, " hook "); got != want {
			t.Errorf("%s: hooked: %t, want %t:\n%s", when, got, want, list)
		}
		if !strings.Contains(list, "ct status") { // which keeps connection tracking on
			t.Errorf("%s: no rule asks for connections:\n%s", when, list)
		}
	}
	hooked("at first", idle, false)
	d = ns.driver()
	hooked("after a restart", idle, false)
	hooked("once a pool translates", translating, true)
	hooked("when no pool translates any more", idle, true)
	ns.nft("delete", "table", "inet", TableName)
	if _, err := d.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	hooked("after others deleted the table", idle, true)
	d = ns.driver()
	hooked("after another restart", idle, true)
	if err := d.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	d = ns.driver()
	hooked("after a cleanup", idle, false)
}
