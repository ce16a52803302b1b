package nat

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
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
	return n.open(nftables.Options{Unowned: true})
}

// owner opens a driver that owns its table.
func (n *namespace) owner() *Driver {
	n.tb.Helper()
	return n.open(nftables.Options{})
}

// open opens a driver that works in the namespace.
func (n *namespace) open(o nftables.Options) *Driver {
	n.tb.Helper()
	o.Log, o.NetNS = testLog(n.tb), n.fd
	d, err := New(o)
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { _ = d.Close() })
	return d
}

// needOwned skips where the kernel cannot own tables.
func needOwned(t *testing.T, d *Driver) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	open := false
	if err := d.Watch(ctx, func() { open = true }); err != nil || open { // there is nothing to watch in an owned table
		t.Skip("needs kernel 6.9: tables with the flags owner and persist")
	}
}

// generation asks for the ruleset's generation by a socket of its own.
func (n *namespace) generation() (generation uint32) {
	n.tb.Helper()
	n.ask(unix.NFT_MSG_GETGEN, "", func(a nfnetlink.Attribute) (err error) {
		if a.Kind == unix.NFTA_GEN_ID {
			generation, err = a.Uint32()
		}
		return err
	})
	return generation
}

// ownerOf is the port id of the socket that owns our table; 0 if none does.
func (n *namespace) ownerOf() (port uint32) {
	n.tb.Helper()
	const attrTableOwner = 7 // NFTA_TABLE_OWNER
	n.ask(unix.NFT_MSG_GETTABLE, TableName, func(a nfnetlink.Attribute) (err error) {
		if a.Kind == attrTableOwner {
			port, err = a.Uint32()
		}
		return err
	})
	return port
}

// ask asks the kernel about a table, or about all, and hands the attributes of the answer to handle.
func (n *namespace) ask(kind uint16, table string, handle func(nfnetlink.Attribute) error) {
	n.tb.Helper()
	s, err := nfnetlink.Dial(n.fd)
	if err != nil {
		n.tb.Fatal(err)
	}
	c := nfnetlink.NewConn(s)
	defer c.Close()
	request := c.Request(subsystem|kind, 0, unix.NFPROTO_INET)
	if table != "" {
		request = nfnetlink.AppendText(request, unix.NFTA_TABLE_NAME, table)
	}
	err = c.Get(n.tb.Context(), "asking", request, func(m nfnetlink.Message) error {
		for a, err := range m.Attributes() {
			if err == nil {
				err = handle(a)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		n.tb.Fatal(err)
	}
}

// subsystem is the upper byte of the kinds of nf_tables' messages.
const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// testLog logs to the test.
func testLog(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}
