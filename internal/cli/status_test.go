package cli

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// manyOf makes a status with many of all that it lists.
func manyOf(n int) *agent.Status {
	s := &agent.Status{NAT: &agent.NATStatus{}, Flows: &agent.FlowsStatus{}, LeakGuard: &agent.LeakGuardStatus{},
		Drivers: []reconcile.DriverState{{Name: "nft"}, {Name: "flows"}}, Ports: &diagnose.Ports{}}
	for i := range n {
		s.Faults = append(s.Faults, model.Fault{File: fmt.Sprintf("faulty%d.yaml", i), Message: "wrong"})
		s.Warnings = append(s.Warnings, model.Fault{File: fmt.Sprintf("odd%d.yaml", i), Message: "odd"})
		s.Problems = append(s.Problems, diagnose.Problem{Kind: diagnose.ForeignTranslation, Object: fmt.Sprint("rule ", i), What: "bad", Remedy: "none"})
		s.Pools = append(s.Pools, agent.PoolStatus{Name: fmt.Sprint("pool", i), CIDR: netip.MustParsePrefix("10.0.0.0/24")})
	}
	for range min(n, 5) {
		s.Ports.Destinations = append(s.Ports.Destinations, diagnose.DestinationPorts{Used: 90, Available: 100})
	}
	return s
}

// TestStatusFitsOneScreen makes sure that what matters is not scrolled away, however much there is of everything,
// and that nothing is left out where there is room.
func TestStatusFitsOneScreen(t *testing.T) {
	t.Parallel()
	print := func(s *agent.Status) string {
		var b bytes.Buffer
		if err := printStatus(&b, s); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	out := print(manyOf(1000))
	if lines := strings.Count(out, "\n"); lines > 50 {
		t.Errorf("%d lines:\n%s", lines, out)
	}
	for _, want := range []string{"faulty0.yaml: wrong", "and 995 more", "odd2.yaml: odd", "and 997 more", "rule 3: bad", "and 996 more", "pool4"} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing of %q in\n%s", want, out)
		}
	}
	out = print(&agent.Status{Pools: manyOf(30).Pools})
	if !strings.Contains(out, "pool29") || strings.Contains(out, "more") {
		t.Errorf("30 pools have room:\n%s", out)
	}
}
