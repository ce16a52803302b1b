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
	// RestoreLast does so after all others have ended.
	RestoreLast
)

// Walked is what a walk has done.
type Walked struct {
	// Flows is how many ended, without those that were to end last.
	Flows int
	// More says that another walk has more to do: there were too many that were to end last, or the place of a flow was
	// taken again and again.
	More bool
}

// Walk visits every flow of both families, and returns what has come of it. Flows that come and go
// meanwhile may be missed, and one may be visited twice. Where the kernel interrupts a walk, it begins again, a
// few times: begin is called for each, and gives what visits its flows.
//
// The error is an *nfnetlink.UnsupportedError if the kernel cannot list flows.
func (t *Table) Walk(ctx context.Context, begin func() Visit) (w Walked, err error) {
	for range walks {
		ended := w.Flows
		w, err = t.walk(ctx, begin())
		w.Flows += ended
		if !errors.Is(err, nfnetlink.ErrInterrupted) && !errors.Is(err, unix.ENOBUFS) {
			break
		}
	}
	return w, err
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

func (t *Table) walk(ctx context.Context, visit Visit) (w Walked, err error) {
	c, err := t.open()
	if err != nil {
		return w, err
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
		switch action := visit(&f); action {
		case Leave:
			return nil
		case RestoreLast:
			w.More = !d.addLate(&f) || w.More
			return nil
		default:
			return d.add(ctx, &f, action)
		}
	})
	var refused *nfnetlink.Refusal
	if errors.As(err, &refused) && refused.Doing == doing {
		err = unsupported(err)
	}
	if err == nil || errors.Is(err, nfnetlink.ErrInterrupted) {
		err = errors.Join(err, d.flush(ctx))
	}
	w.Flows = d.ended
	if err == nil {
		err = d.flushLate(ctx)
	}
	w.More = w.More || d.unkept
	return w, err
}

func (t *Table) open() (*nfnetlink.Conn, error) {
	s, err := t.dial()
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for conntrack: %w", err)
	}
	return nfnetlink.NewConn(s), nil
}
