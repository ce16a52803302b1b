package nat

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// FuzzParsers feeds one datagram to every parser of what the kernel sends. None may panic or read beyond
// the datagram; what they return does not matter.
func FuzzParsers(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for m, err := range nfnetlink.Messages(data) {
			if err != nil {
				return
			}
			parseAll(m)
		}
	})
}

func parseAll(m nfnetlink.Message) {
	_, _, _ = parseTable(m)
	_, _, _ = parseChain(m)
	_, _, _, _ = parseRule(m)
	_, _, _ = parseSet(m)
	_, _ = parseSetName(m)
	_, _ = parseGeneration(m)
	_, _ = parseRuleCount(m, chainLeak)
	_, _ = nfnetlink.ParseReply(m)
	if elements, err := parseElements(nil, m); err == nil {
		segmentsOf(elements)
	}
}

// seeds are messages as this package writes them, which is how the kernel writes them back.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	wanted, err := layout(compile.NAT{
		Sources:    append(sources(tb, "a", "10.0.0.0/8", "255.0.0.0/8"), sources(tb, "b", "fd00::/16")...),
		Ports:      model.PortRange{First: 1, Last: 2},
		To4:        netip.MustParseAddr("192.0.2.1"),
		Allocation: model.PortsRandom,
	})
	if err != nil {
		tb.Fatal(err)
	}
	b := newBatch(1)
	b.write(diff(&table{}, wanted))
	b.finish()
	var out [][]byte
	for m, err := range nfnetlink.Messages(b.buf) {
		if err != nil {
			tb.Fatal(err)
		}
		one, at := nfnetlink.AppendHeader(nil, m.Kind, m.Flags, 0, 0, m.Seq)
		one = append(one[:nfnetlink.HeaderLen], m.Body...)
		nfnetlink.EndMessage(one, at)
		out = append(out, one)
	}
	return append(out, b.buf)
}

// FuzzReplies lets a kernel answer anything to every request of a driver, which must come to an end.
func FuzzReplies(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		d := newDriver(&babbler{data: data}, slog.New(slog.DiscardHandler))
		_ = d.Apply(ctx, compile.NAT{Allocation: model.PortsRandom})
		_, _ = d.Observe(ctx)
		_, _ = d.Counters(ctx)
		_ = d.Cleanup(ctx)
	})
}

// babbler answers each request with the same datagram, once, and then no more.
type babbler struct {
	data    []byte
	answers int
}

func (*babbler) PortID() uint32 { return 1 }

func (b *babbler) Send([]byte) error           { b.answers = 1; return nil }
func (b *babbler) SetDeadline(time.Time) error { return nil }
func (b *babbler) Close() error                { return nil }

func (b *babbler) Receive(into []byte) (int, error) {
	if b.answers == 0 {
		return 0, unix.ETIMEDOUT
	}
	b.answers--
	return copy(into, b.data), nil
}

// TestWrittenIsRead checks that the parsers read what batch writes: rules, sets, chains and ranges.
func TestWrittenIsRead(t *testing.T) {
	t.Parallel()
	wanted, err := layout(simplePlan(t))
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch(1)
	b.write(diff(&table{}, wanted))
	b.finish()
	got := &table{present: true}
	elements := map[string][]element{}
	for m, err := range nfnetlink.Messages(b.buf) {
		if err != nil {
			t.Fatal(err)
		}
		if err := readBack(got, elements, m); err != nil {
			t.Fatal(err)
		}
	}
	for name, list := range elements {
		var ok bool
		if got.set(name).segments, ok = segmentsOf(list); !ok {
			t.Errorf("the elements of %s are no ranges", name)
		}
	}
	if c := diff(got, wanted); !c.empty() {
		t.Errorf("%d things differ: %+v", c.drift, c)
	}
}

func readBack(t *table, elements map[string][]element, m nfnetlink.Message) error {
	switch {
	case m.Kind == subsystem|unix.NFT_MSG_NEWCHAIN:
		c, _, err := parseChain(m)
		t.chains = append(t.chains, c)
		return err
	case m.Kind == subsystem|unix.NFT_MSG_NEWRULE:
		r, _, name, err := parseRule(m)
		c := t.chain(name)
		c.rules = append(c.rules, r)
		return err
	case m.Kind == subsystem|unix.NFT_MSG_NEWSET:
		s, _, err := parseSet(m)
		t.sets = append(t.sets, s)
		return err
	case m.Kind == subsystem|unix.NFT_MSG_NEWSETELEM:
		name, err := parseSetName(m)
		if err != nil {
			return err
		}
		elements[name], err = parseElements(elements[name], m)
		return err
	}
	return nil
}
