package nat

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTampering changes our table behind the driver's back: Observe must see it, Apply must repair it,
// and then nft must print what it printed before.
func TestTampering(t *testing.T) {
	t.Parallel()
	const in = "inet " + TableName + " "
	tests := []struct {
		name, script string
		drift        int
	}{
		{"table deleted", "delete table " + in, 21},
		{"ruleset flushed", "flush ruleset", 21},
		{"table emptied of rules", "flush table " + in, 7},
		{"table asleep", "add table " + in + "{ flags dormant; }", 1},
		{"rule added", "insert rule " + in + "postrouting accept", 1},
		{"rule deleted", "flush chain " + in + "translate", 4},
		{"flag lost", "flush chain " + in + "snat4; add rule " + in + "snat4 masquerade", 1},
		{"flag swapped", "flush chain " + in + "snat4; add rule " + in + "snat4 masquerade random", 1},
		{"flag added", "flush chain " + in + "snat4; add rule " + in + "snat4 masquerade fully-random,persistent", 1},
		{"other address", "flush chain " + in + "snat4; add rule " + in + "snat4 snat ip to 192.0.2.1 fully-random", 1},
		{"other set", "flush chain " + in + "translate; add rule " + in + "translate ip daddr @source4 return", 4},
		{"rules in another order", "flush chain " + in + "translate; add rule " + in + "translate ip saddr @source4 goto snat4;" +
			"add rule " + in + "translate ip6 saddr @source6 goto snat6; add rule " + in + "translate ip daddr @exempt4 return;" +
			"add rule " + in + "translate ip6 daddr @exempt6 return", 4},
		{"policy changed", "add chain " + in + "postrouting { type nat hook postrouting priority 99; policy drop; }", 4},
		{"other priority", "delete chain " + in + "postrouting; add chain " + in + "postrouting { type nat hook postrouting priority 100; };" +
			"add rule " + in + "postrouting goto translate", 4},
		{"base chain made plain", "delete chain " + in + "postrouting; add chain " + in + "postrouting; add rule " + in + "postrouting goto translate", 4},
		{"element added", "add element " + in + "exempt4 { 192.168.0.0/16 }", 1},
		{"element at zero added", "add element " + in + "exempt4 { 0.0.0.0/8 }", 1},
		{"element deleted", "delete element " + in + "source4 { 10.1.2.0/24 }", 1},
		{"element replaced", "delete element " + in + "source4 { 10.1.2.0/24 }; add element " + in + "source4 { 10.1.2.0/25 }", 1},
		{"set emptied", "flush set " + in + "source4", 2},
		{"exempts last address", "add element " + in + "exempt6 { ffff::/16 }", 1},
		{"set of another kind", "flush chain " + in + "translate; delete set " + in + "source4; add set " + in + "source4 { type ipv4_addr; flags interval; };" +
			"add element " + in + "source4 { 10.1.0.0/24 }", 8},
		{"set without intervals", "flush chain " + in + "translate; delete set " + in + "exempt6; add set " + in + "exempt6 { type ipv6_addr; };" +
			"add element " + in + "exempt6 { fd00:: }", 7},
		{"set of other keys", "flush chain " + in + "translate; delete set " + in + "exempt6; add set " + in + "exempt6 { type ether_addr; };", 7},
		{"set of bounded size", "flush chain " + in + "translate; delete set " + in + "exempt6; add set " + in + "exempt6 { type ipv6_addr; flags interval; size 7; };", 7},
		{"strange chain", "add chain " + in + "x; add rule " + in + "x accept", 2},
		{"strange chains that go to each other", "add chain " + in + "x; add chain " + in + "y { type filter hook forward priority 0; policy accept; };" +
			"add rule " + in + "y goto x; add rule " + in + "x drop", 4},
		{"strange chain that goes to ours", "add chain " + in + "x; add rule " + in + "x return; add rule " + in + "snat6 jump x", 3},
		{"strange set", "add set " + in + "x { type inet_service; elements = { 80 }; }", 1},
		{"strange map to a chain", "add chain " + in + "x; add map " + in + "m { type ipv4_addr : verdict; elements = { 10.0.0.1 : goto x }; };" +
			"add rule " + in + "postrouting ip saddr vmap @m", 3},
		{"anonymous set", "insert rule " + in + "translate ip daddr { 10.9.0.0/16, 10.11.0.0/16 } accept", 1},
		{"anonymous map to an anonymous chain", "insert rule " + in + "translate tcp dport { 80, 443 } jump { accept; }", 1},
		{"strange counter", "add counter " + in + "x", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			d := ns.driver()
			plan := simplePlan(t)
			mustApply(t, d, plan)
			before := ns.list()
			mustObserve(t, d, 0)
			for range 2 { // tampering repeats itself
				ns.nft(strings.ReplaceAll(test.script, "; ", ";\n"))
				mustObserve(t, d, test.drift)
				mustApply(t, d, plan)
				if diff := cmp.Diff(before, ns.list()); diff != "" {
					t.Errorf("after the repair (-before +now):\n%s", diff)
				}
				mustObserve(t, d, 0)
			}
		})
	}
}

// TestARepairIsReadBack checks that a repair trusts neither what was seen of the tampering nor its own
// acknowledgement.
func TestARepairIsReadBack(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d, plan := ns.driver(), simplePlan(t)
	mustApply(t, d, plan)
	ns.nft("flush", "set", "inet", TableName, "source4")
	mustObserve(t, d, 2)
	before := d.Stats()
	ns.nft("flush", "set", "inet", TableName, "exempt4") // between the look and the repair
	mustApply(t, d, plan)
	if after := d.Stats(); after.FullReads != before.FullReads+2 || after.Transactions != before.Transactions+1 {
		t.Errorf("before %+v, after %+v; want one transaction between two readings", before, after)
	}
	mustHold(t, ns, plan)
}

// TestTamperingBeforeAChange checks that a change whose ground was taken away reads back and succeeds.
func TestTamperingBeforeAChange(t *testing.T) {
	t.Parallel()
	for _, script := range []string{
		"delete table inet sallyport",
		"delete element inet sallyport source4 { 10.1.0.0/24 }",
		"add element inet sallyport exempt4 { 172.16.0.0/12 }",
		"flush chain inet sallyport postrouting; add chain inet sallyport x",
	} {
		ns := newNamespace(t)
		d := ns.driver()
		plan := simplePlan(t)
		mustApply(t, d, plan)
		ns.nft(script)
		plan.Sources = plan.Sources[1:]
		plan.Exempt = ranges(t, "10.0.0.0/8", "172.16.0.0/12", "fd00::/16")
		mustApply(t, d, plan)
		if _, err := d.Observe(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustApply(t, d, plan)
		mustHold(t, ns, plan)
	}
}

// TestObserveIsCheap checks that a look at an unchanged ruleset asks one question, also after a change
// of our own, and that a stranger's change costs one reading and shows no drift.
func TestObserveIsCheap(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d, s := ns.watchedDriver()
	mustObserve(t, d, 0)
	plan := simplePlan(t)
	mustApply(t, d, plan)
	plan.Sources = plan.Sources[1:]
	mustApply(t, d, plan)
	reads, calls := d.Stats().FullReads, s.calls
	mustObserve(t, d, 0)
	if now := d.Stats().FullReads; now != reads || s.calls != calls+2 {
		t.Errorf("a look at an unchanged ruleset cost %d full reads and %d calls; want 0 and 2", now-reads, s.calls-calls)
	}
	ns.nft("add table inet other")
	mustObserve(t, d, 0)
	if now := d.Stats().FullReads; now != reads+1 {
		t.Errorf("after a stranger's change: %d full reads; want 1", now-reads)
	}
	ns.nft("add table inet other2")
	plan.Sources = plan.Sources[1:]
	mustApply(t, d, plan)
	mustObserve(t, d, 0)
	if now := d.Stats().FullReads; now != reads+2 {
		t.Errorf("after a stranger's change and then ours: %d full reads; want 2", now-reads)
	}
}

// list is what nft prints of our table, by object: those that were replaced come last.
func (n *namespace) list() []string {
	n.tb.Helper()
	list := strings.Split(n.nft("list", "table", "inet", TableName), "\n\t}\n")
	for i := range list {
		list[i] = strings.TrimSpace(strings.TrimPrefix(list[i], "table inet "+TableName+" {\n"))
	}
	slices.Sort(list)
	return list
}

func mustObserve(t *testing.T, d *Driver, want int) {
	t.Helper()
	drift, err := d.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if drift != want {
		t.Errorf("drift %d; want %d", drift, want)
	}
}
