package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// watch runs Driver.Watch until the test ends or stop is called, and counts what it tells.
func (n *node) watch() (changes *atomic.Int64, stop func()) {
	n.Helper()
	changes = new(atomic.Int64)
	ctx, cancel := context.WithCancel(n.Context())
	began, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- n.driver.Watch(ctx, func() {
			if changes.Add(1) == 1 {
				close(began)
			}
		})
	}()
	<-began
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-done; err != nil {
				n.Error("watching:", err)
			}
		}
	}
	n.TB.Cleanup(stop)
	return changes, stop
}

func TestRepair(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{Unowned: true})
	p, other := n.run(1, own4, own6), n.run(2, foreign4, foreign6)
	in(t, n.Host, "ip", "link", "add", "bridge0", "type", "bridge")
	changes, _ := n.watch()
	ip := func(args string) func() {
		return func() { in(t, n.Host, "ip", strings.Fields(strings.ReplaceAll(args, "DEV", p.Device()))...) }
	}
	nft := func(script string) func() {
		return func() { in(t, n.Host, "nft", strings.ReplaceAll(script, "DEV", p.Device())) }
	}
	index, err := n.Index(p.Device())
	labtest.Must(t, err)
	for _, c := range []struct {
		name   string
		tamper func()
		drift  int
	}{
		{"a route of IPv4 is deleted", ip("route del " + own4), 1},
		{"a route of IPv6 is deleted", ip("-6 route del " + own6), 1},
		{"a route gets another source", ip("route replace " + own4 + " dev DEV proto 115 scope link src 127.0.0.1"), 1},
		{"a neighbour of IPv4 is deleted", ip("neigh del " + own4 + " dev DEV"), 1},
		{"a neighbour of IPv6 is deleted", ip("neigh del " + own6 + " dev DEV"), 1},
		{"a neighbour is changed", ip("neigh replace " + own4 + " dev DEV lladdr 02:00:00:00:00:01 nud permanent"), 1},
		{"a neighbour may age", ip("neigh change " + own4 + " dev DEV nud stale"), 1},
		{"the device is down", ip("link set DEV down"), 5},
		{"the device is renamed", ip("link set DEV name other0"), 1},
		{"the device is a bridge's port", ip("link set DEV master bridge0"), 1},
		{"the alias is wiped", ip("link set DEV alias x"), 1},
		{"another route by the device", ip("route add 203.0.113.1 dev DEV proto 115 scope link"), 1},
		{"the chain is emptied", nft(fmt.Sprintf("flush chain netdev %s DEV.%d", TableName, index)), 4},
		{"a rule is added", nft(fmt.Sprintf("insert rule netdev %s DEV.%d accept", TableName, index)), 1},
		{"a node is forgotten", nft(fmt.Sprintf("delete element netdev %s nodes4 { %s }", TableName, peer4)), 1},
		{"a table is deleted", nft("delete table netdev " + TableName), 0},
		{"the other table is deleted", nft("delete table inet " + TableName), 0},
	} {
		before := changes.Load()
		c.tamper()
		if !strings.HasPrefix(c.name, "another route") { // nothing is wrong with the workload
			eventually(t, "it is noticed that "+c.name, func() bool { return changes.Load() > before })
		}
		drift, err := n.driver.Observe(t.Context())
		if err != nil || drift == 0 || c.drift != 0 && drift != c.drift {
			t.Fatalf("%s: drift %d, want %d, error %v", c.name, drift, c.drift, err)
		}
		labtest.Must(t, n.driver.Apply(t.Context(), plan()))
		if drift, err := n.driver.Observe(t.Context()); drift != 0 || err != nil {
			t.Errorf("%s: after the repair, drift %d, %v", c.name, drift, err)
		}
		talk(t, n.Host, p.Host, p.Addresses[0])
		talk(t, p.Host, other.Host, other.Addresses[1])
	}
	if held := n.held(); len(held) != 2 || len(n.told()) != 0 {
		t.Errorf("held %v, told of %v", held, n.told())
	}
}

// TestRenamedWhileNoAgentRan: the workload goes on, so that its addresses are in use and its rules must stand.
func TestRenamedWhileNoAgentRan(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	p := n.run(1, own4, own6)
	labtest.Must(t, n.driver.Close())
	n.driver = nil
	in(t, n.Host, "ip", "link", "set", p.Device(), "name", "other0")
	n.start(Options{})
	n.apply(plan())
	if held := n.held(); !slices.Equal(held, []string{p.Device()}) {
		t.Errorf("held %v, want %s", held, p.Device())
	}
	if _, err := n.Index(p.Device()); err != nil {
		t.Error("it did not get its name again:", err)
	}
	talk(t, p.Host, n.Host, node4)
	if len(n.told()) != 0 {
		t.Errorf("told of %v", n.told())
	}
}

// TestOwnChangesAreNoneOfOthers: what the driver does itself makes the loop look at nothing.
func TestOwnChangesAreNoneOfOthers(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	changes, _ := n.watch() // the first change is that watching has begun
	stays, leaves := n.run(1, own4), n.run(2)
	labtest.Must(t, n.driver.Leave(t.Context(), []string{leaves.Device()}))
	eventually(t, "it has left", func() bool { return len(n.told()) == 1 })
	in(t, n.Host, "ip", "route", "del", own4, "dev", stays.Device()) // told after all that came before
	eventually(t, "a change of others is seen", func() bool { return changes.Load() > 1 })
	if n := changes.Load(); n != 2 {
		t.Errorf("%d changes of others were seen", n-1)
	}
}

func TestForeignRouteInTheWayOfARepair(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	n.run(1, own4)
	changes, _ := n.watch()
	before := changes.Load()
	in(t, n.Host, "ip", "route", "replace", own4, "dev", "uplink")
	eventually(t, "it is noticed", func() bool { return changes.Load() > before })
	if drift, err := n.driver.Observe(t.Context()); drift != 1 || err != nil {
		t.Errorf("drift %d, %v", drift, err)
	}
	if err := n.driver.Apply(t.Context(), plan()); err == nil || !strings.Contains(err.Error(), "not Sallyport's: delete it") {
		t.Error(err)
	}
	if out := in(t, n.Host, "ip", "route"); !strings.Contains(out, own4+" dev uplink") {
		t.Error("it was changed:", out)
	}
	in(t, n.Host, "ip", "route", "del", own4)
	labtest.Must(t, n.driver.Apply(t.Context(), plan()))
	if drift, err := n.driver.Observe(t.Context()); drift != 0 || err != nil {
		t.Errorf("drift %d, %v", drift, err)
	}
}

func TestSourceFollowsTheNode(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	p := n.run(1)
	another := netip.MustParsePrefix("192.0.2.77/24")
	labtest.Must(t, n.AddAddress("uplink", another))
	next := plan()
	next.Node4 = another.Addr()
	labtest.Must(t, n.driver.Apply(t.Context(), next))
	if from := talk(t, n.Host, p.Host, p.Addresses[0]); from != another.Addr() {
		t.Errorf("the node speaks from %s", from)
	}
	next.Node6 = netip.Addr{}
	labtest.Must(t, n.driver.Apply(t.Context(), next))
	if drift, err := n.driver.Observe(t.Context()); drift != 0 || err != nil {
		t.Errorf("drift %d, %v", drift, err)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	_, stop := n.watch()
	var want []string
	expect := func(p *pod, remove func()) {
		remove()
		want = append(want, p.Device())
		eventually(t, "it is told", func() bool { return len(n.told()) >= len(want) })
	}
	byNode, byPod, byEnd, byLeave := n.run(1), n.run(2), n.newPod(3), n.run(4)
	expect(byNode, func() { in(t, n.Host, "ip", "link", "del", byNode.Device()) })
	expect(byPod, func() { in(t, byPod.Host, "ip", "link", "del", "eth0") })
	if _, err := n.add(byEnd); err != nil {
		t.Fatal(err)
	}
	expect(byEnd, func() { labtest.Must(t, byEnd.Host.Close()) })
	expect(byLeave, func() { labtest.Must(t, n.driver.Leave(t.Context(), []string{byLeave.Device()})) })
	again := n.newPod(4)
	if _, err := n.add(again); err != nil { // the name of the one that has left
		t.Fatal(err)
	}
	expect(again, func() { in(t, n.Host, "ip", "link", "del", again.Device()) })

	unwatched, found := n.run(5), n.run(6)
	stop()
	expect(unwatched, func() {
		in(t, n.Host, "ip", "link", "del", unwatched.Device())
		n.watch()
	})
	_, stop = n.watch()
	stop()
	expect(found, func() {
		in(t, n.Host, "ip", "link", "del", found.Device())
		n.held()
	})
	n.held()
	labtest.Must(t, n.driver.Apply(t.Context(), plan()))
	var told []string
	for _, h := range n.told() {
		told = append(told, h.Link)
	}
	if !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
	eventually(t, "their rules are deleted", func() bool {
		return !strings.Contains(in(t, n.Host, "nft", "list", "table", "netdev", TableName), "sly")
	})
}

func TestRestartFinishesWhatWasLeaving(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	p, stays := n.run(1), n.run(2)
	n.driver.remover.stop() // as where the agent is killed before the links are removed
	labtest.Must(t, n.driver.Leave(t.Context(), []string{p.Device()}))
	n.start(Options{})
	held, err := n.driver.Held(t.Context())
	if err != nil || len(held) == 0 || len(held) == 2 && !held[slices.IndexFunc(held, func(h Held) bool { return h.Link == p.Device() })].Leaving {
		t.Errorf("held %+v, %v", held, err)
	}
	eventually(t, "it has left", func() bool { h := n.held(); return len(h) == 1 && h[0] == stays.Device() })
	if gone := n.told(); len(gone) != 1 || gone[0].Link != p.Device() {
		t.Errorf("told of %v", gone)
	}
}

func TestLeavingTogetherSparesOthers(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	a, b := n.run(1), n.run(2)
	in(t, n.Host, "ip", "link", "add", "mine", "group", fmt.Sprint(leavingGroup), "type", "veth")
	labtest.Must(t, n.driver.Leave(t.Context(), []string{a.Device(), b.Device()}))
	eventually(t, "they have left", func() bool { return len(n.held()) == 0 })
	in(t, n.Host, "ip", "link", "show", "mine")
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	n.run(1)
	n.run(2)
	in(t, n.Host, "ip", "link", "add", "slyffffffffffff", "type", "veth")
	labtest.Must(t, n.driver.Cleanup(t.Context()), n.driver.Cleanup(t.Context()))
	if out := in(t, n.Host, "ip", "-o", "link"); strings.Count(out, "sly") != 2 { // both ends name it
		t.Error(out)
	}
	if out := in(t, n.Host, "nft", "list", "tables"); out != "" {
		t.Error(out)
	}
	if len(n.told()) != 2 {
		t.Errorf("told of %v", n.told())
	}
}

// TestRandom does what agents, runtimes and others do, in any order, and compares with what should be.
func TestRandom(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	n := newNode(t, Options{Unowned: true})
	_, stop := n.watch()
	running := map[string]*pod{} // by device
	var ended []string           // devices, in any order
	plan := plan()
	all := plan.Nodes
	any := func() *pod {
		names := make([]string, 0, len(running))
		for name := range running {
			names = append(names, name)
		}
		slices.Sort(names)
		return running[names[r.IntN(len(names))]]
	}
	end := func(p *pod) {
		delete(running, p.Device())
		ended = append(ended, p.Device())
	}
	next := 0
	for step := range 150 {
		op := r.IntN(10)
		if len(running) == 0 {
			op = 0
		}
		switch op {
		case 0, 1, 2, 3:
			next++
			p := n.run(next)
			running[p.Device()] = p
		case 4:
			p := any()
			labtest.Must(t, n.driver.Leave(t.Context(), []string{p.Device()}))
			end(p)
		case 5:
			p := any()
			in(t, n.Host, "ip", "link", "del", p.Device())
			end(p)
		case 6:
			p := any()
			in(t, n.Host, "ip", "route", "flush", "dev", p.Device())
		case 7:
			p := any()
			in(t, n.Host, "ip", "link", "set", p.Device(), "down")
		case 8:
			plan.Nodes = all[:r.IntN(len(all)+1)]
			plan.VXLANPort = uint16(4789 + r.IntN(3))
			plan.VXLAN = !plan.VXLAN
			n.apply(plan)
		case 9:
			eventually(t, "all ends were told", func() bool { return len(n.told()) == len(ended) })
			stop()
			n.start(Options{Unowned: true})
			n.apply(plan)
			_, stop = n.watch()
		}
		_, err := n.driver.Observe(t.Context())
		labtest.Must(t, err)
		n.apply(plan)
		if drift, err := n.driver.Observe(t.Context()); drift != 0 || err != nil {
			t.Fatalf("step %d, operation %d: drift %d, %v", step, op, drift, err)
		}
		var want, got []string
		for name := range running {
			want = append(want, name)
		}
		for _, h := range n.held() {
			if !strings.HasSuffix(h, " leaving") {
				got = append(got, h)
			}
		}
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Fatalf("step %d, operation %d: held %v, want %v", step, op, got, want)
		}
		if routes := strings.Count(in(t, n.Host, "ip", "route", "show", "proto", "115"), "sly"); routes != len(running) {
			t.Fatalf("step %d, operation %d: %d routes for %d workloads", step, op, routes, len(running))
		}
	}
	eventually(t, "all ends were told", func() bool { return len(n.told()) >= len(ended) })
	var told []string
	for _, h := range n.told() {
		told = append(told, h.Link)
	}
	slices.Sort(told)
	if slices.Sort(ended); !slices.Equal(told, ended) {
		t.Errorf("told of %v, want %v", told, ended)
	}
	for _, p := range running {
		talk(t, n.Host, p.Host, p.Addresses[0])
	}
}
