package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestRest lets news come in bursts, and counts how often memory is given back.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var changed chan struct{}
		freed := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			rest(ctx, func() <-chan struct{} { changed = make(chan struct{}); return changed }, 5*time.Second, func() { freed++ })
		}()
		for burst := range 3 {
			for range 4 {
				time.Sleep(time.Second)
				synctest.Wait()
				if freed != burst {
					t.Errorf("in burst %d it was freed %d times", burst, freed)
				}
				close(changed)
				synctest.Wait()
			}
			time.Sleep(time.Hour)
		}
		cancel()
		<-done
		if freed != 3 {
			t.Errorf("freed %d times, want after each of 3 bursts", freed)
		}
	})
}
