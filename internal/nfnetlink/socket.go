package nfnetlink

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is how much the kernel may hold for us to read, in bytes: the answers to one
	// transaction come all at once, and ENOBUFS is what we get if they do not fit.
	receiveBuffer = 32 << 20
	// sendBuffer is how much may be sent in one transaction, in bytes, before the buffer is grown.
	sendBuffer = 1 << 20
	// datagramLen is what one read may return, in bytes. The kernel makes dumps at most 32 KiB long
	// (netlink_dump of net/netlink/af_netlink.c).
	datagramLen = 64 << 10
)

// Socket is what a Conn needs of a netlink socket; tests put failures in between.
type Socket interface {
	// Send sends one datagram, which the kernel has worked off when Send returns.
	Send(b []byte) error
	// Receive reads one datagram into b and returns its length.
	Receive(b []byte) (int, error)
	// SetDeadline bounds the calls of Receive that follow.
	SetDeadline(t time.Time) error
	// PortID is the address of the socket, by which the kernel knows who owns a table.
	PortID() uint32
	Close() error
}

// KernelSocket is a socket of the kernel's.
type KernelSocket struct {
	port    uint32
	conn    *netlink.Conn // owns the descriptor, its namespace and its deadlines
	raw     syscall.RawConn
	sendLen int // size of the send buffer that was asked for, in bytes
}

// Dial opens a socket to netfilter in a network namespace; 0 is that of the calling thread.
func Dial(netns int) (_ *KernelSocket, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, Unsupported("netfilter's netlink socket", err, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT)
	}
	defer func() {
		if err != nil {
			_ = conn.Close() // the error that is returned says more
		}
	}()
	s := &KernelSocket{conn: conn}
	if s.raw, err = conn.SyscallConn(); err != nil {
		return nil, fmt.Errorf("reaching the netlink socket: %w", err)
	}
	if s.port, err = portID(s.raw); err != nil {
		return nil, err
	}
	for _, o := range []netlink.ConnOption{netlink.CapAcknowledge, netlink.ExtendedAcknowledge} {
		if err := conn.SetOption(o, true); err != nil {
			return nil, fmt.Errorf("setting netlink option %d: %w", o, err)
		}
	}
	if err := s.setBuffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer); err != nil {
		return nil, fmt.Errorf("setting the receive buffer to %d bytes: %w", receiveBuffer, err)
	}
	return s, s.growSendBuffer(sendBuffer)
}

// portID asks for the address that the kernel gave a socket.
func portID(raw syscall.RawConn) (port uint32, err error) {
	ctl := raw.Control(func(fd uintptr) {
		var sa unix.Sockaddr
		if sa, err = unix.Getsockname(int(fd)); err == nil {
			if nl, ok := sa.(*unix.SockaddrNetlink); ok {
				port = nl.Pid
			}
		}
	})
	if err := errors.Join(ctl, err); err != nil {
		return 0, fmt.Errorf("asking for the netlink socket's address: %w", err)
	}
	return port, nil
}

// PortID is the address of the socket.
func (s *KernelSocket) PortID() uint32 { return s.port }

// setBuffer sets the size of a buffer. Root in a user namespace may not force it, and gets as much as
// net.core.wmem_max or rmem_max allow.
func (s *KernelSocket) setBuffer(force, plain, bytes int) error {
	var err error
	ctl := s.raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, bytes); errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, plain, bytes)
		}
	})
	return errors.Join(ctl, err)
}

// growSendBuffer makes room for a datagram of n bytes and what the kernel keeps beside it.
func (s *KernelSocket) growSendBuffer(n int) error {
	if n <= s.sendLen {
		return nil
	}
	if err := s.setBuffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, n); err != nil {
		return fmt.Errorf("setting the send buffer to %d bytes: %w", n, err)
	}
	s.sendLen = n
	return nil
}

// Send sends one datagram.
func (s *KernelSocket) Send(b []byte) error {
	if err := s.growSendBuffer(len(b) + 4096); err != nil {
		return err
	}
	var err error
	ctl := s.raw.Write(func(fd uintptr) bool {
		err = retryInterrupted(func() error {
			return unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		})
		return !errors.Is(err, unix.EAGAIN)
	})
	if err == nil {
		err = ctl
	}
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("a transaction of %d bytes is larger than the socket's buffer; this needs CAP_NET_ADMIN in the "+
			"first user namespace, or a larger net.core.wmem_max: %w", len(b), err)
	}
	return err
}

// Receive reads one datagram. One that does not fit is an error, never a shorter datagram.
func (s *KernelSocket) Receive(b []byte) (int, error) {
	var n, flags int
	var err error
	ctl := s.raw.Read(func(fd uintptr) bool {
		err = retryInterrupted(func() (err error) {
			n, _, flags, _, err = unix.Recvmsg(int(fd), b, nil, 0)
			return err
		})
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case ctl != nil:
		return 0, ctl
	case err != nil:
		return 0, os.NewSyscallError("recvmsg", err)
	case flags&unix.MSG_TRUNC != 0:
		return 0, fmt.Errorf("%w: a datagram of more than %d bytes", ErrMalformed, len(b))
	}
	return n, nil
}

// retryInterrupted repeats a system call that a signal interrupted. To wait for the poller instead could
// be to wait for ever: it tells of what becomes ready, not of what is ready already.
func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// SetDeadline bounds the calls of Receive that follow.
func (s *KernelSocket) SetDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// Close closes the socket.
func (s *KernelSocket) Close() error { return s.conn.Close() }
