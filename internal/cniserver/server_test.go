package cniserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
)

// network injects what the real one seldom does. A nil function succeeds.
type network struct {
	add func(ctx context.Context, r *cni.Request, ns, sock *os.File) (*cni.Result, error)
	any func(ctx context.Context, verb string) error
}

func (n network) Add(ctx context.Context, r *cni.Request, ns, sock *os.File) (*cni.Result, error) {
	if n.add == nil {
		return &cni.Result{Host: cni.Link{Name: "sly0"}}, nil
	}
	return n.add(ctx, r, ns, sock)
}
func (n network) Check(ctx context.Context, _ *cni.Request, _ *os.File) error {
	return n.other(ctx, cni.Check)
}
func (n network) Delete(ctx context.Context, _ *cni.Request) error { return n.other(ctx, cni.Del) }
func (n network) GC(ctx context.Context, _ *cni.Request) error     { return n.other(ctx, cni.GC) }
func (n network) Status(ctx context.Context) error                 { return n.other(ctx, cni.Status) }
func (n network) other(ctx context.Context, verb string) error {
	if n.any == nil {
		return nil
	}
	return n.any(ctx, verb)
}

// start serves a network, and returns the path of its socket and what ends it.
func start(t *testing.T, n Network) (path string, end func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "cni.sock")
	ctx, cancel := context.WithCancel(t.Context())
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- Serve(ctx, l, n, slog.New(slog.DiscardHandler)) }()
	ended := false
	end = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-result
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return path, end
}

func request(verb string) *cni.Request {
	r := &cni.Request{Version: cni.Version, Verb: verb, Network: "net"}
	if verb != cni.Status && verb != cni.GC {
		r.ContainerID, r.Interface = "c1", "eth0"
	}
	return r
}

// ask sends a request with as many descriptors as it needs.
func ask(t *testing.T, path string, r *cni.Request) (*cni.Answer, error) {
	t.Helper()
	var files []*os.File
	for range cni.Files(r.Verb) {
		f, err := os.Open("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	return cni.Ask(t.Context(), path, r, files...)
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	var seen atomic.Value
	path, _ := start(t, network{any: func(_ context.Context, verb string) error { seen.Store(verb); return nil }})
	for _, verb := range []string{cni.Add, cni.Check, cni.Del, cni.GC, cni.Status} {
		a, err := ask(t, path, request(verb))
		if err != nil || a.Error != nil || (a.Result != nil) != (verb == cni.Add) {
			t.Errorf("%s was answered %+v, %v", verb, a, err)
		}
		if verb != cni.Add && seen.Load() != verb {
			t.Errorf("%s was taken for %v", verb, seen.Load())
		}
	}
}

func TestErrorsKeepTheirCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err  error
		want cni.Error
	}{
		{&cni.Error{Code: 51, Message: "m", Details: "d"}, cni.Error{Code: 51, Message: "m", Details: "d"}},
		{fmt.Errorf("adding: %w", &cni.Error{Code: 11, Message: "m"}), cni.Error{Code: 11, Message: "m"}},
		{errors.New("no luck"), cni.Error{Code: 100, Message: "no luck"}},
		{fmt.Errorf("asking the API: %w", context.DeadlineExceeded), cni.Error{Code: 11, Message: "asking the API: context deadline exceeded"}},
	}
	for _, tt := range tests {
		path, _ := start(t, network{any: func(context.Context, string) error { return tt.err }})
		a, err := ask(t, path, request(cni.Status))
		if err != nil || a.Error == nil || *a.Error != tt.want {
			t.Errorf("%v was answered %+v, %v", tt.err, a, err)
		}
	}
}

func TestAnotherVersionIsTold(t *testing.T) {
	t.Parallel()
	path, _ := start(t, network{})
	r := request(cni.Del)
	r.Version = 7
	a, err := ask(t, path, r)
	if err != nil || a.Error == nil || a.Error.Code != cni.CodeProtocol || !strings.Contains(a.Error.Message, "install-cni") {
		t.Errorf("was answered %+v, %v", a, err)
	}
}

// The runtime sends a DEL once it has given up an ADD, whose work must end then.
func TestAPluginThatHangsUpEndsItsADD(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan struct{})
	path, _ := start(t, network{add: func(ctx context.Context, _ *cni.Request, _, _ *os.File) (*cni.Result, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := cni.Ask(ctx, path, request(cni.Add), f, f); !errors.Is(err, cni.ErrLost) {
		t.Errorf("said %v", err)
	}
	await(t, ended, "the ADD goes on")
}

// A pod goes also where those that wait for an address take all the turns.
func TestRemovalsDoNotWaitForADDs(t *testing.T) {
	t.Parallel()
	var inside, most atomic.Int32
	full, release := make(chan struct{}), make(chan struct{})
	fill := sync.OnceFunc(func() { close(full) }) // they may be as many again once some have gone
	path, _ := start(t, network{add: func(context.Context, *cni.Request, *os.File, *os.File) (*cni.Result, error) {
		n := inside.Add(1)
		defer inside.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == atWork {
			fill()
		}
		<-release
		return &cni.Result{}, nil
	}})
	const adds = atWork + 20
	done := make(chan error, adds)
	for range adds {
		go func() {
			_, err := ask(t, path, request(cni.Add))
			done <- err
		}()
	}
	await(t, full, "fewer ADDs are at work than may be")
	if a, err := ask(t, path, request(cni.Del)); err != nil || a.Error != nil {
		t.Errorf("DEL was answered %+v, %v", a, err)
	}
	close(release)
	for range adds {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if most.Load() != atWork {
		t.Errorf("%d requests were at work at once, want %d", most.Load(), atWork)
	}
}

func await(t *testing.T, c <-chan struct{}, says string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal(says)
	}
}

func TestDescriptorsAreClosed(t *testing.T) { //nolint:paralleltest // it counts the descriptors of the process
	path, _ := start(t, network{add: func(context.Context, *cni.Request, *os.File, *os.File) (*cni.Result, error) {
		return nil, errors.New("no")
	}})
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if _, err := ask(t, path, request(cni.Add)); err != nil {
		t.Fatal(err)
	}
	before := count()
	for range 50 {
		if _, err := ask(t, path, request(cni.Add)); err != nil {
			t.Fatal(err)
		}
	}
	if after := count(); after > before+5 { // the last connection may just be closing
		t.Errorf("%d descriptors are open, %d were before 50 requests", after, before)
	}
}

// One connection that says nothing, or rubbish, harms no other.
func TestRubbish(t *testing.T) {
	t.Parallel()
	path, _ := start(t, network{})
	for _, text := range []string{"", "\x00", "\x00\x00\x00\x02{}", "\xff\xff\xff\xffx", "GET / HTTP/1.1\r\n\r\n"} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := ask(t, path, request(cni.Status)); err != nil || a.Error != nil {
		t.Errorf("was answered %+v, %v", a, err)
	}
}

// What is at work when the agent ends is finished, and answered.
func TestTheEndWaits(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}), make(chan struct{})
	path, end := start(t, network{any: func(context.Context, string) error { close(began); <-release; return nil }})
	answered := make(chan error, 1)
	go func() {
		a, err := ask(t, path, request(cni.Del))
		if err == nil && a.Error != nil {
			err = a.Error
		}
		answered <- err
	}()
	<-began
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	for { // no new request is taken once the listener is closed
		if _, err := ask(t, path, request(cni.Status)); errors.Is(err, cni.ErrAway) {
			break
		}
	}
	close(release)
	if err := errors.Join(<-answered, <-ended); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestMayAsk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		user uint32
		own  int
		may  bool
	}{{0, 0, true}, {0, 1000, true}, {1000, 1000, true}, {1000, 0, false}, {1234, 1000, false}} {
		if err := mayAsk(tt.user, tt.own); (err == nil) != tt.may {
			t.Errorf("user %d asks the agent of user %d: %v", tt.user, tt.own, err)
		}
	}
}

func TestOnlyRootIsAnswered(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // only root becomes another user; TestMayAsk has the decision
	}
	path, _ := start(t, network{})
	for _, p := range []string{path, filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(p, 0o777); err != nil { // the mode, which already keeps others out, is not what is tested
			t.Fatal(err)
		}
	}
	dialed := make(chan net.Conn)
	go func() {
		defer close(dialed)
		runtime.LockOSThread() // and never unlocked: the thread ends as another user
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 1234, 1234, 1234); errno != 0 {
			t.Error(errno)
			return
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
			return
		}
		dialed <- c
	}()
	c, ok := <-dialed
	if !ok {
		t.FailNow()
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(b), "not user 1234") {
		t.Errorf("was answered %q, %v", b, err)
	}
}
