package verify

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxHops = 32
	// A probe of TTL n is a datagram of probeLen + 4n bytes: a router need quote no more than eight bytes of UDP (RFC 792), which
	// have the length.
	probeLen = 64
	// tracePort is the first port that a trace to the address that arrived asks for (that of traceroute).
	tracePort = 33434
	// seqTo is added to the numbers of its echo requests.
	seqTo = 0x100
)

// probe is what was sent with one TTL to the server.
type probe struct {
	id  transaction
	tcp netip.AddrPort
}

// trace sends probes of rising TTL to the server: the flow's own by UDP, and one each by TCP and ICMP.
func (c *client) trace(ctx context.Context) Trace {
	t := Trace{To: c.Server.Addr()}
	var probes []probe
	for ttl := 1; ttl <= maxHops && t.End == 0 && ctx.Err() == nil; ttl++ {
		p, ended := c.step(ctx, ttl)
		probes = append(probes, p)
		if ended {
			t.End = ttl
		}
	}
	_ = setOptions(c.raw, c.hopLimit(usualTTL)) // as it was set before
	if t.End > 0 {
		probes = probes[:t.End-1]
	}
	c.in.wait(ctx, c.hopWait(), func() bool { // for what other protocols bring
		for i, p := range probes {
			if h := c.hop(i+1, p); h.Address.IsValid() && (!h.QuotedTCP.IsValid() || !h.QuotedICMP.IsValid()) {
				return false
			}
		}
		return true
	})
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	for i, p := range probes {
		t.Hops = append(t.Hops, c.hop(i+1, p))
	}
	if t.End == 0 { // silence to the end says nothing
		for len(t.Hops) > 0 && !t.Hops[len(t.Hops)-1].Address.IsValid() {
			t.Hops = t.Hops[:len(t.Hops)-1]
		}
	}
	return t
}

// step sends the probes of one TTL, twice where nothing comes, and says whether the server answered.
func (c *client) step(ctx context.Context, ttl int) (p probe, ended bool) {
	for try := range 2 {
		m := c.request()
		if try > 0 {
			m.id = p.id
		}
		p.id = m.id
		if setOptions(c.raw, c.hopLimit(ttl)) != nil || c.send(&m, probeLen+4*ttl) != nil {
			return p, false
		}
		if try == 0 {
			c.ping(c.Server.Addr(), ttl, uint16(ttl))
			if fd, local, err := c.syn(ttl); err == nil {
				p.tcp = local
				defer unix.Close(fd)
			}
		}
		if c.in.wait(ctx, c.hopWait(), func() bool {
			_, ended = c.in.answers[p.id]
			return ended || c.hop(ttl, p).Address.IsValid()
		}) {
			break
		}
	}
	return p, ended
}

// ping sends an echo request, as far as the kernel lets it go.
func (c *client) ping(to netip.Addr, ttl int, seq uint16) {
	raw, err := c.icmp.SyscallConn()
	if err == nil && setOptions(raw, c.hopLimit(ttl)) == nil {
		_, _ = c.icmp.WriteToIP(echoRequest(c.v6, c.in.pingID, seq), &net.IPAddr{IP: to.AsSlice()}) // it may be lost like any other
	}
}

// hop is what came of the probes of a TTL. The lock of the inbox must be held.
func (c *client) hop(ttl int, p probe) Hop {
	var h Hop
	for i := range c.in.events {
		e := &c.in.events[i]
		if e.kind != errorExpired || e.to.Addr() != c.Server.Addr() {
			continue
		}
		switch e.protocol {
		case unix.IPPROTO_UDP:
			whole := len(e.payload) >= headerLen
			if e.to != c.Server || whole && transaction(e.payload[8:headerLen]) != p.id ||
				!whole && (e.length != 8+probeLen+4*ttl || e.from != c.local) {
				continue
			}
			h.Address, h.QuotedUDP = e.by, e.from
			h.Rewritten = h.Rewritten || e.from != c.local
		case unix.IPPROTO_TCP:
			if e.to != c.Server || e.from.Port() != p.tcp.Port() {
				continue
			}
			h.QuotedTCP = e.from
			h.Rewritten = h.Rewritten || e.from != p.tcp
		default:
			if e.from.Port() != c.in.pingID || int(e.seq) != ttl {
				continue
			}
			h.QuotedICMP = e.from.Addr()
			h.Rewritten = h.Rewritten || h.QuotedICMP != c.local.Addr()
		}
	}
	return h
}

// traceable says whether an address that a server tells of can be that of a box on the way: probes go to no other.
func (c *client) traceable(a netip.Addr) bool {
	return a.Is6() == c.v6 && (a.IsGlobalUnicast() || a.IsLoopback() && c.Server.Addr().IsLoopback())
}

// traceTo finds out how far away the box is that owns an address, by UDP and ICMP, up to a distance.
func (c *client) traceTo(ctx context.Context, to netip.Addr, most int) Trace {
	t := Trace{To: to}
	c.in.expect(to)
	var conn *net.UDPConn
	err := inside(c.Namespace, func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.local.Addr(), 0)))
		return err
	})
	if err != nil {
		return t
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return t
	}
	if most == 0 {
		most = maxHops
	}
	for range 2 {
		for ttl := 1; ttl <= most && (t.End == 0 || ttl < t.End); ttl++ {
			if setOptions(raw, c.hopLimit(ttl)) != nil {
				return t
			}
			_, _ = conn.WriteToUDPAddrPort([]byte{0}, netip.AddrPortFrom(to, uint16(tracePort+ttl))) // it may be lost like any other
			c.ping(to, ttl, uint16(seqTo+ttl))
		}
		c.in.wait(ctx, c.hopWait(), func() bool {
			t = c.tracedTo(to, most)
			return t.End == 1 || ctx.Err() != nil
		})
	}
	return t
}

// tracedTo is what came of a trace to an address. The lock of the inbox must be held.
func (c *client) tracedTo(to netip.Addr, most int) Trace {
	t := Trace{To: to, Hops: make([]Hop, most)}
	for i := range c.in.events {
		e := &c.in.events[i]
		ttl := int(e.seq) - seqTo
		switch {
		case e.kind == 0 && (e.by != to || e.from.Port() != c.in.pingID):
			continue
		case e.kind != 0 && e.to.Addr() != to:
			continue
		case e.kind != 0 && e.protocol == unix.IPPROTO_UDP:
			ttl = int(e.to.Port()) - tracePort
		}
		if ttl < 1 || ttl > most {
			continue
		}
		if e.kind == errorExpired {
			t.Hops[ttl-1].Address = e.by
		} else if e.by == to && (e.kind == 0 || e.port) && (t.End == 0 || ttl < t.End) {
			t.End = ttl
		}
	}
	if t.End > 0 {
		t.Hops = t.Hops[:t.End-1]
	}
	return t
}

// traceBack has the server send answers of rising TTL into the flow, and asks which errors came for them. The way there has as
// many hops as there says, or 0.
func (c *client) traceBack(ctx context.Context, there int) Back {
	var b Back
	for ttl := 1; ttl <= maxHops && b.End == 0 && ctx.Err() == nil; ttl++ {
		wait, times := time.Millisecond, 1 // where none is expected, the pause between requests is enough
		if ttl >= there {
			wait, times = c.hopWait(), tries
		}
		if _, err := c.exchange(ctx, requestLen, times, wait, func(m *message) { m.ttl = uint8(ttl) }); err == nil {
			b.End = ttl
		} else if !errors.Is(err, errNoAnswer) {
			return b
		}
		if early := c.earliest(); early > 0 {
			b.End = early
		}
	}
	if early := c.earliest(); early > 0 { // an answer that came while the next ones were asked for
		b.End = early
	}
	most := b.End - 1
	if b.End == 0 {
		most = maxHops
	}
	errs := c.report(ctx, 0)
	seen := map[uint8]bool{}
	for _, e := range errs {
		seen[e.ttl] = true
	}
	for ttl := 1; ttl <= min(most, max(there, b.End)); ttl++ { // once more, for what was lost
		if !seen[uint8(ttl)] {
			_, _ = c.exchange(ctx, requestLen, 1, time.Millisecond, func(m *message) { m.ttl = uint8(ttl) })
		}
	}
	if len(seen) < most {
		c.in.wait(ctx, c.hopWait(), func() bool { return false }) // the errors of the last take as long as an answer
		errs = append(errs, c.report(ctx, len(errs))...)
	}
	b.Hops = make([]BackHop, max(most, 0))
	for _, e := range errs {
		if i := int(e.ttl) - 1; e.kind == errorExpired && i >= 0 && i < most && !b.Hops[i].By.IsValid() {
			b.Hops[i] = BackHop{By: e.by, Quoted: e.to}
		}
	}
	return b
}

// earliest is the lowest TTL of an answer that came; 0: none.
func (c *client) earliest() int {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	least := 0
	for _, a := range c.in.answers {
		if a.ttl != 0 && (least == 0 || int(a.ttl) < least) {
			least = int(a.ttl)
		}
	}
	return least
}

// reportLen is the length of a request for a report, in bytes, which the answer does not exceed.
const reportLen = 1000

// report asks which errors came for answers to this flow, from one on.
func (c *client) report(ctx context.Context, from int) []hopError {
	var out []hopError
	for range maxErrors {
		a, err := c.exchange(ctx, reportLen, tries, c.hopWait(), func(m *message) { m.hasReport, m.from = true, uint16(from+len(out)) })
		if err != nil {
			return out
		}
		more := decodeReport(a.report)
		if out = append(out, more...); len(more) == 0 {
			break
		}
	}
	return out
}
