package main

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestRepairIsTimed has a table that nobody owns, and a repairer that takes its time: what is reported is about
// that. The kernel here may own the agent's table, and then nothing else takes this way.
func TestRepairIsTimed(t *testing.T) {
	labtest.Need(t)
	n, err := newNetwork(true)
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, n.close()) })
	const table = "table inet sallyport {\nchain c {\ntype nat hook postrouting priority 99;\nip saddr 10.244.0.0/16 masquerade\n}\n}\n"
	labtest.Must(t, nftLoad(t.Context(), n.node, table))
	p, err := startProber(t.Context(), n)
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, p.close()) })

	const slow = 50 * time.Millisecond
	repaired := make(chan error, 1)
	go func() {
		for t.Context().Err() == nil {
			if _, err := tableHandle(t.Context(), n.node); err != nil {
				time.Sleep(slow)
				repaired <- nftLoad(t.Context(), n.node, table)
				return
			}
		}
	}()
	r, err := tamper(t.Context(), options{rounds: 1}, n, p, "deleted", "delete table inet sallyport\n")
	labtest.Must(t, err, <-repaired)
	if r.Answer != "" || r.Samples != 1 || r.Min < float64(slow/time.Millisecond)/2 {
		t.Errorf("got %+v, want one sample of about %s", r, slow)
	}
}
