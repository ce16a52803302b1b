package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/internal/datastore/kube"
)

type said []string

func (s *said) Warn(_ context.Context, e *kube.Event, reporter, instance string, _ time.Time) error {
	*s = append(*s, fmt.Sprintf("%s %s %s %s", e.Name, e.Reason, reporter, instance))
	return nil
}

// refusing makes no Event until it has refused so many calls.
type refusing struct {
	said
	left, refused int
}

func (r *refusing) Warn(ctx context.Context, e *kube.Event, reporter, instance string, now time.Time) error {
	if r.left > 0 {
		r.left--
		r.refused++
		return errors.New("refused")
	}
	return r.said.Warn(ctx, e, reporter, instance, now)
}

// TestTellAgain: an Event that was refused is tried a few times, and counts as made only once it is.
func TestTellAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ refuses, told, made int }{
		{0, 1, 1}, {tellTries - 1, 1, 1}, {tellTries, 1, 0}, {tellTries, 2, 1}, {1000, 2, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			api := &refusing{left: test.refuses}
			teller := newTeller(api, "here", slog.New(slog.DiscardHandler))
			ended := make(chan struct{})
			go func() { defer close(ended); teller.run(ctx) }()
			for range test.told {
				teller.tell(kube.Event{Name: "a", UID: "a", Reason: "One"})
				time.Sleep(time.Minute)
			}
			stop()
			<-ended
			if len(api.said) != test.made || api.refused > test.told*tellTries {
				t.Errorf("of an Event told %d times, refused up to %d times, %d were made after %d refusals, want %d", test.told, test.refuses, len(api.said), api.refused, test.made)
			}
		})
	}
}

// TestTell: what comes and goes is said once in a while, and what cannot be said holds nobody up.
func TestTell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var got said
		teller := newTeller(&got, "here", slog.New(slog.DiscardHandler))
		tell := func(name, reason string) {
			teller.tell(kube.Event{Name: name, UID: types.UID(name), Reason: reason})
		}
		for i := range maxUntold + 1 { // nobody makes any yet
			tell(fmt.Sprint(i), "Some")
		}
		go teller.run(ctx)
		synctest.Wait()
		if len(got) != maxUntold {
			t.Errorf("of %d Events %d were made, want %d", maxUntold+1, len(got), maxUntold)
		}
		got = nil
		for range 10 {
			tell("a", "One")
			tell("a", "Other")
			tell("b", "One")
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		once := []string{"a One sallyport-controller here", "a Other sallyport-controller here", "b One sallyport-controller here"}
		if want := slices.Concat(once, once); !slices.Equal(got, want) {
			t.Errorf("within ten minutes it says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
