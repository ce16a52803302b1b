package cli

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools+`---
apiVersion: sallyport.dev/v1alpha1
kind: NATConfiguration
metadata: {name: default}
spec:
  portRange: 32768-65535
  outInterfaces: ["eth*"]
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
`)
	const settings = "\nSettings: portRange 32768-65535, outInterfaces eth* by NATConfiguration default."
	const unchecked = "\nThis is by the manifests. The kernel was NOT CHECKED: asking the agent on SOCKET: no agent is running there; start one with: sallyport run.\n"
	for _, tc := range []struct {
		what string
		args []string
		out  string
	}{
		{"translated", []string{"10.244.0.1", "198.51.100.1"},
			"Translated: the connection from 10.244.0.1 to 198.51.100.1 leaves with the node's address on the interface it leaves by, ports 32768-65535, since pool private has natOutgoing: true and no pool holds 198.51.100.1. This assumes that it leaves by eth*." + settings + unchecked},
		{"another interface", []string{"10.244.0.1", "198.51.100.1", "--out-interface", "wg0"},
			"Kept: the connection from 10.244.0.1 to 198.51.100.1 leaves with the pod's address, since it leaves by wg0, and outInterfaces covers only eth*." + settings + unchecked},
		{"the node of the pod", []string{"10.244.0.1", "192.0.2.2", "--node-name", "n2"},
			"Kept: the connection from 10.244.0.1 to 192.0.2.2 leaves with the pod's address, since 192.0.2.2 is this node's own address: what a pod says to its node never passes the translation." + settings +
				"\nThis is by the manifests. The kernel was NOT CHECKED: node n2 is not this one; ask there.\n"},
	} {
		out, errs, code := sallyport(t, dir, "", append([]string{"explain"}, tc.args...)...)
		if want(t, tc.what, regexp.MustCompile("on /[^ ]*none.sock").ReplaceAllString(out, "on SOCKET"), tc.out); code != 0 || errs != "" {
			t.Errorf("%s: exit code %d, %s", tc.what, code, errs)
		}
	}
}

// TestExplainAsJSON compares the whole form, without an agent.
func TestExplainAsJSON(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	for args, want := range map[string]explanation{
		"10.244.0.1 198.51.100.1 --proto icmp": {Verdict: compile.Verdict{Action: compile.Translate,
			Source: compile.Endpoint{Address: netip.MustParseAddr("10.244.0.1"), Pool: "private"}, Destination: compile.Endpoint{Address: netip.MustParseAddr("198.51.100.1")},
			To: &compile.Target{Address: "node"}, Reason: "pool private has natOutgoing: true and no pool holds 198.51.100.1"}},
		"10.244.0.1 10.1.1.1": {Verdict: compile.Verdict{Action: compile.Keep,
			Source: compile.Endpoint{Address: netip.MustParseAddr("10.244.0.1"), Pool: "private"}, Destination: compile.Endpoint{Address: netip.MustParseAddr("10.1.1.1"), Pool: "corporate"},
			Reason: "10.1.1.1 lies in pool corporate, disabled: it only exempts its range"}},
	} {
		out, errs, code := sallyport(t, dir, "", append(strings.Fields("explain -o json"), strings.Fields(args)...)...)
		got := decoded[explanation](t, out)
		if code != 0 || errs != "" || got.Kernel.State != "notChecked" || !strings.Contains(got.Kernel.Reason, "no agent is running there") || len(got.Settings) == 0 {
			t.Errorf("%s: exit code %d, %q, %+v", args, code, errs, got)
		}
		want.DecidedBy, want.Settings, want.Kernel = "manifests", got.Settings, got.Kernel
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
}

func decoded[T any](t *testing.T, text string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// answering is the socket of an agent that gives every request this answer.
func answering(t *testing.T, answer any) string {
	t.Helper()
	return listening(t, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(answer) })
}

// listening is a socket on which requests are handled so.
func listening(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(handle)
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return socket
}

// TestGetReadsNoManifestThatTheAgentHolds has agents answer in every way. The directory has a fault, which shows where the
// manifests are read.
func TestGetReadsNoManifestThatTheAgentHolds(t *testing.T) {
	t.Parallel()
	dir := manifests(t, "{ not yaml")
	said := agent.ObjectsResponse{Dir: dir, Current: true,
		Objects: []agent.DeclaredObject{{Kind: "IPPool", Name: "private", Object: json.RawMessage(`{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"private"},"spec":{"cidr":"10.244.0.0/16"}}`)}},
		Pools:   []agent.PoolStatus{{Name: "private", CIDR: netip.MustParsePrefix("10.244.0.0/16"), Reason: "SaidByTheAgent"}},
	}
	older, other, broken, hidden := said, said, said, said
	hidden.Current, hidden.Fault = false, &model.Fault{Message: "pools.yaml is hidden"}
	older.Current, other.Dir = false, t.TempDir()
	broken.Objects = []agent.DeclaredObject{{Kind: "IPPool", Name: "private", Object: json.RawMessage(`{"spec":{"cidr":1}}`)}}
	for _, tc := range []struct {
		what string
		said agent.ObjectsResponse
		read bool
	}{{"as they are", said, false}, {"an older state", older, true}, {"another directory", other, true}, {"what cannot be converted", broken, true}, {"a directory that is hidden", hidden, true}} {
		out, errs, code := sallyport(t, dir, "", "get", "pools", "private", "--socket", answering(t, tc.said))
		if tc.said.Fault != nil && !strings.Contains(errs, tc.said.Fault.Message) {
			t.Errorf("%s: %q", tc.what, errs)
		}
		if tc.read && (code != 1 || !strings.Contains(errs, "pools.yaml")) {
			t.Errorf("%s: the manifests were not read: exit code %d, %q, %q", tc.what, code, out, errs)
		}
		if !tc.read && (code != 0 || errs != "" || !strings.Contains(out, "SaidByTheAgent")) {
			t.Errorf("%s: the manifests were read: exit code %d, %q, %q", tc.what, code, out, errs)
		}
	}
}

// TestExplainSaysWhatTheKernelHolds has agents answer in every way. The one that holds the manifests as they are
// decides, and nothing is read: the directory of that case has a fault that would show.
func TestExplainSaysWhatTheKernelHolds(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	kept := compile.Verdict{Action: compile.Keep, Reason: "it says so"}
	translated := compile.Verdict{Action: compile.Translate, To: &compile.Target{Address: "node"}, Reason: "it says so"}
	faulty := manifests(t, "[")
	hidden := model.Fault{File: "/d", Message: "hidden"}
	for _, tc := range []struct {
		what, dir, node string
		said            agent.ExplainResponse
		by, state, text string
	}{
		{"the same", dir, "", agent.ExplainResponse{Verdict: translated, Ready: true}, "manifests", "same", "\nThis is by the manifests. The kernel of this node holds the same.\n"},
		{"another plan", dir, "", agent.ExplainResponse{Verdict: kept, Ready: true, Dir: dir}, "manifests", "differs", "\nThis is by the manifests. The kernel of this node DIFFERS: the agent, whose plan it holds, says keep, because it says so.\n"},
		{"not ready", dir, "", agent.ExplainResponse{Verdict: translated, Reason: "no luck"}, "manifests", "notChecked", "\nThis is by the manifests. The kernel was NOT CHECKED: the agent is not ready: no luck.\n"},
		{"another node", dir, "far", agent.ExplainResponse{Verdict: translated, Ready: true}, "manifests", "notChecked", "The kernel was NOT CHECKED: node far is not this one; ask there.\n"},
		{"the agent decides", faulty, "", agent.ExplainResponse{Verdict: kept, Ready: true, Current: true, Dir: faulty}, "agent", "same", "\nThis is by the agent. The kernel of this node holds the same.\n"},
		{"the agent holds the last good state", dir, "", agent.ExplainResponse{Verdict: kept, Ready: true, Fault: &hidden, Dir: dir}, "agent", "same", "\nThis is by the agent. It holds the LAST GOOD STATE, since there is a fault: /d: hidden. The kernel of this node holds the same.\n"},
		{"the last good state of another directory", dir, "", agent.ExplainResponse{Verdict: kept, Ready: true, Fault: &hidden, Dir: faulty}, "manifests", "differs", "DIFFERS"},
		{"the agent decides, and is not ready", faulty, "here", agent.ExplainResponse{Verdict: kept, Current: true, Dir: faulty, Reason: "no luck"}, "agent", "notChecked", "\nThis is by the agent. The kernel was NOT CHECKED: the agent is not ready: no luck.\n"},
		{"the agent of another directory", dir, "", agent.ExplainResponse{Verdict: kept, Ready: true, Current: true, Dir: faulty}, "manifests", "differs", "DIFFERS"},
	} {
		tc.said.Node = "here"
		args := []string{"explain", "10.244.0.1", "198.51.100.1", "--node-name", tc.node, "--socket", answering(t, tc.said)}
		out, errs, code := sallyport(t, tc.dir, "", args...)
		if code != 0 || errs != "" || !strings.Contains(out, tc.text) {
			t.Errorf("%s: exit code %d, %q, %q; want %q", tc.what, code, errs, out, tc.text)
		}
		out, _, _ = sallyport(t, tc.dir, "", append(args, "-o", "json")...)
		if e := decoded[explanation](t, out); (e.Fault != nil) != strings.Contains(tc.text, "LAST GOOD") || e.Kernel.State != tc.state || (e.Kernel.Reason == "") != (tc.state == "same") || e.DecidedBy != tc.by {
			t.Errorf("%s: %+v", tc.what, e)
		}
	}
}
