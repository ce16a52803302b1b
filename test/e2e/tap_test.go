package e2e

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// ethernetHeader is the length of one, in bytes.
const ethernetHeader = 14

// tap sends and captures IP packets on one interface, below the IP stack of its host.
type tap struct {
	name string
	fd   int
	mac  net.HardwareAddr
	peer net.HardwareAddr // who gets what is sent
	buf  [65536]byte
}

// newTap opens a tap on an interface of h. What it sends goes to the given interface of peer.
func newTap(t *testing.T, h *lab.Host, name string, peer *lab.Host, peerName string) *tap {
	t.Helper()
	tp := &tap{name: name, fd: -1}
	index, err := h.Index(name)
	labtest.Must(t, err)
	tp.mac, err = h.MAC(name)
	labtest.Must(t, err)
	tp.peer, err = peer.MAC(peerName)
	labtest.Must(t, err)
	labtest.Must(t, h.Do(func() error { return tp.open(index) }))
	t.Cleanup(func() { labtest.Must(t, unix.Close(tp.fd)) })
	return tp
}

func (tp *tap) open(index int) error {
	all := uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("opening packet socket: %w", err)
	}
	tp.fd = fd
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("ignoring outgoing packets: %w", err)
	}
	// Without root the buffer stays small; batches are small enough for it.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
}

// send puts one IP packet on the wire.
func (tp *tap) send(ip []byte) error {
	frame := make([]byte, ethernetHeader, ethernetHeader+len(ip))
	copy(frame, tp.peer)
	copy(frame[6:], tp.mac)
	frame[12], frame[13] = unix.ETH_P_IP>>8, unix.ETH_P_IP&0xff
	if ip[0]>>4 == 6 {
		frame[12], frame[13] = unix.ETH_P_IPV6>>8, unix.ETH_P_IPV6&0xff
	}
	if _, err := unix.Write(tp.fd, append(frame, ip...)); err != nil {
		return fmt.Errorf("sending on %s: %w", tp.name, err)
	}
	return nil
}

// next is the next IP packet that came in, valid until the next call, or nil where there is none now.
func (tp *tap) next() ([]byte, error) {
	n, err := unix.Read(tp.fd, tp.buf[:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading from %s: %w", tp.name, err)
	case n < ethernetHeader:
		return nil, nil
	}
	return tp.buf[ethernetHeader:n], nil
}

// sighting is a packet with the tap that saw it.
type sighting struct {
	packet
	at *tap
}

// patience is how long to wait for a packet that should come. Only failing tests wait so long.
const patience = 10 * time.Second

// collect reads the taps until every id is seen or nothing more comes for the time of patience.
func collect(taps []*tap, ids map[uint32]bool) (map[uint32]sighting, error) {
	seen := make(map[uint32]sighting, len(ids))
	err := watch(taps, patience, func(at *tap, ip []byte) (bool, error) {
		p, err := parse(ip)
		if errors.Is(err, errNotOurs) || err == nil && !ids[p.id] {
			return false, nil
		}
		if err != nil {
			return true, err
		}
		if before, twice := seen[p.id]; twice {
			return true, fmt.Errorf("seen twice: %v on %s and %v on %s", before, before.at.name, p, at.name)
		}
		seen[p.id] = sighting{p, at}
		return len(seen) == len(ids), nil
	})
	return seen, err
}

// watch gives each IP packet that comes in on a tap to f, until f says done or fails or nothing comes
// for the given time.
func watch(taps []*tap, quiet time.Duration, f func(at *tap, ip []byte) (done bool, err error)) error {
	fds := make([]unix.PollFd, len(taps))
	for i, tp := range taps {
		fds[i] = unix.PollFd{Fd: int32(tp.fd), Events: unix.POLLIN}
	}
	for deadline := time.Now().Add(quiet); time.Now().Before(deadline); {
		if _, err := unix.Poll(fds, 50); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("polling: %w", err)
		}
		for i, tp := range taps {
			for fds[i].Revents != 0 {
				ip, err := tp.next()
				if err != nil {
					return err
				}
				if ip == nil {
					break
				}
				deadline = time.Now().Add(quiet)
				if done, err := f(tp, ip); done || err != nil {
					return err
				}
			}
		}
	}
	return nil
}
