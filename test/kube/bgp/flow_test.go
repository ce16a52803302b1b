package bgp

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// every is the time between two packets of a flow.
const every = time.Millisecond

// flow are packets from one host to another, one way.
type flow struct {
	pod   *pod
	name  string // which way, by which family
	from  net.PacketConn
	to    net.Addr
	mu    sync.Mutex
	came  []bool // by number: it has come
	count int    // how many were sent
}

// flows are packets between the host outside and pods, both ways and in both families, a thousand a second each.
type flows struct {
	t    *testing.T
	all  []*flow
	stop context.CancelFunc
	done sync.WaitGroup
}

// port is the one that flows are between.
const port = 7000

// startFlows begins to send.
func startFlows(r *racks, pods []*pod) *flows {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	f := &flows{t: r.t, stop: stop}
	for i, p := range pods {
		for family := range p.at {
			out, in := listen(r.t, r.outside, netip.AddrPortFrom(outsideAt[family], port+uint16(i))), listen(r.t, p.Host, netip.AddrPortFrom(p.at[family], port))
			there := &flow{pod: p, name: fmt.Sprintf("v%d out", 4+2*family), from: in, to: out.LocalAddr()}
			back := &flow{pod: p, name: fmt.Sprintf("v%d in", 4+2*family), from: out, to: in.LocalAddr()}
			f.all = append(f.all, there, back)
			f.done.Go(func() { there.receive(out) })
			f.done.Go(func() { back.receive(in) })
			context.AfterFunc(ctx, func() { _, _ = out.Close(), in.Close() }) // that they are closed ends receive
		}
	}
	f.done.Go(func() { f.send(ctx) })
	r.t.Cleanup(func() {
		stop()
		f.done.Wait()
	})
	return f
}

// listen opens a socket that has room for seconds of packets: this process may have to wait for a processor.
func listen(t *testing.T, h *lab.Host, at netip.AddrPort) net.PacketConn {
	t.Helper()
	c, err := h.ListenPacket("udp", at.String())
	labtest.Must(t, err)
	raw, err := c.(syscall.Conn).SyscallConn()
	labtest.Must(t, err)
	var failed error
	labtest.Must(t, raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) }), failed)
	return c
}

// send sends a packet of each flow whenever it is time. One that the kernel refuses is lost.
func (f *flows) send(ctx context.Context) {
	var packet [8]byte
	for begin, n := time.Now(), 0; ctx.Err() == nil; {
		due := min(int(time.Since(begin)/every), n+10) // not all at once, after a pause
		if due == n {
			time.Sleep(every / 4)
			continue
		}
		for ; n < due; n++ {
			for _, one := range f.all {
				one.mu.Lock()
				binary.BigEndian.PutUint64(packet[:], uint64(one.count))
				one.count++
				one.came = append(one.came, false)
				one.mu.Unlock()
				_, _ = one.from.WriteTo(packet[:], one.to)
			}
		}
		if behind := int(time.Since(begin)/every) - n; behind > 100 {
			begin = begin.Add(time.Duration(behind) * every)
		}
	}
}

func (f *flow) receive(c net.PacketConn) {
	var packet [16]byte
	for {
		n, _, err := c.ReadFrom(packet[:])
		if err != nil {
			return
		}
		if n != 8 {
			continue
		}
		i := binary.BigEndian.Uint64(packet[:])
		f.mu.Lock()
		if i < uint64(len(f.came)) {
			f.came[i] = true
		}
		f.mu.Unlock()
	}
}

// scene is a part of the time.
type scene struct {
	flows *flows
	name  string
	begin []int
	start time.Time
}

func (f *flows) scene(name string) *scene {
	s := &scene{flows: f, name: name, start: time.Now()}
	for _, one := range f.all {
		one.mu.Lock()
		s.begin = append(s.begin, one.count)
		one.mu.Unlock()
	}
	return s
}

// loss is what flows of one kind of router lost in a scene.
type loss struct {
	sent, lost int
	pause      time.Duration // the longest time for which all packets of one of the flows were lost
	text       string
}

// end says what was lost, by the kind of router, once the last packets had time to arrive.
func (s *scene) end() map[string]*loss {
	const late = 500 * time.Millisecond
	ends := s.flows.scene("")
	time.Sleep(late)
	out := map[string]*loss{}
	for i, one := range s.flows.all {
		kind := one.pod.node.peer
		l := out[kind]
		if l == nil {
			l = &loss{}
			out[kind] = l
		}
		one.mu.Lock()
		lost, row := 0, 0
		for _, came := range one.came[s.begin[i]:ends.begin[i]] {
			if row++; came {
				row = 0
				continue
			}
			lost++
			l.pause = max(l.pause, time.Duration(row)*every)
		}
		l.sent += ends.begin[i] - s.begin[i]
		one.mu.Unlock()
		if lost > 0 {
			l.text += fmt.Sprintf(" %s %d", one.name, lost)
		}
		l.lost += lost
	}
	return out
}

// table prints what scenes lost.
type table struct {
	rows strings.Builder
	n    atomic.Int32
}

func (t *table) add(s *scene, losses map[string]*loss) {
	t.n.Add(1)
	fmt.Fprintf(&t.rows, "%-52s %5.1fs", s.name, time.Since(s.start).Seconds())
	for _, kind := range []string{"BIRD", "FRR", "gobgpd"} {
		if l := losses[kind]; l != nil {
			fmt.Fprintf(&t.rows, "  %s: %d of %d lost%s, for %d ms at most", kind, l.lost, l.sent, l.text, l.pause.Milliseconds())
		}
	}
	t.rows.WriteString("\n")
}
