package conntrack

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

const (
	// together is how many flows are ended by one datagram.
	together = 128
	// attempts bounds how often it is tried to keep the place of one flow.
	attempts = 5
	// lateMost bounds how many entries wait for the end of a walk; each takes some 400 bytes.
	lateMost = 8192
	// longest bounds the time for which a place is kept while nothing comes.
	longest = time.Hour
)

// ender ends flows, many with one datagram.
//
// When a flow ends whose peer knows the pod's own address, and the peer sends first, the kernel takes its
// packet for a new flow from outside, and whatever the pod sends for an answer to it: never translated, for as
// long as they talk. So an entry takes the flow's place at once.
//
// If the flow is to be translated, it is one to which the peer's packets belong, and nothing that the pod can
// send: its answers are those of the flow, but its source is another one (standIn). The peer's packets reach the
// pod as before, and the pod's next packet opens a flow of its own, which is translated.
//
// If it is to keep its own address, the entry is the very one that the pod's next packet would make; what kept
// the place before makes room. Where there are connections this is left to the ends.
//
// A flow to a service needs neither: what the pod sends to a service does not belong to a flow from its
// backend.
type ender struct {
	table *Table
	conn  *nfnetlink.Conn // nil before the first
	flows []ending        // to be ended by the next flush; the room of earlier ones is used again
	late  []ending        // to be ended by flushLate
	ended int             // entries that were deleted
	// unkept says that the place of a flow could not be kept in as many attempts as there may be.
	unkept bool

	buf   []byte
	first uint32 // number of the first message in buf
	last  int    // where the last message in buf begins
	sent  []sent // what each message in buf is for
	tuple []byte // scratch
}

// ending is a flow that is to be ended.
type ending struct {
	free              bool // the place that was kept for its answers before
	place             place
	family            uint8
	id                uint32 // 0: it has ended, and what has its place since is to make room
	gone              bool   // before we could end it
	timeout           uint32 // seconds
	port              uint16 // by which the peer knows the flow
	orig, reply, zone []byte
}

// sent is what a message is for.
type sent struct {
	flow int // index
	job  job
}

type job uint8

const (
	endFlow job = iota
	takePlace
	freePlace
)

// place is what takes the place of a flow.
type place uint8

const (
	nothing place = iota
	answers       // an entry for the peer's packets alone
	itself        // the flow with its own address
	opener        // the same, in place of an entry for the peer's packets
)

// add ends a flow, at the latest with the next flush.
func (e *ender) add(ctx context.Context, f *Flow, how Action) error {
	n := len(e.flows)
	if n < cap(e.flows) {
		e.flows = e.flows[:n+1]
	} else {
		e.flows = append(e.flows, ending{})
	}
	e.flows[n].set(f, how)
	if len(e.flows) < together {
		return nil
	}
	return e.flush(ctx)
}

// addLate restores a flow with flushLate, and says whether there was room for that.
func (e *ender) addLate(f *Flow) bool {
	if len(e.late) == lateMost {
		return false
	}
	var g ending
	g.set(f, Restore)
	e.late = append(e.late, g)
	return true
}

// set makes g the end of a flow. It uses the room of what g was before.
func (g *ending) set(f *Flow, how Action) {
	in := f.placeFor(how)
	*g = ending{place: in, free: how == Restore && in != opener, family: f.family, id: f.ID, port: f.Reply.Destination.Port(),
		timeout: uint32(min(max(f.Timeout, time.Second), longest) / time.Second),
		orig:    append(g.orig[:0], f.orig...), reply: append(g.reply[:0], f.reply...), zone: append(g.zone[:0], f.zone...)}
}

// placeFor is what is to take the place of a flow.
func (f *Flow) placeFor(how Action) place {
	switch {
	case f.keepsPlace():
		if how == Restore && !f.connects() {
			return opener
		}
	case f.Protocol == compile.ICMP, f.Protocol == compile.ICMPv6: // an answer to an echo opens no flow
	case f.Original.Destination != f.Reply.Source: // a service
	case how == Translate && f.Reply.Destination.Addr() == f.Original.Source.Addr():
		return answers
	case how == Restore && !f.connects():
		return itself
	}
	return nothing
}

// flush ends the flows that were added. That one is gone already is not an error.
func (e *ender) flush(ctx context.Context) error {
	for range attempts {
		if len(e.flows) == 0 {
			return nil
		}
		if err := e.send(ctx); err != nil {
			return fmt.Errorf("ending flows: %w", err)
		}
	}
	e.flows, e.unkept = e.flows[:0], true // it could not be done; the next walk sees what has come of it
	return nil
}

// flushLate ends the flows that were to end last.
func (e *ender) flushLate(ctx context.Context) error {
	for chunk := range slices.Chunk(e.late, together) {
		e.flows = append(e.flows[:0], chunk...)
		if err := e.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// send ends the flows, and leaves those whose place was taken before it could be kept.
func (e *ender) send(ctx context.Context) (err error) {
	if e.conn == nil {
		if e.conn, err = e.table.open(); err != nil {
			return err
		}
	}
	e.write()
	if err := e.conn.Send(e.buf); err != nil {
		return err
	}
	taken := 0
	err = e.conn.ReceiveAny(ctx, func(m nfnetlink.Message) error {
		if m.Kind != unix.NLMSG_ERROR || !e.conn.Answers(m, len(e.sent)) {
			return nil
		}
		r, err := nfnetlink.ParseReply(m)
		if err != nil {
			return err
		}
		again, err := e.answered(e.sent[m.Seq-e.first], r)
		if again {
			e.again(taken, e.sent[m.Seq-e.first].flow)
			taken++
		}
		if err == nil && m.Seq == e.conn.Seq {
			err = nfnetlink.ErrEnd
		}
		return err
	})
	e.flows = e.flows[:taken]
	return err
}

// write writes the messages that end the flows, and counts on their success.
func (e *ender) write() {
	e.buf, e.sent, e.first = e.buf[:0], e.sent[:0], e.conn.Seq+1
	for i := range e.flows {
		g := &e.flows[i]
		if g.free {
			e.tuple = appendStandIn(e.tuple[:0], g.orig, 0)
			e.delete(i, freePlace, e.tuple, 0)
		}
		e.delete(i, endFlow, g.orig, g.id)
		if g.id != 0 {
			e.ended++
		}
		if g.place != nothing {
			e.take(i)
		}
	}
	nfnetlink.AskForAnswer(e.buf, e.last) // the others answer only if they fail
}

// answered takes note of the answer to a message, and says whether to try again to keep the flow's place.
func (e *ender) answered(s sent, r nfnetlink.Reply) (again bool, err error) {
	g := &e.flows[s.flow]
	if s.job == endFlow && r.Errno != 0 && g.id != 0 {
		g.gone = true
		e.ended--
	}
	switch {
	case r.Errno == 0:
		return false, nil
	case s.job == takePlace && r.Errno == unix.EEXIST:
		return !g.gone, nil
	case s.job == takePlace && r.Errno == unix.ENOMEM: // the table is full; the flow has ended all the same
		return false, nil
	case s.job != takePlace && r.Errno == unix.ENOENT:
		return false, nil
	default:
		return false, &nfnetlink.Refusal{Doing: "ending a flow", Errno: r.Errno, Text: r.Text}
	}
}

// again makes a flow whose place was taken the nth of those that are left.
func (e *ender) again(n, flow int) {
	e.flows[n], e.flows[flow] = e.flows[flow], e.flows[n]
	g := &e.flows[n]
	g.id = 0
	if g.place == opener {
		g.place, g.orig = itself, appendInverse(g.orig[:0], g.reply)
	}
}

// delete appends the deletion of the entry with a tuple, and with a number unless that is 0.
func (e *ender) delete(flow int, j job, tuple []byte, id uint32) {
	e.begin(flow, j, messageDelete, 0)
	e.buf = nfnetlink.AppendAttr(e.buf, ctaTupleOrig|unix.NLA_F_NESTED, tuple)
	if id != 0 {
		e.buf = nfnetlink.AppendUint32(e.buf, ctaID, id)
	}
	nfnetlink.EndMessage(e.buf, e.last)
}

// take appends the making of the entry that takes a flow's place.
func (e *ender) take(flow int) {
	g := &e.flows[flow]
	e.begin(flow, takePlace, messageNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	orig, reply := g.orig, g.reply
	switch g.place {
	case itself:
		e.tuple = appendInverse(e.tuple[:0], g.orig)
		reply = e.tuple
	case opener:
		e.tuple = appendInverse(e.tuple[:0], g.reply)
		orig = e.tuple
	default:
		e.tuple = appendStandIn(e.tuple[:0], g.orig, g.port)
		orig = e.tuple
	}
	e.buf = nfnetlink.AppendAttr(e.buf, ctaTupleOrig|unix.NLA_F_NESTED, orig)
	e.buf = nfnetlink.AppendAttr(e.buf, ctaTupleReply|unix.NLA_F_NESTED, reply)
	e.buf = nfnetlink.AppendUint32(e.buf, ctaTimeout, g.timeout)
	nfnetlink.EndMessage(e.buf, e.last)
}

func (e *ender) begin(flow int, j job, kind, flags uint16) {
	g := &e.flows[flow]
	e.conn.Seq++
	e.sent = append(e.sent, sent{flow, j})
	e.buf, e.last = nfnetlink.AppendHeader(e.buf, kind, flags, g.family, 0, e.conn.Seq)
	if len(g.zone) > 0 {
		e.buf = nfnetlink.AppendAttr(e.buf, ctaZone, g.zone)
	}
}

func (e *ender) close() error {
	if e.conn == nil {
		return nil
	}
	return e.conn.Close()
}

// standIn is the source of an entry that keeps the place of a flow from an address: one from which no packet
// comes (0.0.0.0/8 of RFC 6890, 0100::/8 of RFC 4291 and RFC 6666), and another one for each address of a pool.
func standIn(a netip.Addr) netip.Addr {
	if a.Is4() {
		b := a.As4()
		markStandIn(b[:])
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	markStandIn(b[:])
	return netip.AddrFrom16(b)
}

func markStandIn(address []byte) {
	address[0] = 0
	if len(address) == 16 {
		address[0] = 1
	}
}

// appendStandIn appends a tuple, as the kernel wrote it, with standIn of its source, and a source port unless
// that is 0.
func appendStandIn(b, tuple []byte, port uint16) []byte {
	at := len(b)
	b = append(b, tuple...)
	p := partsOf(b[at:])
	if len(p.source) > 0 {
		markStandIn(p.source)
	}
	if len(p.sourcePort) == 2 && port != 0 {
		binary.BigEndian.PutUint16(p.sourcePort, port)
	}
	return b
}

// appendInverse appends a tuple of answers to a tuple that the kernel wrote.
func appendInverse(b, tuple []byte) []byte {
	at := len(b)
	b = append(b, tuple...)
	p := partsOf(b[at:])
	swap(p.source, p.destination)
	swap(p.sourcePort, p.destinationPort)
	return b
}

func swap(a, b []byte) {
	if len(a) == len(b) {
		for i := range a {
			a[i], b[i] = b[i], a[i]
		}
	}
}

// parts are the parts of a tuple that the kernel wrote, nil where it has none. The kernel refuses what it
// would not write itself.
type parts struct{ source, destination, sourcePort, destinationPort []byte }

func partsOf(tuple []byte) (p parts) {
	for a, err := range nfnetlink.Attributes(tuple) {
		if err != nil || a.Kind != ctaTupleIP && a.Kind != ctaTupleProto {
			continue
		}
		for in, err := range nfnetlink.Attributes(a.Data) {
			switch {
			case err != nil:
			case a.Kind == ctaTupleIP && (in.Kind == ctaIPv4Source || in.Kind == ctaIPv6Source):
				p.source = in.Data
			case a.Kind == ctaTupleIP && (in.Kind == ctaIPv4Destination || in.Kind == ctaIPv6Destination):
				p.destination = in.Data
			case a.Kind == ctaTupleProto && in.Kind == ctaSourcePort:
				p.sourcePort = in.Data
			case a.Kind == ctaTupleProto && in.Kind == ctaDestinationPort:
				p.destinationPort = in.Data
			}
		}
	}
	return p
}

// keepsPlace says whether an entry keeps the place of a flow that has ended.
func (f *Flow) keepsPlace() bool {
	source, pod := f.Original.Source.Addr(), f.Reply.Destination.Addr()
	return source != pod && source == standIn(pod)
}
