package verify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Server answers Binding requests. It has opened its sockets when Listen returns, and serves until the context of Serve ends.
type Server struct {
	log      *slog.Logger
	allow    []netip.Prefix
	limits   limits
	tokens   tokens
	baker    baker
	sessions sessions
	now      func() time.Time // the clock of limits and of what is kept

	datagrams []*datagrams
	streams   []net.Listener
}

// Listen opens a server's sockets for UDP and TCP. An address that is not valid stands for all of both families; a port of 0
// is a free one. Only sources within allow are answered; none stand for all.
func Listen(ctx context.Context, at netip.AddrPort, allow []netip.Prefix, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, allow: allow, now: time.Now}
	s.limits.sources, s.limits.streams, s.tokens.came = map[netip.Addr]bucket{}, map[netip.Addr]int{}, map[token]arrival{}
	s.sessions.of, s.sessions.ids = map[netip.AddrPort]*session{}, map[transaction]sent{}
	s.baker.secret = make([]byte, 32)
	_, _ = rand.Read(s.baker.secret) // it never fails
	addresses := []netip.Addr{at.Addr()}
	if !at.Addr().IsValid() {
		addresses = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	port := at.Port()
	for _, a := range addresses {
		err := s.open(ctx, netip.AddrPortFrom(a, port))
		if missing := noFamily(err); missing && len(addresses) > 1 {
			log.Info("not served: the kernel has no such addresses", "address", a)
			continue
		}
		if err != nil {
			s.Close()
			return nil, err
		}
		port = s.Addr().Port()
	}
	if len(s.streams) == 0 {
		return nil, errors.New("the kernel has neither IPv4 nor IPv6")
	}
	return s, nil
}

func (s *Server) open(ctx context.Context, at netip.AddrPort) error {
	d, err := listenDatagrams(ctx, at)
	if err != nil {
		return err
	}
	s.datagrams = append(s.datagrams, d)
	l, err := new(net.ListenConfig).Listen(ctx, d.family("tcp"), d.local.String())
	if err != nil {
		return err
	}
	s.streams = append(s.streams, l)
	return nil
}

// Addr is where the server listens, by its first socket.
func (s *Server) Addr() netip.AddrPort { return s.datagrams[0].local }

// Close closes the sockets.
func (s *Server) Close() {
	for _, d := range s.datagrams {
		_ = d.conn.Close()
	}
	for _, l := range s.streams {
		_ = l.Close()
	}
}

// Serve answers until the context ends, and closes the sockets.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	var all sync.WaitGroup
	failed := make(chan error, len(s.datagrams)+len(s.streams))
	run := func(f func() error) {
		all.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				failed <- err
				cancel()
			}
		})
	}
	run(func() error { return s.forget(ctx) })
	places := make(chan struct{}, maxStreams)
	for _, d := range s.datagrams {
		run(func() error { return s.serveDatagrams(d) })
	}
	for _, l := range s.streams {
		run(func() error { return s.serveStreams(ctx, l, places) })
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// forget forgets each minute what is older, until the context ends.
func (s *Server) forget(ctx context.Context) error {
	tick := time.NewTicker(kept)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.sweep(s.now())
		}
	}
}

func (s *Server) sweep(now time.Time) {
	s.limits.sweep(now)
	s.tokens.sweep(now)
	s.sessions.sweep(now)
}

// allowed says whether a source is answered.
func (s *Server) allowed(a netip.Addr) bool {
	for _, p := range s.allow {
		if p.Contains(a) {
			return true
		}
	}
	return len(s.allow) == 0
}

// answer is what a request gets, with the TTL that it is sent with, 0 for the usual one; none, where it gets nothing. It is
// never longer than the request, or, for a source that has returned its cookie, than all that came from it.
func (s *Server) answer(b []byte, from netip.AddrPort, stream bool, now time.Time) (out []byte, ttl uint8) {
	m, err := decode(trimmed(b))
	if err != nil || m.kind != bindingRequest {
		return nil, 0
	}
	s.tokens.note(m.token, from, stream, now)
	reply := message{kind: bindingSuccess, id: m.id, mapped: from, padding: -1}
	if m.token == (token{}) && m.query == (token{}) { // a third party's client
		return atMost(reply.encode(nil), len(b)), 0
	}
	reply.ours = protocolVersion
	if m.query != (token{}) {
		reply.seen = s.tokens.ask(m.query, now)
	}
	if stream {
		return atMost(reply.encode(nil), len(b)), 0
	}
	if !s.baker.holds(m.cookie, from, now) {
		reply.cookie = s.baker.give(from, now)
		return atMost(reply.encode(nil), len(b)), 0
	}
	reply.ttl = m.ttl // so that the client knows which of its answers came
	if m.hasReport {
		reply.hasReport, reply.from = true, m.from
		reply.report = s.sessions.report(from, m.from, len(b)-len(reply.encode(nil)), now)
	}
	short, paid, remember := reply.encode(nil), len(b), m.ttl != 0 || m.size != 0
	for _, out := range [][]byte{reply.padTo(max(len(short), min(int(m.size), maxMessage))), short} {
		if s.sessions.pay(from, paid, len(out), m.id, m.ttl, remember, now) {
			return out, m.ttl
		}
		paid = 0 // it is noted, and there is not enough for the size that was asked for
	}
	return nil, 0
}

func atMost(b []byte, n int) []byte {
	if len(b) > n {
		return nil
	}
	return b
}

// serveStreams takes TCP connections.
func (s *Server) serveStreams(ctx context.Context, l net.Listener, places chan struct{}) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // such as too many files: it passes
			s.log.Warn("a connection was not taken", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		open.Go(func() {
			defer func() { <-places }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			defer c.Close()
			s.serveStream(c)
		})
	}
}

// serveStream answers on one connection, until a request is over the limit or the time is.
func (s *Server) serveStream(c net.Conn) {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	from := unmapped(tcp.AddrPort())
	if !s.allowed(from.Addr()) || !s.limits.enter(from.Addr()) {
		return
	}
	defer s.limits.leave(from.Addr())
	if c.SetDeadline(time.Now().Add(streamTimeout)) != nil {
		return
	}
	for s.limits.take(from.Addr(), s.now()) {
		b, err := readMessage(c)
		if err != nil {
			return
		}
		out, _ := s.answer(b, from, true, s.now())
		if out == nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// String says where the server listens.
func (s *Server) String() string {
	out := ""
	for _, d := range s.datagrams {
		out += fmt.Sprintf(" %s", d.local)
	}
	return out[min(1, len(out)):]
}
