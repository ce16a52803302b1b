package verify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

// The bounds of what a server does and keeps.
const (
	perSecond     = 10 // requests that it takes from a source
	maxSources    = 8192
	maxTokens     = 8192
	maxSessions   = 256
	sessionsOfOne = 8           // of them of one source: its oldest makes room for another
	maxErrors     = 128         // that it keeps of a session
	maxCredit     = 64 << 10    // bytes that a session may be owed
	kept          = time.Minute // how long tokens and sessions count; it forgets them in another one
	maxStreams    = 64          // TCP connections at once
	streamsOfOne  = 8           // of them from one source
	streamTimeout = 10 * time.Second
)

// limits bound what a source may ask for: a bucket of ten requests, which fills again in a second.
type limits struct {
	mu      sync.Mutex
	sources map[netip.Addr]bucket
	swept   time.Time
	streams map[netip.Addr]int // open TCP connections
}

type bucket struct {
	left float64
	at   time.Time
}

// sourceOf is what a source is known by: an IPv4 address, or an IPv6 /64.
func sourceOf(a netip.Addr) netip.Addr {
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

// enter notes another connection of a source, and says whether it may have one more; if so, leave is to be called at its end.
func (l *limits) enter(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[sourceOf(a)] >= streamsOfOne {
		return false
	}
	l.streams[sourceOf(a)]++
	return true
}

func (l *limits) leave(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[sourceOf(a)]--; l.streams[sourceOf(a)] == 0 {
		delete(l.streams, sourceOf(a))
	}
}

// take says whether a request of a source is within bounds. IPv6 sources are told apart by their /64, which one host may
// have whole. While there are too many sources, new ones are refused.
func (l *limits) take(a netip.Addr, now time.Time) bool {
	a = sourceOf(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.sources[a]
	if !known {
		if len(l.sources) >= maxSources && now.Sub(l.swept) > time.Second {
			l.drop(now)
			l.swept = now
		}
		if len(l.sources) >= maxSources {
			return false
		}
		b = bucket{perSecond, now}
	}
	b.left, b.at = min(perSecond, b.left+perSecond*now.Sub(b.at).Seconds()), now
	ok := b.left >= 1
	if ok {
		b.left--
	}
	l.sources[a] = b
	return ok
}

// drop forgets sources whose bucket is full again. mu is held.
func (l *limits) drop(now time.Time) {
	for k, v := range l.sources {
		if now.Sub(v.at) > time.Second {
			delete(l.sources, k)
		}
	}
}

func (l *limits) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(now)
}

// tokens remember for a minute which requests came.
type tokens struct {
	mu     sync.Mutex
	came   map[token]arrival
	denied time.Time // when there was no room for one
}

type arrival struct {
	seen
	at time.Time
}

// note remembers a request with a token.
func (t *tokens) note(k token, from netip.AddrPort, stream bool, now time.Time) {
	if k == (token{}) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a, known := t.came[k]
	if !known {
		if len(t.came) >= maxTokens && now.Sub(t.denied) > time.Second {
			t.drop(now)
		}
		if len(t.came) >= maxTokens {
			t.denied = now
			return
		}
		a = arrival{seen: seen{state: tokenSeen, from: from}}
	}
	count := &a.udp
	if stream {
		count = &a.tcp
	}
	*count += min(1, 255-*count)
	a.at = now
	t.came[k] = a
}

// drop forgets requests that came long ago. mu is held.
func (t *tokens) drop(now time.Time) {
	for k, v := range t.came {
		if now.Sub(v.at) > kept {
			delete(t.came, k)
		}
	}
}

func (t *tokens) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(now)
}

// ask says what came with a token.
func (t *tokens) ask(k token, now time.Time) *seen {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a, known := t.came[k]; known && now.Sub(a.at) <= kept {
		return &a.seen
	}
	if !t.denied.IsZero() && now.Sub(t.denied) <= kept {
		return &seen{state: tokenUnknown}
	}
	return &seen{state: tokenUnseen}
}

// baker makes cookies, which hold for one to two minutes.
type baker struct{ secret []byte }

func (b baker) bake(a netip.AddrPort, slot int64) cookie {
	h := hmac.New(sha256.New, b.secret)
	bytes := a.Addr().As16()
	_, _ = h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(bytes[:], a.Port()), uint64(slot))) // it never fails
	return cookie(h.Sum(nil))
}

func (b baker) give(a netip.AddrPort, now time.Time) cookie {
	return b.bake(a, now.Unix()/int64(kept/time.Second))
}

// holds says whether a source has returned what it was given.
func (b baker) holds(c cookie, a netip.AddrPort, now time.Time) bool {
	slot := now.Unix() / int64(kept/time.Second)
	for _, s := range []int64{slot, slot - 1} {
		if good := b.bake(a, s); hmac.Equal(good[:], c[:]) {
			return true
		}
	}
	return false
}

// sessions are what sources that returned a cookie are owed, and the ICMP errors that came for answers to them.
type sessions struct {
	mu sync.Mutex
	of map[netip.AddrPort]*session
	// ids are the sessions of the answers of a given TTL or size, by which errors find them: a stateless translator leaves
	// another destination in the quote.
	ids map[transaction]sent
}

type session struct {
	credit int
	errors []hopError
	ids    []transaction // that it has in sessions.ids, at most maxErrors
	at     time.Time
}

type sent struct {
	to  netip.AddrPort
	ttl uint8
}

// pay notes that a source sent n bytes and is to get m, and says whether it may. For an answer that errors may come for, remember
// is set.
func (s *sessions) pay(a netip.AddrPort, n, m int, id transaction, ttl uint8, remember bool, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.of[a]
	if of != nil && now.Sub(of.at) > kept { // of another run from the same port
		s.drop(now)
		of = nil
	}
	if of == nil {
		s.displace(sourceOf(a.Addr()))
		if len(s.of) >= maxSessions {
			s.drop(now)
		}
		if len(s.of) >= maxSessions {
			return false
		}
		of = &session{}
		s.of[a] = of
	}
	of.at = now
	of.credit = min(of.credit+n, maxCredit)
	if of.credit < m {
		return false
	}
	of.credit -= m
	if remember {
		if len(of.ids) >= maxErrors {
			delete(s.ids, of.ids[0])
			of.ids = of.ids[1:]
		}
		of.ids = append(of.ids, id)
		s.ids[id] = sent{a, ttl}
	}
	return true
}

func (s *sessions) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(now)
}

// drop forgets sessions of which nothing was heard for long. mu is held.
func (s *sessions) drop(now time.Time) {
	for a, of := range s.of {
		if now.Sub(of.at) > kept {
			s.end(a, of)
		}
	}
}

// displace forgets the oldest session of a source that has as many as it may have. mu is held.
func (s *sessions) displace(source netip.Addr) {
	var oldest netip.AddrPort
	n := 0
	for a, of := range s.of {
		if sourceOf(a.Addr()) != source {
			continue
		}
		if n++; !oldest.IsValid() || of.at.Before(s.of[oldest].at) {
			oldest = a
		}
	}
	if n >= sessionsOfOne {
		s.end(oldest, s.of[oldest])
	}
}

// end forgets a session. mu is held.
func (s *sessions) end(a netip.AddrPort, of *session) {
	for _, id := range of.ids {
		delete(s.ids, id)
	}
	delete(s.of, a)
}

// note keeps an error for the session of the answer that it quotes.
func (s *sessions) note(id transaction, e hopError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of, known := s.ids[id]
	if !known || s.of[of.to] == nil {
		return
	}
	e.ttl = of.ttl
	if of := s.of[of.to]; len(of.errors) < maxErrors {
		of.errors = append(of.errors, e)
	}
}

// report is as many errors of a source, from one on, as fit into so many bytes.
func (s *sessions) report(a netip.AddrPort, from uint16, room int, now time.Time) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []byte{}
	if of := s.of[a]; of != nil && now.Sub(of.at) <= kept {
		for i := int(from); i < len(of.errors) && len(out)+hopErrorLen <= room; i++ {
			out = of.errors[i].encode(out)
		}
	}
	return out
}
