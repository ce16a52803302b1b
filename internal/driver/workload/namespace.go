package workload

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// namespace tells network namespaces apart.
type namespace struct{ device, inode uint64 }

// apart is an error unless a file is a network namespace other than the node's, and a socket was opened in that one: what is asked by a
// socket of another namespace would change a device there that has the same index by chance, such as the node's uplink.
func (d *Driver) apart(ns, sock *os.File) error {
	there, err := namespaceOf(int(ns.Fd()))
	if err != nil {
		return fmt.Errorf("its network namespace: %w", err)
	}
	socket, err := namespaceOfSocket(sock)
	if err != nil {
		return fmt.Errorf("the namespace of its rtnetlink socket: %w", err)
	}
	own, err := d.namespace()
	switch {
	case err != nil:
		return fmt.Errorf("the node's network namespace: %w", err)
	case there == own:
		return errors.New("the network namespace is the node's own: the container runtime must give it one of its own")
	case there != socket:
		return errors.New("the rtnetlink socket was opened in another network namespace than the container's: the CNI plugin must open it in that one")
	}
	return nil
}

// namespace is the one that the driver works in.
func (d *Driver) namespace() (namespace, error) {
	if d.opts.NetNS != 0 {
		return namespaceOf(d.opts.NetNS)
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return namespace{}, err
	}
	defer own.Close()
	return namespaceOf(int(own.Fd()))
}

// namespaceOf is the one that a descriptor is of.
func namespaceOf(fd int) (namespace, error) {
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return namespace{}, errors.New("the file is no network namespace")
	}
	var s unix.Stat_t
	err := unix.Fstat(fd, &s)
	return namespace{s.Dev, s.Ino}, err
}

// namespaceOfSocket is the one that a socket was opened in.
func namespaceOfSocket(sock *os.File) (n namespace, err error) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return n, err
	}
	ctl := raw.Control(func(fd uintptr) {
		var of int
		if of, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS); err != nil {
			err = fmt.Errorf("asking the kernel: %w", err)
			return
		}
		defer unix.Close(of)
		n, err = namespaceOf(of)
	})
	return n, errors.Join(ctl, err)
}
