package nfnetlink

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWaitEndsWithContext checks that a wait for an answer that never comes ends at once when its context
// does, and that the next request is not cut short by it.
func TestWaitEndsWithContext(t *testing.T) {
	t.Parallel()
	s, err := Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(s)
	t.Cleanup(func() { _ = c.Close() })
	why := errors.New("the agent stops")
	for range 20 {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(why) })
		if err := c.ReceiveAny(ctx, func(Message) error { return nil }); !errors.Is(err, why) {
			t.Fatalf("error %v; want the context's cause", err)
		}
		// A question that the kernel answers whoever asks, with an answer or a refusal.
		request := c.Request(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC)
		err := c.Get(t.Context(), "asking", request, func(Message) error { return nil })
		if refused := (*Refusal)(nil); err != nil && !errors.As(err, &refused) {
			t.Fatalf("the request after it: %v", err)
		}
	}
}
