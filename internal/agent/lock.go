package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockName is the abstract unix socket that an agent holds as long as it runs. Such names belong to a
// network namespace, and vanish with the process (unix(7)): so they tell agents apart exactly where
// nf_tables does, whatever files, mounts and PID namespaces these have.
const lockName = "@sallyport-agent"

// HeldError says that another agent, or a cleanup, works in this network namespace.
type HeldError struct {
	PID int    // as seen from here; 0 if it is in a PID namespace that is not seen from here
	UID uint32 // its user
}

func (e *HeldError) Error() string {
	return "another agent runs in this network namespace " + e.who() + ": stop it first, " + e.remedy()
}

func (e *HeldError) who() string {
	who := "(in another container)"
	if e.PID != 0 {
		who = fmt.Sprintf("(pid %d)", e.PID)
	}
	if e.UID != 0 {
		who = fmt.Sprintf("%s, of user %d)", who[:len(who)-1], e.UID)
	}
	return who
}

func (e *HeldError) remedy() string {
	if e.PID == 0 {
		return `there or with "systemctl stop sallyport"`
	}
	return fmt.Sprintf(`with "systemctl stop sallyport" or "kill %d"`, e.PID)
}

// lock makes this process the one agent of its network namespace until it is closed. The error is a
// *HeldError if there is one already.
func lock(ctx context.Context) (net.Listener, error) {
	for {
		l, err := new(net.ListenConfig).Listen(ctx, "unix", lockName)
		if err == nil {
			go welcome(l)
			return l, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("becoming the one agent of this network namespace: %w", err)
		}
		peer, err := peerOf(ctx, lockName)
		if err == nil {
			return nil, &HeldError{PID: int(peer.Pid), UID: peer.Uid}
		}
		if !errors.Is(err, unix.ECONNREFUSED) { // else it ended in between
			return nil, fmt.Errorf("another agent runs in this network namespace; asking which: %w", err)
		}
	}
}

// welcome lets those who ask who holds the lock connect, and says nothing to them.
func welcome(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// peerOf says which process listens on a unix socket (SO_PEERCRED).
func peerOf(ctx context.Context, address string) (*unix.Ucred, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	ctl := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return peer, errors.Join(ctl, err)
}
