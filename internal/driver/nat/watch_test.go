package nat

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// watchNow starts a watch and returns a count of what it tells, once it has begun.
func watchNow(t *testing.T, d *Driver) *atomic.Int64 {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	told, done := new(atomic.Int64), make(chan error, 1)
	go func() { done <- d.Watch(ctx, func() { told.Add(1) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	awaitTold(t, told, 0)
	return told
}

// awaitTold waits until more was told than before.
func awaitTold(t *testing.T, told *atomic.Int64, before int64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); told.Load() <= before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was told in ten seconds")
		}
	}
}

// TestWatchTellsOfTampering checks that whatever somebody else does to our table is told, what they do to
// tables of their own is not, and neither is what we do.
func TestWatchTellsOfTampering(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d, plan := ns.driver(), simplePlan(t)
	plan.LeakGuard = true
	mustApply(t, d, plan)
	told := watchNow(t, d)
	const in = "inet " + TableName + " "
	for _, script := range []string{
		"delete table " + in, "flush ruleset", "add table ip other; flush ruleset", "flush table " + in, "add table " + in + "{ flags dormant; }",
		"insert rule " + in + "postrouting accept", "flush chain " + in + "translate", "add chain " + in + "x", "add set " + in + "x { type inet_service; }",
		"add element " + in + "exempt4 { 192.168.0.0/16 }", "delete element " + in + "source4 { 10.1.2.0/24 }", "flush set " + in + "source4",
		"add counter " + in + "x", "add chain " + in + "guard { type filter hook postrouting priority 300; policy drop; }",
	} {
		before := told.Load()
		ns.nft(script)
		awaitTold(t, told, before)
		if drift, err := d.Observe(t.Context()); err != nil || drift == 0 {
			t.Errorf("%s: observed %d, %v", script, drift, err)
		}
		before = told.Load()
		mustApply(t, d, plan)
		for _, foreign := range []string{
			"add table ip sallyport; add chain ip sallyport c; add rule ip sallyport c accept", "add table inet sallyport2", "delete table ip sallyport",
			"add table inet other; add set inet other sallyport { type ipv4_addr; elements = { 10.0.0.1 }; }", "delete table inet other; delete table inet sallyport2",
		} {
			ns.nft(foreign)
		}
		ns.nft("add counter " + in + "last") // once it is told, all before it would have been
		awaitTold(t, told, before)
		if n := told.Load() - before; n != 1 {
			t.Errorf("after %q, %d of what is not ours to know, or is our own, was told", script, n-1)
		}
		if _, err := d.Observe(t.Context()); err != nil {
			t.Error(err)
		}
		mustApply(t, d, plan)
	}
}

// TestWatchOfAnOwnedTableIsSilent checks that nothing is listened to where nobody else can change the table.
func TestWatchOfAnOwnedTableIsSilent(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d := ns.owner()
	mustApply(t, d, simplePlan(t))
	needOwned(t, d)
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := d.Watch(ctx, func() { t.Error("something was told") }); err != nil {
		t.Error(err)
	}
}
