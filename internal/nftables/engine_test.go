package nftables

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// TestUnsupported checks that the error for a missing kernel feature names it.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	wanted := kinds()
	wanted.Chains = append(wanted.Chains, Chain{Name: "nat", Hook: Hook{Kind: KindNAT, Number: unix.NF_INET_POST_ROUTING},
		Rules: []Rule{NewRule(Needs("masq", "nft_masq"), RawExpr("masq", nil))}})
	b := newBatch(ours, FamilyInet, 1)
	b.write(diff(&Table{}, wanted))
	missing := map[string]string{"beginning": "nf_tables", "creating table": "tables of family inet", "creating set ranges4": "interval sets with counters",
		"creating set verdicts": "verdict maps", "creating set tuples": "interval sets of concatenations with counters", "creating set marks": "maps",
		"creating chain nat": "nft_chain_nat", "adding rule 1 to chain nat": "nft_masq"}
	found := map[string]bool{}
	for i, n := range b.notes {
		for doing, feature := range missing {
			if n.doing != doing && !strings.HasPrefix(n.doing, doing+" ") {
				continue
			}
			found[doing] = true
			var u *nfnetlink.UnsupportedError
			if err := b.explain(i, nfnetlink.Reply{Errno: unix.EOPNOTSUPP}); !errors.As(err, &u) || !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(u.Feature, feature) {
				t.Errorf("%s: %v; want an UnsupportedError about %s", n.doing, err, feature)
			}
		}
	}
	if len(found) != len(missing) {
		t.Errorf("only met %v", found)
	}
}

// TestRefusalNamesTheElement has the kernel refuse an element that is there already, of each kind.
func TestRefusalNamesTheElement(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.engine(ours)
	mustApply(t, e, kinds())
	for set, want := range map[string]string{
		"ranges4":  `adding to set ranges4: 10.1.0.0-10.1.0.255 of pool "a": file exists`,
		"verdicts": `adding to set verdicts: 10.0.0.3 : drop: file exists`,
		"tuples":   `adding to set tuples: 10.1.0.0/16 . tcp . 80-90 of peer "x": file exists`,
		"marks":    `adding to set marks: 10.0.0.1 : 0x00000007: file exists`,
		"ifaces":   `adding to set ifaces: "pod0" : goto two: file exists`,
	} {
		old := *kinds().Set(set)
		novel := old // something else first, so that the element is to be found in the message
		novel.DropElements()
		first, last := old.key(0)
		one := Element{Data: old.data(0), Verdict: old.verdict(0), Key: append([]byte{250}, first[1:]...), Last: append([]byte{250}, last[1:]...)}
		novel.Add(one)
		for e := range old.All() {
			novel.Add(e)
		}
		all := make([]int32, novel.n)
		for i := range all {
			all[i] = int32(i)
		}
		b := e.conn.newBatch()
		b.write(&change{add: []difference{{&novel, all}}})
		if _, err := e.conn.transact(t.Context(), b); err == nil || err.Error() != want || !errors.Is(err, unix.EEXIST) {
			t.Errorf("error %v; want %s", err, want)
		}
	}
	mustHold(t, h, ours, kinds())
}

// TestCatchall adds the element that matches every key, which the nft of Debian 12 cannot do.
func TestCatchall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e, other := h.engine(ours), h.engine(ours)
	for set, want := range map[string]int{"ranges4": 3, "verdicts": 4} {
		mustApply(t, e, kinds())
		b := other.conn.newBatch()
		b.message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, note{}, func() {
			b.text(unix.NFTA_SET_ELEM_LIST_TABLE, ours)
			b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
			b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				b.nest(unix.NFTA_LIST_ELEM, func() {
					b.number(unix.NFTA_SET_ELEM_FLAGS, elementCatchall)
					if set == "verdicts" {
						b.addVerdict(GoTo("two"))
					}
				})
			})
		})
		if _, err := other.conn.transact(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if drift, err := e.Observe(t.Context()); drift != want || err != nil {
			t.Errorf("%s: drift %d, %v; want %d", set, drift, err, want)
		}
		mustApply(t, e, kinds())
		mustHold(t, h, ours, kinds())
	}
}

func TestTextOfStrangers(t *testing.T) {
	t.Parallel()
	for form, want := range map[string]string{
		`"limit"{1=0a 2=0b}`:                "[limit 1=0a 2=0b]",
		`"notrack"{}`:                       "[notrack]",
		`not a form`:                        "not a form",
		`"meta"{1=`:                         `"meta"{1=`,
		`"cmp"{1=00000001 3.1=0a}`:          "0x0a",
		`"immediate"{2.2.1=fffffffc}"x"{}`:  "goto  [x]",
		`"payload"{2=00000002 4=00000002}`:  "",
		`"immediate"{2.2.1=00000003}`:       "[verdict 3]",
		`"masq"{2=0000000f}`:                "masquerade",
		`"fib"{2=00000063}"lookup"{1=7300}`: "fib  type @s",
	} {
		if got := text(form); got != want {
			t.Errorf("%s: %q, want %q", form, got, want)
		}
	}
}
