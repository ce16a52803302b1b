package verify

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// event is an ICMP error, or the answer to an echo request.
type event struct {
	kind uint8 // of hopError; 0: an answer to an echo request
	port bool  // of errorUnreachable: no such port
	mtu  int
	by   netip.Addr
	// What the error quotes: the protocol, the source and destination, and what follows the ports. The identifier of an echo
	// request stands in place of the port of the source; seq is its number.
	protocol uint8
	from, to netip.AddrPort
	seq      uint16
	length   int    // of UDP, with its header
	payload  []byte // of UDP
}

// inbox gathers what comes in and concerns this run.
type inbox struct {
	mu      sync.Mutex
	changed chan struct{} // closed with each change
	events  []event
	answers map[transaction]answered
	full    bool // there was no room for an event
	// What concerns this run: packets to these addresses, echo requests with this identifier, and these requests.
	to     map[netip.Addr]bool
	pingID uint16
	asked  map[transaction]bool
}

func newInbox(server netip.Addr) inbox {
	return inbox{changed: make(chan struct{}), answers: map[transaction]answered{}, to: map[netip.Addr]bool{server: true}, asked: map[transaction]bool{}}
}

// expect says that packets go to an address from now on.
func (in *inbox) expect(a netip.Addr) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.to[a] = true
}

// ask says that a request goes out.
func (in *inbox) ask(id transaction) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.asked[id] = true
}

// concerns says whether an event may be about this run.
func (in *inbox) concerns(e *event) bool {
	switch {
	case e.kind == 0:
		return in.to[e.by] && e.from.Port() == in.pingID
	case e.protocol == unix.IPPROTO_ICMP || e.protocol == unix.IPPROTO_ICMPV6:
		return in.to[e.to.Addr()] && e.from.Port() == in.pingID
	default:
		return in.to[e.to.Addr()]
	}
}

// answered is an answer, with its length as a datagram.
type answered struct {
	*message
	length int
}

// inboxMost bounds the events that are kept. No more answers are kept than requests were sent.
const inboxMost = 8192

func (in *inbox) add(e event) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.concerns(&e) {
		return
	}
	if in.full = len(in.events) >= inboxMost; in.full {
		return
	}
	in.events = append(in.events, e)
	in.wake()
}

func (in *inbox) answer(m *message, n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.asked[m.id] {
		in.answers[m.id] = answered{m, n}
		in.wake()
	}
}

func (in *inbox) wake() {
	close(in.changed)
	in.changed = make(chan struct{})
}

// wait waits until done, which is called with the lock held, says yes, and whether it did in time.
func (in *inbox) wait(ctx context.Context, atMost time.Duration, done func() bool) bool {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	for {
		in.mu.Lock()
		ok, changed := done(), in.changed
		in.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// find is the first event that fits. The lock must be held.
func (in *inbox) find(fits func(*event) bool) *event {
	for i := range in.events {
		if fits(&in.events[i]) {
			return &in.events[i]
		}
	}
	return nil
}

// receiveICMP reads until the socket is closed.
func (in *inbox) receiveICMP(conn *net.IPConn, v6 bool) {
	b := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromIP(b)
		if err != nil {
			return
		}
		by, _ := netip.AddrFromSlice(from.IP)
		if e, ok := parseICMP(b[:n], v6); ok {
			e.by = by.Unmap()
			in.add(e)
		}
	}
}

// parseICMP reads an ICMP message, without the IP header before it (RFC 792, RFC 4443).
func parseICMP(b []byte, v6 bool) (e event, ok bool) {
	if len(b) < 8 {
		return e, false
	}
	kind, code := b[0], b[1]
	if !v6 && kind == 0 || v6 && kind == 129 {
		return event{seq: binary.BigEndian.Uint16(b[6:]), from: netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(b[4:]))}, true
	}
	if v6 {
		e.kind, e.port = kindOf6(kind), kind == 1 && code == 4
		e.mtu = int(min(binary.BigEndian.Uint32(b[4:]), 1<<16))
		return e, e.kind != 0 && e.quote6(b[8:])
	}
	e.kind, e.port = kindOf4(kind, code), kind == 3 && code == 3
	e.mtu = int(binary.BigEndian.Uint16(b[6:]))
	return e, e.kind != 0 && e.quote4(b[8:])
}

func (e *event) quote4(b []byte) bool {
	if len(b) < 20 || b[0]>>4 != 4 {
		return false
	}
	header := int(b[0]&15) * 4
	if header < 20 || len(b) < header || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 { // a later fragment
		return false
	}
	e.protocol = b[9]
	return e.ports(netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[header:])
}

func (e *event) quote6(b []byte) bool {
	if len(b) < 40 || b[0]>>4 != 6 {
		return false
	}
	e.protocol = b[6] // extension headers: none of ours have any
	return e.ports(netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[40:])
}

func (e *event) ports(from, to netip.Addr, b []byte) bool {
	if len(b) < 8 {
		return false
	}
	first, second := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	switch e.protocol {
	case unix.IPPROTO_UDP:
		e.length, e.payload = int(binary.BigEndian.Uint16(b[4:])), append([]byte(nil), b[8:min(len(b), 8+headerLen)]...)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		first, second, e.seq = binary.BigEndian.Uint16(b[4:]), 0, binary.BigEndian.Uint16(b[6:])
	case unix.IPPROTO_TCP:
	default:
		return false
	}
	e.from, e.to = netip.AddrPortFrom(from, first), netip.AddrPortFrom(to, second)
	return true
}

// echoRequest is an ICMP echo request. The kernel fills in the checksum of ICMPv6, which covers addresses.
func echoRequest(v6 bool, id, seq uint16) []byte {
	b := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	if v6 {
		b[0] = 128
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	return b
}
