package kube

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestLatency measures how long after the API's answer to a change of natOutgoing the first new connection of a pod is
// seen as that says. It judges no time: the machine may have much else to do.
func TestLatency(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{CRDs: true})
	s := newSite(t, c, 1)
	n := s.nodes[0]
	s.apply(pools(true))
	n.start()
	n.expectSoon("with pools", n.own)
	client, err := dynamic.NewForConfig(c.Config())
	labtest.Must(t, err)
	objects := client.Resource(schema.GroupVersionResource{Group: "projectcalico.org", Version: "v3", Resource: "ippools"})
	p := n.probe(t)
	p.measure(t, "a patch", 100, func(nat bool) {
		_, err := objects.Patch(t.Context(), "pods-v4", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"natOutgoing":%t}}`, nat), metav1.PatchOptions{})
		labtest.Must(t, err)
	})
	p.measure(t, "kubectl apply", 20, func(nat bool) { s.apply(pools(nat)) })
}

// stopwatch opens new connections of a pod all the time, and notes when the server outside sees whom.
type stopwatch struct {
	node *node
	sent atomic.Uint64 // the number of the last connection
	want atomic.Pointer[sight]
	seen chan time.Time // when want was seen first
}

// sight is somebody who is waited for.
type sight struct {
	who   netip.Addr
	after uint64 // the number of a connection; earlier ones may have been overtaken
}

// Of the stopwatch: the time between two connections, and how many have the same source port.
const (
	stopwatchEvery = 200 * time.Microsecond
	probePerPort   = 10_000
)

// probe starts a stopwatch, which the end of the test ends.
func (n *node) probe(t *testing.T) *stopwatch {
	t.Helper()
	p := &stopwatch{node: n, seen: make(chan time.Time, 1)}
	// Nobody answers: what the kernel knows of a connection is of no use after its only packet.
	labtest.Must(t, n.host.Sysctl("netfilter/nf_conntrack_udp_timeout", "1"))
	server, err := n.site.outside.ListenPacket("ip4:udp", "198.51.100.1") // all ports
	labtest.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var sendErr error
	running.Go(func() { sendErr = p.send(ctx) })
	running.Go(func() { p.receive(server) })
	t.Cleanup(func() {
		cancel()
		labtest.Must(t, server.Close())
		running.Wait()
		labtest.Must(t, sendErr)
	})
	return p
}

// send sends the first packets of connections until the context ends.
func (p *stopwatch) send(ctx context.Context) error {
	tick := time.NewTicker(stopwatchEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		from, err := p.node.pod.ListenPacket("udp4", ":0")
		if err != nil {
			return err
		}
		for i := 0; i < probePerPort && ctx.Err() == nil; i++ {
			to := net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 10_000 + i}
			if _, err := from.WriteTo(binary.BigEndian.AppendUint64(nil, p.sent.Add(1)), &to); err != nil {
				return errors.Join(err, from.Close())
			}
			<-tick.C
		}
		if err := from.Close(); err != nil {
			return err
		}
	}
	return nil
}

// receive notes when the sender that is waited for was seen first, until the server is closed.
func (p *stopwatch) receive(server net.PacketConn) {
	const header = 8 // of UDP, in bytes
	for b := make([]byte, 100); ; {
		n, from, err := server.ReadFrom(b)
		if err != nil {
			return
		}
		now, want := time.Now(), p.want.Load()
		if want == nil || n < header+8 || binary.BigEndian.Uint64(b[header:]) <= want.after || from.String() != want.who.String() {
			continue
		}
		if p.want.CompareAndSwap(want, nil) {
			p.seen <- now
		}
	}
}

// measure makes changes, of which the first says false, and logs how long they took from their return on; what is seen
// before took no time.
func (p *stopwatch) measure(t *testing.T, what string, times int, change func(natOutgoing bool)) {
	t.Helper()
	var took []time.Duration
	for i := range times {
		nat := i%2 == 1
		who := p.node.inner[0]
		if nat {
			who = p.node.own[0]
		}
		p.want.Store(&sight{who, p.sent.Load()})
		change(nat)
		answered := time.Now()
		select {
		case at := <-p.seen:
			took = append(took, max(0, at.Sub(answered)))
		case <-time.After(patience):
			t.Fatalf("%s after %s, number %d, nobody was seen as %s", patience, what, i, who)
		}
	}
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)*percent+99)/100-1] }
	t.Logf("from the answer to %s to the first packet that obeys, of %d: p50 %s, p90 %s, p99 %s, longest %s", what, times, at(50), at(90), at(99), took[times-1])
}
