package reconcile

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
)

// worker drives one driver. It is used by one goroutine alone.
type worker struct {
	loop   *Loop
	index  int
	driver Driver
	log    *slog.Logger

	trails []*trail // to those who follow

	plan    *compile.Plan
	undone  bool          // somebody changed what stood, and it was not repaired yet
	pause   time.Duration // 0 while all is well
	retryAt time.Time

	fight fight
}

// apply takes a new plan to the kernel.
func (w *worker) apply(ctx context.Context, plan *compile.Plan) {
	w.plan = plan
	err := w.driver.Apply(ctx, plan)
	if err != nil && ctx.Err() != nil {
		return // we are being stopped: what stands in the kernel stays
	}
	mended := err == nil && w.mended()
	repaired := mended || err == nil && w.undone
	w.loop.update(func(s *State) {
		d := &s.Drivers[w.index]
		d.Applies++
		if mended {
			d.Repairs++
		}
		if err != nil {
			d.Ready, d.Error = false, err.Error()
			d.Failures++
			return
		}
		d.Applied = time.Now()
		switch {
		case s.Plan != plan: // a follower has a newer one before it
		case w.fight.doubted:
			d.Error = w.fightError(d.Repairs)
		default:
			d.Ready, d.Error = true, ""
		}
		for _, t := range w.trails {
			if f := &s.Drivers[t.index]; repaired && f.Ready {
				f.Ready, f.Error = false, "a third party had undone the plan; the agent examines the connections of that time"
			}
		}
	})
	if err == nil {
		for _, t := range w.trails {
			t.stands(plan, repaired)
		}
		w.undone = false
		if w.pause > 0 {
			w.log.Info("the kernel holds the plan again")
		}
		w.pause = 0
		return
	}
	w.pause = min(max(2*w.pause, w.loop.opts.RetryMin), w.loop.opts.RetryMax)
	w.retryAt = time.Now().Add(w.pause)
	w.log.Error("could not apply the plan; what stood in the kernel stays", "error", err, "retry_in", w.pause)
}

// mended says whether the plan that was just applied found undone what stood.
func (w *worker) mended() bool {
	m, ok := w.driver.(Mender)
	if !ok || !m.Mended() {
		return false
	}
	w.log.Warn("a third party had changed what Sallyport owns in the kernel: it was repaired with the plan")
	return true
}

// observe looks whether the kernel still holds the plan, and repairs it if not.
func (w *worker) observe(ctx context.Context) {
	if w.plan == nil || w.pause > 0 {
		return // nothing was applied, or a retry is due anyway and reads back
	}
	drift, err := w.driver.Observe(ctx)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		w.log.Error("could not read the kernel back", "error", err)
		w.fight.doubted = false // Apply now looks for itself
	case drift == 0:
		w.trust()
		return
	default:
		w.undone = true
		w.strike(drift)
		w.loop.update(func(s *State) {
			d := &s.Drivers[w.index]
			d.Ready, d.Error = false, "a third party changed what Sallyport owns in the kernel; the agent repairs it"
			d.Repairs++
		})
	}
	w.apply(ctx, w.plan)
}

// rest says in the state that the kernel may not hold the plan, for a pause that follows.
func (w *worker) rest() {
	if w.plan == nil {
		return
	}
	w.loop.update(func(s *State) {
		d := &s.Drivers[w.index]
		d.Ready, d.Error = false, "a cleanup is under way"
	})
}

func (w *worker) retryIfDue(ctx context.Context) {
	switch now := time.Now(); {
	case w.pause > 0 && !now.Before(w.retryAt):
		w.apply(ctx, w.plan)
	case w.fight.doubted && !now.Before(w.fight.lookAt):
		w.observe(ctx)
	}
}

// nextRetry is the time until a worker wants to try or look again; long when none does.
func nextRetry(ws []*worker) time.Duration {
	next := time.Hour
	for _, w := range ws {
		switch {
		case w.pause > 0: // a retry reads back too: until it is due nothing is looked at
			next = min(next, max(0, time.Until(w.retryAt)))
		case w.fight.doubted:
			next = min(next, max(0, time.Until(w.fight.lookAt)))
		}
	}
	return next
}
