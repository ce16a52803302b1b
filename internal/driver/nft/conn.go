package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for one answer. The kernel has worked a request off when the call that
// sends it returns, so that an answer that is not there is lost.
const answerTimeout = 10 * time.Second

// conn asks the kernel, one thing after another.
type conn struct {
	socket socket
	seq    uint32 // of the last message that was sent
	buf    []byte // one datagram
}

func newConn(s socket) *conn { return &conn{socket: s, buf: make([]byte, datagramLen)} }

// errEnd is how a handler says that the answer is complete.
var errEnd = errors.New("end of the answer")

// receive hands the messages whose sequence numbers are among the last n sent to handle, until that
// returns errEnd, or another error. What answers a request that was given up is passed over.
func (c *conn) receive(ctx context.Context, n int, handle func(message) error) error {
	return c.receiveAny(ctx, func(m message) error {
		if !c.answers(m, n) {
			return nil
		}
		return handle(m)
	})
}

// answers says whether a message answers one of the last n sent.
func (c *conn) answers(m message, n int) bool { return c.seq-m.seq < uint32(n) }

// receiveAny hands every message to handle, until that returns errEnd, or another error.
func (c *conn) receiveAny(ctx context.Context, handle func(message) error) error {
	deadline := time.Now().Add(answerTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.socket.SetDeadline(deadline); err != nil {
		return fmt.Errorf("setting a deadline: %w", err)
	}
	for {
		size, err := c.socket.Receive(c.buf)
		if err != nil {
			return fmt.Errorf("receiving the kernel's answer: %w", err)
		}
		for m, err := range messages(c.buf[:size]) {
			if err != nil {
				return err
			}
			if err := handle(m); errors.Is(err, errEnd) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

// request begins a request of one message; send ends it.
func (c *conn) request(kind, flags uint16, family uint8) []byte {
	c.seq++
	b, _ := appendMessage(nil, kind, flags, family, c.seq)
	return b
}

func (c *conn) send(b []byte) error {
	if err := c.socket.Send(b); err != nil {
		return fmt.Errorf("sending to the kernel: %w", err)
	}
	return nil
}

// get sends a request of one message and hands the one that answers it to handle.
func (c *conn) get(ctx context.Context, doing string, request []byte, handle func(message) error) error {
	endMessage(request, 0)
	if err := c.send(request); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	err := c.receive(ctx, 1, func(m message) error {
		if m.kind == unix.NLMSG_ERROR {
			return refused(doing, m)
		}
		if err := handle(m); err != nil {
			return err
		}
		return errEnd
	})
	return wrapUnlessRefused(doing, err)
}

// dump sends a request that is answered by many messages, and hands each to handle. It returns
// errInterrupted if the ruleset changed meanwhile, so that some may be missing or there twice.
func (c *conn) dump(ctx context.Context, doing string, request []byte, handle func(message) error) error {
	endMessage(request, 0)
	err := c.dumpOnce(ctx, doing, request, handle)
	if errors.Is(err, unix.EBUSY) {
		// A dump that was given up goes on until it is read to its end, and the kernel begins no other.
		if err := c.receiveAny(ctx, func(m message) error {
			if m.kind == unix.NLMSG_DONE {
				return errEnd
			}
			return nil
		}); err != nil {
			return fmt.Errorf("%s: reading an earlier answer to its end: %w", doing, err)
		}
		c.seq++
		binary.NativeEndian.PutUint32(request[8:], c.seq)
		err = c.dumpOnce(ctx, doing, request, handle)
	}
	return wrapUnlessRefused(doing, err)
}

func (c *conn) dumpOnce(ctx context.Context, doing string, request []byte, handle func(message) error) error {
	if err := c.send(request); err != nil {
		return err
	}
	interrupted := false
	err := c.receive(ctx, 1, func(m message) error {
		interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case m.kind == unix.NLMSG_ERROR || m.kind == unix.NLMSG_DONE:
			if err := refused(doing, m); err != nil {
				return err
			}
			return errEnd
		case m.kind >= unix.NLMSG_MIN_TYPE:
			return handle(m)
		}
		return nil
	})
	if err == nil && interrupted {
		return errInterrupted
	}
	return err
}

// refused is the error that ends an answer, or nil.
func refused(doing string, m message) error {
	r, err := parseReply(m)
	if err != nil {
		return err
	}
	if r.errno == unix.EINTR {
		return errInterrupted
	}
	if r.errno != 0 {
		return &refusal{doing: doing, errno: r.errno, text: r.text}
	}
	return nil
}

// wrapUnlessRefused says what was being done, which a refusal says itself.
func wrapUnlessRefused(doing string, err error) error {
	var r *refusal
	if err == nil || errors.As(err, &r) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// outcome is what the kernel told of a transaction that it carried out.
type outcome struct {
	generation uint32               // that the transaction began; 0 if the kernel did not say (batch.echoFirst)
	deleted    map[string][]element // by set: elements that were to be echoed, with their last counts
}

// transact sends a batch and waits until the kernel has carried all of it out, or none. Any error but a
// refusal or an UnsupportedError leaves open which.
func (c *conn) transact(ctx context.Context, b *batch) (outcome, error) {
	b.finish()
	c.seq = b.first + uint32(b.count()) - 1
	if err := c.send(b.buf); err != nil {
		return outcome{}, err
	}
	out := outcome{deleted: map[string][]element{}}
	var failed error
	err := c.receiveAny(ctx, func(m message) error {
		index := int(m.seq - b.first)
		switch {
		case m.seq == 0 && m.is(unix.NFT_MSG_DELSETELEM):
			// Echoes have no number. There are none of an earlier transaction: one whose answer was not read
			// is followed by a reading of the table, which passes them over.
			return out.addDeleted(m)
		case !c.answers(m, b.count()):
		case m.kind == unix.NLMSG_ERROR:
			r, err := parseReply(m)
			if err != nil {
				return err
			}
			if r.errno != 0 && failed == nil {
				failed = b.explain(index, r)
			}
			// The kernel answers the first message if it refuses the batch as a whole, and the last one that
			// does something when all is done.
			if index == 0 && r.errno != 0 || index == b.last() {
				return errEnd
			}
		case m.is(unix.NFT_MSG_NEWGEN):
			var err error
			out.generation, err = parseGeneration(m)
			return err
		}
		return nil
	})
	return out, errors.Join(failed, err)
}

// addDeleted takes note of elements that the kernel says it has deleted.
func (o *outcome) addDeleted(m message) error {
	name, err := parseSetName(m)
	if err != nil {
		return err
	}
	o.deleted[name], err = parseElements(o.deleted[name], m)
	return err
}
