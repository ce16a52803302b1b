package e2e

import (
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// TestDropsAreKept changes what the leak guard's rules are made of, and drops more after each change than before.
// No count may be lost, whether the rules that count came anew or not.
func TestDropsAreKept(t *testing.T) {
	t.Parallel()
	r := newGuardedRig(t)
	var ps probes
	total, n := uint64(0), 0
	for _, step := range []struct {
		what     string
		snapshot *model.Snapshot
	}{
		{"at first", guarded(nil)},
		{"with sources elsewhere", func() *model.Snapshot {
			s := guarded(nil)
			s.Pools = append(s.Pools, pool("far 192.168.0.0/16 nat"))
			return s
		}()},
		{"with interfaces", guarded(&model.NATConfiguration{OutInterfaces: []string{"eth*"}})},
		{"without", guarded(nil)},
		{"with other flows to keep", guarded(&model.NATConfiguration{ExistingFlows: ptr(model.FlowsReset)})},
	} {
		r.program(t, step.snapshot)
		r.flush(t, &ps, r.pod[0]) // so that neighbours are known
		n += 5
		for i := range n {
			for family := range 2 {
				s := segment{src: guardedPod[family], dst: stranger[family], sport: 1000 + uint16(i), dport: 80, flags: tcpRST}
				labtest.Must(t, r.pod[0].send(s.marshal()))
			}
		}
		r.flush(t, &ps, r.pod[0])
		total += 2 * uint64(n)
		if got := r.dropped(t).Out; got != total {
			t.Errorf("%s: %d dropped in all; want %d", step.what, got, total)
		}
	}
}
