//go:build clockjump

package e2e

import (
	"testing"
	"time"
)

// TestClockJumps lets the clock jump back and forth, by an hour and by ten years, under an agent's parts, and does to
// them after each jump what a walk does. hack/clock-test builds it.
func TestClockJumps(t *testing.T) {
	w := newWalk(t)
	w.putPool()
	w.check()
	const year = 365 * 24 * time.Hour
	for _, jump := range []time.Duration{time.Hour, -2 * time.Hour, 10 * year, -20 * year, 10*year + time.Hour, -time.Second} {
		before := time.Now().Round(0)
		time.Jump(jump)
		if moved := time.Now().Round(0).Sub(before) - jump; moved.Abs() > time.Second {
			t.Fatalf("the clock has not jumped by %v, but by %v more", jump, moved)
		}
		w.honest()
		for _, s := range walkSteps {
			if s.name == "restart" && jump == -time.Second {
				continue // once without, so that what ran before the jumps is seen to go on
			}
			w.trace = append(w.trace, jump.String()+" "+s.name)
			s.do(w)
			w.mend()
			w.check()
		}
		w.storm.blow(5)
		w.putPool()
		time.Jump(-jump / 2) // while calls fail and are tried again
		w.tamper()
		time.Jump(jump / 2)
		w.mend()
		w.check()
	}
	t.Logf("%d calls failed, %d flows were tried", w.storm.failed, w.cov.flows)
}
