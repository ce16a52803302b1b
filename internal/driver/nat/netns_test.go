package nat

import (
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// namespace is a network namespace of one test.
type namespace struct {
	tb testing.TB
	fd int
}

// newNamespace makes a network namespace that ends with the test.
func newNamespace(tb testing.TB) *namespace {
	tb.Helper()
	labtest.Need(tb)
	type result struct {
		fd  int
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: fmt.Errorf("unshare: %w", err)}
			return
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		made <- result{fd, err}
	}()
	r := <-made
	if r.err != nil {
		tb.Fatalf("making a network namespace: %v", r.err)
	}
	tb.Cleanup(func() { _ = unix.Close(r.fd) })
	return &namespace{tb: tb, fd: r.fd}
}

// do runs a function on a thread inside the namespace.
func (n *namespace) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("setns: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// nft runs the nft command inside the namespace and returns what it prints.
func (n *namespace) nft(args ...string) string {
	n.tb.Helper()
	out, err := n.tryNFT(args...)
	if err != nil {
		n.tb.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (n *namespace) tryNFT(args ...string) (string, error) {
	var out []byte
	err := n.do(func() (err error) {
		out, err = exec.Command("nft", args...).CombinedOutput()
		return err
	})
	return string(out), err
}

// driver opens a driver that works in the namespace, as on a kernel that cannot own tables: others can
// tamper with what it makes.
func (n *namespace) driver() *Driver {
	n.tb.Helper()
	d := n.owner()
	d.leaveOpen()
	return d
}

// owner opens a driver that owns its table.
func (n *namespace) owner() *Driver {
	n.tb.Helper()
	d, err := New(Options{Log: testLog(n.tb), NetNS: n.fd})
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { _ = d.Close() })
	return d
}

// testLog logs to the test.
func testLog(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}
