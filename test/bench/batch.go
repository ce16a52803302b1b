package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is room for UDP messages that are sent or received with one system call, so that most of the
// time measured is the network's.
type batch struct {
	headers []mmsghdr
	iovecs  []unix.Iovec
	peers   []unix.RawSockaddrInet4
	data    []byte
}

// mmsghdr is struct mmsghdr of sendmmsg(2), which golang.org/x/sys/unix does not have.
type mmsghdr struct {
	unix.Msghdr
	received uint32
}

// newBatch makes room for messages of a size. With peers, it remembers whom each came from, and sends it
// back there.
func newBatch(messages, size int, peers bool) *batch {
	b := &batch{
		headers: make([]mmsghdr, messages), iovecs: make([]unix.Iovec, messages),
		peers: make([]unix.RawSockaddrInet4, messages), data: make([]byte, messages*size),
	}
	for i := range messages {
		b.iovecs[i].Base = &b.data[i*size]
		b.iovecs[i].SetLen(size)
		b.headers[i].Iov = &b.iovecs[i]
		b.headers[i].SetIovlen(1)
		if peers {
			b.headers[i].Name = (*byte)(unsafe.Pointer(&b.peers[i])) //nolint:gosec // the kernel wants an untyped address
			b.headers[i].Namelen = unix.SizeofSockaddrInet4
		}
	}
	return b
}

// send sends the first n messages and fails unless all are taken.
func (b *batch) send(fd, n int) error { return b.call(unix.SYS_SENDMMSG, fd, n) }

// receive takes n messages and fails unless all are there.
func (b *batch) receive(fd, n int) error { return b.call(unix.SYS_RECVMMSG, fd, n) }

// call does not tell Go's scheduler that a system call is made: none of these waits.
func (b *batch) call(nr uintptr, fd, n int) error {
	first := unsafe.Pointer(&b.headers[0]) //nolint:gosec // there is no wrapper
	got, _, errno := unix.RawSyscall6(nr, uintptr(fd), uintptr(first), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	verb := "received"
	if nr == unix.SYS_SENDMMSG {
		verb = "sent"
	}
	switch {
	case errno != 0:
		return fmt.Errorf("0 of %d messages %s: %w", n, verb, errno)
	case int(got) != n:
		return fmt.Errorf("only %d of %d messages %s", got, n, verb)
	}
	return nil
}
