package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// TestNoForgedLines has an agent put line ends and tabs into all that it says.
func TestNoForgedLines(t *testing.T) {
	t.Parallel()
	const bad = "x\nforged\tline\r\x1b[2J"
	fault := model.Fault{File: bad, Kind: bad, Name: bad, Field: bad, Message: bad}
	dir := manifests(t, pools)
	flow, err := json.Marshal(agent.Flow{Pool: bad, Protocol: bad, State: bad})
	if err != nil {
		t.Fatal(err)
	}
	failed, err := json.Marshal(map[string]string{"error": bad})
	if err != nil {
		t.Fatal(err)
	}
	flows, _ := flowsAgent(t, string(flow)+"\n")
	broken, _ := flowsAgent(t, string(failed)+"\n")
	status := agent.Status{Node: bad, Reason: bad, Dir: bad, Faults: []model.Fault{fault}, Warnings: []model.Fault{fault}, Pending: []string{bad},
		Drivers: []reconcile.DriverState{{Name: bad, Error: bad}}, Problems: []diagnose.Problem{{Object: bad, Field: bad, What: bad, Remedy: bad}},
		NAT:   &agent.NATStatus{To4: bad, To6: bad, Ports: bad, Settings: []compile.Setting{{Field: bad, Value: bad, NATConfiguration: bad}}},
		Pools: []agent.PoolStatus{{Name: bad, Reason: bad}}}
	ready := status
	ready.Ready, ready.Faults = true, nil
	explained := agent.ExplainResponse{Node: "here", Reason: bad, Dir: dir, Current: true, Settings: []compile.Setting{{Field: "outInterfaces", Value: bad, NATConfiguration: bad}},
		Verdict: compile.Verdict{Action: compile.Translate, To: &compile.Target{Address: bad, Ports: bad}, Reason: bad}}
	differs := agent.ExplainResponse{Node: "here", Ready: true, Verdict: compile.Verdict{Action: compile.Keep, Reason: bad}}
	for _, tc := range []struct{ socket, args string }{
		{answering(t, status), "status"},
		{answering(t, ready), "status"},
		{flows, "flows"},
		{broken, "flows"},
		{answering(t, explained), "explain 10.244.0.1 198.51.100.1"},
		{answering(t, differs), "explain 10.244.0.1 198.51.100.1"},
		{answering(t, agent.WaitResponse{Reason: bad}), "apply -f - --wait 1s"},
		{refusing(t, bad), "status"},
		{refusing(t, bad), "flows"},
		{refusing(t, bad), "explain 10.244.0.1 198.51.100.1"},
	} {
		out, errs, _ := sallyport(t, dir, pools, append(strings.Fields(tc.args), "--socket", tc.socket)...)
		if strings.Contains(out+errs, "\nforged") || strings.ContainsAny(out+errs, "\t\r\x1b") || !strings.Contains(out+errs, `x\nforged\tline\u000d\u001b[2J`) {
			t.Errorf("%s: %q, %q", tc.args, out, errs)
		}
	}
}

// refusing is the socket of an agent that refuses everything with this text.
func refusing(t *testing.T, said string) string {
	t.Helper()
	return listening(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, said, http.StatusServiceUnavailable) })
}

// TestHostileTextDoesNotReachTheTerminal puts escapes into a field's name and a value.
func TestHostileTextDoesNotReachTheTerminal(t *testing.T) {
	t.Parallel()
	hostile := strings.Replace(pools, "natOutgoing: true", `"nat\e]0;owned\a\u202E\nforged: fault": true`, 1)
	dir := manifests(t, hostile)
	for _, args := range [][]string{{"get", "pools"}, {"validate", "-f", dir}, {"apply", "-f", dir}, {"explain", "10.0.0.1", "192.0.2.1"}} {
		out, errs, _ := sallyport(t, dir, "", args...)
		if strings.ContainsAny(out+errs, "\x1b\a\u202e") || !strings.Contains(out+errs, `\u001b]0;owned`) || strings.Contains(out+errs, "\nforged") {
			t.Errorf("%v: %q, %q", args, out, errs)
		}
	}
	out, _, _ := sallyport(t, dir, "", "validate", "-f", dir, "-o", "json")
	if faults := decoded[[]validateFault](t, out); len(faults) != 1 || !strings.Contains(faults[0].Field, "\x1b]0;owned\a\u202e\nforged") || !json.Valid([]byte(out)) {
		t.Errorf("as JSON: %q", out)
	}
}
