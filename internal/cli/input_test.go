package cli

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestInputThatNeverComes gives commands a FIFO that no process opens, and standard input that does not end.
func TestInputThatNeverComes(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	stdin, open := io.Pipe()
	t.Cleanup(func() { _ = open.Close() })
	for _, tc := range []struct{ args, said string }{
		{"apply -f " + fifo + " --wait 10ms", fifo + ": it did not end within --wait"},
		{"delete -f " + fifo + " --wait 10ms", fifo + ": it did not end within --wait"},
		{"apply -f - --wait 10ms", "-: it did not end within --wait"},
		{"apply -f " + fifo, "was interrupted"},
		{"delete -f -", "was interrupted"},
		{"validate -f " + fifo, "was interrupted"},
		{"convert calico -f " + fifo, "was interrupted"},
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		if strings.Contains(tc.said, "interrupted") {
			interrupt()
		}
		var errs strings.Builder
		root := Root()
		root.SetArgs(append(strings.Fields(tc.args), "--dir", dir, "--socket", filepath.Join(dir, "none.sock")))
		root.SetIn(stdin)
		root.SetErr(&errs)
		code := make(chan int, 1)
		go func() { code <- execute(ctx, root) }()
		select {
		case got := <-code:
			if got != exitFailed || !strings.Contains(errs.String(), tc.said) {
				t.Errorf("%s: exit code %d, %q", tc.args, got, errs.String())
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s goes on after 20 s", tc.args)
		}
		interrupt()
	}
}
