package conntrack

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
)

const (
	// passes bounds how often the table is walked through for one change, where once is not enough: the kernel
	// offers no way to wait for the packets that were under way (grace.go), or more places were kept than fit in
	// memory (lateMost).
	passes = 3
	// remembered bounds the plans that stood since flows were judged last.
	remembered = 16
)

// Stats say what a driver has found and done.
type Stats struct {
	// Judged is when the table was last walked through; zero before.
	Judged time.Time
	// Tracked is how many flows the kernel tracked then, Older how many of them lived under an older
	// decision.
	Tracked, Older int
	// Ended counts the flows that were ended.
	Ended uint64
}

// Driver ends flows that must not live on after a change of plans. Its methods may be called from several
// goroutines; Stands and Stats never wait for long.
type Driver struct {
	table *Table
	log   *slog.Logger
	grace func() error // waits for the packets that are under way; see grace.go
	pass  sync.Mutex   // held while the table is walked through
	older []uint32     // under pass: the flows that live under an older decision, sorted

	mu sync.Mutex // held briefly
	// stood are the plans that have stood since flows were judged last, the newest last. The first is the
	// one by which they were judged, if they ever were.
	stood    []standing
	numbered uint64
	judged   bool
	found    bool // the first plan that stood was found in the kernel
	tampered bool // somebody undid the newest plan for a while
	stats    Stats
}

// standing is a plan that stood, with a number that grows.
type standing struct {
	plan   *compile.Plan
	number uint64
}

// New makes a driver for a table.
func New(t *Table, log *slog.Logger) *Driver { return &Driver{table: t, log: log, grace: grace} }

// Stands tells the driver that from now on the rules of a plan stand in the kernel. Repaired says that
// somebody else had undone them, so that flows may have been opened which nobody translated; these do not
// live on, whatever existingFlows says.
func (d *Driver) Stands(plan *compile.Plan, repaired bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tampered = d.tampered || repaired
	d.add(plan)
}

// Found tells the driver, before anything else, which plan stood when the agent started.
func (d *Driver) Found(plan *compile.Plan) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.stood) == 0 {
		d.found = true
		d.add(plan)
	}
}

// add makes a plan the newest that stood.
func (d *Driver) add(plan *compile.Plan) {
	n := len(d.stood)
	if n > 0 && d.stood[n-1].plan.NAT.SameForFlows(&plan.NAT) {
		d.stood[n-1].plan = plan
		return
	}
	if n == remembered { // the first is what most flows were judged by
		d.stood = slices.Delete(d.stood, 1, 2)
	}
	d.numbered++
	d.stood = append(d.stood, standing{plan, d.numbered})
}

// Apply judges all flows by the newest plan that stands, and ends those that must not live on; the plan that it
// is given stands if it was told of none. It costs nothing if no decision about any flow can have changed since
// the last time, and next to nothing if the kernel tracks no flow. Else it walks through the table once, after the
// packets that were under way while the rules changed have left the kernel. With an error some flows may be ended,
// and the next Apply goes on; the error is an *nfnetlink.UnsupportedError if the kernel cannot list flows.
func (d *Driver) Apply(ctx context.Context, plan *compile.Plan) error {
	d.pass.Lock()
	defer d.pass.Unlock()
	c, number, news := d.change(plan)
	if !news {
		return nil
	}
	once := d.grace() == nil
	w, err := d.judge(ctx, c, once)
	d.note(w)
	if err != nil {
		d.restore(c.Tampered)
		return err
	}
	d.older = w.older
	d.settle(number)
	if w.ended > 0 {
		d.log.Info("flows were judged again", "ended", w.ended, "older_decision", len(w.older), "tracked", w.tracked)
	}
	return nil
}

// judge judges all flows by a change. Once says that one walk meets every flow that was opened before it.
func (d *Driver) judge(ctx context.Context, c compile.Change, once bool) (w walked, err error) {
	tracked, err := d.table.Count(ctx)
	if err == nil && tracked == 0 {
		return walked{}, nil
	}
	ended := 0
	for range passes {
		w, err = d.walk(ctx, c, tracked)
		ended += w.ended
		if err != nil || !w.more && (once || w.ended == 0) {
			break
		}
	}
	w.ended = ended
	if err == nil && w.more {
		err = fmt.Errorf("not all flows could be judged in %d walks: more than %d entries keep places without use, or places were taken again and again", passes, lateMost)
	}
	return w, err
}

// change is what flows are to be judged by, with the number of the newest plan, and whether there is
// anything to judge.
func (d *Driver) change(plan *compile.Plan) (c compile.Change, number uint64, news bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.stood) == 0 {
		d.add(plan)
	}
	newest := d.stood[len(d.stood)-1]
	c = compile.Change{Now: newest.plan, Tampered: d.tampered}
	for _, s := range d.stood {
		if (d.judged || d.found) && len(d.stood) == 1 || s != newest {
			c.Stood = append(c.Stood, s.plan)
		}
	}
	if d.judged && len(d.stood) == 1 && !d.tampered {
		return c, newest.number, false
	}
	d.tampered = false
	return c, newest.number, true
}

func (d *Driver) restore(tampered bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tampered = d.tampered || tampered
}

// settle takes note of the plan by which flows were judged. Newer ones may stand already.
func (d *Driver) settle(number uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.judged = true
	d.stood = slices.DeleteFunc(d.stood, func(s standing) bool { return s.number < number })
}

// walked is what was found by one walk through the table.
type walked struct {
	older   []uint32 // the flows that live under an older decision, sorted
	tracked int      // flows that are left
	ended   int      // flows
	more    bool     // another walk is needed: see Walked.More
}

// walk judges every flow once. Entries that keep places go with the flows that need these; after all flows, those
// without use make room for the flows whose places they keep. About so many flows may be found to live under an older
// decision as most says.
func (d *Driver) walk(ctx context.Context, c compile.Change, most int) (w walked, err error) {
	same := len(c.Stood) == 1 && c.Stood[0].NAT.SameForFlows(&c.Now.NAT)
	done, err := d.table.Walk(ctx, func() Visit {
		w = walked{}
		return func(f *Flow) Action {
			t := f.Tracked()
			if f.keepsPlace() {
				if t.Source = t.Seen; c.Now.Translates(&t) {
					return Leave
				}
				return RestoreLast
			}
			w.tracked++
			_, t.Older = slices.BinarySearch(d.older, f.ID)
			fate := compile.Outlives // what was found so before, by the same plan
			if !same || !t.Older {
				fate = c.Judge(&t)
			}
			if fate == compile.Outlives && !f.over() {
				if w.older == nil {
					w.older = make([]uint32, 0, min(max(most, 0), 1<<18))
				}
				w.older = append(w.older, f.ID)
			}
			return action(c, &t, fate)
		}
	})
	slices.Sort(w.older)
	w.older = slices.Compact(w.older)
	w.ended, w.more = done.Flows, done.More
	w.tracked -= min(w.ended, w.tracked)
	return w, err
}

// action is what is done with a flow of some fate.
func action(c compile.Change, t *compile.Tracked, fate compile.Fate) Action {
	switch {
	case fate != compile.Ends:
		return Leave
	case !c.KeepPlaces():
		return End
	case c.Now.Translates(t):
		return Translate
	default:
		return Restore
	}
}

// Observe looks again at the flows that live under an older decision, as long as there are any. It returns
// no difference: it has ended itself what should have been ended.
func (d *Driver) Observe(ctx context.Context) (drift int, err error) {
	d.pass.Lock()
	defer d.pass.Unlock()
	d.mu.Lock()
	idle := len(d.stood) != 1 || !d.judged || len(d.older) == 0
	var c compile.Change
	if !idle {
		c = compile.Change{Stood: []*compile.Plan{d.stood[0].plan}, Now: d.stood[0].plan}
	}
	d.mu.Unlock()
	if idle {
		return 0, nil
	}
	w, err := d.walk(ctx, c, len(d.older))
	if err != nil {
		return 0, err
	}
	d.older = w.older
	d.note(w)
	return 0, nil
}

func (d *Driver) note(w walked) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Judged, d.stats.Tracked, d.stats.Older = time.Now(), w.tracked, len(w.older)
	d.stats.Ended += uint64(w.ended)
}

// Stats says what the driver has found and done.
func (d *Driver) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}
