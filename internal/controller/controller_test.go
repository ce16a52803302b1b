package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestGuard: a leader ends once the definition of IPPools is somebody else's, and not because that could not be asked.
func TestGuard(t *testing.T) {
	t.Parallel()
	type answer struct {
		ours bool
		err  error
	}
	away := errors.New("away")
	for name, test := range map[string]struct {
		answers []answer // the last for ever
		want    error
		asked   int
	}{
		"somebody else's": {[]answer{{true, nil}, {false, away}, {false, nil}}, errNotOurs, 3},
		"ours":            {[]answer{{true, nil}}, nil, 10},
		"away":            {[]answer{{false, away}}, nil, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*askEvery+askEvery/2)
				defer cancel()
				asked := 0
				err := guard(ctx, func(context.Context) (bool, error) {
					a := test.answers[min(asked, len(test.answers)-1)]
					asked++
					return a.ours, a.err
				})
				if !errors.Is(err, test.want) || asked != test.asked {
					t.Errorf("asked %d times, it says %v; want %d and %v", asked, err, test.asked, test.want)
				}
			})
		})
	}
}
