package agent

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// bigCluster counts what it is told.
type bigCluster struct {
	reports []v1alpha1.NodeStatusStatus
	counted int
}

func (c *bigCluster) Report(_ context.Context, _ string, s v1alpha1.NodeStatusStatus) error {
	c.reports = append(c.reports, s)
	return nil
}

func (c *bigCluster) Nodes(context.Context) (int, error) { c.counted++; return 5000, nil }

func (c *bigCluster) Untaint(context.Context, []int) error { return nil }

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
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); loop.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	s := datastore.State{Snapshot: &model.Snapshot{}, Version: 1}
	c.resources.set(s)
	loop.SetSnapshot(s.Snapshot, s.Version)
	loop.SetLocal(model.Local{Name: "n"})
	for state, changed := loop.State(); ; state, changed = loop.State() {
		if ok, _ := state.Ready(); ok && state.Version == 1 {
			break
		}
		<-changed
	}
	now, last := start, time.Time{}
	for len(to.reports) == 0 && now.Before(start.Add(time.Hour)) {
		last = now
		now = r.step(t.Context(), now)
	}
	const most = 5000 * time.Second / writesPerSecond
	if len(to.reports) != 1 || !to.reports[0].Ready || to.counted != 1 {
		t.Errorf("it wrote %+v and counted %d times", to.reports, to.counted)
	}
	if waited := last.Sub(start); waited <= 0 || waited > most+time.Second {
		t.Errorf("it wrote after %s, want up to %s", waited, most)
	}
}
