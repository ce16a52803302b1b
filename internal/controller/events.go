package controller

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/waiting"
)

// sayAgain is the least time between two Events of one reason about one object: what comes and goes is one to an operator.
const sayAgain = 6 * time.Minute

// An Event that could not be made is tried again after retryEvent, then after twice that, tellTries times in all.
const (
	tellTries  = 3
	retryEvent = time.Second
)

// maxUntold bounds the Events that wait; one more is dropped, since the condition says the same.
const maxUntold = 1000

// warner makes Events of the API.
type warner interface {
	Warn(ctx context.Context, e *kube.Event, reporter, instance string, now time.Time) error
}

// teller makes Events of what an operator should hear of, behind the conditions that say the same.
type teller struct {
	api      warner
	instance string
	log      *slog.Logger
	queue    chan kube.Event
}

func newTeller(api warner, instance string, log *slog.Logger) *teller {
	return &teller{api, instance, log, make(chan kube.Event, maxUntold)}
}

// tell has an Event be made. It does not wait.
func (t *teller) tell(e kube.Event) {
	select {
	case t.queue <- e:
	default:
	}
}

// run makes Events until the context ends.
func (t *teller) run(ctx context.Context) {
	type about struct {
		uid    types.UID
		reason string
	}
	said := map[about]time.Time{}
	var cleared time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-t.queue:
			now := time.Now()
			if now.Sub(cleared) >= sayAgain {
				maps.DeleteFunc(said, func(_ about, at time.Time) bool { return now.Sub(at) >= sayAgain })
				cleared = now
			}
			what := about{e.UID, e.Reason}
			if at, ok := said[what]; ok && now.Sub(at) < sayAgain {
				continue
			}
			if t.make(ctx, &e) {
				said[what] = now
			}
		}
	}
}

// make makes one Event, and says whether that succeeded. It tries a few times.
func (t *teller) make(ctx context.Context, e *kube.Event) bool {
	var err error
	for try := range tellTries {
		if try > 0 && !waiting.Sleep(ctx, nil, retryEvent<<(try-1)) {
			return false
		}
		if err = t.api.Warn(ctx, e, fieldOwner, t.instance, time.Now()); err == nil {
			return true
		}
	}
	if ctx.Err() == nil {
		t.log.Warn("an Event could not be made; the condition says the same", "kind", e.Kind, "name", e.Name, "reason", e.Reason, "error", err)
	}
	return false
}
