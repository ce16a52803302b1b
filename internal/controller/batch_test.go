package controller

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// TestMessagesFollow: what is said of a condition that is not True follows 30 s after the last write, for a bounded number of
// objects at once.
func TestMessagesFollow(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		since   time.Duration
		left    int
		due     bool
		recheck time.Duration
	}{
		"soon after a write": {10 * time.Second, 1, false, 20 * time.Second},
		"after 30 s":         {30 * time.Second, 1, true, 0},
		"after many others":  {time.Minute, 0, false, time.Second},
	} {
		p := testPool("p", "10.0.0.0/16", 1)
		w := &writer{wrote: map[types.UID]write{p.UID: {from: "0", at: now.Add(-test.since)}}}
		b := &batch{writer: w, now: now, messages: test.left}
		if got := b.follows(&p.ObjectMeta); got != test.due || b.recheck != test.recheck || test.due && b.messages != 0 {
			t.Errorf("%s: follows %t, again in %s", name, got, b.recheck)
		}
	}
}
