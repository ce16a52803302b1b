package nftables

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// tuple is a key of ipv4_addr . inet_proto . inet_service.
func tuple(addr string, protocol uint8, port uint16) []byte {
	return AppendService(AppendProto(AppendAddr(nil, netip.MustParseAddr(addr)), protocol), port)
}

func addr(s string) []byte { return AppendAddr(nil, netip.MustParseAddr(s)) }

// kinds is a table with a set or map of every kind.
func kinds() *Table {
	ranges4 := rangesOf("ranges4", IPv4Addr, "10.1.0.0/24 a", "255.0.0.0/8 b")
	ranges4.Counters = true
	verdicts := Set{Name: "verdicts", Key: []Type{IPv4Addr}, Data: Verdicts}
	verdicts.Add(Element{Key: addr("10.0.0.3"), Verdict: Drop()})
	verdicts.Add(Element{Key: addr("10.0.0.1"), Verdict: Jump("one")})
	verdicts.Add(Element{Key: addr("10.0.0.2"), Verdict: GoTo("two")})
	ifaces := Set{Name: "ifaces", Key: []Type{IfName}, Data: Verdicts}
	ifaces.Add(Element{Key: AppendIfName(nil, "pod0"), Verdict: GoTo("two")})
	ifaces.Add(Element{Key: AppendIfName(nil, "lo"), Verdict: Jump("one")})
	zones := Set{Name: "zones", Key: []Type{IPv4Addr}, Ranges: true, Data: Verdicts}
	zones.Add(Element{Key: addr("10.0.0.0"), Last: addr("10.0.255.255"), Verdict: Jump("one")})
	zones.Add(Element{Key: addr("10.1.0.0"), Last: addr("255.255.255.255"), Verdict: Accept()})
	tuples := Set{Name: "tuples", Key: []Type{IPv4Addr, InetProto, InetService}, Ranges: true, Counters: true, Labels: "peer"}
	tuples.Add(Element{Key: tuple("10.1.0.0", 6, 80), Last: tuple("10.1.255.255", 6, 90), Label: "x"})
	tuples.Add(Element{Key: tuple("10.1.0.0", 17, 53), Last: tuple("10.1.0.0", 17, 53), Label: "y"})
	tuples.Add(Element{Key: tuple("127.0.0.0", 17, 1000), Last: tuple("127.255.255.255", 17, 2000), Label: "local"})
	exact := Set{Name: "exact", Key: []Type{IfName, IPv6Addr}}
	exact.Add(Element{Key: AppendAddr(AppendIfName(nil, "pod0"), netip.MustParseAddr("fd00::1"))})
	anchored := Set{Name: "anchored", Key: []Type{IfName, IPv6Addr}, Ranges: true}
	anchored.Add(Element{Key: AppendAddr(AppendIfName(nil, "pod0"), netip.MustParseAddr("fd00::")), Last: AppendAddr(AppendIfName(nil, "pod0"), netip.MustParseAddr("fd00::ff"))})
	marks := Set{Name: "marks", Key: []Type{IPv4Addr}, Data: Mark}
	marks.Add(Element{Key: addr("10.0.0.1"), Data: AppendMark(nil, 7)})
	egress := Set{Name: "egress", Key: []Type{IPv4Addr}, Ranges: true, Data: IPv4Addr}
	egress.Add(Element{Key: addr("10.1.0.0"), Last: addr("10.1.0.255"), Data: addr("192.0.2.7")})
	ports := Set{Name: "ports", Key: []Type{InetService}, Ranges: true}
	ports.Add(Element{Key: AppendService(nil, 1), Last: AppendService(nil, 9)})
	ports.Add(Element{Key: AppendService(nil, 60000), Last: AppendService(nil, 65535)})
	protocols := Set{Name: "protocols", Key: []Type{InetProto}}
	protocols.Add(Element{Key: AppendProto(nil, 6)})
	owners := Set{Name: "owners", Key: []Type{Mark}}
	owners.Add(Element{Key: AppendMark(nil, 0x10000)})
	return &Table{
		Sets: []Set{ranges4, verdicts, ifaces, zones, tuples, exact, anchored, marks, egress, ports, protocols, owners},
		Chains: []Chain{
			{Name: "out", Hook: Hook{Kind: KindFilter, Number: unix.NF_INET_LOCAL_OUT}, Rules: []Rule{
				NewRule(InFamily(IPv4()), VerdictOf("verdicts", Destination(IPv4()))),
				NewRule(VerdictOf("ifaces", OutInterface())),
				NewRule(InFamily(IPv4()), VerdictOf("zones", Source(IPv4()))),
				NewRule(InFamily(IPv6()), In("exact", OutInterface(), Destination(IPv6())), Drop()),
				NewRule(InFamily(IPv6()), In("anchored", OutInterface(), Destination(IPv6())), Return()),
				NewRule(InFamily(IPv4()), ValueOf("marks", Destination(IPv4())), Expr(&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: Reg1})),
				NewRule(ProtocolIs(unix.IPPROTO_TCP), In("ports", SourcePort()), Return()),
				NewRule(In("protocols", Protocol()), Return()),
			}},
			{Name: "one", Tally: true, Rules: []Rule{NewRule(InFamily(IPv4()), In("tuples", Destination(IPv4()), Protocol(), DestinationPort()), Count(), Drop())}},
			{Name: "two", Rules: []Rule{NewRule(Jump("three"))}},
			{Name: "three"},
		},
	}
}

// TestKinds applies a table with every kind of set and map: the kernel holds it, nft prints what is meant, our text of
// the rules and elements is that of nft, and an engine that knows nothing of the table changes nothing.
func TestKinds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.engine(ours)
	mustApply(t, e, kinds())
	mustHold(t, h, ours, kinds())
	listed := h.nft("list table inet sample")
	for _, want := range []string{
		"10.0.0.1 : jump one", "10.0.0.2 : goto two", "10.0.0.3 : drop", `"lo" : jump one`, `"pod0" : goto two`,
		"type ipv4_addr . inet_proto . inet_service", "10.1.0.0/16 . tcp . 80-90 counter packets 0 bytes 0", "10.1.0.0 . udp . 53 counter",
		"10.0.0.0/16 : jump one", "10.1.0.0-255.255.255.255 : accept", `"pod0" . fd00::1`, `"pod0" . fd00::/120`, "10.0.0.1 : 0x00000007",
		"10.1.0.0/24 : 192.0.2.7", "1-9, 60000-65535", "elements = { tcp }", "0x00010000",
		"ip daddr vmap @verdicts", "oifname vmap @ifaces", "ip daddr . meta l4proto . th dport @tuples counter packets 0 bytes 0 drop",
		"meta mark set ip daddr map @marks", "oifname . ip6 daddr @exact drop", "tcp sport @ports return", "meta l4proto @protocols return",
	} {
		if !strings.Contains(listed, want) {
			t.Errorf("nft does not print %q in\n%s", want, listed)
		}
	}
	p, err := h.engine(ours).Preview(t.Context(), &Table{})
	labtest.Must(t, err)
	for _, c := range p.Chains {
		for _, r := range c.Remove {
			if !strings.Contains(strings.ReplaceAll(listed, " packets 0 bytes 0", ""), "\t\t"+r+"\n") {
				t.Errorf("our %q is not what nft prints of chain %s", r, c.Name)
			}
		}
	}
	for _, s := range p.Sets {
		for _, text := range s.RemoveFirst {
			text, data, isMap := strings.Cut(text, " : ")
			if !strings.Contains(listed, text) || isMap && !strings.Contains(listed, " : "+data) {
				t.Errorf("our element %q : %q is not what nft prints of set %s", text, data, s.Name)
			}
		}
	}
	again := h.engine(ours)
	mustApply(t, again, kinds())
	if s := again.Stats(); s.Transactions != 0 || s.Elements != 20 {
		t.Errorf("an engine that finds an equal table: %+v; want no transaction, and 20 elements", s)
	}
}

// TestElementsOfEveryKindChange takes an element from every set and map, and puts it there again. Each time it is one
// transaction without anything but elements, and without reading back.
func TestElementsOfEveryKindChange(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.engine(ours)
	mustApply(t, e, kinds())
	reads := e.Stats().FullReads
	for i, whole := range kinds().Sets {
		less := kinds()
		s := &less.Sets[i]
		s.DropElements()
		at := 0
		for el := range whole.All() {
			if at++; at != 1 {
				s.Add(el)
			}
		}
		for _, wanted := range []*Table{less, kinds()} {
			before := e.Stats()
			mustApply(t, e, wanted)
			mustHold(t, h, ours, wanted)
			if after := e.Stats(); after.Transactions != before.Transactions+1 || after.LastMessages != 1 || after.FullReads != reads {
				t.Errorf("an element of %s: %+v", whole.Name, after)
			}
			if drift, err := e.Observe(t.Context()); drift != 0 || err != nil || e.Stats().FullReads != reads {
				t.Errorf("after a change of %s: %d differences, %v, %d readings", whole.Name, drift, err, e.Stats().FullReads-reads)
			}
		}
	}
}

// TestTamperingWithKinds has others change what each kind of set and map holds, or the chains that they go to.
func TestTamperingWithKinds(t *testing.T) {
	t.Parallel()
	const in = "inet sample "
	for _, script := range []string{
		"delete element " + in + "verdicts { 10.0.0.1 : jump one }",
		"delete element " + in + "verdicts { 10.0.0.1 : jump one }; add element " + in + "verdicts { 10.0.0.1 : accept }",
		"delete element " + in + "verdicts { 10.0.0.1 : jump one }; add element " + in + "verdicts { 10.0.0.1 : goto one }",
		"flush map " + in + "ifaces",
		"add element " + in + "tuples { 10.7.0.0/16 . udp . 1-2 }",
		"flush set " + in + "tuples; add element " + in + "tuples { 10.1.0.0/16 . tcp . 80-91 }",
		"delete element " + in + "marks { 10.0.0.1 : 7 }; add element " + in + "marks { 10.0.0.1 : 8 }",
		"flush map " + in + "egress; add element " + in + "egress { 10.1.0.0/24 : 192.0.2.8 }",
		"add chain " + in + "four; add element " + in + "verdicts { 10.0.0.9 : goto four }",
		"flush chain " + in + "out; flush map " + in + "verdicts; delete map " + in + "verdicts; add map " + in + "verdicts { type ipv4_addr : verdict; flags interval; }; " +
			"add element " + in + "verdicts { 10.0.0.0/24 : jump one }",
		"flush map " + in + "verdicts; flush map " + in + "ifaces; flush map " + in + "zones; flush chain " + in + "one; delete chain " + in + "one; " +
			"add chain " + in + "one { type filter hook output priority 7; }",
		"add table " + in + "{ flags dormant; }",
		"delete table " + in,
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			e := h.engine(ours)
			mustApply(t, e, kinds())
			h.nft(strings.ReplaceAll(script, "; ", ";\n"))
			if drift, err := e.Observe(t.Context()); drift == 0 || err != nil {
				t.Errorf("%d differences, %v", drift, err)
			}
			before := e.Stats().Transactions
			mustApply(t, e, kinds())
			if n := e.Stats().Transactions - before; n != 1 {
				t.Errorf("repaired in %d transactions", n)
			}
			mustHold(t, h, ours, kinds())
		})
	}
}

// TestManyElements loads a map of 100,000 elements, and changes one: a handful of messages, and no reading back.
func TestManyElements(t *testing.T) {
	t.Parallel()
	n := uint32(100_000)
	if testing.Short() {
		n = 10_000
	}
	h := newHost(t)
	e := h.owner()
	many := func(changed uint32) *Table {
		s := Set{Name: "many", Key: []Type{IPv4Addr}, Data: IPv4Addr}
		s.Grow(int(n))
		for i := range n {
			data := i
			if i == changed {
				data = 77
			}
			s.Add(Element{Key: binary.BigEndian.AppendUint32(nil, 0x0a000000+7*i), Data: binary.BigEndian.AppendUint32(nil, 0xc0000000+data)})
		}
		return &Table{Sets: []Set{s}}
	}
	mustApply(t, e, many(n))
	before := e.Stats()
	mustApply(t, e, many(n/2))
	after := e.Stats()
	if after.FullReads != before.FullReads || after.LastElements != 2 || after.LastMessages != 2 || after.Elements != int(n) {
		t.Errorf("one element changed: from %+v to %+v", before, after)
	}
	mustHold(t, h, ours, many(n/2))
	if bytes := len(many(0).Sets[0].rows); bytes != 8*int(n) {
		t.Errorf("%d elements are %d bytes", n, bytes)
	}
}

// TestTablesSideBySide has two tables of ours, of which somebody deletes one: its engine is told and makes it again, and
// the other stays untouched.
func TestTablesSideBySide(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	a, b := h.engine(ours), h.engine("other")
	mustApply(t, a, sample())
	mustApply(t, b, kinds())
	var told [2]atomic.Int64
	for i, e := range []*Engine{a, b} {
		done := make(chan error, 1)
		go func() { done <- e.Watch(t.Context(), func() { told[i].Add(1) }) }()
		t.Cleanup(func() { labtest.Must(t, <-done) })
	}
	await := func(n *atomic.Int64, least int64) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); n.Load() < least; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing was told in ten seconds")
			}
		}
	}
	await(&told[0], 1) // that it begins
	await(&told[1], 1)
	before, list := b.Stats(), h.nft("--handle list table inet other")
	h.nft("delete table inet sample")
	await(&told[0], 2)
	if drift, err := a.Observe(t.Context()); drift == 0 || err != nil {
		t.Errorf("the table is gone: %d differences, %v", drift, err)
	}
	mustApply(t, a, sample())
	mustHold(t, h, ours, sample())
	if drift, err := b.Observe(t.Context()); drift != 0 || err != nil {
		t.Errorf("of the other table %d things differ, %v", drift, err)
	}
	mustApply(t, b, kinds())
	if after := b.Stats(); after.Transactions != before.Transactions || h.nft("--handle list table inet other") != list {
		t.Errorf("the other table was changed: %+v, then %+v", before, after)
	}
	h.nft("add set inet other x { type mark; }") // once that is told, all before it would have been
	await(&told[1], 2)
	if n := told[1].Load(); n != 2 {
		t.Errorf("%d things were told of a table that nobody had changed", n-2)
	}
	labtest.Must(t, a.Cleanup(t.Context()))
	if tables := h.nft("list tables"); tables != "table inet other\n" {
		t.Errorf("after the cleanup of one there are %q", tables)
	}
}

// TestOwnedTablesSideBySide has two owned tables, one of which is left by its agent: the next takes it over, and neither
// stands in the other's way.
func TestOwnedTablesSideBySide(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	a, b := h.owner(), h.open("other", Options{})
	mustApply(t, a, kinds())
	mustApply(t, b, kinds())
	needOwned(t, a)
	labtest.Must(t, a.Close())
	next := h.owner()
	mustApply(t, next, kinds())
	if s := next.Stats(); s.Transactions != 1 || s.LastMessages != 1 {
		t.Errorf("taken over with %+v; want one message", s)
	}
	if drift, err := b.Observe(t.Context()); drift != 0 || err != nil {
		t.Errorf("of the other table %d things differ, %v", drift, err)
	}
	labtest.Must(t, b.Cleanup(t.Context()))
	mustHold(t, h, ours, kinds())
}

// TestPartsAreBroughtAlone has the kernel refuse an element of one part: the other part comes to the kernel.
func TestPartsAreBroughtAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.engine(ours)
	mustApply(t, e, kinds())
	wanted := kinds()
	// The kernel knows no chain of that name; and what it is to learn of ports is right.
	wanted.Set("verdicts").Add(Element{Key: addr("10.0.0.77"), Verdict: GoTo("nowhere")})
	wanted.Set("ports").Add(Element{Key: AppendService(nil, 443)})
	part := func(name, stays string) Part {
		return Part{Name: name, Alone: func(wanted, held *Table) { wanted.Set(stays).TakeElements(held.Set(stays)) }}
	}
	err := e.Apply(t.Context(), wanted, part("ports", "verdicts"), part("verdicts", "ports"))
	if err == nil || !strings.Contains(err.Error(), "verdicts: adding to set verdicts: 10.0.0.77 : goto nowhere") || strings.Contains(err.Error(), "ports:") {
		t.Errorf("error %v", err)
	}
	want := kinds()
	want.Set("ports").Add(Element{Key: AppendService(nil, 443)})
	mustHold(t, h, ours, want)
	if e.Settled() {
		t.Error("what was refused is said to stand")
	}
	wanted.Chains = append(wanted.Chains, Chain{Name: "nowhere"})
	mustApply(t, e, wanted)
	mustHold(t, h, ours, wanted)
}

// TestPreviewOfKinds names elements of every kind.
func TestPreviewOfKinds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.engine(ours)
	mustApply(t, e, kinds())
	wanted := kinds()
	wanted.Set("verdicts").Add(Element{Key: addr("10.0.0.77"), Verdict: GoTo("two")})
	wanted.Set("tuples").DropElements()
	p, err := h.engine(ours).Preview(t.Context(), wanted)
	labtest.Must(t, err)
	want := &Preview{Table: "inet sample", Present: true, Sets: []SetPreview{
		{Name: "verdicts", Add: 1, AddFirst: []string{"10.0.0.77 : goto two"}},
		{Name: "tuples", Remove: 3, RemoveFirst: []string{"10.1.0.0/16 . tcp . 80-90", "10.1.0.0 . udp . 53", "127.0.0.0/8 . udp . 1000-2000"}},
	}}
	slices.SortFunc(p.Sets, func(a, b SetPreview) int { return -strings.Compare(a.Name, b.Name) })
	for i := range p.Sets {
		slices.Sort(p.Sets[i].RemoveFirst)
		slices.Sort(want.Sets[i].RemoveFirst)
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
}
