package lab_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestRouted sends HTTP requests of both families through a host that forwards.
func TestRouted(t *testing.T) {
	t.Parallel()
	left, mid, right := labtest.NewHost(t, "left"), labtest.NewHost(t, "mid"), labtest.NewHost(t, "right")
	labtest.Must(t,
		lab.Link(lab.Port{Host: left, Name: "eth0", Addresses: prefixes("10.1.0.2/24", "fd01::2/64")},
			lab.Port{Host: mid, Name: "left", Addresses: prefixes("10.1.0.1/24", "fd01::1/64"), MTU: 1400}),
		lab.Link(lab.Port{Host: right, Name: "eth0", Addresses: prefixes("10.2.0.2/24", "fd02::2/64")},
			lab.Port{Host: mid, Name: "right"}),
		mid.Bridge("br0", prefixes("10.2.0.1/24", "fd02::1/64"), "right"),
		mid.Forward(),
		left.AddRoute(lab.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.1.0.1")}),
		left.AddRoute(lab.Route{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd01::1"), Dev: "eth0"}),
		right.AddRoute(lab.Route{To: netip.MustParsePrefix("10.1.0.0/24"), Via: netip.MustParseAddr("10.2.0.1")}),
		right.AddRoute(lab.Route{To: netip.MustParsePrefix("fd01::/64"), Via: netip.MustParseAddr("fd02::1")}),
	)
	for _, server := range []string{"10.2.0.2:80", "[fd02::2]:80"} {
		l, err := right.Listen("tcp", server)
		labtest.Must(t, err)
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.RemoteAddr)
		})}
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(func() { _ = srv.Close() })

		resp, err := left.HTTPClient().Get("http://" + server)
		labtest.Must(t, err)
		body, err := io.ReadAll(resp.Body)
		labtest.Must(t, err, resp.Body.Close())
		seen := netip.MustParseAddrPort(string(body)).Addr().String()
		if seen != "10.1.0.2" && seen != "fd01::2" {
			t.Errorf("server %s saw %s", server, seen)
		}
	}
}

// namespace names the network namespace of the calling thread.
func namespace(t *testing.T) string {
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return name
}

// TestThreads makes sure that no thread stays in a host after Do, also when f ends its goroutine.
func TestThreads(t *testing.T) {
	labtest.Need(t)
	home := namespace(t)
	h := labtest.NewHost(t, "h")
	inner := labtest.NewHost(t, "inner")
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			_ = h.Do(func() error {
				outer := namespace(t)
				if outer == home {
					t.Error("Do ran outside the host")
				}
				_ = inner.Do(func() error {
					if n := namespace(t); n == home || n == outer {
						t.Error("nested Do ran in the wrong host")
					}
					return nil
				})
				if i%2 == 0 {
					runtime.Goexit()
				}
				return nil
			})
			if i%2 == 0 {
				t.Error("Goexit was not passed on")
			}
		})
	}
	group.Wait()
	for range 100 {
		group.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if n := namespace(t); n != home {
				t.Errorf("a thread stayed in %s", n)
			}
		})
	}
	group.Wait()
	want := errors.New("as is")
	if err := h.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do returned %v", err)
	}
}

// TestStart runs a program in a host.
func TestStart(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "h")
	cmd := h.Command(t.Context(), "cat", "/proc/self/net/dev")
	var out strings.Builder
	cmd.Stdout = &out
	labtest.Must(t, h.SetDown("lo"), h.SetUp("lo"), h.Start(cmd), cmd.Wait())
	if !strings.Contains(out.String(), "lo:") || strings.Contains(out.String(), "eth0:") {
		t.Errorf("the program saw\n%s", &out)
	}

	ctx, cancel := context.WithCancel(t.Context())
	sleeper := h.Command(ctx, "sleep", "60")
	labtest.Must(t, h.Start(sleeper))
	cancel()
	if err := sleeper.Wait(); err == nil {
		t.Error("a cancelled program ended well")
	}
}

// TestErrors makes sure that a message names the host and the interface.
func TestErrors(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "castle")
	err := h.SetUp("eth7")
	if err == nil || !strings.Contains(err.Error(), "eth7") || !strings.Contains(err.Error(), "castle") {
		t.Errorf("got %v", err)
	}
}

// TestScratch makes sure that the scratch directory is empty and writable.
func TestScratch(t *testing.T) {
	labtest.Need(t)
	dir, err := lab.Scratch()
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, unix.Unmount(dir, 0)) })
	entries, err := os.ReadDir(dir)
	labtest.Must(t, err, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	if len(entries) != 0 {
		t.Errorf("%s holds %v", dir, entries)
	}
}
