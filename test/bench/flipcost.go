package main

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	hold, err := n.connect(ctx, connections, to)
	if err != nil {
		return result{}, err
	}
	defer hold()
	time.Sleep(o.settle)
	idle, err := a.cpuOver(o.settle, func() error { return nil })
	if err != nil {
		return result{}, err
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

// connect opens TCP connections from the pod to an address of outside, and returns what closes them.
func (n *network) connect(ctx context.Context, count int, to netip.Addr) (closeAll func(), err error) {
	var fds []int
	closeAll = func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	limit := unix.Rlimit{Cur: uint64(2*count + 4096), Max: uint64(2*count + 4096)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("raising the limit of open files: %w", err)
	}
	if err := n.pod.Sysctl("ipv4/ip_local_port_range", "1024 65000"); err != nil {
		return nil, err
	}
	var listener int
	err = n.outside.Do(func() (err error) {
		listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		fds = append(fds, listener)
		if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: to.As4(), Port: outsidePort}); err != nil {
			return err
		}
		return unix.Listen(listener, 128)
	})
	if err != nil {
		return nil, fmt.Errorf("listening outside: %w", err)
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
			fds = append(fds, fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4(), Port: outsidePort}); err != nil {
				return err
			}
			accepted, _, err := unix.Accept(listener)
			if err != nil {
				return err
			}
			fds = append(fds, accepted)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("opening %d connections to %s: %w", count, net.JoinHostPort(to.String(), fmt.Sprint(outsidePort)), err)
	}
	return closeAll, nil
}
