package conntrack

import (
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// plan compiles one pool, with natOutgoing or not, for a node with an address in each family.
func plan(nat bool, mode model.ExistingFlows) *compile.Plan {
	var s model.Snapshot
	for name, cidr := range map[string]string{"v4": "10.0.0.0/16", "v6": "fd00::/64"} {
		s.Pools = append(s.Pools, &model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), NATOutgoing: nat, AllowedUses: model.UseWorkload})
	}
	s.NATConfigurations = []model.NATConfiguration{{Name: "default", NodeSelector: "all()", ExistingFlows: &mode}}
	return compile.Compile(&s, model.Local{Name: "node", Interfaces: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}})
}

// talking are flows of a pod: translated (seen as the node's) or not, of each kind.
func talking(translated bool) []entry {
	seen4, seen6 := "10.0.0.2:1000", "[fd00::2]:1000"
	if translated {
		seen4, seen6 = "192.0.2.1:40000", "[2001:db8::1]:40000"
	}
	return []entry{
		{protocol: compile.UDP, from: "10.0.0.2:1000", to: "198.51.100.7:53", seen: seen4, answered: true},
		{protocol: compile.UDP, from: "[fd00::2]:1000", to: "[2001:db8::7]:53", seen: seen6},
		{protocol: compile.ICMP, from: "10.0.0.2:1000", to: "198.51.100.7:0", seen: seen4, answered: true},
		{protocol: compile.TCP, from: "10.0.0.2:1000", to: "198.51.100.7:80", seen: seen4, answered: true, established: true},
		{protocol: compile.TCP, from: "[fd00::2]:1000", to: "[2001:db8::7]:80", seen: seen6}, // unanswered
	}
}

// restored are those of talking that are left, by protocol, when they are to keep their own address: UDP flows
// begin anew in the same place.
const restored = "17 17 6"

// others are flows that no plan of these tests has a say in.
var others = []entry{
	{protocol: compile.UDP, from: "10.0.0.2:2000", to: "10.0.9.9:53", answered: true},                               // within the pool
	{protocol: compile.UDP, from: "10.0.0.2:3000", to: "10.0.9.9:53", seen: "192.0.2.1:7"},                          // the same, translated by somebody
	{protocol: compile.UDP, from: "10.0.0.2:4000", to: "198.51.100.7:53", peer: "10.0.9.9:5353"},                    // a service with a backend in the pool
	{protocol: compile.UDP, from: "198.51.100.7:5000", to: "10.0.0.2:53"},                                           // from outside
	{protocol: compile.UDP, from: "10.9.0.2:6000", to: "198.51.100.7:53", seen: "192.0.2.1:6000"},                   // of no pool, translated by somebody
	{protocol: compile.TCP, from: "10.0.0.2:7000", to: "192.0.2.1:10250", answered: true, established: true},        // to the node
	{protocol: compile.UDP, from: "10.0.0.2:8000", to: "198.51.100.7:53", seen: "198.51.100.200:1", answered: true}, // given an address that is none of ours
}

// counting is a table that counts walks, by their sockets.
func counting(h *lab.Host, walks *int) *Table {
	return &Table{dial: func() (nfnetlink.Socket, error) { *walks++; return nfnetlink.Dial(h.FD()) }}
}

func TestApply(t *testing.T) {
	t.Parallel()
	move, keep, reset := model.FlowsMove, model.FlowsKeep, model.FlowsReset
	for _, tc := range []struct {
		name       string
		plans      []*compile.Plan
		translated bool // what the flows are
		older      int
		left       string // the protocols of the flows that are left
	}{
		{"the same", []*compile.Plan{plan(true, move), plan(true, move)}, true, 0, "1 17 17 6 6"},
		{"Move, on", []*compile.Plan{plan(false, move), plan(true, move)}, false, 1, "6"},
		{"Move, off", []*compile.Plan{plan(true, move), plan(false, move)}, true, 1, restored},
		{"Keep, on", []*compile.Plan{plan(false, keep), plan(true, keep)}, false, 5, "1 17 17 6 6"},
		{"Keep, off", []*compile.Plan{plan(true, keep), plan(false, keep)}, true, 5, "1 17 17 6 6"},
		{"Reset, on", []*compile.Plan{plan(false, reset), plan(true, reset)}, false, 0, ""},
		{"Reset, off", []*compile.Plan{plan(true, reset), plan(false, reset)}, true, 0, "17 17"},
		{"Keep, then Reset", []*compile.Plan{plan(true, keep), plan(false, keep), plan(false, reset)}, true, 0, "17 17"},
		{"off and on again", []*compile.Plan{plan(true, keep), plan(false, keep), plan(true, keep)}, true, 0, "1 17 17 6 6"},
		{"at the start: on", []*compile.Plan{nil, plan(true, move)}, false, 1, "6"},
		{"at the start: off", []*compile.Plan{nil, plan(false, move)}, true, 0, "1 17 17 6 6"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := labtest.NewHost(t, "node")
			walks := 0
			d := New(counting(h, &walks), slog.New(slog.DiscardHandler))
			if tc.plans[0] != nil {
				labtest.Must(t, d.Apply(t.Context(), tc.plans[0]))
			}
			track(t, h, others...)
			before := list(t, h)
			track(t, h, talking(tc.translated)...)
			for _, p := range tc.plans[1:] {
				d.Stands(p, false)
				labtest.Must(t, d.Apply(t.Context(), p))
				walks = 0
				labtest.Must(t, d.Apply(t.Context(), p))
				if walks != 0 {
					t.Errorf("an equal plan made it walk %d times", walks)
				}
			}
			if got := left(t, h, before); got != tc.left {
				t.Errorf("%q are left, want %q", got, tc.left)
			}
			if s := d.Stats(); s.Older != tc.older || s.Judged.IsZero() {
				t.Errorf("%+v, want %d under an older decision", s, tc.older)
			}
		})
	}
}

// TestFound judges the flows that an agent finds by the rules that it finds.
func TestFound(t *testing.T) {
	t.Parallel()
	on, off := plan(true, model.FlowsMove), plan(false, model.FlowsMove)
	uplink := plan(true, model.FlowsMove)
	uplink.NAT.OutInterfaces = []string{"eth0"}
	for _, tc := range []struct {
		name       string
		found, now *compile.Plan
		covered    bool
		translated bool
		left       string
	}{
		{"off meanwhile", on, off, true, true, restored},
		{"on meanwhile", off, on, true, false, "6"},
		{"the same", on, on, true, true, "1 17 17 6 6"},
		{"the same interfaces", on, uplink, true, false, "1 17 17 6 6"},
		{"other interfaces meanwhile", on, uplink, false, false, "6"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := labtest.NewHost(t, "node")
			track(t, h, others...)
			before := list(t, h)
			track(t, h, talking(tc.translated)...)
			d := New(NewTable(h.FD()), slog.New(slog.DiscardHandler))
			d.Found(tc.now.Found(tc.found.NAT.Sources, tc.found.NAT.Exempt, tc.covered))
			d.Stands(tc.now, false)
			labtest.Must(t, d.Apply(t.Context(), tc.now))
			if got := left(t, h, before); got != tc.left {
				t.Errorf("%q are left, want %q", got, tc.left)
			}
		})
	}
}

// left is the protocols of the flows beside others, all of which must be there still.
func left(t *testing.T, h *lab.Host, others []string) string {
	t.Helper()
	now := list(t, h)
	for _, o := range others {
		if !slices.Contains(now, o) {
			t.Errorf("%s was ended, and is none of ours", o)
		}
	}
	now = slices.DeleteFunc(now, func(s string) bool { return slices.Contains(others, s) })
	for i, s := range now {
		now[i], _, _ = strings.Cut(s, " ")
	}
	return strings.Join(now, " ")
}

// TestApplyIsBoundedInMemory judges as many flows as this machine tracks. Half of them move, half live under
// an older decision from then on.
func TestApplyIsBoundedInMemory(t *testing.T) {
	h := labtest.NewHost(t, "node")
	n := min(most(t), 1<<18)
	began := time.Now()
	trackMany(t, h, n, func(i int, b []byte, seq uint32) []byte {
		source := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 16), byte(i >> 8)}), uint16(i&0xff)+1024)
		peer := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 7}), 53)
		e := entry{protocol: compile.UDP, answered: true}
		if i%2 == 0 {
			e.protocol, e.established = compile.TCP, true
		}
		return appendEntry(b, seq, e, Tuple{source, peer}, Tuple{peer, source})
	})
	t.Logf("%d flows in %v", n, time.Since(began))
	d := New(NewTable(h.FD()), slog.New(slog.DiscardHandler))
	on := plan(true, model.FlowsMove)
	d.Found(plan(false, model.FlowsMove))
	d.Stands(on, false)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began = time.Now()
	labtest.Must(t, d.Apply(t.Context(), on))
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	total := after.TotalAlloc - before.TotalAlloc
	t.Logf("judged in %v: %+v; %d KiB were allocated", took, d.Stats(), total>>10)
	// The kernel's numbers of flows are hashes: a few are the same.
	if s := d.Stats(); s.Tracked != n/2 || s.Older > n/2 || s.Older < n/2-n/1000 || s.Ended != uint64(n/2) {
		t.Errorf("%+v, want half of %d ended", s, n)
	}
	if total > 8<<20 { // the numbers of those that live on, four bytes each, several times over as they grow
		t.Errorf("%d bytes were allocated for %d flows", total, n)
	}
}

// TestApplyAfterFailure makes the kernel fail while plans go on and off: what was opened under a plan that
// stood in between is moved in the end.
func TestApplyAfterFailure(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	var broken error
	table := &Table{dial: func() (nfnetlink.Socket, error) {
		if broken != nil {
			return nil, broken
		}
		return nfnetlink.Dial(h.FD())
	}}
	d := New(table, slog.New(slog.DiscardHandler))
	off, on := plan(false, model.FlowsMove), plan(true, model.FlowsMove)
	labtest.Must(t, d.Apply(t.Context(), off))
	broken = unix.ENOMEM
	d.Stands(on, false)
	if err := d.Apply(t.Context(), on); !errors.Is(err, unix.ENOMEM) {
		t.Fatalf("without a socket it says %v", err)
	}
	track(t, h, talking(true)...)
	d.Stands(off, false)
	broken = nil
	labtest.Must(t, d.Apply(t.Context(), off))
	if got := left(t, h, nil); got != restored {
		t.Errorf("%q are left, want %s", got, restored)
	}
	for range 2 * remembered {
		d.Stands(on, false)
		d.Stands(off, false)
	}
	if n := len(d.stood); n > remembered {
		t.Errorf("%d plans are remembered", n)
	}
}

// TestRepaired opens flows while somebody has undone the rules: all of them end, also established ones,
// but for those that lived under an older decision before.
func TestRepaired(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	d := New(NewTable(h.FD()), slog.New(slog.DiscardHandler))
	on := plan(true, model.FlowsMove)
	labtest.Must(t, d.Apply(t.Context(), plan(false, model.FlowsMove)))
	long := entry{protocol: compile.TCP, from: "10.0.0.2:1", to: "198.51.100.7:80", answered: true, established: true}
	track(t, h, long)
	d.Stands(on, false)
	labtest.Must(t, d.Apply(t.Context(), on))
	track(t, h, talking(false)...)
	d.Stands(on, true)
	labtest.Must(t, d.Apply(t.Context(), on))
	if got := list(t, h); len(got) != 1 || !strings.Contains(got[0], "10.0.0.2:1>") {
		t.Errorf("%q are left, want the one from before", got)
	}
	if s := d.Stats(); s.Older != 1 || s.Ended != 5 {
		t.Errorf("%+v", s)
	}
	// Observe counts those that are left, and finds that they have gone.
	_, err := NewTable(h.FD()).Walk(t.Context(), func() Visit { return func(*Flow) Action { return Translate } })
	labtest.Must(t, err)
	drift, err := d.Observe(t.Context())
	if s := d.Stats(); err != nil || drift != 0 || s.Older != 0 {
		t.Errorf("observed %d, %v; %+v", drift, err, s)
	}
}
