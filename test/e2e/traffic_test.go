package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// traffic is what pods send to an echo server while something is done to the node. Every payload has a
// sequence number. A sender waits for the echo before it goes on, for so long that nothing is lost because
// somebody was slow.
type traffic struct {
	stop    context.CancelFunc
	group   sync.WaitGroup
	streams []*flowStream
}

// flowStream is the traffic of one kind from one address.
type flowStream struct {
	name           string
	sent, lost     atomic.Uint64
	broken         atomic.Pointer[string] // why a connection ended; nil while none has
	longest, since atomic.Int64           // the longest time between two echoes, and when the last came, in nanoseconds
}

// echoWait is how long a sender waits before it holds a payload for lost.
const echoWait = 500 * time.Millisecond

// streamPace is the pause of a stream between two payloads. New flows are opened at full speed.
const streamPace = time.Millisecond

func (s *flowStream) String() string {
	text := fmt.Sprintf("%s: %d sent, %d lost, at most %v between echoes", s.name, s.sent.Load(), s.lost.Load(), time.Duration(s.longest.Load()).Round(time.Microsecond))
	if why := s.broken.Load(); why != nil {
		text += ", BROKEN: " + *why
	}
	return text
}

// echoed takes note of an echo.
func (s *flowStream) echoed() {
	now := time.Now().UnixNano()
	if last := s.since.Swap(now); last != 0 && now-last > s.longest.Load() {
		s.longest.Store(now - last)
	}
}

func (s *flowStream) breaks(err error) {
	why := err.Error()
	s.broken.CompareAndSwap(nil, &why)
}

// trafficKind is a way to send payloads one after another until the context ends.
type trafficKind struct {
	name string
	send func(context.Context, *flowStream, dialer) error
}

// The kinds of traffic.
var (
	udpStream         = trafficKind{"UDP stream", sendUDPStream}
	tcpStream         = trafficKind{"TCP stream", sendTCPStream}
	newUDPFlows       = trafficKind{"new UDP flows", sendNewUDPFlows}
	newTCPConnections = trafficKind{"new TCP connections", sendNewTCPConnections}
)

// begin starts a stream of each kind from an address to the echo server.
func (tr *traffic) begin(ctx context.Context, from *lab.Host, source netip.Addr, server netip.AddrPort, kinds ...trafficKind) {
	ctx, stop := context.WithCancel(ctx)
	outer := tr.stop
	tr.stop = func() {
		stop()
		if outer != nil {
			outer()
		}
	}
	for _, kind := range kinds {
		s := &flowStream{name: fmt.Sprintf("%s %s", source, kind.name)}
		tr.streams = append(tr.streams, s)
		tr.group.Go(func() {
			if err := kind.send(ctx, s, dialer{from, source, server}); err != nil && ctx.Err() == nil {
				s.breaks(err)
			}
		})
	}
}

// end stops the traffic and waits for it.
func (tr *traffic) end() {
	tr.stop()
	tr.group.Wait()
}

// mustBeWhole makes sure that something was sent and nothing was lost.
func (tr *traffic) mustBeWhole(t *testing.T, when string) {
	t.Helper()
	for _, st := range tr.streams {
		t.Logf("%s: %v", when, st)
		if st.lost.Load() > 0 || st.broken.Load() != nil || st.sent.Load() == 0 {
			t.Errorf("%s: %v; want nothing lost", when, st)
		}
	}
}

// dialer connects from one address of a host to the server.
type dialer struct {
	from   *lab.Host
	source netip.Addr
	server netip.AddrPort
}

// dial makes a connection that is closed when the context ends, if it is not by then.
func (d dialer) dial(ctx context.Context, network string) (_ *bounded, err error) {
	nd := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.UDPAddr{IP: d.source.AsSlice()}}
	if network == "tcp" {
		nd.LocalAddr = &net.TCPAddr{IP: d.source.AsSlice()}
	}
	var conn net.Conn
	err = d.from.Do(func() (err error) {
		conn, err = nd.DialContext(ctx, network, d.server.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &bounded{conn, context.AfterFunc(ctx, func() { _ = conn.Close() })}, nil
}

// bounded is a connection that a context closes.
type bounded struct {
	net.Conn
	stop func() bool
}

// Close closes the connection, unless the context has done it.
func (b *bounded) Close() error {
	if !b.stop() {
		return nil
	}
	return b.Conn.Close()
}

// abandon closes a TCP connection with a reset, so that its port is free at once.
func (b *bounded) abandon() error {
	if tcp, ok := b.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	return b.Close()
}

// exchange sends a number and waits for its echo; older echoes are passed over.
func exchange(conn net.Conn, n uint64, wait time.Duration) error {
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	for {
		var b [8]byte
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(b[:]); got == n {
			return nil
		} else if got > n {
			return fmt.Errorf("echo %d of what was not sent yet", got)
		}
	}
}

// sendUDPStream is one socket that never stops.
func sendUDPStream(ctx context.Context, s *flowStream, d dialer) error {
	conn, err := d.dial(ctx, "udp")
	if err != nil {
		return err
	}
	defer conn.Close()
	for n := uint64(1); ctx.Err() == nil; n++ {
		time.Sleep(streamPace)
		s.sent.Add(1)
		switch err := exchange(conn, n, echoWait); {
		case err == nil:
			s.echoed()
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.lost.Add(1)
		default:
			return err
		}
	}
	return nil
}

// sendTCPStream is one connection that never ends. What it loses is sent again, and shows as a pause.
func sendTCPStream(ctx context.Context, s *flowStream, d dialer) error {
	conn, err := d.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer conn.Close()
	for n := uint64(1); ctx.Err() == nil; n++ {
		time.Sleep(streamPace)
		s.sent.Add(1)
		if err := exchange(conn, n, 10*time.Second); err != nil {
			return err
		}
		s.echoed()
	}
	return nil
}

// sendNewUDPFlows is a new socket, and so a new flow, for each payload.
func sendNewUDPFlows(ctx context.Context, s *flowStream, d dialer) error {
	for n := uint64(1); ctx.Err() == nil; n++ {
		conn, err := d.dial(ctx, "udp")
		if err != nil {
			return err
		}
		s.sent.Add(1)
		err = exchange(conn, n, echoWait)
		switch {
		case err == nil:
			s.echoed()
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.lost.Add(1)
		default:
			_ = conn.Close()
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

// sendNewTCPConnections is a new connection for each payload. A SYN that is lost is sent again by the kernel after a
// second, and counts as lost.
func sendNewTCPConnections(ctx context.Context, s *flowStream, d dialer) error {
	for n := uint64(1); ctx.Err() == nil; n++ {
		begun := time.Now()
		conn, err := d.dial(ctx, "tcp")
		if err != nil {
			return err
		}
		s.sent.Add(1)
		if time.Since(begun) > 900*time.Millisecond {
			s.lost.Add(1)
		}
		if err := exchange(conn, n, 10*time.Second); err != nil {
			_ = conn.Close()
			return err
		}
		s.echoed()
		if err := conn.abandon(); err != nil {
			return err
		}
	}
	return nil
}

// echo runs an echo server for UDP and TCP on a host until the test ends.
func echo(t *testing.T, on *lab.Host, at netip.AddrPort) {
	t.Helper()
	packets, err := on.ListenPacket("udp", at.String())
	labtest.Must(t, err)
	l, err := on.Listen("tcp", at.String())
	labtest.Must(t, err)
	var group sync.WaitGroup
	var open sync.Map
	t.Cleanup(func() {
		labtest.Must(t, packets.Close(), l.Close())
		open.Range(func(conn, _ any) bool { _ = conn.(net.Conn).Close(); return true })
		group.Wait()
	})
	group.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(b[:n], from)
		}
	})
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(conn, nil)
			group.Go(func() {
				defer open.Delete(conn)
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
}

// sources counts what outside sees, by source address.
type sources struct {
	mu   sync.Mutex
	seen map[netip.Addr]uint64
}

// watchSources counts the packets towards an address that come in on a tap, until the test ends.
func watchSources(t *testing.T, tp *tap, to [2]netip.Addr) *sources {
	t.Helper()
	s := &sources{seen: map[netip.Addr]uint64{}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if err := watch([]*tap{tp}, 100*time.Millisecond, func(_ *tap, ip []byte) (bool, error) {
				src, dst := addressesOf(ip)
				if dst != to[0] && dst != to[1] {
					return ctx.Err() != nil, nil
				}
				s.mu.Lock()
				s.seen[src]++
				s.mu.Unlock()
				return ctx.Err() != nil, nil
			}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	t.Cleanup(func() { stop(); labtest.Must(t, <-done) })
	return s
}

// take returns what was seen since the last call.
func (s *sources) take() map[netip.Addr]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = map[netip.Addr]uint64{}
	return seen
}

// catchUp waits until what has come to the wide server so far is counted, however busy this machine is.
func (s *sources) catchUp(t *testing.T, p *path) {
	t.Helper()
	time.Sleep(20 * time.Millisecond) // what is on its way arrives
	last, err := p.router.Dial(t.Context(), "udp", netip.AddrPortFrom(pathWide[0], 9).String())
	labtest.Must(t, err)
	_, err = last.Write([]byte("the last one"))
	labtest.Must(t, err, last.Close())
	router := pathWide[0].Prev()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		arrived := s.seen[router] > 0
		delete(s.seen, router)
		s.mu.Unlock()
		if arrived {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the last packet did not arrive")
		}
	}
}
