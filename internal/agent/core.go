package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// Core is the part of an agent that knows no kernel: what the datastore reads is handed to the loop, and where that
// is a cluster's, it is told how the node stands. Every field but BeatEvery and Problems is required.
type Core struct {
	Store   datastore.Store
	Loop    *reconcile.Loop
	Version string
	Log     *slog.Logger
	// BootID names the boot of this machine, as the kernel does; for a cluster.
	BootID string
	// BeatEvery is the time between two heartbeats in the API of a cluster, give or take a quarter; 0: HeartbeatEvery.
	BeatEvery time.Duration
	// Problems are what is known to be wrong on the node; nil: nobody looks.
	Problems func() []diagnose.Problem
	// BGP is how BGP stands on the node, or nil; Turned has a token when that may be something else. Nil: the node speaks none.
	BGP    func(context.Context) (*v1alpha1.NodeBGP, error)
	Turned <-chan struct{}
	// Heard is told each state of the datastore before the loop is. It does not wait. Nil: only the loop needs it.
	Heard func(datastore.State)

	resources  resources
	complaints complaints
}

// Run works until the context ends, and returns an error if the datastore cannot go on. The loop is for others to
// run.
func (c *Core) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if to, ok := c.Store.(cluster); ok {
		g.Go(func() error { c.reportCluster(ctx, to); return nil })
	}
	g.Go(func() error {
		return c.Store.Run(ctx, func(s datastore.State) {
			c.resources.set(s)
			if c.Heard != nil {
				c.Heard(s)
			}
			c.Loop.SetSnapshot(s.Snapshot, s.Version)
		})
	})
	return g.Wait()
}

// resources holds what the datastore published last.
type resources struct {
	mu    sync.Mutex
	state datastore.State
	next  chan struct{} // closed and replaced by set; nil: nobody has asked for it
}

func (r *resources) set(s datastore.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = s
	if r.next != nil {
		close(r.next)
		r.next = nil
	}
}

func (r *resources) get() datastore.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// changed is closed when there is something newer than what get returns.
func (r *resources) changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = make(chan struct{})
	}
	return r.next
}
