package agent

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

// An agent has nothing to do nearly all the time, and its node has better use for memory: a quarter as much garbage as
// what lives is let gather, not as much again, and none is kept while it rests.
const (
	garbagePercent = 25
	restAfter      = 5 * time.Second
)

// spareMemory makes this process collect its garbage sooner, unless somebody has said otherwise, and returns what
// ends that.
func spareMemory() (end func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(garbagePercent)
	return func() { debug.SetGCPercent(before) }
}

// rest calls free each time that news had come and then none did for a while, until the context ends. The first news
// is the start.
func rest(ctx context.Context, news func() <-chan struct{}, after time.Duration, free func()) {
	for {
		changed := news()
		t := time.NewTimer(after)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-changed:
			t.Stop()
			continue
		case <-t.C:
		}
		free()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
