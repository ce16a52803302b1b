package nftables

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// subsystem is the upper byte of the kinds of nf_tables' messages.
const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// conn asks nf_tables about one table, one thing after another.
type conn struct {
	*nfnetlink.Conn
	table  string
	family uint8
}

func newConn(s nfnetlink.Socket, table string, family uint8) *conn {
	return &conn{nfnetlink.NewConn(s), table, family}
}

// newBatch begins a transaction about the table.
func (c *conn) newBatch() *batch { return newBatch(c.table, c.family, c.Seq+1) }

// request begins a request of one message (unix.NFT_MSG_…).
func (c *conn) request(kind, flags uint16, family uint8) []byte {
	return c.Request(subsystem|kind, flags, family)
}

// outcome is what the kernel told of a transaction that it carried out.
type outcome struct {
	generation uint32 // that the transaction began; 0 if the kernel did not say (batch.echoFirst)
	// deleted has, by set and first key, the last counts of elements that were to be echoed.
	deleted map[string]map[string]uint64
}

// transact sends a batch and waits until the kernel has carried all of it out, or none. Any error but a
// refusal or an UnsupportedError leaves open which.
func (c *conn) transact(ctx context.Context, b *batch) (outcome, error) {
	b.finish()
	c.Seq = b.first + uint32(b.count()) - 1
	if err := c.Send(b.buf); err != nil {
		return outcome{}, err
	}
	out := outcome{}
	var failed error
	err := c.ReceiveAny(ctx, func(m nfnetlink.Message) error {
		index := int(m.Seq - b.first)
		switch {
		case m.Seq == 0 && m.Kind == subsystem|unix.NFT_MSG_DELSETELEM:
			// Echoes have no number. There are none of an earlier transaction: one whose answer was not read
			// is followed by a reading of the table, which passes them over.
			return out.addDeleted(m)
		case !c.Answers(m, b.count()):
		case m.Kind == unix.NLMSG_ERROR:
			r, err := nfnetlink.ParseReply(m)
			if err != nil {
				return err
			}
			if r.Errno != 0 && failed == nil {
				failed = b.explain(index, r)
			}
			// The kernel answers the first message if it refuses the batch as a whole, and the last one that
			// does something when all is done.
			if index == 0 && r.Errno != 0 || index == b.last() {
				return nfnetlink.ErrEnd
			}
		case m.Kind == subsystem|unix.NFT_MSG_NEWGEN:
			var err error
			out.generation, err = parseGeneration(m)
			return err
		}
		return nil
	})
	return out, errors.Join(failed, err)
}

// addDeleted takes note of elements that the kernel says it has deleted.
func (o *outcome) addDeleted(m nfnetlink.Message) error {
	name, err := parseSetName(m)
	if err != nil {
		return err
	}
	return parseElements(m, func(e element) error {
		if e.end || e.count == 0 {
			return nil
		}
		if o.deleted == nil {
			o.deleted = map[string]map[string]uint64{}
		}
		if o.deleted[name] == nil {
			o.deleted[name] = map[string]uint64{}
		}
		o.deleted[name][string(e.key)] = e.count
		return nil
	})
}
