package reconcile

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/waiting"
)

// calm is how long nobody must have undone a repair for the next one to be made at once.
const calm = 10 * time.Second

// fight is how a worker stands with those who change what its driver owns. A single change is repaired at
// once; who undoes every repair is met with longer and longer pauses.
type fight struct {
	noticed  atomic.Bool // somebody changed something; set by the goroutine that watches
	repaired time.Time   // when a repair was last begun
	pause    time.Duration
	lookAt   time.Time // not before this
	doubted  bool      // somebody changed something that is to be looked at then
}

// watch has a driver tell of changes, and gives look a token for them.
func (w *worker) watch(ctx context.Context, d Watcher, look chan<- struct{}) {
	for ctx.Err() == nil {
		err := d.Watch(ctx, func() {
			w.fight.noticed.Store(true)
			waiting.Signal(look)
		})
		if ctx.Err() != nil {
			return
		}
		w.log.Error("cannot watch what others change in the kernel: it is looked at now and then instead", "error", err, "every", w.loop.opts.Resync)
		select {
		case <-ctx.Done():
		case <-time.After(w.loop.opts.RetryMax):
		}
	}
}

// lookIfNoticed looks at what somebody changed, now or once the pause between repairs is over.
func (w *worker) lookIfNoticed(ctx context.Context) {
	if !w.fight.noticed.Swap(false) || w.plan == nil || w.pause > 0 {
		return
	}
	wait := time.Until(w.fight.lookAt)
	if wait <= 0 {
		w.observe(ctx)
		return
	}
	w.fight.doubted = true
	w.loop.update(func(s *State) {
		d := &s.Drivers[w.index]
		d.Ready, d.Error = false, w.fightError(d.Repairs)
	})
}

// fightError is why a driver is not ready while what somebody changed is not looked at yet.
func (w *worker) fightError(repairs uint64) string {
	return fmt.Sprintf("a third party changes what Sallyport owns in the kernel again and again, %d times so far; "+
		"the next repair waits up to %s: find the program that does it, and stop it", repairs, w.fight.pause)
}

// trust takes back the doubt about what the kernel holds.
func (w *worker) trust() {
	if !w.fight.doubted {
		return
	}
	w.fight.doubted = false
	w.loop.update(func(s *State) {
		if s.Plan == w.plan {
			s.Drivers[w.index].Ready, s.Drivers[w.index].Error = true, ""
		}
	})
}

// strike takes note of a repair that begins, and says so once in a fight.
func (w *worker) strike(drift int) {
	f, now, before := &w.fight, time.Now(), w.fight.pause
	if f.repaired.IsZero() || now.Sub(f.repaired) > max(calm, 2*f.pause) {
		f.pause = 0
	} else {
		f.pause = min(max(2*f.pause, w.loop.opts.RetryMin), w.loop.opts.RetryMax)
	}
	f.repaired, f.lookAt, f.doubted = now, now.Add(f.pause), false
	switch first := w.loop.opts.RetryMin; {
	case f.pause <= first: // one command may change things that are told of one after the other
		w.log.Warn("a third party changed what Sallyport owns in the kernel: repairing", "differences", drift)
	case before <= first:
		w.log.Error("a third party changes what Sallyport owns in the kernel again and again: repairs are made less and less often", "differences", drift, "at_most_every", w.loop.opts.RetryMax)
	}
}
