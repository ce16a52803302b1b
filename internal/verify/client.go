package verify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How a client asks.
const (
	// pause is the time between requests that reach the server: ten a second are taken, and other clients may be behind the
	// same address.
	pause = 105 * time.Millisecond
	// firstWait is that for the first answer; it doubles with each of the tries (RFC 8489, section 6.2.1).
	firstWait, tries = 500 * time.Millisecond, 3
	// requestLen is the length of a request, in bytes: no answer of usual length is longer.
	requestLen = 160
	// dialTimeout bounds the echo by TCP.
	dialTimeout = 5 * time.Second
	// usualTTL is that of what is not a probe.
	usualTTL = 64
	// gatherAtMost bounds the whole: one with silent routers and a black hole takes about two minutes.
	gatherAtMost = 5 * time.Minute
)

// Options say what to gather evidence about.
type Options struct {
	Server netip.AddrPort
	// Namespace is the network namespace to send from; nil stands for the caller's. It is the caller's to close.
	Namespace *os.File
	// Flows reads this node's conntrack entries of flows to the server. Protocols are those of IP.
	Flows func(ctx context.Context, of []FlowKey) ([]NodeFlow, error)
}

// FlowKey is the first packet of a flow.
type FlowKey struct {
	Protocol uint8
	From, To netip.AddrPort
}

// client gathers evidence.
type client struct {
	Options
	v6    bool
	token token
	udp   *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
	icmp  *net.IPConn
	in    inbox

	cookie cookie
	rtt    time.Duration
	next   time.Time // before which nothing is sent to the server
}

// Gather finds out how a flow to a server fares. An error says that nothing could be found out, such as for want of a route or of
// the right to open a raw socket; what went wrong later is part of the evidence.
func Gather(ctx context.Context, o Options) (e Evidence, err error) {
	c, err := newClient(ctx, o)
	if err != nil {
		return e, err
	}
	defer c.close()
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, gatherAtMost)
	defer cancel()
	defer func() {
		e.Incomplete = c.incomplete(ctx)
	}()
	e.Server = o.Server
	e.UDP = c.echo(ctx, &e)
	stream, tcp := c.echoTCP(ctx, &e)
	if stream != nil {
		defer stream.Close()
	}
	e.TCP = tcp
	c.readFlows(ctx, &e)
	if !e.UDP.answered() {
		e.SizesReason = "no answer came by UDP"
		e.Asked = c.ask(ctx)
		return e, whole.Err()
	}
	e.Path = c.trace(ctx)
	if to, left := e.UDP.Arrived.Addr(), e.UDP.left(); to != left.Addr() && c.traceable(to) {
		e.ToArrived = c.traceTo(ctx, to, e.Path.End)
	}
	if e.Ours {
		e.Back = c.traceBack(ctx, e.Path.End)
		e.Sizes, e.SizesReason = c.sizes(ctx)
	} else {
		e.SizesReason = "the server is not sallyport verify serve"
	}
	return e, whole.Err()
}

// incomplete says why evidence may be missing that there is; empty: it is not.
func (c *client) incomplete(ctx context.Context) string {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Sprintf("it was given up after %s", gatherAtMost)
	case c.in.full:
		return fmt.Sprintf("more than %d ICMP messages about the flow came, and the rest was not read", inboxMost)
	}
	return ""
}

// left is the source by which a flow left this node, as far as that is known.
func (e *Echo) left() netip.AddrPort {
	if e.Node.As.IsValid() {
		return e.Node.As
	}
	return e.Local
}

func newClient(ctx context.Context, o Options) (c *client, err error) {
	c = &client{Options: o, v6: o.Server.Addr().Is6()}
	c.in = newInbox(o.Server.Addr())
	_, _ = rand.Read(c.token[:]) // it never fails
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	err = inside(o.Namespace, func() error {
		network, address := "ip4:1", "0.0.0.0"
		if c.v6 {
			network, address = "ip6:58", "::"
		}
		p, err := new(net.ListenConfig).ListenPacket(ctx, network, address)
		if err != nil {
			return fmt.Errorf("opening a raw socket for ICMP, which needs root: %w", err)
		}
		c.icmp = p.(*net.IPConn)
		c.udp, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(o.Server))
		return err
	})
	if err != nil {
		return c, err
	}
	c.local = unmapped(c.udp.LocalAddr().(*net.UDPAddr).AddrPort())
	c.in.pingID = uint16(os.Getpid()) ^ c.local.Port()
	if c.raw, err = c.udp.SyscallConn(); err != nil {
		return c, err
	}
	if err := setOptions(c.raw, append(dontFragment(c.v6), c.hopLimit(usualTTL))...); err != nil {
		return c, err
	}
	go c.in.receiveICMP(c.icmp, c.v6)
	go c.receive()
	return c, nil
}

func (c *client) close() {
	if c.udp != nil {
		_ = c.udp.Close()
	}
	if c.icmp != nil {
		_ = c.icmp.Close()
	}
}

// hopLimit sets the TTL of what a socket sends.
func (c *client) hopLimit(ttl int) option {
	if c.v6 {
		return option{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl}
	}
	return option{unix.IPPROTO_IP, unix.IP_TTL, ttl}
}

// receive reads answers until the socket is closed. An ICMP error, such as that nothing listens there, fails a read and no more.
func (c *client) receive() {
	b := make([]byte, maxMessage+4)
	for {
		n, err := c.udp.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if m, bad := decode(trimmed(b[:n])); err == nil && bad == nil && m.kind == bindingSuccess {
			c.in.answer(m, n)
		}
	}
}

// inside calls f on a thread that is in a network namespace; sockets that it opens are that namespace's.
func inside(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering network namespace %s, which needs root: %w", ns.Name(), err)
			return
		}
		done <- f()
	}()
	return <-done
}

// request begins a request of this run.
func (c *client) request() message {
	m := message{kind: bindingRequest, token: c.token, cookie: c.cookie}
	_, _ = rand.Read(m.id[:]) // it never fails
	c.in.ask(m.id)
	return m
}

// hopWait is how long an answer may take.
func (c *client) hopWait() time.Duration {
	return min(max(2*c.rtt+150*time.Millisecond, 200*time.Millisecond), time.Second)
}

// paced waits until the server takes another request.
func (c *client) paced(ctx context.Context) {
	select {
	case <-time.After(time.Until(c.next)):
	case <-ctx.Done():
	}
	c.next = time.Now().Add(pause)
}

// send sends a request as a datagram of n bytes. An error that is pending for earlier ones fails the call first.
func (c *client) send(m *message, n int) (err error) {
	b := m.padTo(n)
	for range sends {
		if _, err = c.udp.Write(b); err == nil || errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	return err
}

// exchange sends a request until it is answered, a few times.
func (c *client) exchange(ctx context.Context, n, times int, wait time.Duration, fill func(*message)) (a answered, err error) {
	var ids []transaction
	for range times {
		c.paced(ctx)
		m := c.request()
		fill(&m)
		ids = append(ids, m.id)
		start := time.Now()
		if err = c.send(&m, n); err != nil {
			return a, err
		}
		if c.in.wait(ctx, wait, func() bool {
			for _, id := range ids {
				if got, ok := c.in.answers[id]; ok {
					a = got
				}
			}
			return a.message != nil
		}) {
			if a.id == m.id && c.rtt == 0 {
				c.rtt = time.Since(start)
			}
			return a, nil
		}
		if ctx.Err() != nil {
			return a, ctx.Err()
		}
	}
	return a, errNoAnswer
}

var errNoAnswer = errors.New("no answer came")
