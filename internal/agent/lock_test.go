package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// TestLock holds the name by which agents notice each other, in a network namespace of the tests' own.
func TestLock(t *testing.T) {
	labtest.Need(t)
	log := slog.New(slog.DiscardHandler)
	first, err := lock(t.Context(), log)
	labtest.Must(t, err)
	for range 3 {
		var held *HeldError
		if _, err := lock(t.Context(), log); !errors.As(err, &held) || held.PID != os.Getpid() {
			t.Errorf("while this process holds it: %v", err)
		}
	}
	if h := Holder(t.Context()); h == nil || h.PID != os.Getpid() {
		t.Errorf("while this process holds it, the holder is %v", h)
	}
	succeeds := func(from int, wantLock bool, wantStopped int, said string) {
		t.Helper()
		l, stopped, err := succeed(t.Context(), &HeldError{PID: from}, log)
		if (l != nil) != wantLock || stopped != wantStopped || (err != nil) != (said != "") || err != nil && !strings.Contains(err.Error(), said) {
			t.Errorf("from %d: lock %v, stopped %d, %v; want %q", from, l, stopped, err, said)
		}
		if l != nil {
			labtest.Must(t, l.Close())
		}
	}
	succeeds(os.Getpid(), false, 0, "did not end within")
	succeeds(os.Getpid()+1, false, os.Getpid()+1, "started it again")
	labtest.Must(t, first.Close())
	if h := Holder(t.Context()); h != nil {
		t.Errorf("while no process holds it, the holder is %v", h)
	}
	succeeds(os.Getpid(), true, os.Getpid(), "")
	second, err := lock(t.Context(), log)
	labtest.Must(t, err, second.Close())

	// Somebody takes the name and answers nobody.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	labtest.Must(t, err, unix.Bind(fd, &unix.SockaddrUnix{Name: lockName}))
	var said bytes.Buffer
	third, err := lock(t.Context(), slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil || !strings.Contains(said.String(), "going on without") {
		t.Errorf("while a stranger holds it: %v, %s", err, said.String())
	}
	succeeds(os.Getpid(), true, 0, "") // which may be the agent that was told to end
	labtest.Must(t, third.Close(), unix.Close(fd))
}

// TestAStrangerDoesNotKeepAnAgentFromStarting has another user hold the name and answer on it.
func TestAStrangerDoesNotKeepAnAgentFromStarting(t *testing.T) {
	labtest.Need(t)
	const stranger = 4711
	fd, err := listenAs(stranger)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		t.Skip("kernel feature: a second user, whom this user namespace does not have")
	}
	labtest.Must(t, err)
	defer unix.Close(fd)
	var said bytes.Buffer
	l, err := lock(t.Context(), slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil || !strings.Contains(said.String(), "of user 4711") {
		t.Fatalf("while another user holds it: %v, %s", err, said.String())
	}
	labtest.Must(t, l.Close())
}

// listenAs listens on the lock's name as another user. The kernel takes note of the thread's user when it begins to
// listen (SO_PEERCRED of unix(7)).
func listenAs(uid int) (fd int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	setUser := func(uid int) error {
		const same = ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			return errno
		}
		return nil
	}
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fd, err
	}
	own := os.Geteuid()
	if err := setUser(uid); err != nil {
		return fd, err
	}
	err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: lockName}), unix.Listen(fd, 10))
	return fd, errors.Join(err, setUser(own))
}

func TestWhoMayRunAgents(t *testing.T) {
	t.Parallel()
	own := os.Geteuid()
	for uid, want := range map[int]bool{0: true, own: true, own + 1000: false} {
		if mayRunAgents(uint32(uid)) != want {
			t.Errorf("user %d: want %t", uid, want)
		}
	}
}

func TestHeldErrorSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for pid, want := range map[int][]string{7: {"pid 7", "systemctl stop sallyport", "kill 7"}, 0: {"another container", "systemctl stop sallyport"}} {
		for _, w := range want {
			if text := (&HeldError{PID: pid}).Error(); !strings.Contains(text, w) {
				t.Errorf("%q does not say %q", text, w)
			}
		}
	}
}
