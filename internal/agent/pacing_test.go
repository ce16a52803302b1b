package agent

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

func statusAt(ready bool, seen, changed string) *written {
	return &written{owner: "uid", status: v1alpha1.SallyportNodeStatus{Conditions: readiness(ready, "why"), Observed: v1alpha1.Observed{IPPools: seen}}, changed: v1alpha1.Observed{IPPools: changed}}
}

// without is a status after a pool has gone.
func without(w *written) *written {
	w.status.Observed.IPPoolsDigest = "of fewer"
	return w
}

func TestWhenAStatusIsWritten(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	for _, test := range []struct {
		name       string
		nodes      int
		last, want *written
		from, to   time.Duration
	}{
		{"the first", 1, nil, statusAt(true, "1", ""), 0, 10 * time.Millisecond},
		{"the first of many", 5000, nil, statusAt(true, "1", ""), 0, 50 * time.Second},
		{"a pool has changed", 10, statusAt(true, "9", "9"), statusAt(true, "10", "10"), 0, 100 * time.Millisecond},
		{"a status alone has changed", 10, statusAt(true, "9", "9"), statusAt(true, "10", "9"), 30 * time.Minute, 90 * time.Minute},
		{"a pool is gone", 10, statusAt(true, "9", "9"), without(statusAt(true, "9", "9")), 30500 * time.Millisecond, 92 * time.Second},
		{"that, among many", 5000, statusAt(true, "9", "9"), without(statusAt(true, "9", "9")), 280 * time.Second, 840 * time.Second},
		{"not ready any more", 10, statusAt(true, "9", "9"), statusAt(false, "9", "9"), 0, 100 * time.Millisecond},
		{"another Node of the same name", 10, statusAt(true, "9", "9"), &written{owner: "other", status: statusAt(true, "9", "9").status}, 0, 100 * time.Millisecond},
		{"nothing", 10, statusAt(true, "9", "9"), statusAt(true, "9", "9"), 30 * time.Minute, 90 * time.Minute},
	} {
		for range 50 {
			p := &pacing{nodes: test.nodes, last: test.last}
			due := p.plan(begin, test.want).Sub(begin)
			if due < test.from || due > test.to {
				t.Errorf("%s: after %s, want %s to %s", test.name, due, test.from, test.to)
			}
			if again := p.plan(begin.Add(time.Millisecond), test.want).Sub(begin); again != due {
				t.Errorf("%s: asked again it was put off from %s to %s", test.name, due, again)
			}
		}
	}
}

func TestUrgentNewsComeSooner(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	p := &pacing{nodes: 1, last: statusAt(true, "9", "9")}
	p.plan(begin, statusAt(true, "10", "9"))
	if due := p.plan(begin, statusAt(true, "11", "11")); due.Sub(begin) > time.Second {
		t.Errorf("a changed pool waits until %s, as long as a changed status", due.Sub(begin))
	}
	// What is as it was written again needs no write.
	p = &pacing{nodes: 1, last: statusAt(true, "9", "9")}
	p.plan(begin, statusAt(false, "9", "9"))
	if due := p.plan(begin, statusAt(true, "9", "9")); due.Sub(begin) < time.Minute {
		t.Errorf("what is as it was is written after %s", due.Sub(begin))
	}
}

func TestFailedWritesBackOff(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	p := &pacing{nodes: 1}
	want := statusAt(true, "1", "1")
	for range 20 {
		p.wrote(now, want, errors.New("no"))
		due := p.plan(now, want)
		if pause := due.Sub(now); pause < retryMin/2 || pause > 3*retryMax/2 {
			t.Fatalf("a pause of %s after a failure", pause)
		}
		now = due
	}
	if p.pause != retryMax {
		t.Errorf("the pause has grown to %s, want %s", p.pause, retryMax)
	}
	p.wrote(now, want, nil)
	if due := p.plan(now, statusAt(true, "2", "2")); due.Sub(now) > time.Second {
		t.Errorf("after a success, news wait for %s", due.Sub(now))
	}
}

// TestNothingIsForgotten makes changes at random: what is wanted is written in the end, and no change of a pool waits
// longer than it should.
func TestNothingIsForgotten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := &pacing{nodes: rapid.IntRange(1, 5000).Draw(t, "nodes")}
		window := time.Duration(p.nodes) * time.Second / writesPerSecond
		now := time.Unix(1000, 0)
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			want := statusAt(rapid.Bool().Draw(t, "ready"), rapid.SampledFrom([]string{"", "9", "10", "11"}).Draw(t, "seen"), rapid.SampledFrom([]string{"", "9", "10"}).Draw(t, "changed"))
			u := p.urgency(want)
			due := p.plan(now, want)
			if u == soon && due.Sub(now) > window {
				t.Fatalf("due after %s, want %s at most", due.Sub(now), window)
			}
			if rapid.Bool().Draw(t, "waits") {
				now = due
				p.wrote(now, want, nil)
				if p.urgency(want) == soon && !later(want.changed.IPPools, want.status.Observed.IPPools) {
					t.Fatal("what was written is to be written again")
				}
			}
		}
	})
}
