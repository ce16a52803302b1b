package e2e

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// natDriver and flowsDriver are the drivers as an agent uses them.
type natDriver struct{ *nat.Driver }

func (natDriver) Name() string { return "nat" }

func (d natDriver) Apply(ctx context.Context, p *compile.Plan) error {
	return d.Driver.Apply(ctx, p.NAT)
}

type flowsDriver struct{ *conntrack.Driver }

func (flowsDriver) Name() string { return "flows" }

// openTable runs the loop of an agent on a path's node, as on a kernel where the table can be owned by nobody.
func openTable(t *testing.T, p *path) *reconcile.Loop {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	driver, err := nat.New(nftables.Options{Log: log, NetNS: p.node.FD(), Unowned: true})
	labtest.Must(t, err)
	flows := conntrack.New(conntrack.NewTable(p.node.FD()), log)
	loop := reconcile.New(reconcile.Options{Drivers: []reconcile.Driver{natDriver{driver}, flowsDriver{flows}}, Log: log})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { loop.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done; labtest.Must(t, driver.Close()) })
	loop.SetLocal(model.Local{Name: "node"})
	loop.SetSnapshot(snapshot(nil, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")), 1)
	awaitState(t, loop, func(s reconcile.State) bool { ready, _ := s.Ready(); return ready })
	return loop
}

// awaitState waits until the loop has come to a state, and returns it.
func awaitState(t *testing.T, l *reconcile.Loop, reached func(reconcile.State) bool) reconcile.State {
	t.Helper()
	for patient := time.After(patience); ; {
		s, changed := l.State()
		if reached(s) {
			return s
		}
		select {
		case <-changed:
		case <-patient:
			_, why := s.Ready()
			t.Fatalf("the loop has not come to it: %+v (%s)", s.Drivers, why)
		}
	}
}

// TestRepair takes the table away under traffic, in different ways, where the kernel lets everybody do it. Once
// it is repaired, nothing leaves with the pod's address any more: neither new flows, nor those that were
// opened meanwhile.
func TestRepair(t *testing.T) {
	t.Parallel()
	s := &service{path: newPath(t), t: t}
	for family := range 2 {
		echo(t, s.wide, netip.AddrPortFrom(pathWide[family], 7))
	}
	seen := watchSources(t, newTap(t, s.wide, "eth0", s.router, "wide"), pathWide)
	loop := openTable(t, s.path)
	var tr traffic
	for family, server := range pathWide {
		// TCP may not survive the gap: to the server its segments then come from a stranger.
		tr.begin(context.Background(), s.pod, pathPod[family], netip.AddrPortFrom(server, 7), udpStream)
		tr.begin(context.Background(), s.pod, pathPod[family], netip.AddrPortFrom(server, 7), newUDPFlows)
	}
	leaks := func() (n uint64) { m := seen.take(); return m[pathPod[0]] + m[pathPod[1]] }
	for i, script := range []string{
		"flush ruleset", "delete table inet sallyport", "flush chain inet sallyport postrouting", "flush set inet sallyport source4",
		"insert rule inet sallyport postrouting accept", "add table inet sallyport { flags dormant; }",
	} {
		if n := leaks(); n > 0 {
			t.Fatalf("before %q: %d packets left with the pod's address", script, n)
		}
		begun := time.Now()
		s.nft(strings.Fields(script)...)
		awaitState(t, loop, func(s reconcile.State) bool {
			ready, _ := s.Ready()
			return ready && s.Drivers[0].Repairs == uint64(i+1)
		})
		took := time.Since(begun)
		seen.catchUp(t, s.path)
		inGap := leaks()
		time.Sleep(100 * time.Millisecond)
		seen.catchUp(t, s.path)
		if n := leaks(); n > 0 {
			t.Errorf("after the repair of %q: %d packets left with the pod's address", script, n)
		}
		t.Logf("%q: repaired %v after it was begun; %d packets left with the pod's address meanwhile", script, took, inGap)
		time.Sleep(200 * time.Millisecond)
	}
	tr.end()
	for _, st := range tr.streams {
		t.Log(st)
		if st.broken.Load() != nil {
			t.Error(st)
		}
	}
}

// TestFlowsFromBeforeTheFirstRules puts rules that cover one interface on a node that had none, under flows in use:
// these must not be held up by the leak guard for as long as they last.
func TestFlowsFromBeforeTheFirstRules(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	for family := range 2 {
		echo(t, p.wide, netip.AddrPortFrom(pathWide[family], 7))
		labtest.Must(t, p.router.AddRoute(lab.Route{To: netip.PrefixFrom(pathPod[family], pathPod[family].BitLen()), Via: pathNode[family]}))
	}
	// Flows are tracked, and nothing translates them.
	labtest.Must(t, loadRules(p.node, "table inet other {\nchain c {\ntype filter hook forward priority 0;\nct state established accept\n}\n}\n"))
	seen := watchSources(t, newTap(t, p.wide, "eth0", p.router, "wide"), pathWide)
	var tr traffic
	for family, server := range pathWide {
		tr.begin(context.Background(), p.pod, pathPod[family], netip.AddrPortFrom(server, 7), udpStream)
	}
	await := func(what string, from [2]netip.Addr) {
		t.Helper()
		sum := map[netip.Addr]uint64{}
		for end := time.Now().Add(patience); sum[from[0]] == 0 || sum[from[1]] == 0; time.Sleep(5 * time.Millisecond) {
			for a, n := range seen.take() {
				sum[a] += n
			}
			if time.Now().After(end) {
				t.Fatalf("%s, outside saw %v", what, sum)
			}
		}
	}
	await("before there are rules", pathPod)
	settings := model.NATConfiguration{OutInterfaces: []string{"eth0"}}
	plan := compile.Compile(snapshot(&settings, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")), model.Local{Name: "node"})
	nat, flows := p.nat(t), conntrack.New(conntrack.NewTable(p.node.FD()), slog.New(slog.DiscardHandler))
	labtest.Must(t, nat.Apply(t.Context(), plan.NAT))
	flows.Stands(plan, false)
	labtest.Must(t, flows.Apply(t.Context(), plan))
	await("with rules", pathNode)
	tr.end()
}
