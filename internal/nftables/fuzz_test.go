package nftables

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	_, _ = parseRuleCount(m, FamilyInet, ours, "count")
	_, _ = nfnetlink.ParseReply(m)
	for _, s := range kinds().Sets {
		r := newReading(&s)
		if parseElements(m, r.add) == nil {
			r.finish()
			for i := range s.Len() {
				_ = s.labelled(i)
			}
		}
	}
}

// seeds are messages as this package writes them, which is how the kernel writes them back.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	wanted := kinds()
	if err := wanted.check(); err != nil {
		tb.Fatal(err)
	}
	b := newBatch(ours, FamilyInet, 1)
	b.write(diff(&Table{}, wanted))
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
		e := newEngine(ours, FamilyInet, &babbler{data: data}, slog.New(slog.DiscardHandler))
		_ = e.Apply(ctx, kinds())
		_, _ = e.Observe(ctx)
		_, _ = e.Counts(ctx)
		_, _ = e.Tallies(ctx)
		_ = e.Cleanup(ctx)
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
	wanted := kinds()
	if err := wanted.check(); err != nil {
		t.Fatal(err)
	}
	b := newBatch(ours, FamilyInet, 1)
	b.write(diff(&Table{}, wanted))
	b.finish()
	got := &Table{kernelTable: kernelTable{present: true}}
	readings := map[string]*reading{}
	for m, err := range nfnetlink.Messages(b.buf) {
		if err != nil {
			t.Fatal(err)
		}
		if err := readBack(got, readings, m); err != nil {
			t.Fatal(err)
		}
	}
	for i := range got.Sets {
		if s := &got.Sets[i]; readings[s.Name] != nil {
			readings[s.Name].set = s
			readings[s.Name].finish()
		}
	}
	if c := diff(got, wanted); !c.empty() {
		t.Errorf("%d things differ: %+v", c.drift, c)
	}
}

func readBack(t *Table, readings map[string]*reading, m nfnetlink.Message) error {
	switch m.Kind {
	case subsystem | unix.NFT_MSG_NEWCHAIN:
		c, _, err := parseChain(m)
		t.Chains = append(t.Chains, c)
		return err
	case subsystem | unix.NFT_MSG_NEWRULE:
		r, _, name, err := parseRule(m)
		c := t.Chain(name)
		c.Rules = append(c.Rules, r)
		return err
	case subsystem | unix.NFT_MSG_NEWSET:
		s, _, err := parseSet(m)
		t.Sets = append(t.Sets, s)
		return err
	case subsystem | unix.NFT_MSG_NEWSETELEM:
		name, err := parseSetName(m)
		if err != nil {
			return err
		}
		if readings[name] == nil {
			readings[name] = newReading(t.Set(name))
		}
		return parseElements(m, readings[name].add)
	}
	return nil
}
