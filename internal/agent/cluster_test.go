package agent

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// bigCluster counts what it is told.
type bigCluster struct {
	reports []v1alpha1.SallyportNodeStatus
	counted int

	untainted int
}

func (c *bigCluster) Report(_ context.Context, _ string, s v1alpha1.SallyportNodeStatus) error {
	c.reports = append(c.reports, s)
	return nil
}

func (c *bigCluster) Renew(context.Context, string) (bool, error) { return false, nil }

func (c *bigCluster) Nodes(context.Context) (int, error) { c.counted++; return 5000, nil }

func (c *bigCluster) Untaint(context.Context, []int) error { c.untainted++; return nil }

// makeReady runs an agent's loop until the test ends, and waits until it holds a state.
func makeReady(t *testing.T, c *Core, s datastore.State) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Loop.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	c.resources.set(s)
	c.Loop.SetSnapshot(s.Snapshot, s.Version)
	c.Loop.SetLocal(model.Local{Name: "n"})
	for state, changed := c.Loop.State(); ; state, changed = c.Loop.State() {
		if ok, _ := state.Ready(); ok && state.Version == s.Version {
			return
		}
		<-changed
	}
}

// TestReportAtStart starts an agent of a big cluster: it says nothing while it starts, and then, as all others may have
// started with it, waits its turn and writes once.
func TestReportAtStart(t *testing.T) {
	loop := reconcile.New(reconcile.Options{Log: slog.New(slog.DiscardHandler)})
	to := &bigCluster{}
	c := &Core{Loop: loop, Log: slog.New(slog.DiscardHandler)}
	r := &reporter{core: c, cluster: to, pacing: pacing{nodes: 1}}
	start := time.Now()
	if next := r.step(t.Context(), start); next != start.Add(unreadyAfter) || to.counted > 0 {
		t.Errorf("while it starts it asked %d times, and looks again after %s", to.counted, next.Sub(start))
	}
	makeReady(t, c, datastore.State{Snapshot: &model.Snapshot{}, Version: 1, Fresh: true})
	now, last := start, time.Time{}
	for len(to.reports) == 0 && now.Before(start.Add(time.Hour)) {
		last = now
		now = r.step(t.Context(), now)
	}
	const most = 5000 * time.Second / writesPerSecond
	if len(to.reports) != 1 || !isReady(to.reports[0]) || to.counted != 1 {
		t.Errorf("it wrote %+v and counted %d times", to.reports, to.counted)
	}
	if waited := last.Sub(start); waited <= 0 || waited > most+time.Second {
		t.Errorf("it wrote after %s, want up to %s", waited, most)
	}
}

// TestReportIsOfWhatWasHeard starts an agent with what it had saved, while the API is not heard of: for a while it says
// nothing, since it does not know how far the API was followed, and leaves the start-up taint.
func TestReportIsOfWhatWasHeard(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		loop := reconcile.New(reconcile.Options{Log: slog.New(slog.DiscardHandler)})
		to := &bigCluster{}
		c := &Core{Loop: loop, Log: slog.New(slog.DiscardHandler)}
		r := &reporter{core: c, cluster: to, pacing: pacing{nodes: 1}}
		makeReady(t, c, datastore.State{Snapshot: &model.Snapshot{}, Version: 1, Fresh: fresh, Self: datastore.Self{Taints: []int{0}}})
		start := time.Now()
		next := r.step(t.Context(), start)
		if (to.untainted > 0) != fresh || (to.counted > 0) != fresh || !fresh && next != start.Add(freshWithin) {
			t.Errorf("fresh %t: %d taints removed, %d reports, next step in %s", fresh, to.untainted, len(to.reports), next.Sub(start))
		}
		for now := next; len(to.reports) == 0 && now.Before(start.Add(2*time.Minute)); now = next {
			next = r.step(t.Context(), now)
		}
		if len(to.reports) == 0 || to.untainted == 0 {
			t.Errorf("fresh %t: it never says anything", fresh)
		}
	}
}

// TestExceptionsAreBounded: of pools that are not held as they are, a SallyportNode names no more than its definition allows,
// and says how many more there are.
func TestExceptionsAreBounded(t *testing.T) {
	t.Parallel()
	var in []datastore.Exception
	for i := range maxExceptions {
		kind := datastore.KindIPPool
		if i%2 == 0 {
			kind = datastore.KindNATConfiguration
		}
		in = append(in, datastore.Exception{Key: datastore.Key{Kind: kind, Name: strconv.Itoa(i)}, Generation: int64(i), Reason: strings.Repeat("ä", maxExplanation+1)})
	}
	out, more := exceptions(in)
	if len(out) != maxExceptions || more != 0 {
		t.Errorf("of %d there are %d, and %d more", maxExceptions, len(out), more)
	}
	last := out[maxExceptions-1]
	if last.Kind != datastore.KindIPPool || last.Name != strconv.Itoa(maxExceptions-1) || last.Generation != maxExceptions-1 || utf8.RuneCountInString(last.Reason) != maxExplanation {
		t.Errorf("the last is %+v", last)
	}
	out, more = exceptions(append(in, in...))
	if len(out) != maxExceptions || more != maxExceptions {
		t.Errorf("of %d there are %d, and %d more", 2*maxExceptions, len(out), more)
	}
}
