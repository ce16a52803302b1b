package cli

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
)

// sallyport runs one command line, with standard input, on a directory of manifests and without an
// agent. It returns what was printed, errors as Main prints them, and the exit code.
func sallyport(t *testing.T, dir, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	root := Root()
	root.SetArgs(append([]string{"--dir", dir, "--socket", filepath.Join(t.TempDir(), "none.sock")}, args...))
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	code = execute(t.Context(), root)
	return out.String(), errs.String(), code
}

const pools = `# Kept by the network team.
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: corporate
spec:
  cidr: 10.0.0.0/8
  disabled: true
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: private
spec:
  cidr: 10.244.0.0/16
  natOutgoing: true # the fabric does not route it
`

func manifests(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pools.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	table := `NAME        CIDR            NATOUTGOING   DISABLED   ALLOCATABLE
corporate   10.0.0.0/8      false         true       PoolDisabled
private     10.244.0.0/16   true          false      OK
`
	for _, alias := range []string{"ippool", "ippools", "ipp", "pool", "pools", "IPPool", "ippools.projectcalico.org", "ippool.crd.projectcalico.org"} {
		out, errs, code := sallyport(t, dir, "", "get", alias)
		want(t, alias, out, table)
		want(t, alias+" errors", errs, "")
		if code != 0 {
			t.Errorf("get %s: exit code %d", alias, code)
		}
	}
	out, _, _ := sallyport(t, dir, "", "get", "pools", "-o", "name")
	want(t, "names", out, "ippool.projectcalico.org/corporate\nippool.projectcalico.org/private\n")
	out, _, _ = sallyport(t, dir, "", "get", "pool", "private", "-o", "yaml")
	want(t, "yaml", out, `apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: private
spec:
  cidr: 10.244.0.0/16
  natOutgoing: true
status:
  conditions:
  - message: the pool gives out addresses
    reason: OK
    status: "True"
    type: Allocatable
`)
	out, errs, code := sallyport(t, dir, "", "get", "pool", "private", "public")
	if want(t, "missing", errs, "sallyport: ippool.projectcalico.org/public was not found in "+dir+"\n"); code != 1 || !strings.Contains(out, "private") {
		t.Errorf("one of two is missing: exit code %d, %q", code, out)
	}
	_, errs, code = sallyport(t, dir, "", "get", "pods")
	want(t, "unknown kind", errs, "sallyport: there is no kind \"pods\" here: it is one of ippools, natconfigurations, nodes\n")
	if code != 1 {
		t.Errorf("unknown kind: exit code %d", code)
	}
}

// An agent knows which pool came first, but only of its own directory, and only of what it has read.
func TestGetAsksTheAgentOfThisDirectory(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	var status agent.Status
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(status) }))
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	said := func(cidr string) []agent.PoolStatus {
		return []agent.PoolStatus{{Name: "private", CIDR: netip.MustParsePrefix(cidr), NATOutgoing: true, Reason: "SaidByTheAgent"}}
	}
	for _, tc := range []struct {
		what   string
		status agent.Status
		want   string // of the pool private
	}{
		{"the agent of this directory", agent.Status{Dir: dir, Pools: said("10.244.0.0/16")}, "SaidByTheAgent"},
		{"another directory", agent.Status{Dir: t.TempDir(), Pools: said("10.244.0.0/16")}, "OK"},
		{"an older pool", agent.Status{Dir: dir, Pools: said("10.245.0.0/16")}, "OK"},
	} {
		status = tc.status
		out, errs, code := sallyport(t, dir, "", "get", "pools", "--socket", socket)
		want(t, tc.what, out, `NAME        CIDR            NATOUTGOING   DISABLED   ALLOCATABLE
corporate   10.0.0.0/8      false         true       PoolDisabled
private     10.244.0.0/16   true          false      `+tc.want+"\n")
		if code != 0 || errs != "" {
			t.Errorf("%s: exit code %d, %q", tc.what, code, errs)
		}
	}
}

// An agent that hangs knows more of the conditions, but must not keep the manifests from being listed.
func TestGetGoesOnWithoutAnAgentThatHangs(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir, done := manifests(t, pools), make(chan struct{})
	go func() {
		defer close(done)
		if out, errs, code := sallyport(t, dir, "", "get", "pools", "--socket", socket); code != 0 || errs != "" || !strings.Contains(out, "private") {
			t.Errorf("exit code %d, %q, %q", code, out, errs)
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was listed within 20 s")
	}
}

func TestGetSaysWhatIsFaulty(t *testing.T) {
	t.Parallel()
	dir := manifests(t, strings.Replace(pools, "10.0.0.0/8", "10.0.0.1/8", 1))
	out, errs, code := sallyport(t, dir, "", "get", "pools", "-o", "name")
	want(t, "the sound one", out, "ippool.projectcalico.org/private\n")
	if code != 1 || !strings.Contains(errs, "pools.yaml:7: IPPool \"corporate\": spec.cidr: ") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	out, _, code := sallyport(t, t.TempDir(), pools, "validate", "-f", "-", "-o", "json")
	if want(t, "clean", out, "[]\n"); code != 0 {
		t.Errorf("clean: exit code %d", code)
	}
	bad := strings.Replace(pools, "natOutgoing", "natoutgoing", 1) + "---\n{{ template }}\n"
	out, _, code = sallyport(t, t.TempDir(), bad, "validate", "-f", "-", "-o", "json")
	faults := decoded[[]validateFault](t, out)
	if code != 1 || len(faults) != 2 {
		t.Fatalf("exit code %d, %v", code, faults)
	}
	if f := faults[0]; f.File != "-" || f.Line != 16 || f.Kind != "IPPool" || f.Name != "private" || f.Field != "spec.natoutgoing" || !strings.Contains(f.Message, "natOutgoing") {
		t.Errorf("misspelt field: %+v", f)
	}
	if f := faults[1]; f.File != "-" || f.Line != 18 || f.Kind != "" || f.Name != "" || f.Field != "" {
		t.Errorf("unreadable document: %+v", f)
	}
}

// A pipeline that broke gives nothing, which must not count as valid.
func TestValidateRefusesNothing(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for _, input := range []string{"", "# nothing\n---\n"} {
		for _, from := range []string{"-", empty} {
			_, errs, code := sallyport(t, empty, input, "validate", "-f", from)
			if code != 1 || errs != from+": holds no object: check what writes it, or give --allow-empty\n" {
				t.Errorf("%q from %s: exit code %d, %q", input, from, code, errs)
			}
			out, _, code := sallyport(t, empty, input, "validate", "-f", from, "-o", "json")
			if faults := decoded[[]validateFault](t, out); code != 1 || len(faults) != 1 || faults[0].File != from {
				t.Errorf("%q from %s as JSON: exit code %d, %s", input, from, code, out)
			}
			out, errs, code = sallyport(t, empty, input, "validate", "-f", from, "--allow-empty")
			if code != 0 || out != "objects: 0, faults: 0\n" || errs != "" {
				t.Errorf("%q from %s with --allow-empty: exit code %d, %q, %q", input, from, code, out, errs)
			}
		}
	}
}

func TestApplyAndDelete(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "pools.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const public = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: public}\nspec: {cidr: 203.0.113.0/24}\n"
	corporate, _, _ := strings.Cut(pools, "---\n")
	for _, step := range []struct {
		what, stdin string
		args        []string
		out, errs   string // errs: a part of it
		code        int
	}{
		{"dry run", public, []string{"apply", "-f", "-", "--dry-run"}, "ippool.projectcalico.org/public created (dry run)\n", "", 0},
		{"nothing was written", "", []string{"get", "pool", "public", "-o", "name"}, "", "was not found", 1},
		{"create", public, []string{"apply", "-f", "-"}, "ippool.projectcalico.org/public created\n", "", 0},
		{"again", public, []string{"apply", "-f", "-"}, "ippool.projectcalico.org/public unchanged\n", "", 0},
		{"change", strings.Replace(corporate, "true", "false", 1), []string{"apply", "-f", "-"}, "ippool.projectcalico.org/corporate configured\n", "", 0},
		{"immutable", strings.Replace(public, "113.0/24", "112.0/24", 1), []string{"apply", "-f", "-"}, "", "spec.cidr", 1},
		{"one of two invalid", public + "---\n" + strings.Replace(corporate, "10.0.0.0/8", "10.0.0.0/33", 1), []string{"apply", "-f", "-"}, "", "spec.cidr", 1},
		{"nothing", "# nothing\n", []string{"apply", "-f", "-"}, "", "nothing to apply", 1},
		{"no agent to wait for", public, []string{"apply", "-f", "-", "--wait", "1s"}, "ippool.projectcalico.org/public unchanged\n", "no agent is running there", 3},
		{"delete and no agent to wait for", "", []string{"delete", "pool", "public", "--wait", "1s"}, "ippool.projectcalico.org/public deleted\n", "not known to be in the kernel", 3},
		{"one of two is not there, and no agent to wait for", public, []string{"apply", "-f", "-"}, "ippool.projectcalico.org/public created\n", "", 0},
		{"what was not there is an error", "", []string{"delete", "pool", "nowhere", "public", "--wait", "1s"}, "ippool.projectcalico.org/public deleted\n", "not found", 1},
		{"create again", public, []string{"apply", "-f", "-"}, "ippool.projectcalico.org/public created\n", "", 0},
		{"delete", "", []string{"delete", "pool", "corporate", "public"}, "ippool.projectcalico.org/corporate deleted\nippool.projectcalico.org/public deleted\n", "", 0},
		{"delete what is not there", "", []string{"delete", "pool", "corporate"}, "", "corporate", 1},
		{"delete without saying what", "", []string{"delete"}, "", "say what to delete", 1},
	} {
		out, errs, code := sallyport(t, dir, step.stdin, step.args...)
		want(t, step.what, out, step.out)
		if code != step.code || !strings.Contains(errs, step.errs) || step.errs == "" && errs != "" {
			t.Errorf("%s: exit code %d, %s", step.what, code, errs)
		}
	}
	if got := read(); !strings.Contains(got, "natOutgoing: true # the fabric does not route it") || strings.Contains(got, "corporate") {
		t.Errorf("the neighbour did not stay as it was:\n%s", got)
	}
}

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
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(answer) }))
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
	older, other, broken := said, said, said
	older.Current, other.Dir = false, t.TempDir()
	broken.Objects = []agent.DeclaredObject{{Kind: "IPPool", Name: "private", Object: json.RawMessage(`{"spec":{"cidr":1}}`)}}
	for _, tc := range []struct {
		what string
		said agent.ObjectsResponse
		read bool
	}{{"as they are", said, false}, {"an older state", older, true}, {"another directory", other, true}, {"what cannot be converted", broken, true}} {
		out, errs, code := sallyport(t, dir, "", "get", "pools", "private", "--socket", answering(t, tc.said))
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
	for _, tc := range []struct {
		what, dir, node string
		said            agent.ExplainResponse
		by, state, text string
	}{
		{"the same", dir, "", agent.ExplainResponse{Verdict: translated, Ready: true}, "manifests", "same", "\nThe kernel of this node holds the same.\n"},
		{"another plan", dir, "", agent.ExplainResponse{Verdict: kept, Ready: true, Dir: dir}, "manifests", "differs", "\nThis is by the manifests. The kernel of this node DIFFERS: the agent, whose plan it holds, says keep, because it says so.\n"},
		{"not ready", dir, "", agent.ExplainResponse{Verdict: translated, Reason: "no luck"}, "manifests", "notChecked", "\nThis is by the manifests. The kernel was NOT CHECKED: the agent is not ready: no luck.\n"},
		{"another node", dir, "far", agent.ExplainResponse{Verdict: translated, Ready: true}, "manifests", "notChecked", "The kernel was NOT CHECKED: node far is not this one; ask there.\n"},
		{"the agent decides", faulty, "", agent.ExplainResponse{Verdict: kept, Ready: true, Current: true, Dir: faulty}, "agent", "same", "\nThe kernel of this node holds the same.\n"},
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
		if e := decoded[explanation](t, out); e.Kernel.State != tc.state || (e.Kernel.Reason == "") != (tc.state == "same") || e.DecidedBy != tc.by {
			t.Errorf("%s: %+v", tc.what, e)
		}
	}
}

func TestBadInputIsNamed(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	for _, tc := range []struct{ args, want string }{
		{"explain 10.0.0.1 fd00::1", "SRC 10.0.0.1 and DST fd00::1 are of different families"},
		{"explain 10.0.0.300 10.0.0.1", `SRC: "10.0.0.300" is not an IP address`},
		{"explain 10.0.0.1 fe80::1%eth0", `DST: "fe80::1%eth0" is not an IP address`},
		{"explain 10.0.0.1 10.0.0.2 --proto tpc", `--proto: "tpc" is none of tcp, udp`},
		{"explain 10.0.0.1", "accepts 2 arg(s), received 1"},
		{"get pools -o ymal", `--output: "ymal" is none of wide, yaml, json, name`},
		{"get", "requires at least 1 arg(s)"},
		{"run --log-level loud", `--log-level: "loud" is none of debug, info, warn, error`},
		{"run --log-format xml", `--log-format: "xml" is neither text nor json`},
		{"run --node-name UP_per", `--node-name "UP_per": no node can have this name: give at most 253 lower case letters`},
		{"explain 10.0.0.1 10.0.0.2 --node-name UP_per", `--node-name "UP_per": no node can have this name`},
		{"status --socket /" + strings.Repeat("a", 107), "--socket /aaa"},
		{"run --socket /" + strings.Repeat("a", 107), "has 108 bytes, and the kernel takes at most 107 for the path of a socket: give a shorter one"},
		{"status --wait -5s", `invalid argument "-5s" for "--wait" flag: must be from 0s to 10m0s, such as 5s`},
		{"apply -f - --wait 1h", `invalid argument "1h" for "--wait" flag: must be from 0s to 10m0s, such as 5s`},
		{"delete pool private --wait 5", `invalid argument "5" for "--wait" flag: is no time such as 5s or 1m30s`},
		{"flows", "no agent is running there; start one with: sallyport run"},
		{"flows --source 10.0.0", `--source: "10.0.0" is none of an address, a range and an address with a port`},
		{"flows --proto tpc", `--proto: "tpc" is none of tcp, udp`},
		{"flows --limit -1", "--limit: -1 is less than 0; use 0 for all"},
		{"flows -o yaml", `--output: "yaml" is none of json`},
		{"validate -f /does/not/exist.yaml", "/does/not/exist.yaml"},
		{"validate", `required flag(s) "filename" not set`},
		{"convert calico", `required flag(s) "filename" not set`},
		{"convert calico -f /does/not/exist.yaml", "/does/not/exist.yaml does not exist: check the path"},
		{"convert ip-masq-agent", "--pod-cidr: is missing"},
		{"convert ip-masq-agent --pod-cidr 10.0.0.0/8 -f -", "-: holds no configuration: leave -f out"},
		{"convert ip-masq-agent --pod-cidr 10.0.0.1/8", "write 10.0.0.0/8"},
		{"frobnicate", `unknown command "frobnicate"`},
		{"--dir /does/not/exist get pools", "/does/not/exist does not exist: create it"},
		{"apply -f /does/not/exist.yaml", "/does/not/exist.yaml does not exist: check the path"},
		{"delete pool nowhere", "IPPool \"nowhere\" not found"},
	} {
		_, errs, code := sallyport(t, dir, "", strings.Fields(tc.args)...)
		if code != 1 || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want one line with %q", tc.args, code, errs, tc.want)
		}
	}
}

func TestExplainSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools+"---\n[")
	for args, want := range map[string]string{
		"explain 10.244.0.1 198.51.100.1":                 "no agent is running there",
		"explain 10.244.0.1 198.51.100.1 --node-name far": "only that node's agent knows",
	} {
		if _, errs, code := sallyport(t, dir, "", strings.Fields(args)...); code != 1 || !strings.Contains(errs, want) || !strings.Contains(errs, "not valid YAML") {
			t.Errorf("%s: exit code %d, %q", args, code, errs)
		}
	}
}

// What cannot be read may be what was meant to go.
func TestDeleteRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	_, errs, code := sallyport(t, dir, pools+"---\n{ not yaml", "delete", "-f", "-")
	if code != 1 || !strings.Contains(errs, "not valid YAML") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if out, _, code := sallyport(t, dir, "", "get", "pools", "-o", "name"); code != 0 || strings.Count(out, "\n") != 2 {
		t.Errorf("what is left: exit code %d, %q", code, out)
	}
}

func TestEveryCommandHasHelpAndCompletion(t *testing.T) {
	t.Parallel()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s says nothing about itself", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(Root())
	out, _, code := sallyport(t, manifests(t, pools), "", "completion", "bash")
	if code != 0 || !strings.Contains(out, "__start_sallyport") {
		t.Errorf("completion: exit code %d", code)
	}
	out, _, _ = sallyport(t, manifests(t, pools), "", "__complete", "get", "pool", "")
	if !strings.HasPrefix(out, "corporate\nprivate\n") {
		t.Errorf("completing names: %q", out)
	}
	out, _, _ = sallyport(t, manifests(t, pools), "", "__complete", "flows", "--pool", "")
	if !strings.HasPrefix(out, "corporate\nprivate\n") {
		t.Errorf("completing --pool: %q", out)
	}
}
