package rtnetlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// datagramLen is how much goes into one system call, in bytes: it fits a socket's buffer as every kernel makes it.
const datagramLen = 128 << 10

// Conn asks the kernel, one thing after another. It is for one goroutine at a time.
type Conn struct {
	conn *nfnetlink.Conn
}

// Dial opens a connection in a network namespace; 0 is that of the calling thread.
func Dial(netns int) (*Conn, error) {
	s, err := nfnetlink.DialProtocol(unix.NETLINK_ROUTE, netns)
	if err != nil {
		return nil, err
	}
	if err := strict(s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return New(s), nil
}

// Adopt makes a connection of an rtnetlink socket that was opened in another network namespace: what is asked is about that
// one. It takes over the file, also where it returns an error.
func Adopt(file *os.File) (*Conn, error) {
	s, err := nfnetlink.Adopt(file)
	if err != nil {
		return nil, err
	}
	if err := strict(s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return New(s), nil
}

// strict checks that a socket is one of rtnetlink, and makes the kernel heed what a dump's request asks for.
func strict(s *nfnetlink.KernelSocket) error {
	return s.Control(func(fd int) error {
		protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil {
			return fmt.Errorf("asking for the socket's protocol: %w", err)
		}
		if protocol != unix.NETLINK_ROUTE {
			return fmt.Errorf("the socket is of netlink protocol %d, not of rtnetlink, %d", protocol, unix.NETLINK_ROUTE)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
			return fmt.Errorf("making rtnetlink strict: %w", err)
		}
		return nil
	})
}

// New makes a connection of a socket; tests put failures in between.
func New(s nfnetlink.Socket) *Conn { return &Conn{nfnetlink.NewConn(s)} }

// Wrap puts something between the connection and the kernel. It is for tests that make calls fail.
func (c *Conn) Wrap(wrap func(nfnetlink.Socket) nfnetlink.Socket) {
	c.conn.Socket = wrap(c.conn.Socket)
}

// PortID is the address of the socket, by which notifications name the one that made a change.
func (c *Conn) PortID() uint32 { return c.conn.Socket.PortID() }

// Close closes the socket.
func (c *Conn) Close() error { return c.conn.Close() }

// Refusal is a message of a batch that the kernel did not carry out.
type Refusal struct {
	Index int // of the message in its batch
	nfnetlink.Reply
}

// Error makes an error of a refusal, an *nfnetlink.Refusal. Doing says what the message was to do, with the object's name.
func (r Refusal) Error(doing string) error {
	return &nfnetlink.Refusal{Doing: doing, Errno: r.Errno, Text: r.Text}
}

// Execute has the kernel carry out the messages of a batch, in as few system calls as their size allows, and returns those that
// it refused, in their order; it carried out all others. The error says that an answer was lost, so that it is not known
// which were carried out.
func (c *Conn) Execute(ctx context.Context, b *Batch) ([]Refusal, error) {
	var refused []Refusal
	for first := 0; first < len(b.starts); {
		end := first + 1
		for end < len(b.starts) && b.end(end)-b.starts[first] <= datagramLen {
			end++
		}
		var err error
		if refused, err = c.datagram(ctx, b, first, end, refused); err != nil {
			return refused, err
		}
		first = end
	}
	return refused, nil
}

// end is where a message ends.
func (b *Batch) end(i int) int {
	if i+1 < len(b.starts) {
		return b.starts[i+1]
	}
	return len(b.buf)
}

// datagram sends the messages from first up to end, of which the last alone is answered where the kernel carries it out.
func (c *Conn) datagram(ctx context.Context, b *Batch, first, end int, refused []Refusal) ([]Refusal, error) {
	before := c.conn.Seq
	for i := first; i < end; i++ {
		c.conn.Seq++
		at := b.starts[i]
		binary.NativeEndian.PutUint32(b.buf[at:], uint32(b.end(i)-at))
		binary.NativeEndian.PutUint32(b.buf[at+8:], c.conn.Seq)
	}
	nfnetlink.AskForAnswer(b.buf, b.starts[end-1])
	if err := c.conn.Send(b.buf[b.starts[first]:b.end(end-1)]); err != nil {
		return refused, err
	}
	err := c.conn.ReceiveAny(ctx, func(m nfnetlink.Message) error {
		if !c.conn.Answers(m, end-first) || m.Kind != unix.NLMSG_ERROR {
			return nil
		}
		reply, err := nfnetlink.ParseReply(m)
		if err != nil {
			return err
		}
		if reply.Errno != 0 {
			refused = append(refused, Refusal{first + int(m.Seq-before) - 1, reply})
		}
		if m.Seq == c.conn.Seq {
			return nfnetlink.ErrEnd
		}
		return nil
	})
	return refused, err
}

// Get asks for one object by the only message of a batch, and hands the answer to handle. The error is an *nfnetlink.Refusal
// where the kernel has none. Doing says what is asked for.
func (c *Conn) Get(ctx context.Context, doing string, b *Batch, handle func(nfnetlink.Message) error) error {
	return c.conn.Get(ctx, doing, c.request(b, 0), handle)
}

// Dump asks for all objects that fit the only message of a batch, and hands each to handle. The error is
// nfnetlink.ErrInterrupted if they changed meanwhile, so that some may be missing or come twice. Doing says what is asked for.
func (c *Conn) Dump(ctx context.Context, doing string, b *Batch, handle func(nfnetlink.Message) error) error {
	return c.conn.Dump(ctx, doing, c.request(b, unix.NLM_F_DUMP), handle)
}

// readings bounds how often what changes while it is read is read again.
const readings = 20

// DumpWhole is Dump, again and again where objects change meanwhile; begin is called before each reading. A family of addresses
// that the kernel lacks has no objects.
func (c *Conn) DumpWhole(ctx context.Context, doing string, b *Batch, begin func(), handle func(nfnetlink.Message) error) error {
	var err error
	for range readings {
		begin()
		err = c.Dump(ctx, doing, b, handle)
		switch {
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
			begin()
			return nil
		case !errors.Is(err, nfnetlink.ErrInterrupted) || ctx.Err() != nil:
			return err
		}
	}
	return fmt.Errorf("%w, in each of %d readings", err, readings)
}

// request is the only message of a batch, with a number and flags.
func (c *Conn) request(b *Batch, flags uint16) []byte {
	c.conn.Seq++
	flags |= binary.NativeEndian.Uint16(b.buf[6:])
	binary.NativeEndian.PutUint16(b.buf[6:], flags)
	binary.NativeEndian.PutUint32(b.buf[8:], c.conn.Seq)
	return b.buf
}

// Subscribe hands what the kernel tells multicast groups (unix.RTNLGRP_…) in a network namespace to handle, until the context
// ends, which is no error, or the socket fails. It calls lost when the kernel had more to tell than the socket holds, and
// once at the beginning: what came before is not known. The kernel keeps to itself what is unheard.
func Subscribe(ctx context.Context, netns int, groups []uint32, unheard Unheard, lost func(), handle func(nfnetlink.Message)) error {
	filter, err := unheard.filter()
	if err != nil {
		return fmt.Errorf("making a filter of notifications: %w", err)
	}
	return nfnetlink.SubscribeProtocol(ctx, unix.NETLINK_ROUTE, netns, groups, filter, lost, handle)
}
