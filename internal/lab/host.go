package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// threadNS is the network namespace of the thread that opens it.
const threadNS = "/proc/thread-self/ns/net"

// Host is a machine of the lab: a network namespace with its own interfaces, routes, sockets and
// netfilter rules. Its methods may be called from several goroutines at once.
type Host struct {
	name  string
	route *netlink.Handle

	mu sync.RWMutex
	ns *os.File // nil once closed
}

// NewHost makes a host in a new network namespace. Its loopback is up, reverse path filtering and
// duplicate address detection are off, so that an address can be used as soon as it is set.
// The name serves messages only. Without the right to make namespaces it returns a *FeatureError.
func NewHost(name string) (*Host, error) {
	h := &Host{name: name}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return namespaceError(err)
		}
		return h.adopt()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making host %s: %w", name, err), h.Close())
	}
	return h, nil
}

// Here is the network namespace that the calling goroutine's thread is in, as a host. It serves
// programs that run in a namespace already, such as one that Isolate has started.
func Here(name string) (*Host, error) {
	h := &Host{name: name}
	if err := onThread(h.adopt); err != nil {
		return nil, errors.Join(fmt.Errorf("opening host %s: %w", name, err), h.Close())
	}
	return h, nil
}

// Open is a network namespace that others have made, such as a container's, as a host. It is taken as it is. The file, in
// /proc/PID/ns or mounted, is the caller's to close.
func Open(name string, ns *os.File) (*Host, error) {
	h := &Host{name: name}
	err := onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return h.hold()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening host %s: %w", name, err), h.Close())
	}
	return h, nil
}

// hold takes the calling thread's namespace. The thread must be locked.
func (h *Host) hold() error {
	ns, err := os.Open(threadNS)
	if err != nil {
		return fmt.Errorf("opening network namespace: %w", err)
	}
	h.ns = ns
	if h.route, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("opening rtnetlink: %w", err)
	}
	return nil
}

// adopt takes the calling thread's namespace and makes it ready. The thread must be locked.
func (h *Host) adopt() error {
	if err := h.hold(); err != nil {
		return err
	}
	lo, err := h.route.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding loopback: %w", err)
	}
	if err := h.route.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing loopback up: %w", permissionError(err))
	}
	return writeSysctls(usable)
}

// Name is the name that the host was made with.
func (h *Host) Name() string { return h.name }

// FD is a descriptor of the host's network namespace. It is valid until Close, and -1 from then on.
func (h *Host) FD() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.ns == nil {
		return -1
	}
	return int(h.ns.Fd())
}

// enter takes the calling thread into the host.
func (h *Host) enter() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.ns == nil {
		return os.ErrClosed
	}
	return unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET)
}

// Close lets go of the namespace. The kernel removes it, its interfaces and the peers of its veth
// pairs as soon as no socket and no process is left in it. From then on Do, and what builds on it, fails
// with os.ErrClosed; interfaces and routes must not be changed any more.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.route != nil {
		h.route.Close()
		h.route = nil
	}
	if h.ns == nil {
		return nil
	}
	err := h.ns.Close()
	h.ns = nil
	return err
}

// Do runs f on an OS thread that is inside the host and returns f's error. Sockets that f opens, files
// under /proc/sys/net that it writes and processes that it starts are the host's. Goroutines that f
// starts are not in the host. Do may be nested, for the same host or another one.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := h.enter(); err != nil {
			return fmt.Errorf("entering host %s: %w", h.name, err)
		}
		return f()
	})
}

// onThread runs f in a goroutine that has an OS thread for itself and may change that thread's network
// namespace. Afterwards the thread is put back where it was; one that cannot be put back ends with its
// goroutine and never runs other Go code. A runtime.Goexit in f (such as testing's FailNow) is passed on.
func onThread(f func() error) error {
	var err error
	returned := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, openErr := os.Open(threadNS)
		if openErr != nil {
			err, returned = fmt.Errorf("opening own network namespace: %w", openErr), true
			runtime.UnlockOSThread()
			return
		}
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			_ = home.Close()
		}()
		err = f()
		returned = true
	}()
	<-done
	if !returned {
		runtime.Goexit()
	}
	return err
}

// usable are the settings that every host starts with, whatever the machine's defaults are.
var usable = []sysctl{
	{"ipv4/conf/all/rp_filter", "0"},
	{"ipv4/conf/default/rp_filter", "0"},
	{"ipv6/conf/all/disable_ipv6", "0"},
	{"ipv6/conf/default/disable_ipv6", "0"},
	{"ipv6/conf/all/accept_dad", "0"},
	{"ipv6/conf/default/accept_dad", "0"},
	{"ipv6/conf/default/accept_ra", "0"},
}

// forwarding are the settings of a host that forwards packets. It neither accepts nor sends redirects:
// in a lab, packets often leave by the interface that they came in by.
var forwarding = []sysctl{
	{"ipv4/ip_forward", "1"},
	{"ipv4/conf/all/send_redirects", "0"},
	{"ipv4/conf/default/send_redirects", "0"},
	{"ipv6/conf/all/forwarding", "1"},
}

// sysctl is a file below /proc/sys/net and what to write into it.
type sysctl struct{ path, value string }

// writeSysctls sets each for the namespace of the calling thread, except that a kernel without IPv6 is
// accepted.
func writeSysctls(settings []sysctl) error {
	for _, s := range settings {
		err := os.WriteFile("/proc/sys/net/"+s.path, []byte(s.value), 0)
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(s.path, "ipv6/") {
			continue
		}
		if err != nil {
			return fmt.Errorf("setting sysctl: %w", permissionError(err))
		}
	}
	return nil
}

// Sysctl sets a file below /proc/sys/net, such as "ipv4/ip_forward", in the host.
func (h *Host) Sysctl(path, value string) error {
	return h.Do(func() error { return writeSysctls([]sysctl{{path, value}}) })
}

// Forward makes the host forward packets of both families.
func (h *Host) Forward() error {
	return h.Do(func() error { return writeSysctls(forwarding) })
}
