package nftables

import (
	"errors"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// ingress is a table of family netdev with a chain for each device.
func ingress(devices ...string) *Table {
	t := &Table{Chains: []Chain{{Name: "dropped", Rules: []Rule{NewRule(Count(), Drop())}, Tally: true}}}
	for _, d := range devices {
		t.Chains = append(t.Chains, Chain{Name: d + ".chain", Rules: []Rule{NewRule(GoTo("dropped"))},
			Hook: Hook{Kind: KindFilter, Number: unix.NF_NETDEV_INGRESS, Priority: -500, Drop: true, Device: d}})
	}
	return t
}

func TestChainsOfDevices(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, d := range []string{"one", "two"} {
		labtest.Must(t, h.Bridge(d, nil))
	}
	e := h.open(ours, Options{Family: FamilyNetdev})
	other := h.open(ours, Options{}) // a table of the same name and another family is another table
	mustApply(t, other, sample())
	wanted := ingress("one", "two")
	mustApply(t, e, wanted)
	if out := h.nft("list table netdev " + ours); out == "" {
		t.Error("there is no table")
	}
	if drift, err := e.Observe(t.Context()); drift != 0 || err != nil {
		t.Errorf("drift %d, %v", drift, err)
	}
	mustHold(t, h, ours, sample())

	labtest.Must(t, h.Do(func() error { return exec.Command("ip", "link", "delete", "one").Run() }))
	before := e.Stats().FullReads
	labtest.Must(t, e.Recheck(t.Context(), []string{"one.chain", "two.chain", "no.chain"}))
	mustApply(t, e, ingress("two"))
	if after := e.Stats().FullReads; after != before {
		t.Errorf("the table was read %d times", after-before)
	}
	if _, err := h.tryNFT("list chain netdev " + ours + " one.chain"); err == nil {
		t.Error("the chain of a device that is gone is still there")
	}
	err := e.Apply(t.Context(), ingress("two", "one"))
	var refused *nfnetlink.Refusal
	if err != nil && (!errors.As(err, &refused) || refused.Doing != CreatingChain+"one.chain" || refused.Errno != unix.ENOENT) { // Linux 6.16 takes it, and waits for the device
		t.Errorf("a chain of a device that is not there: %v", err)
	}
	mustApply(t, e, ingress("two"))
	labtest.Must(t, e.Cleanup(t.Context()))
	mustHold(t, h, ours, sample())
}

// TestOneChainMoreIsOneChainSent: what stands is not sent again, however much it is.
func TestOneChainMoreIsOneChainSent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	devices := make([]string, 2*manyChains)
	for i := range devices {
		devices[i] = "d" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		labtest.Must(t, h.Bridge(devices[i], nil))
	}
	last := len(devices) - 1
	e := h.open(ours, Options{Family: FamilyNetdev})
	mustApply(t, e, ingress(devices[:last]...))
	mustApply(t, e, ingress(devices...))
	if n := e.Stats().LastMessages; n != 2 {
		t.Errorf("%d messages for a chain with a rule", n)
	}
	mustApply(t, e, ingress(devices[1:]...))
	if n := e.Stats().LastMessages; n != 2 {
		t.Errorf("%d messages to delete a chain with a rule", n)
	}
}

func TestChainThatIsThereTwiceIsRefused(t *testing.T) {
	t.Parallel()
	devices := make([]string, 2*manyChains)
	for i := range devices {
		devices[i] = string(rune('a' + i))
	}
	devices[manyChains] = devices[0]
	if err := ingress(devices...).clone().check(); err == nil {
		t.Error("it was taken")
	}
}
