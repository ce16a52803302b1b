package nftables

import (
	"net"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// pods is a table in which a verdict map goes to a chain for each pod, which jumps to one for each of its policies.
func pods(names ...string) *Table {
	m := Set{Name: "pods", Key: []Type{IfName}, Data: Verdicts}
	t := &Table{Chains: []Chain{{Name: "base", Hook: Hook{Kind: KindFilter, Number: unix.NF_INET_FORWARD}, Rules: []Rule{NewRule(VerdictOf("pods", InInterface()))}}}}
	for _, name := range names {
		pod, policy, _ := strings.Cut(name, "/")
		m.Add(Element{Key: AppendIfName(nil, pod), Verdict: GoTo("pod-" + pod)})
		t.Chains = append(t.Chains, Chain{Name: "pod-" + pod, Rules: []Rule{NewRule(Jump("policy-" + policy)), NewRule(Drop())}})
		if t.Chain("policy-"+policy) == nil {
			t.Chains = append(t.Chains, Chain{Name: "policy-" + policy, Rules: []Rule{NewRule(Connection(expr.CtKeySTATE, 1<<1), Accept())}})
		}
	}
	t.Sets = []Set{m}
	return t
}

// TestChainsThatMapsGoTo has pods and policies come and go, with the chains that elements of a map go to. What has not
// changed stays as it is: its handle is that which it had.
func TestChainsThatMapsGoTo(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.engine(ours)
	for _, step := range []struct {
		pods     string
		messages int
	}{
		{"a/x", 9}, // table, three chains, a map with an element, three rules and drop
		{"a/x b/x c/y", 0},
		{"a/x c/y", 4}, // chain b is emptied and dropped, the map loses an element, and that is deleted
		{"a/y c/y", 0}, // a goes to another policy, whose chain stands; x goes
		{"d/z", 0},     // all others go, with their chains
		{"a/x b/y c/z d/z", 0},
		{"", 0},
	} {
		keep := h.handles()
		mustApply(t, e, pods(strings.Fields(step.pods)...))
		mustHold(t, h, ours, pods(strings.Fields(step.pods)...))
		if s := e.Stats(); step.messages > 0 && s.LastMessages > step.messages+1 {
			t.Errorf("%s: %d messages", step.pods, s.LastMessages)
		}
		for line, handle := range h.handles() {
			if was, there := keep[line]; there && was != handle {
				t.Errorf("%s: %s was made again", step.pods, line)
			}
		}
	}
}

// handles are the handles of chains and sets, by the lines in which nft declares them.
func (h *host) handles() map[string]string {
	out := map[string]string{}
	listed, _ := h.tryNFT("--handle list table inet sample")
	for line := range strings.Lines(listed) {
		if declared, handle, found := strings.Cut(strings.TrimSpace(line), "{ # handle "); found {
			out[declared] = handle
		}
	}
	return out
}

// TestVerdictMapsDecide sends packets over the loopback interface: the maps by address and by interface decide, the
// counters of concatenations count by label, and those of rules by chain.
func TestVerdictMapsDecide(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.engine(ours)
	mustApply(t, e, kinds())
	send := func(port int) {
		labtest.Must(t, h.Do(func() error {
			c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			if err != nil {
				return err
			}
			defer c.Close()
			_, _ = c.Write([]byte("x")) // which the chain drops, or nobody hears
			return nil
		}))
	}
	want := func(when string, local, tally uint64) {
		t.Helper()
		counts, err := e.Counts(t.Context())
		labtest.Must(t, err)
		tallies, err := e.Tallies(t.Context())
		labtest.Must(t, err)
		if counts["local"] != local || counts["x"] != 0 || tallies["one"] != tally {
			t.Errorf("%s: counted %v, %v; want %d and %d", when, counts, tallies, local, tally)
		}
	}
	send(1500)
	send(2000)
	send(2001) // in no tuple
	want("at first", 2, 2)
	less := kinds() // without the element that has counted
	s := less.Set("tuples")
	s.DropElements()
	s.Add(Element{Key: tuple("10.1.0.0", 6, 80), Last: tuple("10.1.255.255", 6, 90), Label: "x"})
	send(1501)
	mustApply(t, e, less)
	send(1502)
	want("with the element gone", 3, 3)
	mustApply(t, e, kinds())
	send(1503)
	want("with the element there again", 4, 4)
	h.nft("delete table inet sample")
	if _, err := e.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustApply(t, e, kinds())
	send(1504)
	want("with the table made again", 5, 5)
}
