package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// namedNamespaces is where `ip netns` and container runtimes keep network namespaces.
const namedNamespaces = "/run/netns"

// maxNamespaces bounds how many namespaces are looked into for an address.
const maxNamespaces = 10000

// OpenNamespace opens a network namespace by its path, or by its name as `ip netns` has it.
func OpenNamespace(name string) (*os.File, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = filepath.Join(namedNamespaces, name)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace %q: %w: give a name in %s, or a path such as /proc/PID/ns/net", name, err, namedNamespaces)
	}
	if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return nil, errors.Join(fmt.Errorf("network namespace %q: %s is no network namespace", name, path), f.Close())
	}
	return f, nil
}

// NamespaceOf opens the network namespace that has an address, among those that container runtimes have mounted and those of
// processes. It needs root.
func NamespaceOf(address netip.Addr) (*os.File, error) {
	seen := map[uint64]bool{}
	var found *os.File
	for _, pattern := range []string{namedNamespaces + "/*", "/proc/[0-9]*/ns/net"} {
		paths, _ := filepath.Glob(pattern) // the patterns are right
		for _, path := range paths {
			f, err := openOnce(path, seen)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
				return nil, fmt.Errorf("looking for the network namespace that has %s: %w", address, err)
			}
			if err != nil || f == nil {
				continue
			}
			if !has(f, address) {
				_ = f.Close()
			} else if other := found; other == nil {
				found = f
			} else {
				return nil, errors.Join(fmt.Errorf("the network namespaces %s and %s both have %s: give one with --netns", other.Name(), path, address), f.Close(), other.Close())
			}
			if len(seen) > maxNamespaces {
				return nil, fmt.Errorf("more than %d network namespaces were found: give the one that has %s with --netns", maxNamespaces, address)
			}
		}
	}
	if found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("no network namespace of a process here, or in %s, has %s: give it with --netns", namedNamespaces, address)
}

// openOnce opens a network namespace, unless it has been seen; nil then, and for what is none.
func openOnce(path string, seen map[uint64]bool) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var s unix.Stat_t
	kind, notOne := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err := unix.Fstat(int(f.Fd()), &s); err != nil || notOne != nil || kind != unix.CLONE_NEWNET || seen[s.Ino] {
		return nil, errors.Join(err, f.Close())
	}
	seen[s.Ino] = true
	return f, nil
}

// has says whether an interface in a namespace has an address.
func has(ns *os.File, address netip.Addr) (found bool) {
	_ = inside(ns, func() error { // one that is gone has nothing
		addresses, err := net.InterfaceAddrs()
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(address.AsSlice()) {
				found = true
			}
		}
		return err
	})
	return found
}
