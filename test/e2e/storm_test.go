package e2e

import (
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// storm makes calls of netlink sockets fail while it blows: before they reach the kernel, so that nothing was
// done, or after, so that it was done and nobody knows.
type storm struct {
	mu     sync.Mutex
	rnd    *rand.Rand
	odds   int // one call of so many fails; 0: none does
	failed int
}

// blow begins a storm in which one of so many calls fails; 0 ends it.
func (s *storm) blow(odds int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.odds = odds
}

// strikes says whether this call fails, before it reaches the kernel or after, and how.
func (s *storm) strikes() (before bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.odds == 0 || s.rnd.IntN(s.odds) != 0 {
		return false, nil
	}
	s.failed++
	return s.rnd.IntN(2) == 0, []error{unix.ENOBUFS, unix.EINTR, unix.ENOMEM}[s.rnd.IntN(3)]
}

// over wraps a socket.
func (s *storm) over(socket nfnetlink.Socket) nfnetlink.Socket { return &stormySocket{socket, s} }

type stormySocket struct {
	nfnetlink.Socket
	storm *storm
}

// Send sends one datagram, unless the storm prevents it.
func (s *stormySocket) Send(b []byte) error {
	before, err := s.storm.strikes()
	if err == nil || !before {
		if sent := s.Socket.Send(b); sent != nil {
			return sent
		}
	}
	return err
}

// Receive reads one datagram, unless the storm takes it.
func (s *stormySocket) Receive(b []byte) (int, error) {
	before, err := s.storm.strikes()
	if err == nil {
		return s.Socket.Receive(b)
	}
	if !before {
		_, _ = s.Socket.Receive(b)
	}
	return 0, err
}

// SetDeadline shortens deadlines: what the storm took is not worth waiting for.
func (s *stormySocket) SetDeadline(t time.Time) error {
	if soon := time.Now().Add(200 * time.Millisecond); t.After(soon) {
		t = soon
	}
	return s.Socket.SetDeadline(t)
}
