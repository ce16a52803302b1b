// Package waiting has what goroutines wait by.
package waiting

import (
	"context"
	"time"
)

// Signal wakes the receiver of a channel of length one, without waiting itself: a token that waits there already stands
// for this one too.
func Signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Sleep returns after d, when changed is closed, or when the context ends, and says whether the context goes on.
func Sleep(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
