// Package cniserver answers the CNI plugin on the agent's socket for it. It reads requests, bounds how many are at work and for
// how long, and hands them to a Network; it decides nothing about pods. Only root is answered.
package cniserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/waiting"
)

// Network does what requests ask for. Its methods are called concurrently, also for the same container: a runtime that has
// given up an ADD sends a DEL while that ADD may still be at work. An error that is a *cni.Error keeps its code.
//
// The context ends when the time for the request is over, and that of ADD, CHECK and STATUS also when the plugin has gone
// away. The files are closed when the method has returned.
type Network interface {
	// Add gives a container an interface: all of it, or nothing and an error. ns is its network namespace, sock a socket of
	// rtnetlink inside of it.
	Add(ctx context.Context, r *cni.Request, ns, sock *os.File) (*cni.Result, error)
	// Check says what differs from what Add has made.
	Check(ctx context.Context, r *cni.Request, sock *os.File) error
	// Delete ends what Add has made, as far as it is there.
	Delete(ctx context.Context, r *cni.Request) error
	// GC deletes all of the network that are not among the attachments.
	GC(ctx context.Context, r *cni.Request) error
	// Status says why no pod can be added.
	Status(ctx context.Context) error
}

const (
	// connections is how many are open at once; further ones wait in the kernel. Each has up to three descriptors.
	connections = 256
	// atWork is how many requests the Network has at once: so many that add something, and so many of the others, which
	// must not wait for those.
	atWork = 64
	// transfer is how long a plugin may take to send its request, or to take the answer.
	transfer = 5 * time.Second
	// finish is how long requests have that are at work when the agent ends.
	finish = 5 * time.Second
	// pause follows when no connection can be accepted, because descriptors or memory ran out.
	pause = 100 * time.Millisecond
)

type server struct {
	network       Network
	log           *slog.Logger
	adds, removes chan struct{} // hold one element for each request at work
}

// Serve answers requests until the context ends, and closes the listener. Requests at work then have a few seconds to finish.
func Serve(ctx context.Context, l net.Listener, n Network, log *slog.Logger) error {
	s := &server{network: n, log: log, adds: make(chan struct{}, atWork), removes: make(chan struct{}, atWork)}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var group sync.WaitGroup
	err := s.accept(ctx, l, func(conn *net.UnixConn, done func()) {
		group.Go(func() {
			defer done()
			s.serve(work, conn)
		})
	})
	late := time.AfterFunc(finish, cancel)
	defer late.Stop()
	group.Wait()
	return errors.Join(err, closed(l.Close()))
}

// accept hands over connections until the context ends.
func (s *server) accept(ctx context.Context, l net.Listener, start func(conn *net.UnixConn, done func())) error {
	open := make(chan struct{}, connections)
	for {
		select {
		case open <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("answering the CNI plugin: %w", err)
			}
			s.log.Warn("cannot accept a connection of the CNI plugin", "error", err)
			<-open
			waiting.Sleep(ctx, nil, pause)
			continue
		}
		conn, ok := c.(*net.UnixConn)
		if !ok {
			return errors.Join(fmt.Errorf("answering the CNI plugin: %T is not a unix socket", c), c.Close())
		}
		start(conn, func() { <-open })
	}
}

func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// serve answers the one request of a connection.
func (s *server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(transfer)) // fails only where the connection has: the read says so
	if err := rootOnly(conn); err != nil {
		s.log.Warn("refused a request to the CNI socket", "error", err)
		_ = cni.Reply(conn, &cni.Answer{Error: refusal(err)})
		return
	}
	r, files, err := cni.Receive(conn)
	if err != nil {
		s.log.Warn("a request of the CNI plugin cannot be read", "error", err)
		_ = cni.Reply(conn, &cni.Answer{Error: refusal(err)}) // a plugin that has gone away needs no answer
		return
	}
	defer cni.Close(files)
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(ctx, cni.Patience(r.Verb))
	defer cancel()
	if r.Verb == cni.Add || r.Verb == cni.Check || r.Verb == cni.Status {
		go untilHangUp(conn, cancel) // ends with the connection
	}
	log := s.log.With("verb", r.Verb, "network", r.Network, "container", r.ContainerID, "interface", r.Interface, "namespace", r.Namespace, "pod", r.Pod)
	answer := &cni.Answer{}
	if answer.Result, err = s.do(ctx, r, files); err != nil {
		log.Warn("a request of the CNI plugin failed", "error", err)
		answer.Error = refusal(err)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(transfer))
	if err := cni.Reply(conn, answer); err != nil {
		log.Warn("the CNI plugin did not wait for the answer", "error", err)
	}
}

// do waits for its turn and hands a request to the network.
func (s *server) do(ctx context.Context, r *cni.Request, files []*os.File) (*cni.Result, error) {
	turn := s.removes
	if r.Verb == cni.Add || r.Verb == cni.Check {
		turn = s.adds
	}
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return nil, &cni.Error{Code: cni.CodeTryAgain, Message: fmt.Sprintf("the Sallyport agent is busy with %d other requests", atWork)}
	}
	switch r.Verb {
	case cni.Add:
		return s.network.Add(ctx, r, files[0], files[1])
	case cni.Check:
		return nil, s.network.Check(ctx, r, files[1])
	case cni.Del:
		return nil, s.network.Delete(ctx, r)
	case cni.GC:
		return nil, s.network.GC(ctx, r)
	default:
		return nil, s.network.Status(ctx)
	}
}

// refusal is an error in the form of an answer.
func refusal(err error) *cni.Error {
	if e, ok := errors.AsType[*cni.Error](err); ok {
		return e
	}
	e := &cni.Error{Code: cni.CodeFailed, Message: err.Error()}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		e.Code = cni.CodeTryAgain
	}
	return e
}

// untilHangUp calls cancel when the plugin has gone away. It sends nothing after its request.
func untilHangUp(conn *net.UnixConn, cancel func()) {
	_, _ = conn.Read(make([]byte, 1))
	cancel()
}

// rootOnly is an error where the process at the other end is neither root's nor of the agent's own user.
func rootOnly(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	ctl := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(ctl, err); err != nil {
		return fmt.Errorf("reading whose process it is: %w", err)
	}
	return mayAsk(peer.Uid, os.Geteuid())
}

// mayAsk is an error for a user that is neither root nor the agent's own.
func mayAsk(user uint32, own int) error {
	if user != 0 && int(user) != own {
		return fmt.Errorf("only root may ask the Sallyport agent for a pod's network, not user %d", user)
	}
	return nil
}
