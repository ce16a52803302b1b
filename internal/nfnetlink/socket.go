package nfnetlink

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
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

// KernelSocket is a socket of the kernel's, for what is asked and answered. The Go runtime does not watch it: an answer
// is there when the question is sent, and each part of a long one would wake a thread for nothing.
type KernelSocket struct {
	file     *os.File        // owns the descriptor
	raw      syscall.RawConn // of file
	port     uint32
	sendLen  int          // size of the send buffer that was asked for, in bytes
	deadline atomic.Int64 // of receiving, in nanoseconds since 1970
}

// Dial opens a socket to netfilter in a network namespace; 0 is that of the calling thread.
func Dial(netns int) (*KernelSocket, error) { return DialProtocol(unix.NETLINK_NETFILTER, netns) }

// DialProtocol is Dial for a socket of any netlink protocol (unix.NETLINK_…).
func DialProtocol(protocol, netns int) (*KernelSocket, error) {
	conn, raw, err := dial(protocol, netns)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // ends the runtime's watch, not the socket, which has another descriptor
	s := &KernelSocket{}
	ctl := raw.Control(func(fd uintptr) { s.file, err = unwatched(fd) })
	if err = errors.Join(ctl, err); err != nil {
		return nil, fmt.Errorf("duplicating the netlink socket: %w", err)
	}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = s.Control(func(fd int) (err error) { s.port, err = portID(fd); return err })
	}
	if err == nil {
		err = s.growSendBuffer(sendBuffer)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Adopt makes a KernelSocket of a netlink socket that is open already, perhaps in another network namespace. It takes over
// the file: Close closes it, and so does an error.
func Adopt(file *os.File) (_ *KernelSocket, err error) {
	s := &KernelSocket{file: file}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	if s.raw, err = file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("reaching the netlink socket: %w", err)
	}
	err = s.Control(func(fd int) error {
		for _, o := range []int{unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, o, 1); err != nil {
				return fmt.Errorf("setting netlink option %d: %w", o, err)
			}
		}
		if s.sendLen, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil {
			return fmt.Errorf("asking for the size of the send buffer: %w", err)
		}
		s.port, err = portID(fd)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// unwatched is another descriptor of a socket, which the Go runtime does not watch, since it blocks.
func unwatched(fd uintptr) (*os.File, error) {
	other, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(other, false); err != nil {
		return nil, errors.Join(err, unix.Close(other))
	}
	return os.NewFile(uintptr(other), "netlink"), nil
}

// Control calls do with the descriptor, which stays open until it returns.
func (s *KernelSocket) Control(do func(fd int) error) error {
	var err error
	if ctl := s.raw.Control(func(fd uintptr) { err = do(int(fd)) }); ctl != nil {
		return ctl
	}
	return err
}

// dial opens a socket that the Go runtime watches.
func dial(protocol, netns int) (_ *netlink.Conn, _ syscall.RawConn, err error) {
	conn, err := netlink.Dial(protocol, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, nil, Unsupported(fmt.Sprintf("netlink socket of protocol %d", protocol), err, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT)
	}
	defer func() {
		if err != nil {
			_ = conn.Close() // the error that is returned says more
		}
	}()
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, nil, fmt.Errorf("reaching the netlink socket: %w", err)
	}
	for _, o := range []netlink.ConnOption{netlink.CapAcknowledge, netlink.ExtendedAcknowledge} {
		if err := conn.SetOption(o, true); err != nil {
			return nil, nil, fmt.Errorf("setting netlink option %d: %w", o, err)
		}
	}
	ctl := raw.Control(func(fd uintptr) { err = setBuffer(int(fd), unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer) })
	if err = errors.Join(ctl, err); err != nil {
		return nil, nil, fmt.Errorf("setting the receive buffer to %d bytes: %w", receiveBuffer, err)
	}
	return conn, raw, nil
}

// portID asks for the address that the kernel gave a socket.
func portID(fd int) (uint32, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("asking for the netlink socket's address: %w", err)
	}
	nl, ok := sa.(*unix.SockaddrNetlink)
	if !ok {
		return 0, fmt.Errorf("the netlink socket has an address of type %T", sa)
	}
	return nl.Pid, nil
}

// PortID is the address of the socket.
func (s *KernelSocket) PortID() uint32 { return s.port }

// setBuffer sets the size of a buffer. Root in a user namespace may not force it, and gets as much as
// net.core.wmem_max or rmem_max allow.
func setBuffer(fd, force, plain, bytes int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, bytes)
	}
	return err
}

// growSendBuffer makes room for a datagram of n bytes and what the kernel keeps beside it.
func (s *KernelSocket) growSendBuffer(n int) error {
	if n <= s.sendLen {
		return nil
	}
	err := s.Control(func(fd int) error { return setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, n) })
	if err != nil {
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
	err := s.Control(func(fd int) error {
		return retryInterrupted(func() error {
			return unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		})
	})
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("a transaction of %d bytes is larger than the socket's buffer; this needs CAP_NET_ADMIN in the "+
			"first user namespace, or a larger net.core.wmem_max: %w", len(b), err)
	}
	return err
}

// Receive reads one datagram. One that does not fit is an error, never a shorter datagram.
func (s *KernelSocket) Receive(b []byte) (n int, err error) {
	for {
		err = s.Control(func(fd int) error {
			if n, err = receive(fd, b); errors.Is(err, unix.EAGAIN) {
				return s.wait(fd)
			}
			return err
		})
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// waitAtMost bounds one wait, after which the deadline may be another one.
const waitAtMost = 10 * time.Millisecond

// wait waits for a datagram, for a short while.
func (s *KernelSocket) wait(fd int) error {
	left := time.Until(time.Unix(0, s.deadline.Load()))
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(1+min(left, waitAtMost)/time.Millisecond))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

// receive reads one datagram that is there; EAGAIN: none is.
func receive(fd int, b []byte) (n int, err error) {
	var flags int
	err = retryInterrupted(func() (err error) {
		n, _, flags, _, err = unix.Recvmsg(fd, b, nil, unix.MSG_DONTWAIT)
		return err
	})
	switch {
	case err != nil:
		return 0, os.NewSyscallError("recvmsg", err)
	case flags&unix.MSG_TRUNC != 0:
		return 0, fmt.Errorf("%w: a datagram of more than %d bytes", ErrMalformed, len(b))
	}
	return n, nil
}

// retryInterrupted repeats a system call that a signal interrupted.
func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// SetDeadline bounds the calls of Receive that follow, and the one that waits.
func (s *KernelSocket) SetDeadline(t time.Time) error {
	s.deadline.Store(t.UnixNano())
	return nil
}

// Close closes the socket.
func (s *KernelSocket) Close() error { return s.file.Close() }
