package nftables

import (
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// ours is the name of the table that most tests are about.
const ours = "sample"

// host is a network namespace of one test.
type host struct {
	tb testing.TB
	*lab.Host
}

func newHost(tb testing.TB) *host {
	tb.Helper()
	labtest.Need(tb)
	h, err := lab.NewHost("node")
	labtest.Must(tb, err)
	tb.Cleanup(func() { labtest.Must(tb, h.Close()) })
	return &host{tb, h}
}

// nft runs the nft command inside the namespace and returns what it prints.
func (h *host) nft(script string) string {
	h.tb.Helper()
	out, err := h.tryNFT(script)
	if err != nil {
		h.tb.Fatalf("nft %s: %v\n%s", script, err, out)
	}
	return out
}

func (h *host) tryNFT(script string) (out string, err error) {
	err = h.Do(func() error {
		args := []string{script}
		if strings.HasPrefix(script, "-") {
			args = strings.Fields(script)
		}
		b, err := exec.Command("nft", args...).CombinedOutput()
		out = string(b)
		return err
	})
	return out, err
}

// engine opens an engine for a table that others can change too, as on a kernel that cannot own tables.
func (h *host) engine(table string) *Engine { return h.open(table, Options{Unowned: true}) }

// owner opens an engine that owns our table.
func (h *host) owner() *Engine { return h.open(ours, Options{}) }

func (h *host) open(table string, o Options) *Engine {
	h.tb.Helper()
	o.Log, o.NetNS = slog.New(slog.NewTextHandler(h.tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), h.FD()
	e, err := New(table, o)
	labtest.Must(h.tb, err)
	h.tb.Cleanup(func() { _ = e.Close() })
	return e
}

// read reads a table by a socket of its own.
func (h *host) read(table string) *Table {
	h.tb.Helper()
	s, err := nfnetlink.Dial(h.FD())
	labtest.Must(h.tb, err)
	defer s.Close()
	t, _, err := newConn(s, table, FamilyInet).readTable(h.tb.Context())
	labtest.Must(h.tb, err)
	return t
}

// mustApply applies a table. One whose owner was closed a moment ago may be owned for a moment more: a program that
// another test starts has the socket too until it is executed.
func mustApply(tb testing.TB, e *Engine, t *Table) {
	tb.Helper()
	var owned *OwnedError
	err := e.Apply(tb.Context(), t)
	for end := time.Now().Add(5 * time.Second); errors.As(err, &owned) && time.Now().Before(end); err = e.Apply(tb.Context(), t) {
		time.Sleep(10 * time.Millisecond)
	}
	labtest.Must(tb, err)
}

// mustHold checks that the kernel holds a table, by a reading that knows nothing of it.
func mustHold(tb testing.TB, h *host, name string, wanted *Table) {
	tb.Helper()
	held := h.read(name)
	labtest.Must(tb, wanted.check())
	want := wanted.clone()
	want.flags = held.flags
	if c := diff(held, want); !c.empty() {
		tb.Fatalf("the kernel differs from %s in %d things: %+v", name, c.drift, c)
	}
}

// sample is a table with both families, sets of ranges with and without counters, and chains that go to each other.
// The sources of IPv4 are those given, or some.
func sample(sources ...string) *Table {
	if sources == nil {
		sources = []string{"10.1.0.0/24 a", "10.1.2.0/24 a"}
	}
	t := &Table{Sets: []Set{
		rangesOf("exempt4", IPv4Addr, "10.0.0.0/8"),
		rangesOf("exempt6", IPv6Addr, "fd00::/16"),
		rangesOf("source4", IPv4Addr, sources...),
		rangesOf("source6", IPv6Addr, "fd00:1::/64 b"),
	}}
	t.Sets[2].Counters, t.Sets[3].Counters = true, true
	var decide []Rule
	for _, f := range []struct {
		Family
		suffix string
	}{{IPv4(), "4"}, {IPv6(), "6"}} {
		decide = append(decide, NewRule(DestinationIn(f.Family, "exempt"+f.suffix), Return()),
			NewRule(SourceIn(f.Family, "source"+f.suffix), GoTo("count")))
	}
	t.Chains = []Chain{
		{Name: "base", Hook: Hook{Kind: KindFilter, Number: unix.NF_INET_FORWARD}, Rules: []Rule{NewRule(GoTo("decide"))}},
		{Name: "decide", Rules: decide},
		{Name: "count", Rules: []Rule{NewRule(ProtocolIs(unix.IPPROTO_TCP), Return()), NewRule(Count(), Accept())}},
	}
	return t
}

// rangesOf is a set of prefixes, each perhaps with a label after a space.
func rangesOf(name string, key Type, list ...string) Set {
	s := Set{Name: name, Key: []Type{key}, Ranges: true, Labels: "pool"}
	for _, l := range list {
		l, label, _ := strings.Cut(l, " ")
		first, last := ends(l)
		s.AddRange(first, last, label)
	}
	return s
}
