package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
)

// path is a variant's network with the sockets that traffic is measured on. All are used by one thread,
// which is both pod and server: it sends, and what it sent has arrived when the send returns.
type path struct {
	*variantNode
	sockets
	udp, exempt, peer udpEnds // towards an address that is translated to, one that is exempt, and another pod's
	tcp               tcpEnds
	server            unix.SockaddrInet4 // where the server listens
}

// sockets are those that stay open, and what is sent by them.
type sockets struct {
	requests, replies *batch
	data              []byte
	files             []*os.File
}

func newSockets() sockets {
	return sockets{newBatch(batchSize, messageSize, false), newBatch(batchSize, messageSize, true), make([]byte, streamWrite), nil}
}

func (s *sockets) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

const (
	batchSize   = 32 // UDP messages in one system call
	messageSize = 64 // bytes of payload
	streamWrite = 128 << 10
)

// open opens the sockets that stay open.
func (p *path) open(ctx context.Context) (err error) {
	p.sockets = newSockets()
	for ends, addr := range map[*udpEnds]netip.Addr{&p.udp: outsideAddr, &p.exempt: exemptAddr, &p.peer: peerAddr} {
		if *ends, err = p.openUDP(ctx, p.pod, p.outside, addr); err != nil {
			return err
		}
	}
	p.tcp, err = p.openTCP(ctx, p.pod, p.outside, outsideAddr)
	p.server = unix.SockaddrInet4{Addr: outsideAddr.As4(), Port: outsidePort}
	return err
}

// udpEnds are a socket of the pod's and one of the server's that it talks to.
type udpEnds struct{ pod, server int }

func (s *sockets) openUDP(ctx context.Context, from, to *lab.Host, addr netip.Addr) (ends udpEnds, err error) {
	at := netip.AddrPortFrom(addr, outsidePort).String()
	server, err := to.ListenPacket("udp4", at)
	if err != nil {
		return ends, err
	}
	if ends.server, err = s.keep(server); err != nil {
		return ends, err
	}
	client, err := from.Dial(ctx, "udp4", at)
	if err != nil {
		return ends, err
	}
	ends.pod, err = s.keep(client)
	return ends, err
}

// tcpEnds are both ends of a connection, and what the server listens with.
type tcpEnds struct{ pod, server, listener int }

func (s *sockets) openTCP(ctx context.Context, from, to *lab.Host, addr netip.Addr) (ends tcpEnds, err error) {
	at := netip.AddrPortFrom(addr, outsidePort).String()
	listener, err := to.Listen("tcp4", at)
	if err != nil {
		return ends, err
	}
	client, err := from.Dial(ctx, "tcp4", at)
	if err != nil {
		return ends, err
	}
	if ends.pod, err = s.keep(client); err != nil {
		return ends, err
	}
	accepted, err := listener.Accept()
	if err != nil {
		return ends, err
	}
	if ends.server, err = s.keep(accepted); err != nil {
		return ends, err
	}
	ends.listener, err = s.keep(listener)
	return ends, err
}

// keep takes a socket away from Go's poller: it does not wait, and what is tried on it says EAGAIN
// instead.
func (s *sockets) keep(socket any) (int, error) {
	f, err := socket.(interface{ File() (*os.File, error) }).File()
	err = errors.Join(err, socket.(interface{ Close() error }).Close())
	if err != nil {
		return -1, err
	}
	s.files = append(s.files, f)
	fd := int(f.Fd())
	return fd, unix.SetNonblock(fd, true)
}

// close ends the agent, if there is one, and lets go of the network.
func (p *path) close() error {
	errs := []error{p.sockets.close()}
	for _, stop := range p.stops {
		errs = append(errs, stop())
	}
	return errors.Join(append(errs, p.network.close())...)
}

// slot is what one measurement on one path gave.
type slot struct {
	cost float64         // CPU time of the thread for one unit, in nanoseconds
	laps []time.Duration // of each unit, where asked for
}

// chunk is into what a slot is cut. Its cost is the median of theirs, so that a moment in which the machine did
// something else, or another virtual machine had the core, does not count.
const chunk = 2 * time.Millisecond

// during repeats something for a while and counts its units.
func during(d time.Duration, do func() (units int, err error)) (slot, error) {
	costs := make([]float64, 0, d/chunk+1)
	for begin := time.Now(); time.Since(begin) < d; {
		watch, err := startStopwatch()
		if err != nil {
			return slot{}, err
		}
		done := 0
		for done == 0 || !watch.ran(chunk) {
			n, err := do()
			if err != nil {
				return slot{}, err
			}
			done += n
		}
		cpu, err := watch.read()
		if err != nil {
			return slot{}, err
		}
		costs = append(costs, float64(cpu)/float64(done))
	}
	return slot{cost: quantile(costs, 0.5)}, nil
}

// udpPairs sends messages and answers them; a unit is one there and one back.
func (p *path) udpPairs(d time.Duration) (slot, error)    { return p.pairs(d, p.udp) }
func (p *path) exemptPairs(d time.Duration) (slot, error) { return p.pairs(d, p.exempt) }
func (p *path) peerPairs(d time.Duration) (slot, error)   { return p.pairs(d, p.peer) }

func (s *sockets) pairs(d time.Duration, ends udpEnds) (slot, error) {
	return during(d, func() (int, error) {
		err := s.requests.send(ends.pod, batchSize)
		if err == nil {
			err = s.replies.receive(ends.server, batchSize)
		}
		if err == nil {
			err = s.replies.send(ends.server, batchSize)
		}
		if err == nil {
			err = s.requests.receive(ends.pod, batchSize)
		}
		return batchSize, err
	})
}

// upload and download move data over one TCP connection; a unit is a byte.
func (p *path) upload(d time.Duration) (slot, error)   { return p.stream(d, p.tcp.pod, p.tcp.server) }
func (p *path) download(d time.Duration) (slot, error) { return p.stream(d, p.tcp.server, p.tcp.pod) }

func (s *sockets) stream(d time.Duration, from, to int) (slot, error) {
	var sent, received int
	out, err := during(d, func() (int, error) {
		n, err := moved(unix.Write(from, s.data))
		if err != nil {
			return 0, err
		}
		sent += n
		m, err := moved(unix.Read(to, s.data))
		received += m
		if n+m == 0 && err == nil {
			err = await(to, from)
		}
		return m, err
	})
	for received < sent && err == nil { // so that nothing is left for the next measurement
		var n int
		if n, err = moved(unix.Read(to, s.data)); n == 0 && err == nil {
			err = await(to, -1)
		}
		received += n
	}
	return out, err
}

// connections opens one connection after another; each carries a byte each way and is closed by the
// server first, and then by a reset, so that no end has to remember it.
func (p *path) connections(d time.Duration) (slot, error) {
	return during(d, func() (int, error) { return 1, p.connect() })
}

func (p *path) connect() (err error) {
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(client)) }()
	if err := unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(client, &p.server); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	server := -1
	for server < 0 {
		fd, _, err := unix.Accept4(p.tcp.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if _, err = moved(0, err); err != nil {
			return err
		}
		if server = fd; fd < 0 {
			if err := await(p.tcp.listener, -1); err != nil {
				return err
			}
		}
	}
	return errors.Join(hand(client, server, p.data[:1]), hand(server, client, p.data[:1]), unix.Close(server))
}

// roundTrips sends a request and its answer over one TCP connection, again and again; a unit is both.
func (p *path) roundTrips(d time.Duration) (slot, error) {
	laps := make([]time.Duration, 0, d/time.Microsecond)
	message := p.data[:messageSize]
	s, err := during(d, func() (int, error) {
		start := time.Now()
		if err := hand(p.tcp.pod, p.tcp.server, message); err != nil {
			return 0, err
		}
		if err := hand(p.tcp.server, p.tcp.pod, message); err != nil {
			return 0, err
		}
		laps = append(laps, time.Since(start))
		return 1, nil
	})
	s.laps = laps
	return s, err
}

// hand writes a small message at one end and reads it at the other.
func hand(from, to int, message []byte) error {
	if _, err := unix.Write(from, message); err != nil {
		return err
	}
	for got := 0; got < len(message); {
		n, err := moved(unix.Read(to, message[got:]))
		if err != nil {
			return err
		}
		if got += n; n == 0 {
			if err := await(to, -1); err != nil {
				return err
			}
		}
	}
	return nil
}

// moved takes "not now" for nothing moved.
func moved(n int, err error) (int, error) {
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	return max(n, 0), err
}

// await waits until one socket can be read or, if it is one, the other be written.
func await(read, write int) error {
	fds := []unix.PollFd{{Fd: int32(read), Events: unix.POLLIN}, {Fd: int32(write), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 5000)
	if n == 0 && err == nil {
		return fmt.Errorf("nothing arrived within 5 s")
	}
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}
