package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// isolatedEnv marks the program that Isolate has started.
const isolatedEnv = "SALLYPORT_LAB_ISOLATED"

// killAfter is how long a program that was asked to end may take before it is killed.
const killAfter = 5 * time.Second

// Isolated says whether this process is the one that Isolate has started.
func Isolated() bool { return os.Getenv(isolatedEnv) != "" && os.Getpid() == 1 }

// Isolate runs this program again, with the same arguments, environment, directory and standard files,
// in new network, mount and PID namespaces, and without root in a new user namespace as well. It is to
// be called early, by both:
//
//   - Outside it starts the inner program, waits for it and returns inside = false with its exit status
//     (128 + n where signal n ended it). SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on; when ctx is
//     done the inner program is sent SIGTERM, and SIGKILL five seconds later.
//   - Inside it makes mounts private, mounts /proc, brings the loopback up and returns inside = true.
//
// The inner program is the first of its PID namespace, so that all it has started dies with it; it
// dies with the outer program, however that ends. Where the kernel does not allow this, the error is a
// *FeatureError, inside or outside.
func Isolate(ctx context.Context) (inside bool, status int, err error) {
	if Isolated() {
		return true, 0, settle()
	}
	// The kernel sends the parent death signal when the thread that forked ends, so it must not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	cmd, err := startIsolated(ctx)
	if err != nil {
		return false, 0, fmt.Errorf("starting in namespaces: %w", err)
	}
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended already
			case <-ctx.Done():
				return
			}
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		return false, 0, fmt.Errorf("waiting for the program in namespaces: %w", err)
	}
	state := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if state.Signaled() {
		return false, 128 + int(state.Signal()), nil
	}
	return false, state.ExitStatus(), nil
}

// startIsolated starts the inner program: as root without a user namespace, and with one where there
// is no root or where root may not make namespaces.
func startIsolated(ctx context.Context) (*exec.Cmd, error) {
	if os.Geteuid() == 0 {
		cmd := isolatedCommand(ctx, false)
		err := cmd.Start()
		if err == nil {
			return cmd, nil
		}
		if !errors.Is(err, syscall.EPERM) {
			return nil, namespaceError(err)
		}
	}
	cmd := isolatedCommand(ctx, true)
	if err := cmd.Start(); err != nil {
		return nil, userNamespaceError(err)
	}
	return cmd, nil
}

// isolatedCommand is this program, to be run in new namespaces.
func isolatedCommand(ctx context.Context, userNamespace bool) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		// A process group of its own: Ctrl-C reaches the inner program once, through the outer one.
		Setpgid: true,
	}
	if userNamespace {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// settle makes the namespaces of the inner program fit to work in.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", permissionError(err))
	}
	// In an unprivileged container the kernel refuses a new /proc (part of the old one is masked). The
	// old one serves as well: it shows this process to itself, under another number.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	h, err := Here("isolated")
	if err != nil {
		return err
	}
	return h.Close()
}
