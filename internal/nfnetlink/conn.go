package nfnetlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for each part of an answer. The kernel has worked a request off when the call that
// sends it returns, so that an answer that is not there is lost.
const answerTimeout = 10 * time.Second

// Conn asks the kernel, one thing after another. It is for one goroutine at a time.
type Conn struct {
	Socket Socket
	Seq    uint32 // of the last message that was sent
	buf    []byte // one datagram
}

// NewConn makes a connection of a socket.
func NewConn(s Socket) *Conn { return &Conn{Socket: s, buf: make([]byte, datagramLen)} }

// Close closes the socket.
func (c *Conn) Close() error { return c.Socket.Close() }

// ErrEnd is how a handler says that the answer is complete.
var ErrEnd = errors.New("end of the answer")

// receive hands the messages that answer the last one sent to handle, until that returns ErrEnd, or another
// error. What answers a request that was given up is passed over.
func (c *Conn) receive(ctx context.Context, handle func(Message) error) error {
	return c.ReceiveAny(ctx, func(m Message) error {
		if !c.Answers(m, 1) {
			return nil
		}
		return handle(m)
	})
}

// Answers says whether a message answers one of the last n sent.
func (c *Conn) Answers(m Message, n int) bool { return c.Seq-m.Seq < uint32(n) }

// ReceiveAny hands every message to handle, until that returns ErrEnd, or another error. It ends with its
// context, and where nothing comes for ten seconds. A long answer may take longer on a busy node.
func (c *Conn) ReceiveAny(ctx context.Context, handle func(Message) error) error {
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		_ = c.Socket.SetDeadline(time.Unix(1, 0)) // if it cannot be set, the timeout ends the wait
	})
	defer func() {
		if !stop() {
			<-over // so that it does not cut the next wait short
		}
	}()
	for {
		if err := c.Socket.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return fmt.Errorf("setting a deadline: %w", err)
		}
		if ctx.Err() != nil { // its end may have come before that deadline was set
			return fmt.Errorf("waiting for the kernel's answer: %w", context.Cause(ctx))
		}
		size, err := c.Socket.Receive(c.buf)
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for the kernel's answer: %w", context.Cause(ctx))
		}
		if err != nil {
			return fmt.Errorf("receiving the kernel's answer: %w", err)
		}
		for m, err := range Messages(c.buf[:size]) {
			if err != nil {
				return err
			}
			if err := handle(m); errors.Is(err, ErrEnd) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

// Request begins a request of one message; Get and Dump end it. The kind has the subsystem in its upper
// byte (unix.NFNL_SUBSYS_…).
func (c *Conn) Request(kind, flags uint16, family uint8) []byte {
	c.Seq++
	b, _ := AppendHeader(nil, kind, flags, family, 0, c.Seq)
	return b
}

// Send sends one datagram, whose last message has the number Seq.
func (c *Conn) Send(b []byte) error {
	if err := c.Socket.Send(b); err != nil {
		return fmt.Errorf("sending to the kernel: %w", err)
	}
	return nil
}

// Get sends a request of one message and hands the one that answers it to handle. Doing says what it is
// for, in errors.
func (c *Conn) Get(ctx context.Context, doing string, request []byte, handle func(Message) error) error {
	EndMessage(request, 0)
	if err := c.Send(request); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	err := c.receive(ctx, func(m Message) error {
		if m.Kind == unix.NLMSG_ERROR {
			return refused(doing, m)
		}
		if err := handle(m); err != nil {
			return err
		}
		return ErrEnd
	})
	return wrapUnlessRefused(doing, err)
}

// Dump sends a request that is answered by many messages, and hands each to handle as it comes. The error is
// ErrInterrupted if what is dumped changed meanwhile, so that some may be missing or there twice.
func (c *Conn) Dump(ctx context.Context, doing string, request []byte, handle func(Message) error) error {
	EndMessage(request, 0)
	err := c.dumpOnce(ctx, doing, request, handle)
	if errors.Is(err, unix.EBUSY) {
		// A dump that was given up goes on until it is read to its end, and the kernel begins no other.
		if err := c.ReceiveAny(ctx, func(m Message) error {
			if m.Kind == unix.NLMSG_DONE {
				return ErrEnd
			}
			return nil
		}); err != nil {
			return fmt.Errorf("%s: reading an earlier answer to its end: %w", doing, err)
		}
		c.Seq++
		binary.NativeEndian.PutUint32(request[8:], c.Seq)
		err = c.dumpOnce(ctx, doing, request, handle)
	}
	return wrapUnlessRefused(doing, err)
}

func (c *Conn) dumpOnce(ctx context.Context, doing string, request []byte, handle func(Message) error) error {
	if err := c.Send(request); err != nil {
		return err
	}
	interrupted := false
	err := c.receive(ctx, func(m Message) error {
		interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case m.Kind == unix.NLMSG_ERROR || m.Kind == unix.NLMSG_DONE:
			if err := refused(doing, m); err != nil {
				return err
			}
			return ErrEnd
		case m.Kind >= unix.NLMSG_MIN_TYPE:
			return handle(m)
		}
		return nil
	})
	if err == nil && interrupted {
		return ErrInterrupted
	}
	return err
}

// refused is the error that ends an answer, or nil.
func refused(doing string, m Message) error {
	r, err := ParseReply(m)
	if err != nil {
		return err
	}
	if r.Errno == unix.EINTR {
		return ErrInterrupted
	}
	if r.Errno != 0 {
		return &Refusal{Doing: doing, Errno: r.Errno, Text: r.Text}
	}
	return nil
}

// wrapUnlessRefused says what was being done, which a refusal says itself.
func wrapUnlessRefused(doing string, err error) error {
	var r *Refusal
	if err == nil || errors.As(err, &r) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, err)
}
