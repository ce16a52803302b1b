package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/internal/cniserver"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
	"github.com/sallyport/sallyport/internal/workload"
)

// network is what an agent has that is the pod network.
type network struct {
	links    *links.Driver
	manager  *workload.Manager
	socket   net.Listener        // of the CNI plugin
	log      *slog.Logger
}

// openNetwork opens the drivers of the pod network. It changes nothing in the kernel.
func openNetwork(ctx context.Context, a *Agent) (*network, error) {
	n := &network{log: a.log}
	var err error
	if n.links, err = links.New(links.Options{Log: a.log, Gone: func(h links.Held) { n.manager.Gone(h) }}); err != nil {
		return nil, err
	}
	opts := workload.Options{Node: a.cfg.NodeName, Links: n.links, Random: rand.Uint64, Log: a.log,
		Owns:   func(b []model.Block) { a.local.set(func(l *model.Local) { l.Blocks = b }) },
		Stands: a.stands,
		Forget: func(ctx context.Context, of func(netip.Addr) bool) error { return forget(ctx, a.table, of) }}
	opts.Claims, _ = a.store.(datastore.Claims)
	opts.Pods, _ = a.store.(datastore.Pods)
	n.manager = workload.New(opts)
	if n.socket, err = cniserver.Listen(ctx, a.cfg.CNISocket); err != nil {
		return nil, errors.Join(err, n.links.Close())
	}
	return n, nil
}

// close lets go of all that openNetwork has opened.
func (n *network) close() error {
	if err := n.socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // run has closed it, if it ran
		return errors.Join(err, n.links.Close())
	}
	return n.links.Close()
}

// run serves the CNI plugin until the context ends.
func (n *network) run(ctx context.Context, a *Agent) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { n.manager.Run(ctx); return nil })
	g.Go(func() error { return cniserver.Serve(ctx, n.socket, n.manager, n.log) })
	return g.Wait()
}

// stands waits until the kernel holds the rules of a version of the snapshot, or a newer one.
func (a *Agent) stands(ctx context.Context, version uint64) error {
	for {
		s, changed := a.loop.State()
		ready, why := s.Ready()
		if ready && s.Version >= version {
			return nil
		}
		if ready {
			why = "the newest resources are not programmed yet"
		}
		select {
		case <-ctx.Done():
			return errors.New(why)
		case <-changed:
		}
	}
}

// forget ends the flows that one of these addresses has begun or has answered.
func forget(ctx context.Context, table *conntrack.Table, of func(netip.Addr) bool) error {
	_, err := table.Walk(ctx, func() conntrack.Visit {
		return func(f *conntrack.Flow) conntrack.Action {
			if of(f.Original.Source.Addr()) || of(f.Original.Destination.Addr()) || of(f.Reply.Source.Addr()) || of(f.Reply.Destination.Addr()) {
				return conntrack.End
			}
			return conntrack.Leave
		}
	})
	return err
}

// local is what the node knows of itself, put together from those who know a part of it.
type local struct {
	loop *reconcile.Loop

	mu   sync.Mutex
	now  model.Local
	sent *model.Local // what the loop has; nil before the interfaces are known
}

// set changes a part of it, and hands it on once the interfaces are known.
func (l *local) set(change func(*model.Local)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.now)
	if l.now.Interfaces == nil || l.sent != nil && reflect.DeepEqual(*l.sent, l.now) {
		return
	}
	now := l.now
	l.sent = &now
	l.loop.SetLocal(now)
}

func newLocal(loop *reconcile.Loop, node string, network bool) *local {
	return &local{loop: loop, now: model.Local{Name: node, Network: network}}
}

// drivers are those that the reconcile loop drives.
func (n *network) drivers() []reconcile.Driver {
	return []reconcile.Driver{linksDriver{n.links}}
}

// remove is what removes all that the pod network has put into the kernel.
func (n *network) remove() []func(context.Context) error {
	return []func(context.Context) error{n.links.Cleanup}
}

// linksDriver gives the driver of workloads its part of the plan.
type linksDriver struct{ *links.Driver }

func (linksDriver) Name() string { return "workloads" }

func (d linksDriver) Apply(ctx context.Context, p *compile.Plan) error {
	return d.Driver.Apply(ctx, p.Workloads)
}
