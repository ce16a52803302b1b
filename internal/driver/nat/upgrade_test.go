package nat

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// layouts are ways in which another version of ours may have laid the table out. Each changes the layout
// of today.
var layouts = map[string]func(*table){
	"other names": func(t *table) {
		renameChain(t, chainPostrouting, "nat")
		renameChain(t, chainSNAT+"4", "translate-ipv4")
		renameSet(t, setSource+"4", "sources")
		renameSet(t, setExempt+"6", "exemptions6")
	},
	"another priority": func(t *table) { t.chain(chainPostrouting).hook.priority = 50 },
	"another hook": func(t *table) {
		t.chain(chainPostrouting).hook = hook{kind: "filter", number: unix.NF_INET_FORWARD, priority: -5, policy: verdictAccept}
		t.chain(chainPostrouting).rules = nil
	},
	"a base chain that was none": func(t *table) {
		t.chains = append(t.chains, chain{name: "x", hook: hook{kind: "filter", number: unix.NF_INET_LOCAL_OUT, policy: verdictAccept}})
	},
	"names that mean something else": func(t *table) {
		// What is a chain of rules today was a base chain, and the other way round.
		renameChain(t, chainTranslate, "swap")
		renameChain(t, chainPostrouting, chainTranslate)
		renameChain(t, "swap", chainPostrouting)
	},
	"sets without counters": func(t *table) {
		for i := range t.sets {
			t.sets[i].spec.expr = ""
		}
	},
	"sets of the other family": func(t *table) {
		renameSet(t, setSource+"4", "swap")
		renameSet(t, setSource+"6", setSource+"4")
		renameSet(t, "swap", setSource+"6")
	},
	"no interval sets": func(t *table) {
		for i := range t.sets {
			t.sets[i].spec.flags, t.sets[i].segments = 0, nil
		}
	},
	"a set more, and a chain": func(t *table) {
		t.sets = append(t.sets, set{name: "drop4", spec: setSpec{keyType: ipv4().keyType, keyLen: 4, flags: unix.NFT_SET_INTERVAL}})
		t.chains = append(t.chains, chain{name: "later"})
	},
	"no guard": func(t *table) {
		t.chains = slices.DeleteFunc(t.chains, func(c chain) bool {
			return !slices.Contains([]string{chainPostrouting, chainTranslate, chainSNAT + "4", chainSNAT + "6"}, c.name)
		})
	},
	"a guard that asks for the connection first": func(t *table) {
		rules, err := buildRules(new(ruleBuilder).translated().add(&expr.Verdict{Kind: expr.VerdictAccept}), new(ruleBuilder).goTo(chainSuspect))
		if err != nil {
			panic(err)
		}
		t.chain(chainGuard).rules = rules
	},
	"less": func(t *table) { t.chains, t.sets = nil, nil },
}

// renameChain renames a chain, and what goes to it.
func renameChain(t *table, from, to string) {
	t.chain(from).name = to
	replaceInRules(t, from, to)
}

// renameSet renames a set, and what looks into it.
func renameSet(t *table, from, to string) {
	t.set(from).name = to
	replaceInRules(t, from, to)
}

// replaceInRules drops the rules that name an object that was renamed: their text is not ours to write.
func replaceInRules(t *table, from, _ string) {
	for i := range t.chains {
		t.chains[i].rules = slices.DeleteFunc(slices.Clone(t.chains[i].rules), func(r rule) bool {
			words := strings.Fields(text(r.form))
			return slices.Contains(words, from) || slices.Contains(words, "@"+from)
		})
	}
}

// TestAnotherLayoutIsReplacedAtOnce lets an agent of another version end, and one of this version begin. On
// kernels with owned tables and without, the rules must change in one transaction: before it the kernel holds
// the other table, from then on ours.
func TestAnotherLayoutIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	for name, other := range layouts {
		for _, kernel := range []string{"that owns", "that does not", "that owns after one that did not"} {
			t.Run(name+" on a kernel "+kernel, func(t *testing.T) {
				t.Parallel()
				ns, plan := newNamespace(t), simplePlan(t)
				plan.LeakGuard = true
				before, after := ns.owner(), ns.owner()
				before.unowned, after.unowned = kernel != "that owns", kernel == "that does not"
				earlier, err := before.layout(layout(plan))
				if err != nil {
					t.Fatal(err)
				}
				other(earlier)
				if err := before.converge(t.Context(), earlier); err != nil {
					t.Fatalf("making the other layout: %v", err)
				}
				if err := before.Close(); err != nil {
					t.Fatal(err)
				}
				for ns.tableNow().owner != 0 {
					// A process that another test starts has the socket too until it executes its program.
					time.Sleep(time.Millisecond)
				}
				was, held := ns.generation(), ns.tableNow()
				mustApply(t, after, plan)
				if kernel != "that does not" {
					needOwned(t, after)
				}
				wanted, err := after.layout(layout(plan))
				if err != nil {
					t.Fatal(err)
				}
				want := uint32(1)
				if c := diff(held, wanted); c.adopt && c.hooks(held) {
					want = 2 // the first does nothing but take the table over
				}
				if s, now := after.Stats(), ns.generation(); s.Transactions != uint64(want) || now != was+want {
					t.Errorf("replaced in %d transactions, generation %d to %d; want %d", s.Transactions, was, now, want)
				}
				if c := diff(ns.tableNow(), wanted); !c.empty() {
					t.Errorf("the kernel differs from the plan in %d things: %+v", c.drift, c)
				}
			})
		}
	}
}

// generation asks for the ruleset's generation by a socket of its own.
func (n *namespace) generation() uint32 {
	n.tb.Helper()
	d := n.owner()
	g, err := d.conn.generation(n.tb.Context())
	if err != nil {
		n.tb.Fatal(err)
	}
	return g
}

// TestStrangeTableIsReplacedAtOnce finds a table of our name with things in it that we never make.
func TestStrangeTableIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"a verdict map":          "add map inet sallyport m { type ipv4_addr : verdict; elements = { 10.0.0.1 : accept }; }\nadd rule inet sallyport translate ip saddr vmap @m",
		"an anonymous map":       "add rule inet sallyport translate ip saddr vmap { 10.0.0.1 : drop, 10.0.0.2 : accept }",
		"a concatenation":        "add set inet sallyport s { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90 }; }",
		"elements that time out": "add set inet sallyport s { type ipv4_addr; timeout 1h; elements = { 10.0.0.1 }; }\nadd rule inet sallyport translate ip saddr @s drop",
		"chains that jump":       "add chain inet sallyport a\nadd chain inet sallyport b\nadd rule inet sallyport a jump b\nadd rule inet sallyport translate jump a",
		"a set that learns":      "add set inet sallyport s { type ipv4_addr; flags dynamic; size 100; }\nadd rule inet sallyport translate add @s { ip saddr }",
		"a counter by name":      "add counter inet sallyport c\nadd rule inet sallyport translate counter name c",
		"a dormant table":        "add table inet sallyport { flags dormant; }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns, plan := newNamespace(t), simplePlan(t)
			mustApply(t, ns.driver(), plan)
			for line := range strings.Lines(script) {
				ns.nft(strings.TrimSpace(line))
			}
			was := ns.generation()
			d := ns.driver()
			mustApply(t, d, plan)
			if s := d.Stats(); s.Transactions != 1 || ns.generation() != was+1 {
				t.Errorf("replaced in %d transactions, generation %d to %d", s.Transactions, was, ns.generation())
			}
			mustHold(t, ns, plan)
		})
	}
}
