package verify

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nobody is the user without rights on Linux systems (the overflow user of user_namespaces(7)).
const nobody = 65534

// DropPrivileges makes this process an ordinary one: root becomes user 65534, and no capability is left. The sockets that
// are open stay open.
func DropPrivileges() error {
	if os.Geteuid() == 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			return fmt.Errorf("becoming user %d, which has no rights: %w: run it as an ordinary user", nobody, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have, none [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("asking for capabilities: %w", err)
	}
	if have == none {
		return nil
	}
	// Each thread has capabilities of its own, and Go runs several: capset of x/sys would leave the others as they are.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0) //nolint:gosec // the kernel reads both during the call alone
	if errno != 0 {
		return fmt.Errorf("giving up capabilities: %w", errno)
	}
	return nil
}
