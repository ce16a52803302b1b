package agent

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/driver/bgp"
	"github.com/sallyport/sallyport/internal/driver/route"
	"github.com/sallyport/sallyport/internal/waiting"
)

// speaker speaks BGP for the pod network, and has what it learns put into the kernel.
type speaker struct {
	driver *bgp.Driver
	keeper *route.Keeper
	news   chan struct{} // of capacity 1: the driver may have learned something
	turned chan struct{} // likewise: how sessions stand may be something else
}

// openSpeaker opens the drivers. Nothing listens, and nothing changes in the kernel, before there are peers.
func openSpeaker(ctx context.Context, routes *route.Driver, passwords datastore.Passwords, log *slog.Logger) (*speaker, error) {
	keeper, err := route.NewKeeper(route.Options{Log: log, Beside: routes})
	if err != nil {
		return nil, err
	}
	held, err := keeper.Held(ctx)
	if err != nil {
		return nil, errors.Join(err, keeper.Close())
	}
	s := &speaker{keeper: keeper, news: make(chan struct{}, 1), turned: make(chan struct{}, 1)}
	s.driver = bgp.New(bgp.Options{Password: passwords.Password, Ready: routes.Stands, Held: held, Changed: func() { waiting.Signal(s.news) }, Turned: func() { waiting.Signal(s.turned) }, Log: log})
	return s, nil
}

// run puts what is learned into the kernel until the context ends. All of it stays then.
func (s *speaker) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.keeper.Run(ctx) })
	g.Go(func() error { s.driver.Run(ctx); return nil })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-s.news:
			}
			learned, complete := s.driver.Learned()
			routes := make([]route.Learned, 0, len(learned))
			for _, r := range learned {
				routes = append(routes, route.Learned{Prefix: r.Prefix, Hops: r.Hops})
			}
			s.keeper.Set(routes, complete)
		}
	})
	return g.Wait()
}

// close ends the sessions without a message to the peers, once run has ended and keeps no route any more: the kernel and the peers keep
// their routes until an agent runs again.
func (s *speaker) close() error { return errors.Join(s.driver.Close(), s.keeper.Close()) }

// speakerDriver gives the driver of BGP its part of the plan.
type speakerDriver struct{ *bgp.Driver }

func (speakerDriver) Name() string { return "bgp" }

func (d speakerDriver) Apply(ctx context.Context, p *compile.Plan) error {
	return d.Driver.Apply(ctx, p.BGP)
}
