package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore/dir"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// hangingDriver is a driver that hangs, or fails, when told to.
type hangingDriver struct {
	gate chan struct{} // Apply takes a token
	fail error
}

func (d *hangingDriver) Name() string { return "test" }

func (d *hangingDriver) Apply(context.Context, *compile.Plan) error {
	<-d.gate
	return d.fail
}

func (d *hangingDriver) Observe(context.Context) (int, error) { return 0, nil }

// listener is a supervisor that keeps what it was told.
type listener struct {
	mu   sync.Mutex
	told []string
}

func (l *listener) tell(states ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, states...)
}

func (l *listener) hear() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.told
	l.told = nil
	return told
}

// supervised runs an agent's loop over a driver, with what tells a supervisor of it.
func supervised(t *testing.T, d *hangingDriver, l *listener) (*Agent, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	a := &Agent{Core: &Core{},
		loop: reconcile.New(reconcile.Options{Drivers: []reconcile.Driver{d}, Log: slog.New(slog.DiscardHandler)})}
	to := supervisor{watchdog: 30 * time.Second, tell: l.tell}
	go a.loop.Run(ctx)
	go a.report(ctx, to)
	go a.heartbeat(ctx, to)
	return a, cancel
}

func (a *Agent) publish(version uint64, faults ...model.Fault) {
	s := dir.State{Snapshot: &model.Snapshot{}, Version: version, Faults: faults}
	a.resources.set(s)
	a.loop.SetSnapshot(s.Snapshot, version)
	a.loop.SetLocal(model.Local{Name: "node"})
}

func TestSupervisorHearsTheTruth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, l := &hangingDriver{gate: make(chan struct{}, 1)}, &listener{}
		a, cancel := supervised(t, d, l)
		expect := func(when string, want ...string) {
			t.Helper()
			told := slices.DeleteFunc(l.hear(), func(s string) bool { return s == "WATCHDOG=1" })
			if diff := cmp.Diff(want, told); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		expect("at first", "STATUS=not ready: no valid resources were read yet")
		d.fail = errors.Join(errors.New("one"), errors.New("two"))
		d.gate <- struct{}{}
		a.publish(1)
		synctest.Wait()
		told := l.hear()
		if last := told[len(told)-1]; last != "STATUS=not ready: test: one two" {
			t.Errorf("after an error: %q", told)
		}
		d.fail = nil
		d.gate <- struct{}{}
		time.Sleep(5 * time.Second)
		expect("after the first success", "READY=1", "STATUS=ready; pools in force: 0")
		a.publish(2, model.Fault{Message: "some fault"})
		d.gate <- struct{}{}
		told = l.hear()
		if all := strings.Join(told, "\n"); !strings.HasSuffix(all, "hold changes back (1): some fault") || strings.Contains(all, "READY=1") {
			t.Errorf("after a change: %q", told)
		}
		cancel()
		expect("at the end", "STOPPING=1", "STATUS=stopping; the rules in the kernel stay")
	})
}

func TestWatchdogStarvesWhereADriverHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, l := &hangingDriver{gate: make(chan struct{})}, &listener{}
		a, cancel := supervised(t, d, l)
		defer cancel()
		beats := func(during time.Duration) (n int) {
			t.Helper()
			l.hear()
			time.Sleep(during)
			for _, s := range l.hear() {
				if s == "WATCHDOG=1" {
					n++
				}
			}
			return n
		}
		healthz := func(want int) {
			t.Helper()
			w := httptest.NewRecorder()
			a.healthHandler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
			if w.Code != want {
				t.Errorf("/healthz: %d %s, want %d", w.Code, w.Body, want)
			}
		}
		if n := beats(time.Minute); n < 5 {
			t.Errorf("%d heartbeats in a minute, want one every 10 s", n)
		}
		healthz(http.StatusOK)
		a.publish(1)
		if n := beats(time.Minute); n > 0 {
			t.Errorf("%d heartbeats while a driver hangs", n)
		}
		healthz(http.StatusOK) // a large change may take as long
		if n := beats(time.Hour); n > 0 {
			t.Errorf("%d heartbeats while a driver hangs", n)
		}
		healthz(http.StatusServiceUnavailable)
		close(d.gate)
		if n := beats(time.Minute); n < 5 {
			t.Errorf("%d heartbeats in the minute after the driver went on", n)
		}
		healthz(http.StatusOK)
	})
}
