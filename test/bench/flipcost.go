package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// measureChangeCPU flips natOutgoing of the pod's pool, and counts the CPU time of the agent from before the write until
// all work that the change causes is over: flows, diagnosis, memory that is given back. It does so with an empty
// conntrack table, with many connections that the change does not concern, and with as many that it does. What the
// agent uses in the same time without a change is subtracted.
func measureChangeCPU(ctx context.Context, o options, tmp string) ([]result, error) {
	var out []result
	for _, c := range []struct {
		what        string
		connections int
		to          netip.Addr
	}{
		{"no connection tracked", 0, outsideAddr},
		{fmt.Sprintf("%d connections to an exempt address", o.connections), o.connections, exemptAddr},
		{fmt.Sprintf("%d connections of the pool that changes", o.connections), o.connections, outsideAddr},
	} {
		r, err := changeCPU(ctx, o, tmp, c.connections, c.to)
		if err != nil {
			return out, err
		}
		r.What = "CPU of the agent for one change, " + c.what
		out = append(out, r)
	}
	return out, nil
}

func changeCPU(ctx context.Context, o options, tmp string, connections int, to netip.Addr) (_ result, err error) {
	dir, state, err := manifests(tmp, 1)
	if err != nil {
		return result{}, err
	}
	n, err := newNetwork(true)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	a, err := startAgent(ctx, o, n, dir, state)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := a.ready(ctx); err != nil {
		return result{}, err
	}
	if err := n.connect(ctx, connections, to); err != nil {
		return result{}, err
	}
	time.Sleep(o.settle) // what starting needed
	// Now and then an agent looks at its node without any change: as many windows without one have their share of that.
	var idle time.Duration
	for range o.rounds {
		d, err := a.cpuOver(o.settle, func() error { return nil })
		if err != nil {
			return result{}, err
		}
		idle += d / time.Duration(o.rounds)
	}
	var used []float64
	for i := range o.rounds {
		d, err := a.cpuOver(o.settle, func() error { return writePool(dir, 0, i%2 == 1) })
		if err != nil {
			return result{}, err
		}
		used = append(used, float64(d-idle)/float64(time.Millisecond))
	}
	return summary("", "ms", used), nil
}

// cpuOver is the CPU time of the agent from before do until a while after it.
func (a *agentProcess) cpuOver(d time.Duration, do func() error) (time.Duration, error) {
	before, err := a.cpu()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	time.Sleep(d)
	after, err := a.cpu()
	return after - before, err
}

// connect makes the node track TCP connections from the pod to an address of outside. Both ends are closed without a
// word to each other (TCP_REPAIR), so that the node goes on to track what no process has to hold.
func (n *network) connect(ctx context.Context, count int, to netip.Addr) error {
	if err := n.pod.Sysctl("ipv4/ip_local_port_range", "1024 65000"); err != nil {
		return err
	}
	server := &unix.SockaddrInet4{Addr: to.As4(), Port: outsidePort}
	var listener int
	err := n.outside.Do(func() (err error) {
		if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
			return err
		}
		return errors.Join(unix.Bind(listener, server), unix.Listen(listener, 128))
	})
	if err != nil {
		return fmt.Errorf("listening outside: %w", err)
	}
	defer unix.Close(listener)
	leave := func(fd int) error {
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1), unix.Close(fd))
	}
	err = n.pod.Do(func() error {
		for range count {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			if err := unix.Connect(fd, server); err != nil {
				return errors.Join(err, unix.Close(fd))
			}
			accepted, _, err := unix.Accept(listener)
			if err != nil {
				return errors.Join(err, unix.Close(fd))
			}
			if err := errors.Join(leave(fd), leave(accepted)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("opening %d connections to %s: %w", count, to, err)
	}
	return nil
}
