package conntrack

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

const (
	// walks bounds how often a walk is begun, where the kernel interrupts it.
	walks = 4
	// deletions is how many entries are deleted by one datagram.
	deletions = 128
)

// Table is the conntrack table of a network namespace.
type Table struct {
	dial func() (nfnetlink.Socket, error)
}

// NewTable is the table of the network namespace of a file descriptor; 0 is that of the calling thread. It
// opens a socket with each walk.
func NewTable(netns int) *Table {
	return &Table{dial: func() (nfnetlink.Socket, error) { return nfnetlink.Dial(netns) }}
}

// Visit looks at a flow, which is valid until it returns, and says whether it is to be ended.
type Visit func(*Flow) (end bool)

// Walk visits every flow of both families, and returns how many were ended. Flows that come and go
// meanwhile may be missed, and one may be visited twice. A walk that the kernel interrupts is begun anew, a
// few times: begin is called for each, and gives what visits its flows.
//
// The error is an *nfnetlink.UnsupportedError if the kernel cannot list flows.
func (t *Table) Walk(ctx context.Context, begin func() Visit) (ended int, err error) {
	for range walks {
		var n int
		n, err = t.walk(ctx, begin())
		ended += n
		if !errors.Is(err, nfnetlink.ErrInterrupted) && !errors.Is(err, unix.ENOBUFS) {
			break
		}
	}
	return ended, err
}

func (t *Table) walk(ctx context.Context, visit Visit) (ended int, err error) {
	c, err := t.open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	// Entries are deleted through a socket of their own: the answers would be mixed up with the listing.
	d := deleter{table: t}
	defer func() { err = errors.Join(err, d.close()) }()

	var f Flow
	const doing = "listing the flows that the kernel tracks"
	err = c.Dump(ctx, doing, c.Request(messageGet, unix.NLM_F_DUMP, unix.AF_UNSPEC), func(m nfnetlink.Message) error {
		if m.Kind != messageNew {
			return nil
		}
		if err := f.parse(m); err != nil {
			return fmt.Errorf("reading a flow: %w", err)
		}
		if f.status&statusDying != 0 || !visit(&f) {
			return nil
		}
		return d.add(ctx, &f)
	})
	var refused *nfnetlink.Refusal
	if errors.As(err, &refused) && refused.Doing == doing {
		// EINVAL is what the kernel answers to a subsystem that it does not have.
		err = nfnetlink.Unsupported("listing of tracked flows (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink)", err, unix.EINVAL)
	}
	if err == nil || errors.Is(err, nfnetlink.ErrInterrupted) {
		err = errors.Join(err, d.flush(ctx))
	}
	return d.ended, err
}

func (t *Table) open() (*nfnetlink.Conn, error) {
	s, err := t.dial()
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for conntrack: %w", err)
	}
	return nfnetlink.NewConn(s), nil
}

// deleter deletes entries, many with one datagram.
type deleter struct {
	table *Table
	conn  *nfnetlink.Conn // nil before the first
	buf   []byte
	last  int // where the last message begins
	count int // messages in buf
	ended int // entries that were deleted
}

// add deletes an entry, at the latest with the next flush.
func (d *deleter) add(ctx context.Context, f *Flow) (err error) {
	if d.conn == nil {
		if d.conn, err = d.table.open(); err != nil {
			return err
		}
	}
	d.conn.Seq++
	d.buf, d.last = nfnetlink.AppendHeader(d.buf, messageDelete, 0, f.family, 0, d.conn.Seq)
	d.buf = nfnetlink.AppendAttr(d.buf, ctaTupleOrig|unix.NLA_F_NESTED, f.orig)
	if f.zone != nil {
		d.buf = nfnetlink.AppendAttr(d.buf, ctaZone, f.zone)
	}
	d.buf = nfnetlink.AppendUint32(d.buf, ctaID, f.ID)
	nfnetlink.EndMessage(d.buf, d.last)
	d.count++
	if d.count < deletions {
		return nil
	}
	return d.flush(ctx)
}

// flush deletes what was added. That an entry is gone already is not an error.
func (d *deleter) flush(ctx context.Context) error {
	if d.count == 0 {
		return nil
	}
	nfnetlink.AskForAnswer(d.buf, d.last) // the others answer only if they fail
	count, deleted := d.count, d.count
	buf := d.buf
	d.buf, d.count = d.buf[:0], 0
	if err := d.conn.Send(buf); err != nil {
		return fmt.Errorf("ending flows: %w", err)
	}
	var failed error
	err := d.conn.ReceiveAny(ctx, func(m nfnetlink.Message) error {
		if m.Kind != unix.NLMSG_ERROR || !d.conn.Answers(m, count) {
			return nil
		}
		r, err := nfnetlink.ParseReply(m)
		if err != nil {
			return err
		}
		if r.Errno != 0 {
			deleted--
		}
		if r.Errno != 0 && r.Errno != unix.ENOENT && failed == nil {
			failed = &nfnetlink.Refusal{Doing: "ending a flow", Errno: r.Errno, Text: r.Text}
		}
		if m.Seq == d.conn.Seq {
			return nfnetlink.ErrEnd
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ending flows: %w", err)
	}
	d.ended += deleted
	return failed
}

func (d *deleter) close() error {
	if d.conn == nil {
		return nil
	}
	return d.conn.Close()
}
