package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// flowEvery is the time between two new flows of a node; its destinations and families take turns.
const flowEvery = 10 * time.Millisecond

// The source ports of probes. Each has a flow of its own for longer than the kernel remembers one that was not answered.
const (
	probePorts    = 50_000
	probePortsMin = 10_000
)

// destinations are the servers outside, by family. The later ones are there for Nodes that come and go.
var destinations = [2][]string{{"198.51.100.1", "198.51.100.4", "198.51.100.5"}, {"2001:db8:f1::1", "2001:db8:f1::4", "2001:db8:f1::5"}}

// flow is what a probe is about: from the pod of a node, by a family, to a destination.
type flow struct{ node, family, to int }

// prober opens new UDP flows from every pod all the time, and holds who is seen outside against who may be.
type prober struct {
	site *site
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	phases []map[flow][]netip.Addr // who may be seen; the last is now
	tally  map[flow]*tally
	wrong  []string // the first of those who may not have been
	wrongs int
}

type tally struct {
	sent, seen int
	port       uint16     // of the last one seen
	last       netip.Addr // who was seen last
	of         int        // by which probe, from 1
}

// probe begins to probe. The pods' own addresses are what may be seen at first.
func (s *site) probe(t *testing.T) *prober {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p := &prober{site: s, stop: stop, tally: map[flow]*tally{}}
	first := map[flow][]netip.Addr{}
	for node := range s.nodes {
		for family, all := range destinations {
			for to := range all {
				f := flow{node, family, to}
				p.tally[f], first[f] = &tally{}, []netip.Addr{p.inner(f)}
			}
		}
	}
	p.phases = append(p.phases, first)
	for _, all := range destinations {
		for _, a := range all {
			to := netip.MustParseAddr(a)
			if a != all[0] {
				labtest.Must(t, s.outside.AddAddress("lo", netip.PrefixFrom(to, to.BitLen())))
			}
			l, err := s.outside.ListenPacket("udp", netip.AddrPortFrom(to, 7).String())
			labtest.Must(t, err)
			p.done.Go(func() { p.hear(l) })
			context.AfterFunc(ctx, func() { _ = l.Close() }) // that it is closed ends hear
		}
	}
	failed := make(chan error, len(s.nodes))
	for i, n := range s.nodes {
		p.done.Go(func() { failed <- n.pod.Do(func() error { return p.send(ctx, i) }) })
	}
	t.Cleanup(func() {
		stop()
		p.done.Wait()
		for range s.nodes {
			if err := <-failed; err != nil {
				t.Errorf("probing: %v", err)
			}
		}
		p.judge(t, "at the end")
		sent, seen := p.count()
		t.Logf("%d probes were sent, %d seen, %d wrong", sent, seen, p.wrongs)
	})
	return p
}

func (p *prober) inner(f flow) netip.Addr { return p.site.nodes[f.node].inner[f.family] }
func (p *prober) own(f flow) netip.Addr   { return p.site.nodes[f.node].own[f.family] }

// except wants the pods' own addresses towards one of the destinations, and the nodes' towards all others.
func (p *prober) except(to int) func(flow) netip.Addr {
	return p.either(func(f flow) bool { return f.to == to }, p.inner, p.own)
}

// either wants one thing of some flows, and another of all others.
func (p *prober) either(some func(flow) bool, want, others func(flow) netip.Addr) func(flow) netip.Addr {
	return func(f flow) netip.Addr {
		if some(f) {
			return want(f)
		}
		return others(f)
	}
}

// send opens flows from a node's pod, in whose namespace it runs.
func (p *prober) send(ctx context.Context, node int) error {
	tick := time.NewTicker(flowEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f := flow{node, i % 2, i / 2 % len(destinations[0])}
		from := netip.AddrPortFrom(p.inner(f), uint16(probePortsMin+i%probePorts))
		conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp", from.String())
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.tally[f].sent++
		text := fmt.Sprintf("%d %d %d %d %d", f.node, f.family, f.to, len(p.phases)-1, p.tally[f].sent)
		p.mu.Unlock()
		to := netip.AddrPortFrom(netip.MustParseAddr(destinations[f.family][f.to]), 7)
		_, err = conn.WriteTo([]byte(text), net.UDPAddrFromAddrPort(to))
		if err := errors.Join(err, conn.Close()); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// hear takes what comes to a destination.
func (p *prober) hear(l net.PacketConn) {
	b := make([]byte, 100)
	for {
		n, from, err := l.ReadFrom(b)
		if err != nil {
			return
		}
		source := netip.MustParseAddrPort(from.String())
		var f flow
		var phase, number int
		if _, err := fmt.Sscan(string(b[:n]), &f.node, &f.family, &f.to, &phase, &number); err != nil {
			continue
		}
		p.take(f, source, phase, number)
	}
}

func (p *prober) take(f flow, source netip.AddrPort, phase, number int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tally[f]
	t.seen, t.last, t.port, t.of = t.seen+1, source.Addr(), source.Port(), number
	for _, now := range p.phases[phase:] { // the phase may have changed while it was on its way
		if slices.Contains(now[f], source.Addr()) {
			return
		}
	}
	p.wrongs++
	if len(p.wrong) < 10 {
		p.wrong = append(p.wrong, fmt.Sprintf("probe %d from %s to %s was seen as %s in phase %d, of %v", number, p.inner(f),
			destinations[f.family][f.to], source, phase, p.phases[phase][f]))
	}
}

// judge says which probes were wrong, once.
func (p *prober) judge(t *testing.T, when string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wrong) > 0 {
		t.Errorf("%s: of %d wrong packets these are the first:\n%s", when, p.wrongs, strings.Join(p.wrong, "\n"))
		p.wrong = nil
	}
}

func (p *prober) count() (sent, seen int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tally {
		sent, seen = sent+t.sent, seen+t.seen
	}
	return sent, seen
}

// allow says who may be seen from now on.
func (p *prober) allow(who func(flow) []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := map[flow][]netip.Addr{}
	for f := range p.tally {
		next[f] = who(f)
	}
	p.phases = append(p.phases, next)
}

// now is who may be seen at present.
func (p *prober) now(f flow) []netip.Addr { return p.phases[len(p.phases)-1][f] }

// await waits until new flows are seen as wanted.
func (p *prober) await(t *testing.T, what string, want func(flow) netip.Addr) {
	t.Helper()
	p.mu.Lock()
	since := map[flow]int{}
	for f, t := range p.tally {
		since[f] = t.sent
	}
	p.mu.Unlock()
	awaiting(t, what, func() (bool, string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for f, after := range since {
			if t := p.tally[f]; t.of <= after || t.last != want(f) {
				return false, fmt.Sprintf("%s is seen at %s as %s (probe %d), want %s", p.inner(f), destinations[f.family][f.to], t.last, t.of, want(f))
			}
		}
		return true, ""
	})
}

// change does something by which others are to be seen: while it comes into force both may be, and then the new alone.
// It says how long that took after it was done.
func (p *prober) change(t *testing.T, what string, want func(flow) netip.Addr, do func()) time.Duration {
	t.Helper()
	p.allow(func(f flow) []netip.Addr { return append(slices.Clone(p.now(f)), want(f)) })
	do()
	done := time.Now()
	p.await(t, what, want)
	took := time.Since(done).Round(time.Millisecond)
	p.allow(func(f flow) []netip.Addr { return []netip.Addr{want(f)} })
	p.judge(t, what)
	t.Logf("%s: converged after %s", what, took)
	return took
}

// hold does something by which nobody else may be seen.
func (p *prober) hold(t *testing.T, what string, do func()) {
	t.Helper()
	sent, _ := p.count()
	do()
	p.await(t, what, func(f flow) netip.Addr { return p.now(f)[0] })
	p.judge(t, what)
	after, _ := p.count()
	t.Logf("%s: %d probes", what, after-sent)
}

// awaiting is eventually for what may take as long as an agent needs that was cut off.
func awaiting(t *testing.T, what string, is func() (ok bool, instead string)) {
	t.Helper()
	const longest = 2 * time.Minute
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		ok, instead := is()
		if ok {
			return
		}
		if time.Since(start) > longest {
			t.Fatalf("after %s it is not so that %s: %s", longest, what, instead)
		}
	}
}
