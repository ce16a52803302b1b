package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestGuard: a leader begins again once the definition of IPPools is another's or becomes ours, and not because that could not be
// asked.
func TestGuard(t *testing.T) {
	t.Parallel()
	type answer struct {
		ours bool
		err  error
	}
	away := errors.New("away")
	for name, test := range map[string]struct {
		ours    bool
		answers []answer // the last for ever
		want    error
		asked   int
	}{
		"becomes another's":  {true, []answer{{true, nil}, {false, away}, {false, nil}}, errMoved, 3},
		"ours":               {true, []answer{{true, nil}}, nil, 10},
		"away":               {true, []answer{{false, away}}, nil, 10},
		"becomes ours":       {false, []answer{{false, nil}, {false, away}, {true, nil}}, errMoved, 3},
		"another's, as ever": {false, []answer{{false, nil}}, nil, 63},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*askEvery+askEvery/2+time.Second)
				defer cancel()
				asked := 0
				err := guard(ctx, func(context.Context) (bool, error) {
					a := test.answers[min(asked, len(test.answers)-1)]
					asked++
					return a.ours, a.err
				}, test.ours)
				if !errors.Is(err, test.want) || asked != test.asked {
					t.Errorf("asked %d times, it says %v; want %d and %v", asked, err, test.asked, test.want)
				}
			})
		})
	}
}
