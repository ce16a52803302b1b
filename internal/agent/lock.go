package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the abstract unix socket that an agent holds as long as it runs. Such names belong to a
// network namespace, and vanish with the process (unix(7)): so they tell agents apart exactly where
// nf_tables does, whatever files, mounts and PID namespaces these have.
const lockName = "@sallyport-agent"

// lockTries bounds how often a lock that is held is asked for its holder, lockInterval apart.
const (
	lockTries    = 50
	lockInterval = 2 * time.Millisecond
)

// HeldError says that another agent, or a cleanup, works in this network namespace.
type HeldError struct {
	PID int // as seen from here; 0 if it is in a PID namespace that is not seen from here
}

func (e *HeldError) Error() string {
	return "another agent runs in this network namespace " + e.who() + ": stop it first, " + e.remedy()
}

func (e *HeldError) who() string {
	if e.PID == 0 {
		return "(in another container)"
	}
	return fmt.Sprintf("(pid %d)", e.PID)
}

func (e *HeldError) remedy() string {
	if e.PID == 0 {
		return `there or with "systemctl stop sallyport"`
	}
	return fmt.Sprintf(`with "systemctl stop sallyport" or "kill %d"`, e.PID)
}

// lock makes this process the one agent of its network namespace until it is closed. The error is a
// *HeldError if there is one already. Any user of the machine can take the name: one that could not run an
// agent does not keep one from starting.
func lock(ctx context.Context, log *slog.Logger) (io.Closer, error) {
	var stranger string
	for range lockTries {
		l, err := new(net.ListenConfig).Listen(ctx, "unix", lockName)
		if err == nil {
			go welcome(l)
			return l, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("becoming the one agent of this network namespace: %w", err)
		}
		peer, err := peerOf(ctx, lockName)
		if err == nil && mayRunAgents(peer.Uid) {
			return nil, &HeldError{PID: int(peer.Pid)}
		}
		if err == nil {
			stranger = fmt.Sprintf("process %d of user %d", peer.Pid, peer.Uid)
			break
		}
		stranger = "a process that does not answer: " + err.Error()
		select { // it may have ended in between, or be about to answer
		case <-time.After(lockInterval):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	log.Warn("a stranger holds the name by which agents notice each other: going on without", "name", lockName, "holder", stranger)
	return io.NopCloser(nil), nil
}

// Holder says which agent, or cleanup, works in this network namespace; nil: none was found.
func Holder(ctx context.Context) *HeldError {
	peer, err := peerOf(ctx, lockName)
	if err == nil && mayRunAgents(peer.Uid) {
		return &HeldError{PID: int(peer.Pid)}
	}
	return nil
}

// mayRunAgents says whether a user is root or the one that this process runs as.
func mayRunAgents(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

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
