package agent

import (
	"context"
	"encoding/binary"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// applied is a driver of NAT that has applied every plan.
type applied struct{}

func (applied) Name() string                               { return natDriver{}.Name() }
func (applied) Apply(context.Context, *compile.Plan) error { return nil }
func (applied) Observe(context.Context) (int, error)       { return 0, nil }

// unreadable makes the kernel refuse to list what it is asked for by messages of a kind.
type unreadable struct {
	nfnetlink.Socket
	kind uint16
}

func (u unreadable) Send(b []byte) error {
	if binary.NativeEndian.Uint16(b[4:]) == u.kind {
		return unix.EIO
	}
	return u.Socket.Send(b)
}

// TestPodsStartWithoutRoutes: what keeps routes to pods from the kernel keeps no other pod from starting; where it is not known
// which links need rules, none starts.
func TestPodsStartWithoutRoutes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		kind   uint16
		stands bool
	}{{"routes", unix.RTM_GETROUTE, true}, {"links", unix.RTM_GETLINK, false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log := slog.New(slog.DiscardHandler)
			driver, err := links.New(links.Options{Log: log, NetNS: labtest.NewHost(t, "node").FD(),
				Wrap: func(s nfnetlink.Socket) nfnetlink.Socket { return unreadable{s, c.kind} }})
			labtest.Must(t, err)
			defer driver.Close()
			a := &Agent{log: log, network: &network{links: driver},
				loop: reconcile.New(reconcile.Options{Drivers: []reconcile.Driver{applied{}, linksDriver{driver}}, Log: log, RetryMin: time.Hour})}
			ended, cancelled := context.WithCancel(t.Context())
			cancelled()
			if err := a.stands(ended, 0); err == nil {
				t.Error("the rules stand before the first plan")
			}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); a.loop.Run(ctx) }()
			defer func() { stop(); <-done }()
			a.loop.SetSnapshot(&model.Snapshot{}, 7)
			a.loop.SetLocal(model.Local{Name: "node", Network: true})
			for s, changed := a.loop.State(); s.Drivers[1].Failures == 0; s, changed = a.loop.State() {
				<-changed
			}
			if err := a.stands(ended, 8); err == nil || !strings.Contains(err.Error(), "newest resources") {
				t.Errorf("a newer version: %v", err)
			}
			switch err := a.stands(ended, 7); {
			case c.stands && err != nil:
				t.Errorf("pods do not start: %v", err)
			case !c.stands && (err == nil || !strings.Contains(err.Error(), "workloads: ") || !strings.Contains(err.Error(), unix.EIO.Error())):
				t.Errorf("pods start without rules, or are not told why: %v", err)
			}
		})
	}
}
