package agent

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"
)

// serving starts serve on a free port, and returns the address, what ends it and what it returned.
func serving(t *testing.T, h http.Handler) (address string, stop context.CancelFunc, done <-chan error) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, h) }()
	return l.Addr().String(), cancel, ended
}

// ends waits for serve, whose end must be no error.
func ends(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("stopping is no error, but: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still serving 10 s after the context ended")
	}
}

func TestStoppingIsNoErrorWhileSomebodyIsConnected(t *testing.T) {
	t.Parallel()
	address, stop, done := serving(t, http.NotFoundHandler())
	// A probe that connects and says nothing.
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop()
	ends(t, done)
}

func TestStoppingIsNoErrorWhileACallIsUnderWay(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	defer close(leave)
	address, stop, done := serving(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-leave // slower than any patience
	}))
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil)
		if err != nil {
			return
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-entered
	stop()
	ends(t, done)
}
