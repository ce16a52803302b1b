package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// crowd is a fleet and the API server that it asks.
type crowd struct {
	o       options
	scope   *scope
	cluster *cluster.Cluster
	api     dynamic.Interface
	fleet   *fleet
	what    string // begins what is said of it
	out     []result
}

// crowdPools is how many pools the agents of a crowd follow.
const crowdPools = 100

// measureCrowd measures what many agents cost one API server: when all start at once, while nothing changes, after one
// change, and after the API server was away.
func measureCrowd(ctx context.Context, o options, tmp string) (out []result, err error) {
	klog.SetLogger(logr.Discard()) // a thousand clients have much to say of an API server that is away
	err = within(ctx, tmp, func(s *scope) error {
		c := &crowd{o: o, scope: s, what: fmt.Sprintf("%d agents, %d pools", o.agents, crowdPools)}
		defer func() { out = c.out }()
		if c.cluster, c.api, err = populated(s, o.agents, crowdPools); err != nil {
			return err
		}
		ctx, stop := context.WithCancel(s.ctx)
		err := c.start(ctx)
		for _, step := range []func(context.Context) error{c.idle, c.change, c.restart} {
			if err == nil {
				err = step(ctx)
			}
		}
		stop()
		if c.fleet != nil {
			err = errors.Join(err, c.fleet.work.Wait())
		}
		return err
	})
	return out, err
}

func (c *crowd) say(r ...result) {
	for i := range r {
		r[i].What = c.what + ": " + r[i].What
	}
	c.out = append(c.out, r...)
}

// answer says something that is not one number.
func answer(what, text string) result { return result{What: what, Answer: text} }

func one(what, unit string, v float64) result { return summary(what, unit, []float64{v}) }

// each is what of the whole falls to one agent.
func (c *crowd) each(v float64) float64 { return v / float64(c.o.agents) }

// usage is what an API server has answered, and the CPU that it has used.
type usage struct {
	answered requests
	cpu      time.Duration
}

func (c *crowd) usage(ctx context.Context) (usage, error) {
	answered, err := served(ctx, c.cluster.Config())
	if err != nil {
		return usage{}, err
	}
	cpu, err := cpuOf(c.cluster.APIServerPID())
	return usage{answered, cpu}, err
}

// since is what came after an earlier look.
func (u usage) since(before usage) usage {
	return usage{u.answered.since(before.answered), u.cpu - before.cpu}
}

// milliseconds is the CPU as a number.
func (u usage) milliseconds() float64 { return float64(u.cpu) / float64(time.Millisecond) }

// start starts the agents, all at once and with nothing saved.
func (c *crowd) start(ctx context.Context) error {
	before, err := c.usage(ctx)
	if err != nil {
		return err
	}
	said := watchStatuses(ctx, c.api)
	begin := time.Now()
	if c.fleet, err = startFleet(ctx, c.cluster.Config(), c.o.agents, c.scope.TempDir()); err != nil {
		return err
	}
	planned, err := c.fleet.await(ctx, true, begin)
	if err != nil {
		return err
	}
	written, err := said.await(ctx, c.o.agents, "1", begin)
	if err != nil {
		return err
	}
	time.Sleep(c.o.settle) // nothing else may come of the start
	asked, most := c.fleet.traffic.so()
	after, err := c.usage(ctx)
	if err != nil {
		return err
	}
	after = after.since(before)
	t := c.fleet.traffic
	c.say(
		milliseconds("all started at once to planned", planned),
		milliseconds("all started at once to SallyportNode ready", written),
		answer("asked at the start by one agent", asked.by(float64(c.o.agents))),
		answer("answered at the start, as the API server counts, to one agent", after.answered.by(float64(c.o.agents))),
		one("the busiest second of the start", "requests/s", float64(most)),
		one("connections that one agent made at the start", "", c.each(float64(t.connections.Load()))),
		one("received at the start by one agent", "KiB", c.each(float64(t.received.Load()))/1024),
		one("the API server's CPU at the start for one agent", "ms", c.each(after.milliseconds())),
	)
	return nil
}

// idle watches what is asked while nothing changes.
func (c *crowd) idle(ctx context.Context) error {
	before, err := c.usage(ctx)
	if err != nil {
		return err
	}
	t := c.fleet.traffic
	t.begin()
	received, begin := t.received.Load(), time.Now()
	select {
	case <-time.After(c.o.still):
	case <-ctx.Done():
		return ctx.Err()
	}
	lasted := time.Since(begin).Seconds()
	asked, most := t.so()
	received = t.received.Load() - received
	after, err := c.usage(ctx)
	if err != nil {
		return err
	}
	after = after.since(before)
	memory, err := memory(c.cluster.APIServerPID(), "VmRSS")
	if err != nil {
		return err
	}
	c.say(
		one("asked while nothing changes", "requests/s", asked.total()/lasted),
		answer("of these, a second", asked.by(lasted)),
		one("heartbeats among these, as calculated", "requests/s", float64(c.o.agents)/agent.HeartbeatEvery.Seconds()),
		answer("answered while nothing changes, as the API server counts, a second", after.answered.by(lasted)),
		one("the busiest second while nothing changes", "requests/s", float64(most)),
		one("received while nothing changes by one agent", "bytes/s", c.each(float64(received))/lasted),
		one("connections of one agent", "", c.each(float64(t.open.Load()))),
		one("the API server's CPU while nothing changes", "ms/s", after.milliseconds()/lasted),
		one("the API server's memory", "MiB", memory),
	)
	return nil
}

// change changes one pool and watches until every node has said that it holds it.
func (c *crowd) change(ctx context.Context) error {
	before, err := c.usage(ctx)
	if err != nil {
		return err
	}
	said := watchStatuses(ctx, c.api)
	t := c.fleet.traffic
	t.begin()
	received := t.received.Load()
	planned, written, err := c.follow(ctx, said, false)
	if err != nil {
		return err
	}
	asked, most := t.so()
	after, err := c.usage(ctx)
	if err != nil {
		return err
	}
	after = after.since(before)
	c.say(
		milliseconds("one pool changed, from the API's answer to planned", planned),
		milliseconds("one pool changed, from the API's answer to SallyportNode written", written),
		one("asked after one change", "requests", asked.total()),
		answer("of these", asked.by(1)),
		answer("answered after one change, as the API server counts", after.answered.by(1)),
		one("the busiest second after one change", "requests/s", float64(most)),
		one("received after one change by one agent", "bytes", c.each(float64(t.received.Load()-received))),
		one("the API server's CPU after one change, for one agent", "ms", c.each(after.milliseconds())),
	)
	return nil
}

// follow changes the pod's pool, and returns how long after the API's answer each agent had it, and each node had said
// so.
func (c *crowd) follow(ctx context.Context, said *statuses, yes bool) (planned, written []time.Duration, err error) {
	p, err := translate(ctx, c.api, 0, yes)
	if err != nil {
		return nil, nil, err
	}
	from := time.Now()
	if planned, err = c.fleet.await(ctx, yes, from); err != nil {
		return nil, nil, err
	}
	written, err = said.await(ctx, c.o.agents, p.GetResourceVersion(), from)
	return planned, written, err
}

// restart takes the API server away and brings it back, and changes a pool at that moment. All watches end at once. What
// was asked is said also where not all follow in time.
func (c *crowd) restart(ctx context.Context) error {
	c.cluster.StopServer(c.scope)
	time.Sleep(c.o.away) // an outage, in which the pauses between the tries of the agents grow
	t := c.fleet.traffic
	t.begin()
	c.cluster.StartServer(c.scope)
	begin := time.Now()
	planned, written, err := c.follow(ctx, watchStatuses(ctx, c.api), true)
	lasted := time.Since(begin).Seconds()
	asked, most := t.so()
	what := fmt.Sprintf("API server back after %s", c.o.away)
	c.say(
		answer(what+", asked by one agent until all is written", asked.by(float64(c.o.agents))),
		one(what+", asked meanwhile", "requests/s", asked.total()/lasted),
		one(what+", the busiest second", "requests/s", float64(most)),
	)
	if err != nil {
		return err
	}
	after, err := c.usage(ctx) // of a new process
	if err != nil {
		return err
	}
	c.say(
		milliseconds(what+", one pool changed at once, to planned", planned),
		milliseconds(what+", one pool changed at once, to SallyportNode written", written),
		answer(what+", answered, as the API server counts, to one agent", after.answered.by(float64(c.o.agents))),
		one(what+", its CPU since, for one agent", "ms", c.each(after.milliseconds())),
	)
	return nil
}
