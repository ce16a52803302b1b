package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const outsidePort = 9

// prober opens one new UDP flow after another from the pod, and sees at the outside host from which
// address each arrives.
type prober struct {
	translated chan time.Time // the first translated arrival after arm(true), or untranslated after arm(false)
	want       atomic.Int32   // 0: nothing is awaited; 1: translated; 2: untranslated
	sent       atomic.Uint64
	listener   net.PacketConn
	stop       context.CancelFunc
	done       chan struct{}
}

// gap is the time between two flows, and so the resolution of what the prober measures.
const gap = 50 * time.Microsecond

func startProber(ctx context.Context, n *network) (*prober, error) {
	l, err := n.outside.ListenPacket("udp4", fmt.Sprintf("%s:%d", outsideAddr, outsidePort))
	if err != nil {
		return nil, err
	}
	var fd int
	err = n.pod.Do(func() (err error) {
		// A raw socket writes its own UDP header, and so takes a new source port with each packet.
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	p := &prober{translated: make(chan time.Time, 1), listener: l, stop: stop, done: make(chan struct{}, 2)}
	go func() { p.receive(); p.done <- struct{}{} }()
	go func() { p.send(ctx, fd); p.done <- struct{}{} }()
	return p, nil
}

func (p *prober) close() error {
	p.stop()
	err := p.listener.Close()
	<-p.done
	<-p.done
	return err
}

func (p *prober) send(ctx context.Context, fd int) {
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Addr: outsideAddr.As4()}
	packet := make([]byte, 16)
	binary.BigEndian.PutUint16(packet[2:], outsidePort)
	binary.BigEndian.PutUint16(packet[4:], uint16(len(packet))) // no checksum: it is optional in IPv4
	for port := uint16(1024); ctx.Err() == nil; port = max(port+1, 1024) {
		next := time.Now().Add(gap)
		if p.want.Load() == 0 {
			time.Sleep(time.Millisecond) // leave the machine idle between measurements
			continue
		}
		binary.BigEndian.PutUint16(packet[0:], port)
		if unix.Sendto(fd, packet, 0, to) == nil {
			p.sent.Add(1)
		}
		time.Sleep(time.Until(next))
	}
}

func (p *prober) receive() {
	buf := make([]byte, 64)
	for {
		_, from, err := p.listener.ReadFrom(buf)
		if err != nil {
			return
		}
		now := time.Now()
		want := p.want.Load()
		isNode := from.(*net.UDPAddr).AddrPort().Addr().Unmap() == nodeAddr
		if want == 1 && isNode || want == 2 && !isNode {
			if p.want.CompareAndSwap(want, 0) {
				p.translated <- now
			}
		}
	}
}

// await does something and returns how long after its start the first flow came through as wanted.
func (p *prober) await(translated bool, do func() error) (time.Duration, error) {
	want := int32(2)
	if translated {
		want = 1
	}
	start := time.Now()
	p.want.Store(want)
	if err := do(); err != nil {
		return 0, err
	}
	select {
	case at := <-p.translated:
		return at.Sub(start), nil
	case <-time.After(10 * time.Second):
		return 0, fmt.Errorf("no flow came through as wanted (translated: %t) within 10 s; %d were sent", translated, p.sent.Load())
	}
}
