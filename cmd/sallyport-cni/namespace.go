package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
)

// reach opens a pod's network namespace and a socket of rtnetlink inside of it, for the agent. Where the pod may get an
// IPv6 address, IPv6 is on in there afterwards; families are those that it gets, none: any.
func reach(path string, families []string) ([]*os.File, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, namespaceError(path, err)
	}
	var sock *os.File
	if err = distinct(ns); err == nil {
		sock, err = inside(ns, len(families) == 0 || slices.Contains(families, cni.IPv6))
	}
	if err != nil {
		return nil, errors.Join(namespaceError(path, err), ns.Close())
	}
	return []*os.File{ns, sock}, nil
}

func namespaceError(path string, err error) error {
	return &cni.Error{Code: cni.CodeNamespace, Message: fmt.Sprintf("CNI_NETNS %q cannot be used", path), Details: err.Error()}
}

// distinct is an error where the file is no network namespace, or that of the node.
func distinct(ns *os.File) error {
	kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return errors.New("it is no network namespace")
	}
	var there, here unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &there); err != nil {
		return err
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &here); err != nil {
		return err
	}
	if there.Dev == here.Dev && there.Ino == here.Ino {
		return errors.New("it is the node's own network namespace")
	}
	return nil
}

// inside opens the socket on a thread of its own, which ends with it.
func inside(ns *os.File, six bool) (sock *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: no other goroutine may find itself in there
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("entering it: %w", err)
			return
		}
		if six {
			if err = enableIPv6(); err != nil {
				return
			}
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
			err = fmt.Errorf("opening a socket of rtnetlink in it: %w", err)
			return
		}
		sock = os.NewFile(uintptr(fd), "rtnetlink")
	}()
	<-done
	return sock, err
}

// enableIPv6 turns IPv6 on for all interfaces of the thread's namespace. Some runtimes turn it off.
func enableIPv6() error {
	for _, path := range []string{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6"} {
		was, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // a kernel without IPv6: the agent says so where that matters
		}
		if err == nil && !bytes.Equal(bytes.TrimSpace(was), []byte("0")) {
			err = os.WriteFile(path, []byte("0"), 0)
		}
		if err != nil {
			return fmt.Errorf("turning IPv6 on: %w", err)
		}
	}
	return nil
}
