package conntrack

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// walks bounds how often a walk is begun, where the kernel interrupts it.
const walks = 4

// Table is the conntrack table of a network namespace.
type Table struct {
	dial func() (nfnetlink.Socket, error)
}

// NewTable is the table of the network namespace of a file descriptor; 0 is that of the calling thread. It
// opens a socket with each walk.
func NewTable(netns int) *Table {
	return &Table{dial: func() (nfnetlink.Socket, error) { return nfnetlink.Dial(netns) }}
}

// NewTableOn is the table that sockets reach which dial opens. It is for tests that make calls fail.
func NewTableOn(dial func() (nfnetlink.Socket, error)) *Table { return &Table{dial: dial} }

// Visit looks at a flow, which is valid until it returns, and says what to do with it.
type Visit func(*Flow) Action

// Action is what is done with a flow.
type Action uint8

// The actions.
const (
	Leave Action = iota
	// End makes the kernel forget the flow.
	End
	// Translate ends the flow so that its next packet is translated, whoever sends first: see ender.
	Translate
	// Restore ends the flow so that it goes on with its own address, whoever sends first.
	Restore
)

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

// Cleanup removes the entries that keep the places of flows: what they were kept from, nothing does any more.
// Where the kernel cannot list flows there are none.
func (t *Table) Cleanup(ctx context.Context) error {
	_, err := t.Walk(ctx, func() Visit {
		return func(f *Flow) Action {
			if f.keepsPlace() {
				return Restore
			}
			return Leave
		}
	})
	var unsupported *nfnetlink.UnsupportedError
	if errors.As(err, &unsupported) {
		return nil
	}
	return err
}

func (t *Table) walk(ctx context.Context, visit Visit) (ended int, err error) {
	c, err := t.open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	// Entries are deleted through a socket of their own: the answers would be mixed up with the listing.
	d := ender{table: t}
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
		if f.status&statusDying != 0 {
			return nil
		}
		action := visit(&f)
		if action == Leave {
			return nil
		}
		return d.add(ctx, &f, action)
	})
	var refused *nfnetlink.Refusal
	if errors.As(err, &refused) && refused.Doing == doing {
		err = unsupported(err)
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
