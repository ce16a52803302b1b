package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// counter is a driver that counts how often it is applied. It stands for the kernel where a cleanup must fail at a
// chosen moment; test/e2e has real ones.
type counter struct{ applied chan struct{} }

func (counter) Name() string                           { return "counter" }
func (c counter) Observe(context.Context) (int, error) { return 0, nil }
func (c counter) Apply(context.Context, *compile.Plan) error {
	c.applied <- struct{}{}
	return nil
}

// cleanable is an agent that answers on a socket, and holds a plan.
type cleanable struct {
	*Agent
	socket  string
	driver  counter
	stopped atomic.Bool
	handled chan struct{} // gets a token for each request that was handled
}

// newCleanable starts an agent whose cleanup consists of these steps, on a listener that wrap makes of its own.
func newCleanable(t *testing.T, wrap func(net.Listener) net.Listener, remove ...func(context.Context) error) *cleanable {
	t.Helper()
	c := &cleanable{socket: filepath.Join(t.TempDir(), "agent.sock"), driver: counter{make(chan struct{}, 100)}, handled: make(chan struct{}, 100)}
	log := slog.New(slog.DiscardHandler)
	c.Agent = &Agent{log: log, remove: remove, loop: reconcile.New(reconcile.Options{Drivers: []reconcile.Driver{c.driver}, Log: log})}
	ctx, cancel := context.WithCancel(t.Context())
	c.stop = func() { c.stopped.Store(true); cancel() }
	l, err := new(net.ListenConfig).Listen(ctx, "unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	handler := c.socketHandler()
	var parts sync.WaitGroup
	parts.Go(func() { c.loop.Run(ctx) })
	parts.Go(func() {
		_ = serve(ctx, wrap(l), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler.ServeHTTP(w, r)
			c.handled <- struct{}{}
		}))
	})
	t.Cleanup(func() { cancel(); parts.Wait() })
	c.loop.SetLocal(model.Local{Name: "n"})
	c.loop.SetSnapshot(&model.Snapshot{Pools: []*model.Pool{{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/8"), NATOutgoing: true}}}, 1)
	within(t, c.driver.applied, "the first plan")
	return c
}

// within waits for a token.
func within(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not come within 20 s", what)
	}
}

// mustGoOn makes sure that the agent has programmed the kernel again, and does not end.
func (c *cleanable) mustGoOn(t *testing.T) {
	t.Helper()
	within(t, c.driver.applied, "the plan after the cleanup")
	if c.stopped.Load() {
		t.Error("the agent has ended")
	}
}

func as(l net.Listener) net.Listener { return l }

func TestACleanupThatSucceedsEndsTheAgent(t *testing.T) {
	t.Parallel()
	var did []string
	step := func(name string) func(context.Context) error {
		return func(context.Context) error { did = append(did, name); return nil }
	}
	c := newCleanable(t, as, step("table"), step("flows"))
	if err := NewClient(c.socket).Cleanup(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	if !c.stopped.Load() || strings.Join(did, " ") != "table flows" || len(c.driver.applied) > 0 {
		t.Errorf("ended: %t; did %v; applied %d times more", c.stopped.Load(), did, len(c.driver.applied))
	}
}

func TestAnAgentWhoseCleanupFailsGoesOn(t *testing.T) {
	t.Parallel()
	nothing := func(context.Context) error { return nil }
	for _, tc := range []struct {
		what   string
		within time.Duration
		last   func(context.Context) error
		said   string
	}{
		{"a step fails", time.Minute, func(context.Context) error { return errors.New("no such luck") }, "no such luck"},
		{"a step hangs", time.Millisecond, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, "deadline exceeded"},
		{"the last step ends too late", time.Millisecond, func(ctx context.Context) error { <-ctx.Done(); return nil }, "deadline exceeded"},
	} {
		c := newCleanable(t, as, nothing, tc.last)
		if err := NewClient(c.socket).Cleanup(t.Context(), tc.within); err == nil || !strings.Contains(err.Error(), tc.said) {
			t.Errorf("%s: said %v", tc.what, err)
		}
		c.mustGoOn(t)
	}
}

func TestACleanupWhoseCallerIsGoneIsUndone(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	c := newCleanable(t, as, func(ctx context.Context) error {
		close(entered)
		<-ctx.Done() // the caller is gone
		return nil   // and all was removed
	}, func(context.Context) error { return nil })
	ctx, hangUp := context.WithCancel(t.Context())
	go func() { <-entered; hangUp() }()
	if err := NewClient(c.socket).Cleanup(ctx, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("said %v", err)
	}
	within(t, c.handled, "the end of the request")
	c.mustGoOn(t)
}

// late is a listener whose connections reach the agent once the request is in them and the caller is gone.
type late struct {
	net.Listener
	sent    chan<- []byte   // gets what the caller has sent at first
	forward <-chan struct{} // lets the connection through
}

func (l late) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		return nil, err
	}
	l.sent <- b[:n]
	<-l.forward
	return again{c, io.MultiReader(bytes.NewReader(b[:n]), c)}, nil
}

// again is a connection of which something was read already.
type again struct {
	net.Conn
	all io.Reader
}

func (a again) Read(b []byte) (int, error) { return a.all.Read(b) }

// TestACleanupThatWasGivenUpDoesNothing gives up a request before the agent, which hangs, has looked at it.
func TestACleanupThatWasGivenUpDoesNothing(t *testing.T) {
	t.Parallel()
	sent, forward := make(chan []byte, 1), make(chan struct{})
	c := newCleanable(t, func(l net.Listener) net.Listener { return late{l, sent, forward} }, func(context.Context) error {
		t.Error("something was removed")
		return nil
	})
	ctx, giveUp := context.WithCancel(t.Context())
	var request []byte
	go func() { request = <-sent; giveUp() }()
	if err := NewClient(c.socket).Cleanup(ctx, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("said %v", err)
	}
	close(forward)
	within(t, c.handled, "the end of the request")
	if c.stopped.Load() || len(c.driver.applied) > 0 {
		t.Errorf("ended: %t; applied %d times more", c.stopped.Load(), len(c.driver.applied))
	}
	if !bytes.HasPrefix(request, []byte("POST /v1/cleanup ")) {
		t.Errorf("the request was %q", request)
	}
}
