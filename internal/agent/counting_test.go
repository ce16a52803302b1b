package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/driver/nat"
)

// TestCountingHoldsNobodyUp asks for counts while a reading hangs: whoever asks has an answer in time, with what
// was read before, and never more than one reading is under way.
func TestCountingHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		proceed := make(chan struct{})
		var hangs atomic.Bool
		var under atomic.Int32
		c := newCounting(func(context.Context) (counts, error) {
			if under.Add(1) > 1 {
				t.Error("two readings at once")
			}
			defer under.Add(-1)
			if hangs.Load() {
				<-proceed // as behind a change that is under way: no context ends it
			}
			return counts{dropped: nat.Dropped{Out: 7}}, nil
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go c.run(ctx)

		ask := func() (counts, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			return c.get(ctx)
		}
		if got, err := ask(); err != nil || got.dropped.Out != 7 {
			t.Fatalf("read %v, %v", got, err)
		}
		hangs.Store(true)
		for range 3 {
			began := time.Now()
			got, err := ask()
			if !errors.Is(err, errCountsOld) || got.dropped.Out != 7 || time.Since(began) != 500*time.Millisecond {
				t.Errorf("after %v: %v, %v", time.Since(began), got, err)
			}
		}
		hangs.Store(false)
		close(proceed)
		synctest.Wait()
		if _, err := ask(); err != nil {
			t.Errorf("when nothing hangs any more: %v", err)
		}
		stop()
		synctest.Wait()
		began := time.Now()
		if got, err := c.get(t.Context()); !errors.Is(err, errCountsOld) || got.dropped.Out != 7 || time.Since(began) > 0 {
			t.Errorf("after the end, %v later: %v, %v", time.Since(began), got, err)
		}
	})
}
