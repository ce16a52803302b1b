package bgp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// Options say how a driver works. Log is required.
type Options struct {
	// Password reads the password of a session; empty: it has none. Nil: no session can have one.
	Password func(context.Context, model.BGPPassword) (string, error)
	// Reread is how old a password gets before it is read again; one of a session that is down is read five times as often. 0: 5 min.
	Reread time.Duration
	// Ready says whether packets to free addresses of a block stay on this node, so that the block can be announced: otherwise they
	// would go around between the node and its router. Nil: they always do.
	Ready func(context.Context, netip.Prefix) bool
	// Held says that the kernel still has learned routes that an agent before this one put there. The driver then asks its peers to
	// keep those of this node, too.
	Held bool
	// Changed is called, and must not wait, when Learned may say something else. It may be nil.
	Changed func()
	// Turned is called, and must not wait, when a session came up or ended, or the fault of a peer is another one. It may be nil.
	Turned func()
	// Deferral bounds how long the first answers of all peers are waited for, in whole seconds. 0: 15 s.
	Deferral time.Duration
	// Reopen is how long no session is tried with a peer that told of more routes than the maximum. 0: 5 min.
	Reopen time.Duration
	Log    *slog.Logger
}

// deferral is well below the time for which peers keep the routes of this node (120 s).
const deferral = 15 * time.Second

// Driver makes a gobgp server do what plans say. Its methods may be called from several goroutines; they wait for each other.
type Driver struct {
	opts     Options
	mu       sync.Mutex
	server   *server   // nil: none runs
	held     bool      // peers may keep routes of this node over the start of the next one
	left     time.Time // when the one before it ended, or an agent before this one
	known    map[model.BGPPassword]reading
	guard    guard
	flooded  map[netip.Addr]flood
	applied  bool                 // Apply was called
	closed   bool                 // for good
	faults   map[netip.Addr]fault // of single peers of the plan
	plan     compile.BGP          // last applied
	view     atomic.Pointer[view] // of what stands above, for State, which does not wait for an Apply
	again    chan struct{}        // of capacity 1: a peer has a fault that may pass
	takeAway chan struct{}        // of capacity 1: a session ended so that the peer is to be taken away

	learning sync.Mutex // guards what follows; never held while a server is asked
	routes   []Route
	complete bool
	history  map[netip.Addr]history // of sessions
}

// New makes a driver. It does nothing before Apply.
func New(o Options) *Driver {
	if o.Deferral == 0 {
		o.Deferral = deferral
	}
	if o.Reopen == 0 {
		o.Reopen = reopen
	}
	if o.Reread == 0 {
		o.Reread = reread
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Turned == nil {
		o.Turned = func() {}
	}
	d := &Driver{opts: o, held: o.Held, left: time.Now(), again: make(chan struct{}, 1), known: map[model.BGPPassword]reading{}, guard: guard{log: o.Log}, flooded: map[netip.Addr]flood{}, takeAway: make(chan struct{}, 1), history: map[netip.Addr]history{}}
	d.view.Store(&view{})
	return d
}

// Apply makes the sessions and announcements what the plan wants. Applied again, an equal plan changes nothing. The error says why BGP
// as a whole does not run, and names each block that is not announced yet. The fault of a single peer is no error: State has it, Run
// tries again, and all others are served. The plan must not be changed afterwards.
func (d *Driver) Apply(ctx context.Context, plan compile.BGP) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("the BGP driver is closed")
	}
	first := !d.applied
	d.applied, d.plan = true, plan
	d.publish()
	defer d.publish()
	d.remember(&plan)
	if !plan.Run {
		d.faults = nil
		if d.server != nil {
			d.end()
		}
		if d.learn(nil, true) || first {
			d.opts.Changed()
		}
		return d.guard.put(ctx, false)
	}
	switch s := d.server; {
	case s != nil && !s.serves(&plan):
		d.end()
	case s != nil && s.broken():
		if err := s.leave(); err != nil {
			d.opts.Log.Warn("BGP did not end well, and is started again", "error", err)
		}
		d.server, d.held, d.left = nil, true, time.Now()
		d.ended()
	}
	if d.server == nil {
		if d.held && len(plan.Announcements)+len(plan.Withheld) == 0 && time.Since(d.left) < d.opts.Deferral {
			return errors.New("the blocks of this node are not known yet: peers that it asks to keep its routes must hear of them at once")
		}
		s, err := start(ctx, d, &plan, d.held)
		if err != nil {
			return err
		}
		d.server, d.held = s, false
	}
	return d.converge(ctx)
}

// end ends the server. Its peers forget the routes of this node.
func (d *Driver) end() {
	d.server.goodbye()
	d.server = nil
	d.ended()
}

// Observe says how much differs from the plan last applied: in the kernel, and 1 where the server has stopped to listen, as it does where
// the process has no file descriptor left, or to tell what it learned. The next Apply starts another one, and peers keep routes meanwhile.
func (d *Driver) Observe(ctx context.Context) (drift int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server != nil && d.server.broken() {
		drift++
	}
	rules, err := d.guard.observe(ctx)
	return drift + rules, err
}

// Close ends all sessions without a word, so that peers keep the routes of this node until it is back. Learned says from then on what
// it said before.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	err := d.guard.close()
	if d.server != nil {
		err = errors.Join(err, d.server.leave())
		d.server = nil
	}
	return err
}

// Cleanup says goodbye to all peers, which forget the routes of this node at once. Learned routes are none then.
func (d *Driver) Cleanup(ctx context.Context) error {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return nil
	}
	return d.Apply(ctx, compile.BGP{})
}

// Route is a route that peers told of.
type Route struct {
	Prefix netip.Prefix
	// Hops are the next hops, at least one, sorted, each once. A link-local one has its interface as zone.
	Hops []netip.Addr
}

func (r Route) equal(o Route) bool { return r.Prefix == o.Prefix && slices.Equal(r.Hops, o.Hops) }

// Learned are the routes that peers told of, sorted by prefix. Complete says that routes of an agent before this one that are not among
// them are stale: all peers have said what they know, or were waited for long enough. The result must not be changed.
func (d *Driver) Learned() (routes []Route, complete bool) {
	d.learning.Lock()
	defer d.learning.Unlock()
	return d.routes, d.complete
}

// learn notes what was learned, and says whether that is news.
func (d *Driver) learn(routes []Route, complete bool) bool {
	d.learning.Lock()
	defer d.learning.Unlock()
	news := d.complete != complete || !slices.EqualFunc(d.routes, routes, Route.equal)
	d.routes, d.complete = routes, complete
	return news
}
