package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// FeatureError says which kernel feature the lab needs and does not have on this machine.
type FeatureError struct {
	Feature string // such as "user namespaces"
	Remedy  string // what to do about it
	Err     error  // what the kernel said
}

// Error names the feature, the kernel's answer and the remedy.
func (e *FeatureError) Error() string {
	return fmt.Sprintf("the lab needs %s, which this machine does not give (%v): %s", e.Feature, e.Err, e.Remedy)
}

// Unwrap gives what the kernel said.
func (e *FeatureError) Unwrap() error { return e.Err }

// The settings that close user namespaces to processes without privileges, with the value that does.
var userNamespaceLocks = []struct{ path, closed, remedy string }{
	{"/proc/sys/user/max_user_namespaces", "0",
		"run as root, or allow user namespaces: sysctl -w user.max_user_namespaces=10000"},
	{"/proc/sys/kernel/unprivileged_userns_clone", "0",
		"run as root, or allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
		"run as root, or let AppArmor allow it: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
}

// userNamespaceError explains why a process in a new user namespace could not be started, or has no
// power there.
func userNamespaceError(err error) error {
	if errors.Is(err, syscall.EINVAL) {
		return &FeatureError{"user, network, mount and PID namespaces",
			"run a kernel with CONFIG_USER_NS, CONFIG_NET_NS and CONFIG_PID_NS", err}
	}
	for _, lock := range userNamespaceLocks {
		value, readErr := os.ReadFile(lock.path)
		if readErr == nil && strings.TrimSpace(string(value)) == lock.closed {
			return &FeatureError{"user namespaces", lock.remedy, err}
		}
	}
	return &FeatureError{"user namespaces",
		"run as root; in a container, give it the capabilities SYS_ADMIN and NET_ADMIN", err}
}

// namespaceError explains why a network namespace could not be made. Errors that say nothing about
// the kernel's features are passed on as they are.
func namespaceError(err error) error {
	switch {
	case errors.Is(err, syscall.EINVAL):
		return &FeatureError{"network namespaces", "run a kernel with CONFIG_NET_NS", err}
	case errors.Is(err, syscall.EPERM):
		return &FeatureError{"the right to make network namespaces",
			"run as root; in a container, give it the capabilities SYS_ADMIN and NET_ADMIN", err}
	case errors.Is(err, syscall.ENOSPC):
		return &FeatureError{"another network namespace", "raise the sysctl user.max_net_namespaces", err}
	}
	return err
}

// permissionError explains why a process was refused something in a namespace that it owns: AppArmor
// takes the capabilities away, or the file system is read-only as in a container.
func permissionError(err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return &FeatureError{"a writable /proc/sys/net",
			"in a container, run it with --privileged or mount /proc/sys read-write", err}
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return userNamespaceError(err)
	}
	return err
}
