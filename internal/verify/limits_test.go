package verify

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

var start = time.Unix(1_000_000, 0)

func newServer(t *testing.T, allow ...netip.Prefix) *Server {
	t.Helper()
	s, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), allow, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// ask has a server answer a datagram of n bytes.
func (s *Server) ask(t *testing.T, m message, n int, from netip.AddrPort, now time.Time) (*message, int, uint8) {
	t.Helper()
	m.kind = bindingRequest
	out, ttl := s.answer(m.padTo(n), from, false, now)
	if out == nil {
		return nil, 0, ttl
	}
	a, err := decode(trimmed(out))
	if err != nil {
		t.Fatal(err)
	}
	return a, len(out), ttl
}

// TestNeverMoreThanItGot sends requests of all kinds and lengths, and counts the bytes of both directions.
func TestNeverMoreThanItGot(t *testing.T) {
	t.Parallel()
	s, k := newServer(t), token{1}
	got, sent := 0, 0
	var c cookie
	for i, from := range []netip.AddrPort{pod, netip.MustParseAddrPort("[2001:db8::1]:5")} {
		for n := 20; n < 1500; n += 3 {
			m := message{token: k, id: transaction{byte(i), byte(n), byte(n >> 8)}, cookie: c}
			switch n % 5 {
			case 1:
				m.token, m.cookie = token{}, cookie{}
			case 2:
				m.query, m.cookie = k, cookie{}
			case 3:
				m.size = 9000
			case 4:
				m.hasReport, m.ttl = true, 1
			}
			request := m
			length := max(n&^3, len(request.padTo(0)))
			a, answer, ttl := s.ask(t, m, length, from, start)
			if got, sent = got+length, sent+answer; sent > got {
				t.Fatalf("%d bytes of answers to %d bytes: the last was %d bytes for %d", sent, got, answer, length)
			}
			if m.cookie == (cookie{}) && (ttl != 0 || answer > length) {
				t.Fatalf("without a cookie: TTL %d, %d bytes for %d", ttl, answer, length)
			}
			if a != nil && a.cookie != (cookie{}) {
				c = a.cookie
			}
		}
		if c == (cookie{}) || sent == 0 {
			t.Fatalf("%s was given no cookie", from)
		}
		c = cookie{}
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	traced := func(c cookie, from netip.AddrPort, after time.Duration) bool {
		_, _, ttl := s.ask(t, message{token: token{1}, cookie: c, ttl: 3}, requestLen, from, start.Add(after))
		return ttl == 3
	}
	a, _, _ := s.ask(t, message{token: token{1}}, requestLen, pod, start)
	for _, tc := range []struct {
		what  string
		from  netip.AddrPort
		after time.Duration
		want  bool
	}{{"its own", pod, 0, true}, {"a minute later", pod, time.Minute, true}, {"two minutes later", pod, 2 * time.Minute, false},
		{"another port", odd, 0, false}, {"another address", outside, 0, false}} {
		if got := traced(a.cookie, tc.from, tc.after); got != tc.want {
			t.Errorf("%s: %v", tc.what, got)
		}
	}
	if traced(cookie{1}, pod, 0) || traced(cookie{}, pod, 0) {
		t.Error("a cookie that it did not give was taken")
	}
}

func TestTokensAreKeptForAMinute(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ask := func(k token, after time.Duration) seen {
		a, _, _ := s.ask(t, message{query: k}, requestLen, outside, start.Add(after))
		return *a.seen
	}
	for i := range maxTokens + 5 {
		s.tokens.note(token(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i+1))), pod, i == 0, start)
	}
	first, last := token{15: 1}, token(binary.BigEndian.AppendUint64(make([]byte, 8), maxTokens+1))
	if got := ask(first, kept); got != (seen{tokenSeen, 0, 1, pod}) {
		t.Errorf("the first: %+v", got)
	}
	if got := ask(last, 0); got.state != tokenUnknown {
		t.Errorf("one for which there was no room: %+v", got)
	}
	if got := ask(first, kept+time.Second); got.state != tokenUnseen {
		t.Errorf("after a minute: %+v", got)
	}
	s.tokens.note(last, pod, false, start.Add(kept+2*time.Second))
	if got := ask(last, kept+2*time.Second); got.state != tokenSeen || len(s.tokens.came) != 1 {
		t.Errorf("after the others have gone: %+v, %d tokens", got, len(s.tokens.came))
	}
}

func TestTenRequestsASecond(t *testing.T) {
	t.Parallel()
	l := limits{sources: map[netip.Addr]bucket{}}
	took := func(a netip.Addr, after time.Duration) (n int) {
		for range 100 {
			if l.take(a, start.Add(after)) {
				n++
			}
		}
		return n
	}
	v4, v6, same, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:0:1::1")
	for _, tc := range []struct {
		of    netip.Addr
		after time.Duration
		want  int
	}{{v4, 0, 10}, {v4, 500 * time.Millisecond, 5}, {v6, 0, 10}, {same, 0, 0}, {other, 0, 10}, {v4, time.Hour, 10}} {
		if got := took(tc.of, tc.after); got != tc.want {
			t.Errorf("%s after %s: %d", tc.of, tc.after, got)
		}
	}
	a := netip.MustParseAddr("10.0.0.0")
	for range maxSources * 2 {
		a = a.Next()
		l.take(a, start.Add(2*time.Hour))
	}
	if len(l.sources) != maxSources || l.take(a, start.Add(2*time.Hour)) {
		t.Errorf("%d sources are kept", len(l.sources))
	}
	if !l.take(a, start.Add(2*time.Hour+2*time.Second)) || len(l.sources) != 1 {
		t.Errorf("no room after two seconds: %d sources", len(l.sources))
	}
}

func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	s := sessions{of: map[netip.AddrPort]*session{}, ids: map[transaction]sent{}}
	from := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
	}
	id := func(i int) transaction { return transaction{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range maxSessions * maxErrors * 2 {
		s.pay(from(i%(maxSessions+9)), 1000, 1, id(i), 1, true, start)
		s.note(id(i), hopError{kind: errorExpired, by: h1})
	}
	if len(s.of) != maxSessions || len(s.ids) > maxSessions*maxErrors {
		t.Errorf("%d sessions, %d answers", len(s.of), len(s.ids))
	}
	for a, of := range s.of {
		if len(of.errors) > maxErrors || of.credit > maxCredit {
			t.Errorf("%s: %d errors, %d bytes", a, len(of.errors), of.credit)
		}
	}
	if !s.pay(outside, 10, 10, id(1), 0, false, start.Add(kept+time.Second)) || len(s.of) != 1 || len(s.ids) != 0 {
		t.Errorf("after a minute: %d sessions, %d answers", len(s.of), len(s.ids))
	}
	s.note(id(2), hopError{}) // of an answer that nothing is known of
}

// TestOneSourceDisplacesItsOwnSessions, and none of others.
func TestOneSourceDisplacesItsOwnSessions(t *testing.T) {
	t.Parallel()
	s := sessions{of: map[netip.AddrPort]*session{}, ids: map[transaction]sent{}}
	s.pay(outside, 10, 10, transaction{1}, 1, true, start)
	at := func(port int) netip.AddrPort { return netip.AddrPortFrom(pod.Addr(), uint16(port)) }
	for port := range 100 {
		s.pay(at(port), 10, 10, transaction{2, byte(port)}, 1, true, start.Add(time.Duration(port)))
	}
	if len(s.of) != 1+sessionsOfOne || len(s.ids) != 1+sessionsOfOne || s.of[at(99)] == nil || s.of[at(99-sessionsOfOne)] != nil || s.of[outside] == nil {
		t.Errorf("%d sessions, %d answers", len(s.of), len(s.ids))
	}
}

// TestAnswersSayTheirTTL, so that the client finds the one that came first.
func TestAnswersSayTheirTTL(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	first, _, _ := s.ask(t, message{token: token{1}}, 200, pod, start)
	a, _, ttl := s.ask(t, message{token: token{1}, cookie: first.cookie, ttl: 5}, 200, pod, start)
	if a == nil || a.ttl != 5 || ttl != 5 {
		t.Errorf("answer %+v, sent with TTL %d", a, ttl)
	}
}

// TestNothingIsKeptForLong, neither for the next client behind the same address and port, nor once all are silent.
func TestNothingIsKeptForLong(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	cookie := func(now time.Time) cookie {
		a, _, _ := s.ask(t, message{token: token{1}}, 200, pod, now)
		return a.cookie
	}
	s.limits.take(pod.Addr(), start)
	s.ask(t, message{token: token{1}, id: transaction{7}, cookie: cookie(start), ttl: 1}, 200, pod, start)
	s.sessions.note(transaction{7}, hopError{kind: errorExpired, by: h1})
	report := func(now time.Time) int {
		a, _, _ := s.ask(t, message{token: token{1}, cookie: cookie(now), hasReport: true}, reportLen, pod, now)
		return len(decodeReport(a.report))
	}
	if n := report(start); n != 1 {
		t.Errorf("%d errors at once, want 1", n)
	}
	later := start.Add(kept + time.Second)
	if n := report(later); n != 0 {
		t.Errorf("%d errors after a minute", n)
	}
	s.sweep(later.Add(kept + time.Second))
	if len(s.sessions.of)+len(s.sessions.ids)+len(s.tokens.came)+len(s.limits.sources) != 0 {
		t.Errorf("kept: %v, %v, %v, %v", s.sessions.of, s.sessions.ids, s.tokens.came, s.limits.sources)
	}
}
