package agent

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
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
