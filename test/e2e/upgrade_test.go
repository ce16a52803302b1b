package e2e

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TestHooksComeAndGo starts one agent after another, each of which finds the table of the one before and gives it
// the guard's hooks or takes them away, while a pod opens connections as fast as it can. All of them must
// come out, and with the node's address.
func TestHooksComeAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// The test lasts longer than there are ports: entries make room for others.
	labtest.Must(t, r.node.Sysctl("netfilter/nf_conntrack_udp_timeout", "1"))
	restart := func(guard bool) error {
		d, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: r.node.FD()})
		if err != nil {
			return err
		}
		plan := compile.Compile(snapshot(nil, pool("a 10.0.0.0/16 nat")), model.Local{Name: "node"})
		plan.NAT.LeakGuard = guard
		// The one before owns the table until its socket is closed everywhere: a program that another test starts
		// has it too until it is executed.
		var owned *nftables.OwnedError
		err = d.Apply(t.Context(), plan.NAT)
		for end := time.Now().Add(patience); errors.As(err, &owned) && time.Now().Before(end); err = d.Apply(t.Context(), plan.NAT) {
			time.Sleep(5 * time.Millisecond)
		}
		return errors.Join(err, d.Close())
	}
	labtest.Must(t, restart(true))
	s := &opener{tap: r.pod[0]}
	sending := make(chan error, 1)
	go func() { sending <- s.run() }()
	const restarts = 60
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer s.stop.Store(true)
		for i := range restarts {
			if err := restart(i%2 == 1); err != nil {
				t.Error(err)
				return
			}
			for n := s.sent.Load(); s.sent.Load() < n+50 && len(sending) == 0; {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	seen := map[uint32]bool{}
	read := func() bool {
		ip, err := r.out[0].next()
		labtest.Must(t, err)
		if ip == nil || ip[0]>>4 != 4 {
			return ip != nil
		}
		if p, err := parse(ip); err == nil {
			seen[p.id] = true
			if p.src != nodeAddress("eth0", p.src) {
				t.Errorf("a packet left with the address %s", p.src)
			}
		}
		return true
	}
	for running := true; running; {
		select {
		case <-ended:
			running = false
		default:
			if !read() {
				time.Sleep(50 * time.Microsecond)
			}
		}
	}
	labtest.Must(t, <-sending)
	for start := time.Now(); len(seen) < int(s.sent.Load()) && time.Since(start) < time.Second; {
		if !read() {
			time.Sleep(time.Millisecond)
		}
	}
	missed, err := unix.GetsockoptTpacketStats(r.out[0].fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	labtest.Must(t, err)
	if lost := int(s.sent.Load()) - len(seen); lost > int(missed.Drops) {
		t.Errorf("%d of %d packets were lost", lost, s.sent.Load())
	}
	t.Logf("%d connections through %d restarts; the capture missed %d", len(seen), restarts, missed.Drops)
}

// opener sends the first packet of one new connection after another.
type opener struct {
	tap  *tap
	sent atomic.Int64
	stop atomic.Bool
}

func (o *opener) run() error {
	p := packet{src: netip.MustParseAddr("10.0.0.2"), dst: netip.MustParseAddr("8.8.8.8"), proto: compile.UDP}
	for !o.stop.Load() {
		p.id++
		p.sport, p.dport = uint16(1024+p.id%60000), uint16(1+p.id/60000)
		if err := o.tap.send(p.marshal()); err != nil {
			return err
		}
		o.sent.Add(1)
		if p.id%10 == 0 {
			time.Sleep(100 * time.Microsecond) // a burst might not fit a queue
		}
	}
	return nil
}
