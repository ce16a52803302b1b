// Package reconcile keeps the kernel equal to what is declared.
//
// One loop takes the newest snapshot and the newest addresses of the node, compiles them to a plan and
// applies it driver by driver. What arrives while it works is coalesced: only the newest is compiled
// next. A driver that fails is tried again alone, with back-off, and holds up none but those that follow it
// (see Follower). Now and then each driver looks whether the kernel was changed behind its back, and sooner where
// it can be told (see Watcher).
//
// The loop owns no kernel object itself, and decides nothing about packets.
package reconcile

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/waiting"
)

// Driver owns one part of the kernel.
type Driver interface {
	// Name is a short word for logs, status and metrics, such as "nat".
	Name() string
	// Apply makes the kernel equal to the driver's part of the plan. It returns nil only if that is so,
	// as far as the kernel has confirmed. Called again with an equal plan it does nothing.
	Apply(ctx context.Context, plan *compile.Plan) error
	// Observe reads the kernel back and returns how many things differ from the plan last applied. The
	// next Apply starts from what was found; after an error it reads back itself.
	Observe(ctx context.Context) (drift int, err error)
}

// Watcher is a driver that notices when somebody else changes its part of the kernel.
type Watcher interface {
	Driver
	// Watch calls changed, which does not wait, when somebody else has changed that part or may have, until the
	// context ends or it cannot go on.
	Watch(ctx context.Context, changed func()) error
}

// Mender is a driver whose Apply may find, and mend, what somebody else has undone before any Observe sees it.
type Mender interface {
	Driver
	// Mended says whether that has happened since it was asked last.
	Mended() bool
}

// Follower is a driver that depends on what another one has brought to the kernel: that before it in
// Options.Drivers. It is applied once that one holds a plan, by a goroutine of its own, so that it holds up
// nobody.
type Follower interface {
	Driver
	// Stands is told every plan that the driver before has brought to the kernel, in their order; an Apply with
	// the newest follows. It does not wait. Repaired says that somebody else had undone the plan meanwhile.
	Stands(plan *compile.Plan, repaired bool)
}

// Options say how a loop works. Drivers and Log are required.
type Options struct {
	Drivers []Driver
	Log     *slog.Logger
	// Resync is the time between two looks at the kernel; 1 minute by default.
	Resync time.Duration
	// RetryMin and RetryMax bound the pause after a failure, and that between two repairs where somebody undoes
	// them again and again; both double from one to the other. 50 milliseconds and 30 seconds by default.
	RetryMin, RetryMax time.Duration
}

// State is what the loop has reached. It is never changed once made.
type State struct {
	// Plan is the newest plan; nil before the first snapshot. Version is that of its snapshot.
	Plan    *compile.Plan
	Version uint64
	Drivers []DriverState // in the order of Options.Drivers

	waiting string // why Plan is not that of the newest input; empty: it is
}

// DriverState is how one driver stands.
type DriverState struct {
	Name string `json:"name"`
	// Ready says that the kernel holds State.Plan: it was confirmed, and nothing contradicts it since.
	Ready bool `json:"ready"`
	// Error is why it is not ready, in words.
	Error string `json:"error,omitempty"`
	// Applied is when a plan was last confirmed.
	Applied time.Time `json:"applied,omitzero"`
	// Applies, Failures and Repairs count attempts that changed plan or kernel, those that failed, and
	// the times that the kernel had been changed behind the driver's back.
	Applies  uint64 `json:"applies"`
	Failures uint64 `json:"failures"`
	Repairs  uint64 `json:"repairs"`
}

// Ready says whether the kernel holds the newest plan, and if not why.
func (s State) Ready() (bool, string) { return s.ready(nil) }

// ReadyOf says so of the parts of some drivers alone.
func (s State) ReadyOf(drivers ...string) (bool, string) { return s.ready(drivers) }

func (s State) ready(of []string) (bool, string) {
	if s.waiting != "" {
		return false, s.waiting
	}
	for _, d := range s.Drivers {
		if !d.Ready && (of == nil || slices.Contains(of, d.Name)) {
			return false, d.Name + ": " + d.Error
		}
	}
	return true, ""
}

// Loop is the reconcile loop. Make one with New.
type Loop struct {
	opts Options
	wake chan struct{} // holds one token when there is something new

	mu      sync.Mutex
	input   input
	state   State
	changed chan struct{} // closed and replaced whenever state changes
	gates   []gate        // one for each goroutine that drives drivers
}

// gate is how a goroutine that drives drivers is reached when it comes round.
type gate struct {
	turn  chan struct{}          // see Turn
	pause chan (<-chan struct{}) // see Pause; it rests until the channel that it gets is closed
}

func newGate() gate { return gate{make(chan struct{}), make(chan (<-chan struct{}))} }

// input is the newest of everything that a plan is made of.
type input struct {
	snapshot *model.Snapshot
	version  uint64
	local    *model.Local
	dirty    bool // not compiled yet
}

// waiting says why there is no plan of the newest input yet.
func (in *input) waiting() string {
	switch {
	case in.snapshot == nil:
		return "no valid resources were read yet"
	case in.local == nil:
		return "the addresses of this node are not known yet"
	case in.dirty:
		return "a newer plan is about to be made"
	default:
		return ""
	}
}

// New makes a loop; Run starts it.
func New(opts Options) *Loop {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&opts.Resync, time.Minute)
	def(&opts.RetryMin, 50*time.Millisecond)
	def(&opts.RetryMax, 30*time.Second)
	l := &Loop{opts: opts, wake: make(chan struct{}, 1), changed: make(chan struct{})}
	l.gates = append(l.gates, newGate())
	l.state.waiting = l.input.waiting()
	for _, d := range opts.Drivers {
		l.state.Drivers = append(l.state.Drivers, DriverState{Name: d.Name(), Error: "nothing was applied yet"})
	}
	return l
}

// SetSnapshot hands the loop the newest snapshot; a nil one is ignored, so that what stands stays, and so is
// the one that it has. It is for one goroutine at a time.
func (l *Loop) SetSnapshot(s *model.Snapshot, version uint64) {
	l.mu.Lock()
	known := l.input.snapshot
	l.mu.Unlock()
	if s == nil || s == known {
		return
	}
	l.set(func(in *input) { in.snapshot, in.version = s, version })
}

// SetLocal hands the loop what the node newly knows of itself. Nothing is compiled before the first call.
func (l *Loop) SetLocal(local model.Local) {
	l.set(func(in *input) { in.local = &local })
}

func (l *Loop) set(f func(*input)) {
	l.update(func(*State) {
		f(&l.input)
		l.input.dirty = true
	})
	waiting.Signal(l.wake)
}

// State is what has been reached, with a channel that is closed when that is no longer the newest.
func (l *Loop) State() (State, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state, l.changed
}

// Turn waits until the loop, and every driver that follows another, has come round, which shows that none of
// them hangs, or until the context ends. A change to the kernel that is under way may take its time.
func (l *Loop) Turn(ctx context.Context) error {
	l.mu.Lock()
	gates := l.gates
	l.mu.Unlock()
	for _, g := range gates {
		select {
		case <-g.turn:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Pause has do called while no driver is driven, so that it may undo what stands in the kernel, and returns its error.
// Unless the loop ends meanwhile, each plan is then applied again. Where the drivers do not come to rest before the
// context ends, its error is returned, and do is not called.
func (l *Loop) Pause(ctx context.Context, do func() error) error {
	resume := make(chan struct{})
	defer close(resume)
	for i := 0; ; i++ {
		l.mu.Lock()
		gates := l.gates // Run has made all of them before the first one opens
		l.mu.Unlock()
		if i == len(gates) {
			return do()
		}
		select {
		case gates[i].pause <- resume:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run works until the context ends; it leaves the kernel as it is.
func (l *Loop) Run(ctx context.Context) {
	var others sync.WaitGroup
	defer others.Wait()
	var workers []*worker
	look := make(chan struct{}, 1)
	for i, d := range l.opts.Drivers {
		w := &worker{loop: l, index: i, driver: d, log: l.opts.Log.With("driver", d.Name())}
		if d, ok := d.(Watcher); ok {
			others.Go(func() { w.watch(ctx, d, look) })
		}
		f, ok := d.(Follower)
		if !ok || len(workers) == 0 {
			workers = append(workers, w)
			continue
		}
		t := &trail{driver: f, index: i, wake: make(chan struct{}, 1)}
		ahead := workers[len(workers)-1]
		ahead.trails = append(ahead.trails, t)
		g := newGate()
		l.mu.Lock()
		l.gates = append(l.gates, g)
		l.mu.Unlock()
		others.Go(func() { l.drive(ctx, []*worker{w}, g, t.wake, t.take, nil) })
	}
	l.drive(ctx, workers, l.gates[0], l.wake, l.compile, look)
}

// drive applies the plans that next gives, one for each token at most, looks after what stands, sooner if look
// has a token, and tries again what failed, until the context ends. Each time that it comes round it gives the gate's turn a
// token, if that is waited for.
func (l *Loop) drive(ctx context.Context, workers []*worker, g gate, wake <-chan struct{}, next func() *compile.Plan, look <-chan struct{}) {
	resync := time.NewTicker(l.opts.Resync)
	defer resync.Stop()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			if plan := next(); plan != nil {
				for _, w := range workers {
					w.apply(ctx, plan)
				}
			}
		case <-look:
			for _, w := range workers {
				w.lookIfNoticed(ctx)
			}
		case <-resync.C:
			for _, w := range workers {
				w.observe(ctx)
			}
		case <-retry.C:
			for _, w := range workers {
				w.retryIfDue(ctx)
			}
		case g.turn <- struct{}{}:
		case resume := <-g.pause:
			for _, w := range workers {
				w.rest()
			}
			select {
			case <-resume:
			case <-ctx.Done():
			}
			if ctx.Err() != nil {
				return
			}
			for _, w := range workers {
				if w.plan != nil {
					w.apply(ctx, w.plan)
				}
			}
		}
		retry.Reset(nextRetry(workers))
	}
}

// compile makes the plan for the newest input, or nil where something is missing or nothing is new.
func (l *Loop) compile() *compile.Plan {
	l.mu.Lock()
	in, before := l.input, l.state.Plan
	l.input.dirty = false
	l.mu.Unlock()
	if !in.dirty || in.snapshot == nil || in.local == nil {
		return nil
	}
	plan := before.Next(in.snapshot, *in.local)
	l.update(func(s *State) {
		s.Plan, s.Version = plan, in.version
		for i := range s.Drivers {
			s.Drivers[i].Ready, s.Drivers[i].Error = false, "the newest plan is being applied"
		}
	})
	return plan
}

// update replaces the state by a changed copy and wakes those who wait for it.
func (l *Loop) update(f func(*State)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.state
	next.Drivers = append([]DriverState(nil), l.state.Drivers...)
	f(&next)
	next.waiting = l.input.waiting()
	l.state = next
	close(l.changed)
	l.changed = make(chan struct{})
}
