package agent

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/model"
)

// TestRest lets news come in bursts, and counts how often memory is given back.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		changed := make(chan struct{})
		var freed atomic.Int32
		done := make(chan struct{})
		go func() {
			defer close(done)
			rest(ctx, func() <-chan struct{} {
				mu.Lock()
				defer mu.Unlock()
				return changed
			}, 5*time.Second, func() { freed.Add(1) })
		}()
		for burst := range 3 {
			for range 4 {
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if n := freed.Load(); n != int32(burst) {
					t.Errorf("in burst %d it was freed %d times", burst, n)
				}
				mu.Lock()
				close(changed)
				changed = make(chan struct{})
				mu.Unlock()
				synctest.Wait()
			}
			time.Sleep(time.Hour)
		}
		cancel()
		<-done
		if n := freed.Load(); n != 3 {
			t.Errorf("freed %d times, want after each of 3 bursts", n)
		}
	})
}

// TestPercentFor bounds the garbage that gathers beside what lives.
func TestPercentFor(t *testing.T) {
	t.Parallel()
	for live, garbage := range map[uint64]uint64{
		512 << 10: 2 << 20, // a process this small has no more
		4 << 20:   garbageLeast,
		16 << 20:  garbageLeast,
		32 << 20:  8 << 20,
		100 << 20: 25 << 20,
	} {
		if got := live * uint64(percentFor(live, garbageLeast)) / 100; got > garbage || got < garbage*9/10 {
			t.Errorf("beside %d bytes %d of garbage gather, want %d", live, got, garbage)
		}
	}
}

// right is a validator that finds no fault.
type right struct{}

func (right) Create(map[string]any) []model.Fault      { return nil }
func (right) Update(_, _ map[string]any) []model.Fault { return nil }

// TestThriftWhileManyAreChecked checks objects one by one: only many of them let more garbage gather, until the next rest.
func TestThriftWhileManyAreChecked(t *testing.T) {
	t.Setenv("GOGC", "")
	thrift := startThrift()
	defer thrift.end()
	v := thrift.validator(right{})
	for range 2 {
		for i := range manyObjects {
			if n := thrift.least.Load(); n == garbageMany {
				t.Fatalf("%d may gather after %d objects", n, i)
			}
			v.Create(nil)
		}
		if n := thrift.least.Load(); n != garbageMany {
			t.Errorf("%d may gather after %d objects, want %d", n, manyObjects, garbageMany)
		}
		thrift.rested()
		if n := thrift.least.Load(); n != garbageLeast {
			t.Errorf("%d may gather after a rest, want %d", n, garbageLeast)
		}
	}
}

// TestAfterEachCollection counts collections until it is told to stop.
func TestAfterEachCollection(t *testing.T) {
	heard := make(chan struct{}, 100)
	stop := afterEachCollection(func() { heard <- struct{}{} })
	for range 3 {
		runtime.GC()
		<-heard
	}
	stop()
	runtime.GC()
	runtime.GC()
	if n := len(heard); n > 1 { // one may have been under way
		t.Errorf("after the end %d collections were heard of", n)
	}
}
