package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/nfnetlink"
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
		ours, listing, err := changeCPU(ctx, o, tmp, c.connections, c.to)
		if err != nil {
			return out, err
		}
		r := summary("CPU of the agent for one change, "+c.what, "ms", ours)
		out = append(out, r)
		if c.connections > 0 {
			l := summary("the same: what it takes to list these, once", "ms", listing)
			l.Ratio = r.P50 / l.P50
			out = append(out, l)
		}
	}
	return out, nil
}

// changeCPU is the CPU time of the agent for each of some changes, and what it takes the kernel and a process to list the
// connections in turn with them, in ms.
func changeCPU(ctx context.Context, o options, tmp string, connections int, to netip.Addr) (used, listing []float64, err error) {
	dir, state, err := manifests(tmp, 1)
	if err != nil {
		return nil, nil, err
	}
	n, err := newNetwork(true)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	a, err := startAgent(ctx, o, n, dir, state)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := a.ready(ctx); err != nil {
		return nil, nil, err
	}
	if err := n.connect(ctx, connections, to); err != nil {
		return nil, nil, err
	}
	time.Sleep(o.settle) // what starting needed
	// Now and then an agent looks at its node without any change: as many windows without one have their share of that.
	var idle time.Duration
	for range o.rounds {
		d, err := a.cpuOver(o.settle, func() error { return nil })
		if err != nil {
			return nil, nil, err
		}
		idle += d / time.Duration(o.rounds)
	}
	for i := range o.rounds {
		d, err := a.cpuOver(o.settle, func() error { return writePool(dir, 0, i%2 == 1) })
		if err != nil {
			return nil, nil, err
		}
		used = append(used, float64(d-idle)/float64(time.Millisecond))
		if d, err = listCPU(ctx, n.node); err != nil {
			return nil, nil, err
		}
		listing = append(listing, float64(d)/float64(time.Millisecond))
	}
	return used, listing, nil
}

// listCPU is the CPU time of a thread that makes the kernel list all tracked connections, and looks at none.
func listCPU(ctx context.Context, h *lab.Host) (took time.Duration, err error) {
	s, err := nfnetlink.Dial(h.FD())
	if err != nil {
		return 0, err
	}
	c := nfnetlink.NewConn(s)
	defer func() { err = errors.Join(err, c.Close()) }()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, err := threadCPU()
	if err != nil {
		return 0, err
	}
	request := c.Request(unix.NFNL_SUBSYS_CTNETLINK<<8|1, unix.NLM_F_DUMP, unix.AF_UNSPEC) // IPCTNL_MSG_CT_GET
	if err := c.Dump(ctx, "listing connections", request, func(nfnetlink.Message) error { return nil }); err != nil {
		return 0, err
	}
	end, err := threadCPU()
	return end - begin, err
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
