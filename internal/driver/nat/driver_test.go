package nat

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// TestGolden compares what nft prints with testdata; run it with -update to rewrite that.
func TestGolden(t *testing.T) {
	t.Parallel()
	ports, vxlan := model.PortRange{First: 32768, Last: 65535}, model.PortRange{First: 4790, Last: 65535}
	to4, to6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	with := func(change func(*compile.NAT)) compile.NAT {
		n := simplePlan(t)
		change(&n)
		return n
	}
	plans := map[string]compile.NAT{
		"empty":      {Allocation: model.PortsFullyRandom},
		"simple":     simplePlan(t),
		"interfaces": with(func(n *compile.NAT) { n.OutInterfaces = []string{"a23456789012345", "eth*", "wan0"} }),
		"everywhere": with(func(n *compile.NAT) { n.OutInterfaces = []string{"*"} }),
		"vxlan":      with(func(n *compile.NAT) { n.UDPPorts = vxlan }),
		"one-port":   with(func(n *compile.NAT) { n.Ports, n.UDPPorts = model.PortRange{First: 1, Last: 1}, ports }),
		"guard":      with(func(n *compile.NAT) { n.LeakGuard = true }),
		"guard-interfaces": with(func(n *compile.NAT) {
			n.LeakGuard, n.OutInterfaces, n.To4, n.To6 = true, []string{"eth*", "wan0"}, to4, to6
		}),
		"guard-keep":  with(func(n *compile.NAT) { n.LeakGuard, n.ExistingFlows = true, model.FlowsKeep }),
		"guard-reset": with(func(n *compile.NAT) { n.LeakGuard, n.ExistingFlows = true, model.FlowsReset }),
		"guard-one-family": {
			LeakGuard: true, Allocation: model.PortsFullyRandom,
			Sources: append(append(sources(t, "a", "10.0.0.0/25"), sources(t, "b", "10.0.0.128/25")...), sources(t, "a", "10.0.2.0/24")...),
		},
		"edges": {
			Sources: append(sources(t, "a", "0.0.0.0-9.255.255.255", "10.0.0.0/8", "255.255.255.255/32"),
				sources(t, "b", "::/128", "ffff::/16")...),
			Exempt: ranges(t, "0.0.0.0/0", "::/0"), Allocation: model.PortsPreserve,
		},
		"adjacent": {
			Sources: append(append(sources(t, "a", "10.0.0.0/25"), sources(t, "b", "10.0.0.128/25", "10.0.1.0/24")...),
				append(sources(t, "a", "10.0.2.1/32"), sources(t, "b", "10.0.2.2/32")...)...),
			Allocation: model.PortsFullyRandom,
		},
	}
	for _, how := range []model.PortAllocation{model.PortsFullyRandom, model.PortsRandom, model.PortsPreserve} {
		for _, p := range []model.PortRange{{}, ports} {
			for _, fixed := range []bool{false, true} {
				name := fmt.Sprintf("snat-%s-ports=%t-address=%t", how, !p.IsZero(), fixed)
				plans[strings.ToLower(name)] = with(func(n *compile.NAT) {
					n.Allocation, n.Ports, n.UDPPorts = how, p, p
					if fixed {
						n.To4, n.To6 = to4, to6
					}
				})
			}
		}
	}
	for name, plan := range plans {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t)
			mustApply(t, ns.driver(), plan)
			mustHold(t, ns, plan)
			golden(t, name+".nft", ns.nft("list", "table", "inet", TableName))
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("nft prints other than %s (-want +got):\n%s", path, d)
	}
}

// TestNFTCanWriteItToo checks that nft reads what it prints of us, and makes the same table of it: so
// our elements follow its conventions.
func TestNFTCanWriteItToo(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.nft")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, path := range files {
		ns := newNamespace(t)
		ns.nft("-f", path)
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), ns.nft("list", "table", "inet", TableName)); d != "" {
			t.Errorf("%s, loaded by nft (-want +got):\n%s", path, d)
		}
	}
}

// TestAdopt checks that a driver finds an earlier one's table and changes nothing, or what differs.
func TestAdopt(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	plan := simplePlan(t)
	mustApply(t, ns.driver(), plan)
	second := ns.driver()
	mustApply(t, second, plan)
	if s := second.Stats(); s.Transactions != 0 || s.FullReads != 1 || s.Elements != 5 {
		t.Errorf("adopting an equal table: %+v; want no transaction, 1 full read, 5 ranges", s)
	}
	third := ns.driver()
	plan.Sources[0].Range = ranges(t, "10.1.0.0/25")[0]
	mustApply(t, third, plan)
	if s := third.Stats(); s.Transactions != 1 || s.LastElements != 4 || s.LastMessages != 2 {
		t.Errorf("adopting a table with one other range: %+v; want 1 transaction of 4 elements in 2 messages", s)
	}
	mustHold(t, ns, plan)
}

// TestAdoptFromNFT checks that the zero element that nft adds is no difference.
func TestAdoptFromNFT(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	ns.nft("-f", "testdata/simple.nft")
	d := ns.driver()
	mustApply(t, d, simplePlan(t))
	if s := d.Stats(); s.Transactions != 0 {
		t.Errorf("adopting a table that nft wrote: %+v; want no transaction", s)
	}
}

// TestApply checks what a change costs: one transaction, only what differs, no reading back.
func TestApply(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d := ns.driver()
	plan := simplePlan(t)
	steps := []struct {
		name                             string
		change                           func()
		transactions, elements, messages int
	}{
		{"the same", func() {}, 0, 0, 0},
		{"a range more", func() { plan.Exempt = ranges(t, "10.0.0.0/8", "172.16.0.0/12", "fd00::/16") }, 1, 2, 1},
		{"a range less", func() { plan.Sources = plan.Sources[1:] }, 1, 2, 1},
		{"a range to another pool", func() { plan.Sources = append(sources(t, "c", "10.1.2.0/24"), plan.Sources[1:]...) }, 1, 4, 2},
		{"an interface", func() { plan.OutInterfaces = []string{"eth0"} }, 1, 0, 2},
		{"an address", func() { plan.To4 = netip.MustParseAddr("192.0.2.1") }, 1, 0, 2},
		{"all sources gone", func() { plan.Sources = nil }, 1, 4, 2},
	}
	mustApply(t, d, plan)
	for _, s := range steps {
		plan.Sources = append([]compile.Source(nil), plan.Sources...)
		s.change()
		before := d.Stats()
		mustApply(t, d, plan)
		after := d.Stats()
		if n := int(after.Transactions - before.Transactions); n != s.transactions || after.FullReads != before.FullReads {
			t.Errorf("%s: %d transactions and %d full reads; want %d and none", s.name, n, after.FullReads-before.FullReads, s.transactions)
		}
		if n := s.transactions; n > 0 && (after.LastElements != s.elements || after.LastMessages != s.messages) {
			t.Errorf("%s: %+v; want %d elements in %d messages", s.name, after, s.elements, s.messages)
		}
		mustHold(t, ns, plan)
	}
}

// TestSameAgainIsSilent checks that an equal plan sends nothing.
func TestSameAgainIsSilent(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d, counted := ns.watchedDriver()
	mustApply(t, d, simplePlan(t))
	before := counted.calls
	mustApply(t, d, simplePlan(t))
	if counted.calls != before {
		t.Errorf("an equal plan cost %d calls of the socket", counted.calls-before)
	}
}

// TestCleanup checks that our table goes, and others stay.
func TestCleanup(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	ns.nft("add", "table", "inet", "other")
	d := ns.driver()
	for range 2 {
		mustApply(t, d, simplePlan(t))
		for range 2 { // what is not there is cleaned up too
			if err := d.Cleanup(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := ns.nft("list", "tables"); got != "table inet other\n" {
			t.Errorf("after cleanup there are: %s", got)
		}
	}
}

// TestBadPlans checks that what compile never makes is refused before anything is sent.
func TestBadPlans(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d := ns.driver()
	for want, change := range map[string]func(*compile.NAT){
		`port allocation "x"`:        func(n *compile.NAT) { n.Allocation = "x" },
		"port range 2-1":             func(n *compile.NAT) { n.Ports = model.PortRange{First: 2, Last: 1} },
		"port range 0-1":             func(n *compile.NAT) { n.UDPPorts = model.PortRange{Last: 1} },
		"fd00::1 is not an IPv4":     func(n *compile.NAT) { n.To4 = netip.MustParseAddr("fd00::1") },
		"10.0.0.1 is not an IPv6":    func(n *compile.NAT) { n.To6 = netip.MustParseAddr("10.0.0.1") },
		`out interface ""`:           func(n *compile.NAT) { n.OutInterfaces = []string{""} },
		`"a234567890123456": a name`: func(n *compile.NAT) { n.OutInterfaces = []string{"a234567890123456"} },
		`of pool "b": overlaps`:      func(n *compile.NAT) { n.Sources = append(n.Sources, n.Sources[2]) },
		"exempt range 10.0":          func(n *compile.NAT) { n.Exempt = ranges(t, "10.0.0.0/8", "10.0.0.0/24") },
	} {
		plan := simplePlan(t)
		change(&plan)
		if err := d.Apply(t.Context(), plan); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want one with %q", err, want)
		}
	}
	if got := ns.nft("list", "ruleset"); got != "" {
		t.Errorf("refused plans left:\n%s", got)
	}
}

// TestNoPermission checks that the error says what is missing.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d := ns.driver()
	err := ns.do(func() error {
		// The thread ends with the function. The kernel checks the sender as well as the opener.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capset(&header, &(&[2]unix.CapUserData{})[0]); err != nil {
			t.Errorf("dropping capabilities: %v", err)
		}
		return d.Apply(t.Context(), simplePlan(t))
	})
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("without capabilities: %v; want an error with CAP_NET_ADMIN", err)
	}
	mustApply(t, d, simplePlan(t))
}

// TestCancelled checks that a plan that nobody waits for any more changes nothing.
func TestCancelled(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d := ns.driver()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Apply(ctx, simplePlan(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want that the context was cancelled", err)
	}
	if got := ns.nft("list", "ruleset"); got != "" {
		t.Errorf("a cancelled plan left:\n%s", got)
	}
}

// TestUserNamespace runs TestApply as root of a user namespace, who may not force buffer sizes.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	self := exec.Command(os.Args[0], "-test.run=^(TestApply|TestAdopt|TestCleanup)$", "-test.v")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: ids,
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	out, err := self.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
		t.Skipf("kernel feature missing: user namespaces: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestApply") {
		t.Errorf("%v\n%s", err, out)
	}
}

// mustApply applies a plan. A table whose owner was closed a moment ago may be owned for a moment more: a
// program that another test starts has the socket too until it is executed.
func mustApply(tb testing.TB, d *Driver, plan compile.NAT) {
	tb.Helper()
	var owned *nftables.OwnedError
	err := d.Apply(tb.Context(), plan)
	for end := time.Now().Add(5 * time.Second); errors.As(err, &owned) && time.Now().Before(end); err = d.Apply(tb.Context(), plan) {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// mustHold checks, with a driver that knows nothing yet, that the kernel holds a plan.
func mustHold(tb testing.TB, ns *namespace, plan compile.NAT) {
	tb.Helper()
	if p := differences(tb, ns, plan); !p.Equal {
		tb.Fatalf("the kernel differs from the plan: %+v", p)
	}
}

// differences is what the kernel lacks of a plan.
func differences(tb testing.TB, ns *namespace, plan compile.NAT) *nftables.Preview {
	tb.Helper()
	d, err := New(nftables.Options{Log: testLog(tb), NetNS: ns.fd})
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	p, err := d.Preview(tb.Context(), plan)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// TestGenerationIsKnown makes one change of each kind. Observing after it costs no reading back, since
// the kernel has said which generation the change began.
func TestGenerationIsKnown(t *testing.T) {
	t.Parallel()
	plan := simplePlan(t)
	ns := newNamespace(t)
	d := ns.driver()
	mustApply(t, d, plan)
	reads := d.Stats().FullReads
	all, exempt := plan.Sources, plan.Exempt
	for _, change := range []struct {
		what string
		make func()
	}{
		{"a source is deleted", func() { plan.Sources = all[1:] }},
		{"a source is added", func() { plan.Sources = all }},
		{"an exemption is deleted", func() { plan.Exempt = exempt[1:] }},
		{"an exemption is added", func() { plan.Exempt = exempt }},
		{"other interfaces", func() { plan.OutInterfaces = []string{"eth0", "wg*"} }},
		{"other ports", func() { plan.Ports = model.PortRange{First: 20000, Last: 30000} }},
	} {
		change.make()
		mustApply(t, d, plan)
		if drift, err := d.Observe(t.Context()); drift != 0 || err != nil || d.Stats().FullReads != reads {
			t.Errorf("%s: %d differences, %v, %d readings; want none and %d", change.what, drift, err, d.Stats().FullReads, reads)
		}
	}
	mustHold(t, ns, plan)
}
