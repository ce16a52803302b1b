package waiting

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestSignalNeverWaits(t *testing.T) {
	t.Parallel()
	c := make(chan struct{}, 1)
	Signal(c)
	Signal(c)
	if len(c) != 1 {
		t.Errorf("%d tokens after two signals, want 1", len(c))
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !Sleep(t.Context(), nil, time.Hour) || time.Since(began) != time.Hour {
			t.Errorf("a sleep of an hour took %s", time.Since(began))
		}
		changed := make(chan struct{})
		close(changed)
		began = time.Now()
		if !Sleep(t.Context(), changed, time.Hour) || time.Since(began) != 0 {
			t.Errorf("a sleep until what has happened took %s", time.Since(began))
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if Sleep(ended, nil, time.Hour) || time.Since(began) != 0 {
			t.Errorf("a sleep with a context that has ended took %s", time.Since(began))
		}
	})
}
