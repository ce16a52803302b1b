package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/internal/cniserver"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/driver/route"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
	"github.com/sallyport/sallyport/internal/waiting"
	"github.com/sallyport/sallyport/internal/workload"
)

// network is what an agent has that is the pod network.
type network struct {
	links    *links.Driver
	routes   *route.Driver
	speaker  *speaker
	manager  *workload.Manager
	announce datastore.Announcer // nil without a cluster
	socket   net.Listener        // of the CNI plugin
	log      *slog.Logger
}

// clusterNetwork is what the store of a cluster does for the pod network.
type clusterNetwork interface {
	datastore.Claims
	datastore.Pods
	datastore.Announcer
}

// The store of a cluster has all of it: without it, an agent would give out addresses as if it were alone.
var _ clusterNetwork = (*kube.Store)(nil)

// openNetwork opens the drivers of the pod network. It changes nothing in the kernel.
func openNetwork(ctx context.Context, a *Agent) (*network, error) {
	n := &network{log: a.log}
	var err error
	if n.links, err = links.New(links.Options{Log: a.log, Gone: func(h links.Held) { n.manager.Gone(h) }}); err != nil {
		return nil, err
	}
	if n.routes, err = route.New(route.Options{Log: a.log}); err != nil {
		return nil, errors.Join(err, n.links.Close())
	}
	if n.speaker, err = openSpeaker(ctx, n.routes, a.store, a.log); err != nil {
		return nil, errors.Join(err, n.routes.Close(), n.links.Close())
	}
	opts := workload.Options{Node: a.cfg.NodeName, Links: n.links, Random: rand.Uint64, Log: a.log,
		Owns:   func(b []model.Block) { a.local.set(func(l *model.Local) { l.Blocks = b }) },
		Stands: a.stands,
		Forget: func(ctx context.Context, of func(netip.Addr) bool) error { return forget(ctx, a.table, of) }}
	if s, ok := a.store.(clusterNetwork); ok {
		opts.Claims, opts.Pods, opts.Tunnels, n.announce = s, s, n.routes.Tunnels, s
	}
	n.manager = workload.New(opts)
	if n.socket, err = listenSocket(ctx, a.cfg.CNISocket, "--cni-socket", 0o600); err != nil {
		return nil, errors.Join(err, n.speaker.close(), n.routes.Close(), n.links.Close())
	}
	return n, nil
}

// close closes the drivers and the socket.
func (n *network) close() error {
	err := n.socket.Close()
	if errors.Is(err, net.ErrClosed) { // run has closed it
		err = nil
	}
	return errors.Join(err, n.speaker.close(), n.routes.Close(), n.links.Close())
}

// run serves the CNI plugin until the context ends.
func (n *network) run(ctx context.Context, a *Agent) error {
	g, ctx := errgroup.WithContext(ctx)
	managing, stop := context.WithCancel(context.WithoutCancel(ctx)) // requests at work are finished
	g.Go(func() error { n.manager.Run(managing); return nil })
	g.Go(func() error {
		defer stop()
		return cniserver.Serve(ctx, n.socket, n.manager, n.log)
	})
	g.Go(func() error { return n.speaker.run(ctx) })
	if n.announce != nil {
		g.Go(func() error { n.tunnels(ctx, a); return nil })
	}
	return g.Wait()
}

// tunnelsAgain is the pause after this node could not be announced.
const tunnelsAgain = 5 * time.Second

// tunnels gives the VXLAN devices of this node their addresses, and tells the other nodes how to reach it, whenever the plan
// asks for something else.
func (n *network) tunnels(ctx context.Context, a *Agent) {
	var said string
	for ctx.Err() == nil {
		s, changed := a.loop.State()
		if s.Plan == nil {
			waiting.Sleep(ctx, changed, time.Hour)
			continue
		}
		err := n.tunnel(ctx, a, s.Plan)
		if err == nil {
			said = ""
			waiting.Sleep(ctx, changed, time.Hour)
			continue
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			n.log.Error("other nodes were not told how to reach this one; it is tried again", "error", err, "retry_in", tunnelsAgain)
		}
		waiting.Sleep(ctx, nil, tunnelsAgain)
	}
}

func (n *network) tunnel(ctx context.Context, a *Agent, plan *compile.Plan) error {
	tunnels, err := n.manager.Tunnels(ctx, plan.Network.WantsTunnel4, plan.Network.WantsTunnel6)
	if err != nil {
		err = fmt.Errorf("giving this node a tunnel address: %w", err)
	}
	a.local.set(func(l *model.Local) { l.Tunnels = tunnels })
	var addresses []netip.Addr
	for _, address := range []netip.Addr{plan.Workloads.Node4, plan.Workloads.Node6} {
		if address.IsValid() {
			addresses = append(addresses, address)
		}
	}
	return errors.Join(err, n.announce.Announce(ctx, addresses, tunnels)) // what one family lacks, the other does without
}

// stands waits until the kernel holds the rules of a version of the snapshot, or a newer one: those that translate, and those by
// which a workload sends from its own addresses alone. A route that is not there, also one to another pod of this node, keeps
// no pod from starting.
func (a *Agent) stands(ctx context.Context, version uint64) error {
	for {
		s, changed := a.loop.State()
		ready, why := s.ReadyOf(natDriver{}.Name())
		if ready && s.Version < version {
			ready, why = false, "the newest resources are not programmed yet"
		}
		if ready {
			err := a.network.links.RulesStand(&s.Plan.Workloads) // with a driver that is ready there is a plan
			if err == nil {
				return nil
			}
			why = linksDriver{}.Name() + ": " + err.Error()
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

// drivers are those that the reconcile loop drives.
func (n *network) drivers() []reconcile.Driver {
	return []reconcile.Driver{linksDriver{n.links}, routesDriver{n.routes}, speakerDriver{n.speaker.driver}} // a block is announced once its route stands
}

// remove is what removes all that the pod network has put into the kernel.
func (n *network) remove() []func(context.Context) error {
	return []func(context.Context) error{n.speaker.driver.Cleanup, n.speaker.keeper.Cleanup, n.links.Cleanup, n.routes.Cleanup}
}

// linksDriver gives the driver of workloads its part of the plan.
type linksDriver struct{ *links.Driver }

func (linksDriver) Name() string { return "workloads" }

func (d linksDriver) Apply(ctx context.Context, p *compile.Plan) error {
	return d.Driver.Apply(ctx, p.Workloads)
}

// routesDriver gives the driver of routes its part of the plan.
type routesDriver struct{ *route.Driver }

func (routesDriver) Name() string { return "routes" }

func (d routesDriver) Apply(ctx context.Context, p *compile.Plan) error {
	return d.Driver.Apply(ctx, p.Routes)
}
