package nfnetlink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Subscribe hands what the kernel tells a multicast group (unix.NFNLGRP_…) in a network namespace to handle,
// until the context ends, which is no error, or the socket fails. It calls lost when the kernel had more to
// tell than the socket holds, and once at the beginning: what came before is not known.
func Subscribe(ctx context.Context, netns int, group uint32, lost func(), handle func(Message)) error {
	return SubscribeProtocol(ctx, unix.NETLINK_NETFILTER, netns, []uint32{group}, nil, lost, handle)
}

// SubscribeProtocol is Subscribe for groups of any netlink protocol (unix.NETLINK_…). The kernel delivers what the filter, a program of
// socket(7)'s SO_ATTACH_FILTER, lets pass; nil lets all pass.
func SubscribeProtocol(ctx context.Context, protocol, netns int, groups []uint32, filter []bpf.RawInstruction, lost func(), handle func(Message)) error {
	conn, raw, err := dial(protocol, netns)
	if err != nil {
		return err
	}
	defer conn.Close()
	if filter != nil {
		if err := conn.SetBPF(filter); err != nil {
			return fmt.Errorf("setting the filter of a netlink socket: %w", err)
		}
	}
	for _, group := range groups {
		if err := conn.JoinGroup(group); err != nil {
			return fmt.Errorf("joining the netlink group %d: %w", group, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	lost()
	buf := make([]byte, datagramLen)
	for {
		var n int
		var err error
		ctl := raw.Read(func(fd uintptr) bool {
			n, err = receive(int(fd), buf)
			return !errors.Is(err, unix.EAGAIN)
		})
		if err == nil {
			err = ctl
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, ErrMalformed):
			lost()
			continue
		case err != nil:
			return fmt.Errorf("receiving notifications: %w", err)
		}
		for m, err := range Messages(buf[:n]) {
			if err != nil {
				lost()
				break
			}
			handle(m)
		}
	}
}
