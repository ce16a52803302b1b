package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// manyOf makes a status with many of all that it lists.
func manyOf(n int) *agent.Status {
	s := &agent.Status{NAT: &agent.NATStatus{}, Flows: &agent.FlowsStatus{}, LeakGuard: &agent.LeakGuardStatus{},
		Drivers: []reconcile.DriverState{{Name: "nat"}, {Name: "flows"}}, Ports: &diagnose.Ports{}}
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

// TestStatusSaysWhatThePodNetworkCannotDo, of which there may be much.
func TestStatusSaysWhatThePodNetworkCannotDo(t *testing.T) {
	t.Parallel()
	n := &agent.NetworkStatus{}
	for i := range 1000 {
		n.Problems = append(n.Problems, fmt.Sprint("unreachable ", i))
		n.BGPProblems = append(n.BGPProblems, fmt.Sprint("no session ", i))
	}
	var b bytes.Buffer
	if err := printStatus(&b, &agent.Status{Network: n}); err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{"of others:\n  unreachable 0\n  unreachable 1\n  unreachable 2\n  and 997 more", "as it is asked to:\n  no session 0\n  no session 1\n  no session 2\n  and 997 more"} {
		if !strings.Contains(b.String(), list) {
			t.Errorf("nothing of %q in\n%s", list, &b)
		}
	}
}

// TestStatusSaysHowItStandsByItsExitCode has agents answer in every way.
func TestStatusSaysHowItStandsByItsExitCode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tc := range []struct {
		what string
		said agent.Status
		code int
	}{
		{"ready", agent.Status{Ready: true}, 0},
		{"ready, with warnings", agent.Status{Ready: true, Warnings: []model.Fault{{Message: "odd"}}}, 0},
		{"not ready", agent.Status{Reason: "no luck"}, 1},
		{"a fault", agent.Status{Ready: true, Faults: []model.Fault{{Message: "wrong"}}}, 1},
		{"a file that is being written", agent.Status{Ready: true, Pending: []string{"a.yaml"}}, 1},
	} {
		socket := answering(t, tc.said)
		for _, args := range [][]string{{"status"}, {"status", "-o", "json"}} {
			if out, errs, code := sallyport(t, dir, "", append(args, "--socket", socket)...); code != tc.code || errs != "" || out == "" {
				t.Errorf("%s, %v: exit code %d, want %d; %q, %q", tc.what, args, code, tc.code, out, errs)
			}
		}
	}
	if _, errs, code := sallyport(t, dir, "", "status"); code != 3 || !strings.Contains(errs, "no agent is running there; start one with: sallyport run") {
		t.Errorf("without an agent: exit code %d, %q", code, errs)
	}
}

// TestOnlyWithoutAnAgentATableStays: one that hangs, or that has another socket, may change the table.
func TestOnlyWithoutAnAgentATableStays(t *testing.T) {
	t.Parallel()
	none := fmt.Errorf("asking: %w", agent.ErrNoAgent)
	if noAgent(t.Context(), errors.New("it gives no answer")) || noAgent(t.Context(), none) != (agent.Holder(t.Context()) == nil) {
		t.Error("an agent that hangs counts as none")
	}
	for kept, said := range map[bool]string{true: "stays as it is until an agent runs", false: "NOT CHECKED"} {
		if got := (tableView{State: tablePresent}).say(kept); !strings.Contains(got, said) {
			t.Errorf("kept %v: %s", kept, got)
		}
	}
}

// TestWaitIsBounded waits for an agent that hangs. An answer for which the agent has 30 s would come too late.
func TestWaitIsBounded(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, args := range []string{"status --wait 10ms", "apply -f - --wait 10ms", "delete pool private --wait 10ms"} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, errs, code := sallyport(t, dir, pools, append(strings.Fields(args), "--socket", socket)...)
			if code != 3 || !strings.Contains(errs, "gives no answer within") {
				t.Errorf("%s: exit code %d, %q", args, code, errs)
			}
		}()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s goes on after 20 s", args)
		}
	}
}

// TestWaitBoundsTheLock: another edit that goes on is waited for no longer than --wait says, and nothing is written.
func TestWaitBoundsTheLock(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	other, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if err := unix.Flock(other, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"apply -f - --wait 10ms", "delete pool private --wait 10ms"} {
		if _, errs, code := sallyport(t, dir, pools, strings.Fields(args)...); code != 1 || !strings.Contains(errs, "another edit of") || strings.Contains(errs, "within 10s") {
			t.Errorf("%s: exit code %d, %q", args, code, errs)
		}
	}
}
