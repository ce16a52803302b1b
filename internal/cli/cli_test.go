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
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
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
	want(t, "unknown kind", errs, "sallyport: there is no kind \"pods\" here: it is one of ippools, natconfigurations, nodes, ipreservations, nodenetworkconfigurations, ipblocks, bgppeers, bgpconfigurations, bgpfilters\n")
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

func TestBadInputIsNamed(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	for _, tc := range []struct{ args, want string }{
		{"explain 10.0.0.1 fd00::1", "SRC 10.0.0.1 and DST fd00::1 are of different families"},
		{"explain 10.0.0.300 10.0.0.1", `SRC: "10.0.0.300" is not an IP address`},
		{"explain 10.0.0.1 fe80::1%eth0", `DST: "fe80::1%eth0" is not an IP address`},
		{"explain 10.0.0.1 10.0.0.2 --proto tpc", `--proto: "tpc" is not known: give tcp, udp`},
		{"explain 10.0.0.1", "give a source and a destination"},
		{"get pools -o ymal", `--output: "ymal" is not known: give one of wide, yaml, json, name`},
		{"get", "requires at least 1 arg(s)"},
		{"run --log-level loud", `--log-level: "loud" is not known: give debug, info, warn or error`},
		{"run --log-format xml", `--log-format: "xml" is neither text nor json`},
		{"run --node-name UP_per", `--node-name "UP_per": no node can have this name: give at most 253 lower case letters`},
		{"explain 10.0.0.1 10.0.0.2 --node-name UP_per", `--node-name "UP_per": no node can have this name`},
		{"status --socket /" + strings.Repeat("a", 107), "--socket /aaa"},
		{"run --socket /" + strings.Repeat("a", 107), "has 108 bytes, and the kernel takes at most 107 for the path of a socket: give a shorter one"},
		{"status --wait -5s", `invalid argument "-5s" for "--wait" flag: must be from 0s to 10m0s, such as 5s`},
		{"apply -f - --wait 1h", `invalid argument "1h" for "--wait" flag: must be from 0s to 10m0s, such as 5s`},
		{"delete pool private --wait 5", `invalid argument "5" for "--wait" flag: is no time such as 5s or 1m30s`},
		{"flows", "no agent is running there; start one with: sallyport run"},
		{"flows --source 10.0.0", `--source: "10.0.0" is not an address, a range or an address with a port`},
		{"flows --proto tpc", `--proto: "tpc" is not known: give tcp, udp`},
		{"flows --limit -1", "--limit: -1 is less than 0; use 0 for all"},
		{"flows -o yaml", `--output: "yaml" is not known: give one of json`},
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
