package nat

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nftables"
)

// otherLayouts are ways in which another version of ours may have laid the table out. Each changes the layout
// of today.
var otherLayouts = map[string]func(*nftables.Table){
	"other names": func(t *nftables.Table) {
		renameChain(t, chainPostrouting, "nat")
		renameChain(t, chainSNAT+"4", "translate-ipv4")
		renameSet(t, setSource+"4", "sources")
		renameSet(t, setExempt+"6", "exemptions6")
	},
	"another priority": func(t *nftables.Table) { t.Chain(chainPostrouting).Hook.Priority = 50 },
	"another hook": func(t *nftables.Table) {
		t.Chain(chainPostrouting).Hook = nftables.Hook{Kind: "filter", Number: unix.NF_INET_FORWARD, Priority: -5}
		t.Chain(chainPostrouting).Rules = nil
	},
	"a base chain that was none": func(t *nftables.Table) {
		t.Chains = append(t.Chains, nftables.Chain{Name: "x", Hook: nftables.Hook{Kind: "filter", Number: unix.NF_INET_LOCAL_OUT}})
	},
	"names that mean something else": func(t *nftables.Table) {
		// What is a chain of rules today was a base chain, and the other way round.
		renameChain(t, chainTranslate, "swap")
		renameChain(t, chainPostrouting, chainTranslate)
		renameChain(t, "swap", chainPostrouting)
	},
	"sets without counters": func(t *nftables.Table) {
		for i := range t.Sets {
			t.Sets[i].Counters = false
		}
	},
	"sets of the other family": func(t *nftables.Table) {
		renameSet(t, setSource+"4", "swap")
		renameSet(t, setSource+"6", setSource+"4")
		renameSet(t, "swap", setSource+"6")
	},
	"no interval sets": func(t *nftables.Table) {
		for i := range t.Sets {
			t.Sets[i] = nftables.Set{Name: t.Sets[i].Name, Key: t.Sets[i].Key}
		}
	},
	"a set more, and a chain": func(t *nftables.Table) {
		t.Sets = append(t.Sets, nftables.Set{Name: "drop4", Key: []nftables.Type{nftables.IPv4Addr}, Ranges: true})
		t.Chains = append(t.Chains, nftables.Chain{Name: "later"})
	},
	"no guard": func(t *nftables.Table) {
		t.Chains = slices.DeleteFunc(t.Chains, func(c nftables.Chain) bool {
			return !slices.Contains([]string{chainPostrouting, chainTranslate, chainSNAT + "4", chainSNAT + "6"}, c.Name)
		})
	},
	"a guard that asks for the connection first": func(t *nftables.Table) {
		t.Chain(chainGuard).Rules = []nftables.Rule{nftables.NewRule(translated(), nftables.Accept()), nftables.NewRule(nftables.GoTo(chainSuspect))}
	},
	"less": func(t *nftables.Table) { t.Chains, t.Sets = nil, nil },
}

// otherHooks are the layouts whose chains with hooks are others than those of today.
var otherHooks = []string{"other names", "another priority", "another hook", "a base chain that was none", "names that mean something else", "no guard", "less"}

// renameChain renames a chain, and what goes to it.
func renameChain(t *nftables.Table, from, to string) {
	t.Chain(from).Name = to
	replaceInRules(t, from, to)
}

// renameSet renames a set, and what looks into it.
func renameSet(t *nftables.Table, from, to string) {
	t.Set(from).Name = to
	replaceInRules(t, from, to)
}

// replaceInRules drops the rules that name an object that was renamed: their text is not ours to write.
func replaceInRules(t *nftables.Table, from, _ string) {
	for i := range t.Chains {
		t.Chains[i].Rules = slices.DeleteFunc(slices.Clone(t.Chains[i].Rules), func(r nftables.Rule) bool {
			words := strings.Fields(r.String())
			return slices.Contains(words, from) || slices.Contains(words, "@"+from)
		})
	}
}

// TestAnotherLayoutIsReplacedAtOnce lets an agent of another version end, and one of this version begin. On
// kernels with owned tables and without, the rules must change in one transaction: before it the kernel holds
// the other table, from then on ours.
func TestAnotherLayoutIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	for name, other := range otherLayouts {
		for _, kernel := range []string{"that owns", "that does not", "that owns after one that did not"} {
			t.Run(name+" on a kernel "+kernel, func(t *testing.T) {
				t.Parallel()
				ns, plan := newNamespace(t), simplePlan(t)
				plan.LeakGuard = true
				before, after := ns.driver(), ns.owner()
				if kernel == "that owns" {
					before = ns.owner()
				}
				if kernel == "that does not" {
					after = ns.driver()
				}
				earlier, err := layout(plan, true)
				if err != nil {
					t.Fatal(err)
				}
				other(earlier)
				if err := before.Engine.Apply(t.Context(), earlier); err != nil {
					t.Fatalf("making the other layout: %v", err)
				}
				if err := before.Close(); err != nil {
					t.Fatal(err)
				}
				awaitNoOwner(t, ns)
				was := ns.generation()
				mustApply(t, after, plan)
				if kernel != "that does not" {
					needOwned(t, after)
				}
				want := uint32(1)
				if kernel == "that owns" && slices.Contains(otherHooks, name) {
					want = 2 // the first does nothing but take the table over
				}
				if s, now := after.Stats(), ns.generation(); s.Transactions != uint64(want) || now != was+want {
					t.Errorf("replaced in %d transactions, generation %d to %d; want %d", s.Transactions, was, now, want)
				}
				mustHold(t, ns, plan)
			})
		}
	}
}

// awaitNoOwner waits until the table has no owner: a process that another test starts has the owner's socket too until
// it executes its program.
func awaitNoOwner(t *testing.T, ns *namespace) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ns.ownerOf() != 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
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
