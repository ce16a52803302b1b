package nfnetlink

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
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

// slowSocket is a socket to a kernel that takes six seconds for each part of an answer.
type slowSocket struct {
	Socket
	parts    int
	deadline time.Time
}

func (s *slowSocket) SetDeadline(t time.Time) error { s.deadline = t; return nil }

func (s *slowSocket) Receive(b []byte) (int, error) {
	const pause = 6 * time.Second
	if s.parts--; s.parts < 0 || time.Until(s.deadline) < pause {
		time.Sleep(time.Until(s.deadline))
		return 0, os.ErrDeadlineExceeded
	}
	time.Sleep(pause)
	message, at := AppendHeader(nil, unix.NLMSG_MIN_TYPE, 0, unix.AF_UNSPEC, 0, 0)
	EndMessage(message, at)
	return copy(b, message), nil
}

// TestLongAnswerMayTakeLong reads an answer that takes a minute, and one that stops coming.
func TestLongAnswerMayTakeLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			parts, want int
			err         error
		}{{10, 10, nil}, {5, 10, os.ErrDeadlineExceeded}} {
			n := 0
			err := NewConn(&slowSocket{parts: c.parts}).ReceiveAny(t.Context(), func(Message) error {
				if n++; n == c.want {
					return ErrEnd
				}
				return nil
			})
			if !errors.Is(err, c.err) {
				t.Errorf("an answer of %d parts, of which %d came: %v", c.want, n, err)
			}
		}
	})
}
