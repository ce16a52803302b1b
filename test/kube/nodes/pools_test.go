package nodes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

const teamNamespace = "team-a"

const teamManifests = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: team-a}
spec: {cidr: 10.250.0.0/16, natOutgoing: false, vxlanMode: CrossSubnet, namespaceSelector: team == "a"}
---
apiVersion: v1
kind: Namespace
metadata: {name: ` + teamNamespace + `, labels: {team: a}}
`

// testNamespace gives a namespace a pool of its own: its pods, and no others, have addresses of it and its translation. Of
// the family that the pool is not of, they have addresses as all others.
func (r *rig) testNamespace(t *testing.T) {
	r.c.apply(t, teamManifests)
	var team []*entered
	for _, n := range r.c.Nodes {
		pod := Agnhost("team-"+n.Name, n, "netexec")
		pod.Namespace = teamNamespace
		r.c.Create(t, pod)
	}
	r.c.Create(t, Agnhost("other", r.c.Nodes[0], "netexec"))
	own := netip.MustParsePrefix("10.250.0.0/16")
	for _, n := range r.c.Nodes {
		e := r.enterPod(t, teamNamespace, "team-"+n.Name)
		if !own.Contains(e.addrs[0]) {
			t.Fatalf("pod %s has the address %s, want one in %s", e.pod.Name, e.addrs[0], own)
		}
		r.returnTo(t, e)
		expect(t, e.host, r.outside[0], e.addrs[0])
		expect(t, e.host, r.outside[1], n.Addresses[1])
		team = append(team, e)
	}
	other := r.enterPod(t, podNamespace, "other")
	if own.Contains(other.addrs[0]) {
		t.Errorf("a pod of another namespace has the address %s", other.addrs[0])
	}
	expect(t, other.host, r.outside[0], r.c.Nodes[0].Addresses[0])
	for _, from := range team {
		for _, to := range []*entered{team[0], team[2], r.web[0]} {
			for family, a := range to.addrs {
				expect(t, from.host, netip.AddrPortFrom(a, netexecPort), from.addrs[family])
				expect(t, to.host, netip.AddrPortFrom(from.addrs[family], netexecPort), to.addrs[family])
			}
		}
	}
	r.kubectl(t, "delete", "pod", "other", "--wait=false")
	r.kubectl(t, "delete", "namespace", teamNamespace, "--wait=false")
	r.kubectl(t, "delete", "ippool", "team-a", "--wait=false") // it goes with its last block
}

// The phases of testFlip, in which pods open connections all the time.
const (
	translated   = iota
	turningOff   // natOutgoing is patched, and the pool is not programmed yet
	untranslated // the pool is programmed
	turningOn
	translatedAgain
	phases
)

// testFlip flips natOutgoing while pods of all nodes open connections all the time: none fails, each has the source that the
// pool says, the new one from the moment in which the pool is programmed, and those that are open stay as they are.
func (r *rig) testFlip(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var phase atomic.Int32
	var loads []*load
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for _, n := range r.c.Nodes {
		l := &load{node: n, from: r.on(n), server: r.outside[0], phase: &phase}
		r.returnTo(t, l.from)
		loads = append(loads, l)
		all.Go(func() { l.run(ctx) })
	}
	flip := func(natOutgoing bool) {
		for _, l := range loads {
			l.awaitMore(t)
		}
		phase.Add(1)
		r.kubectl(t, "patch", "ippool", "pods-v4", "--type=merge", "-p", fmt.Sprintf(`{"spec": {"natOutgoing": %t}}`, natOutgoing))
		r.kubectl(t, "wait", "ippool/pods-v4", "--for=condition=Programmed", "--timeout=150s")
		phase.Add(1)
	}
	flip(false)
	flip(true)
	for _, l := range loads {
		l.awaitMore(t)
	}
	stop()
	all.Wait()
	for _, l := range loads {
		t.Logf("%s has opened connections, in each phase: %v", l.from.pod.Name, l.opened)
		for _, err := range l.failed {
			t.Errorf("%s: %v", l.from.pod.Name, err)
		}
	}
}

// load opens connections from a pod to a server outside, one after the other, and keeps one of each phase in use.
type load struct {
	node   *Node
	from   *entered
	server netip.AddrPort
	phase  *atomic.Int32

	mu     sync.Mutex
	opened [phases]int
	failed []error
}

// enough connections in a phase make sure that it had some on each node.
const enough = 20

// awaitMore waits until there were enough connections in this phase, or one failed.
func (l *load) awaitMore(t *testing.T) {
	t.Helper()
	labtest.Must(t, l.node.await("enough connections", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.opened[l.phase.Load()] >= enough || len(l.failed) > 0
	}))
}

// run works until the context ends, or something fails.
func (l *load) run(ctx context.Context) {
	var held []*connection
	defer func() {
		for _, c := range held {
			_ = c.Close() // that it worked was seen
		}
	}()
	pace := time.NewTicker(pollInterval) // the agents are to have some of the machine too
	defer pace.Stop()
	for ; ; <-pace.C {
		phase := l.phase.Load()
		c, err := l.open(ctx, phase)
		for _, h := range held {
			err = errors.Join(err, h.check())
		}
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		first := l.opened[phase] == 0
		l.opened[phase]++
		if err != nil {
			l.failed = append(l.failed, err)
		}
		l.mu.Unlock()
		switch {
		case c != nil && first:
			held = append(held, c)
		case c != nil:
			_ = c.Close()
		}
		if err != nil {
			return
		}
	}
}

// open opens a connection, and makes sure that its source is one that a phase allows in which it was opened.
func (l *load) open(ctx context.Context, began int32) (*connection, error) {
	conn, err := l.from.host.Dial(ctx, "tcp", l.server.String())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c := &connection{Conn: conn, answers: bufio.NewReader(conn)}
	if c.source, err = c.ask(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	for phase := began; phase <= l.phase.Load(); phase++ {
		if c.source == l.from.addrs[0] && phase != translated && phase != translatedAgain || c.source == l.node.Addresses[0] && phase != untranslated {
			return c, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("a connection that was opened in phase %d has the source %s", began, c.source), conn.Close())
}

// connection is one to the server outside that stays open.
type connection struct {
	net.Conn
	answers *bufio.Reader
	source  netip.Addr // as the server sees it
}

// check makes sure that a connection still works as it did.
func (c *connection) check() error {
	source, err := c.ask()
	if err == nil && source != c.source {
		err = fmt.Errorf("it had the source %s and has %s", c.source, source)
	}
	if err != nil {
		return fmt.Errorf("a connection that was open: %w", err)
	}
	return nil
}

// ask asks the server which source it sees.
func (c *connection) ask() (netip.Addr, error) {
	if err := c.SetDeadline(time.Now().Add(askAtMost)); err != nil {
		return netip.Addr{}, err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: outside\r\n\r\n"); err != nil {
		return netip.Addr{}, err
	}
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return netip.Addr{}, err
	}
	seen, err := netip.ParseAddrPort(string(body))
	return seen.Addr(), err
}
