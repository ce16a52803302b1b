package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// conformanceEnv chooses Kubernetes' own specs of networks by a regular expression, such as Services. Without it, a
// handful runs.
const conformanceEnv = "SALLYPORT_CONFORMANCE"

// handful are the specs that run with every change: quick ones, in which packets go from pods to pods and to services.
const handful = `Pods should function for|DNS should provide DNS for services|create a functioning NodePort service|HostPort validates|hairpin`

// cannotRun are the specs that cannot run on these nodes.
var cannotRun = []struct{ specs, reason string }{
	{`\[Feature:LoadBalancer\]`, "a cloud has to provide load balancers"},
	{`\[Provider:`, "the nodes have to be a cloud's"},
	{`\[Feature:Networking-(IPv4|IPv6|DNS)\]`, "they need the internet"},
	{`\[Feature:NetworkPolicy\]`, "Sallyport enforces no network policies"},
	{`\[Feature:SCTPConnectivity\]`, "kernels may have no SCTP"},
	{`\[Feature:(LocalhostNodePorts|KubeProxyNFAcct)\]`, "kube-proxy serves no ports on the loopback in its mode nftables"},
	{`\[Feature:PerformanceDNS\]`, "10,000 services take longer than all others, and CoreDNS is what it measures"},
	{`DNS configMap|configurable pod resolv.conf`, "CoreDNS is built without the plugins that they configure"},
	{`IPerf2`, "it reads what an older iperf prints than Debian's"},
	{`evicted pods`, "kubelet has no device whose space it could measure, and takes no pod that asks for some"},
	{`Services should work after restarting`, "kube-proxy and the API server do not run as pods"},
	{`pods on multiple nodes when using Prefer|or fall back to same zone`, "they need three zones of two nodes each"},
}

// How long the handful may take, and any other choice.
const (
	handfulAtMost     = 5 * time.Minute
	conformanceAtMost = 50 * time.Minute
)

// The programs of the module test/kube/conformance.
const (
	specsProgram  = "network.test"
	ginkgoProgram = "ginkgo"
	boomProgram   = "regression-issue-74839"
)

// buildConformance builds them into a directory.
func buildConformance(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, args := range [][]string{
		{"test", "-c", "-o", filepath.Join(dir, specsProgram), "."},
		{"build", "-o", dir + "/", "tool"},
	} {
		goConformance(t, slices.Insert(args, len(args)-1, "-buildvcs=false", "-trimpath", "-ldflags=-s -w")...)
	}
	return dir
}

// goConformance runs go in their module, and returns what it prints.
func goConformance(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = filepath.Join(chart.Root(t), "test/kube/conformance")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &complaint)
	}
	return strings.TrimSpace(string(out))
}

// conformanceImages are the images that specs name: one has what they expect of most, the others a program each.
func conformanceImages(t *testing.T, dir string) []Image {
	t.Helper()
	list, err := exec.CommandContext(t.Context(), filepath.Join(dir, specsProgram), "--list-images").Output()
	labtest.Must(t, err)
	named := func(names string) []string {
		found := regexp.MustCompile(`(?m)^\S+/(`+names+`):\S+$`).FindAllString(string(list), -1)
		if len(found) == 0 {
			t.Fatalf("specs name no image %s: %s", names, list)
		}
		return found
	}
	names := named("agnhost|busybox|nginx|glibc-dns-testing|distroless-iptables")
	porter := goConformance(t, "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes") + "/test/images/agnhost/porter/"
	return []Image{
		{
			Name: names[0], Aliases: names[1:],
			Programs: []string{filepath.Join(cluster.Programs(), "agnhost"), porter + "localhost.crt", porter + "localhost.key"},
			Tools:    []string{busybox, shell, "conntrack", "curl", "dig", "getent", "iperf", "ip", "nc", "socat", "ss", "wget"},
			Command:  []string{"/agnhost", "pause"},
		},
		{Name: named("pause")[0], Programs: []string{filepath.Join(cluster.Programs(), "pause")}, Command: []string{"/pause"}},
		{Name: named(boomProgram)[0], Programs: []string{filepath.Join(dir, boomProgram)}, Command: []string{"/" + boomProgram}},
	}
}

// spec is what ginkgo reports of one.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	RunTime                 time.Duration
	Failure                 struct{ Message string }
}

func (s spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

// conform runs Kubernetes' own specs of networks.
func (c *Cluster) conform(t *testing.T, programs string) {
	t.Helper()
	c.prepareConformance(t)
	focus, atMost := `\[sig-network\].*(`+handful+`)`, handfulAtMost
	if chosen := os.Getenv(conformanceEnv); chosen != "" {
		focus, atMost = `\[sig-network\].*(`+chosen+`)`, conformanceAtMost
	}
	var skip []string
	for _, s := range cannotRun {
		skip = append(skip, s.specs)
	}
	dir := t.TempDir()
	report := filepath.Join(dir, "report.json")
	ctx, cancel := context.WithTimeout(t.Context(), atMost+time.Minute) // ginkgo is to end by itself
	defer cancel()
	cmd := c.Shell(ctx, dir, fmt.Sprintf("exec %s --procs=3 --no-color --silence-skips --timeout=%s --json-report=%s --focus='%s' --skip='%s' %s -- --kubeconfig=$KUBECONFIG --provider=skeleton --num-nodes=%d",
		ginkgoProgram, atMost, report, focus, strings.Join(skip, "|"), filepath.Join(programs, specsProgram), len(c.Nodes)), programs)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	labtest.Must(t, c.StartShell(cmd))
	ended := cmd.Wait()
	judge(t, report, regexp.MustCompile(focus))
	if ended != nil || t.Failed() {
		t.Errorf("the specs ended with %v:\n%s", ended, &said)
	}
}

// prepareConformance gives the cluster what specs need beside its nodes.
func (c *Cluster) prepareConformance(t *testing.T) {
	t.Helper()
	c.AwaitDeployment(t, "kube-system", "coredns")
	// The API server is a proxy to pods: it reaches them by a node.
	first, pods := c.Nodes[0], netip.MustParsePrefix(podRanges[0])
	c.Route(t, c.Router, pods)
	labtest.Must(t, c.Router.AddRoute(lab.Route{To: pods, Via: first.Addresses[0], Dev: first.subnet.bridge}))
	for i, n := range c.Nodes { // three zones
		_, err := c.Kubectl(t, "", "label", "node", n.Name, fmt.Sprintf("topology.kubernetes.io/zone=zone-%d", i+1))
		labtest.Must(t, err)
	}
}

// judge says how the chosen specs of a report went. Those that cannot run must be known, and all others pass.
func judge(t *testing.T, path string, chosen *regexp.Regexp) {
	t.Helper()
	data, err := os.ReadFile(path)
	labtest.Must(t, err)
	var suites []struct{ SpecReports []spec }
	labtest.Must(t, json.Unmarshal(data, &suites))
	passed, known := 0, make([]int, len(cannotRun))
	for _, s := range suites[0].SpecReports {
		name := s.name()
		excuse := slices.IndexFunc(cannotRun, func(c struct{ specs, reason string }) bool { return regexp.MustCompile(c.specs).MatchString(name) })
		if excuse >= 0 {
			known[excuse]++
		}
		switch {
		case s.LeafNodeType != "It" && s.State == "passed", s.LeafNodeType == "It" && !chosen.MatchString(name):
		case excuse >= 0 && s.State == "skipped":
			t.Logf("not run: %s: %s", name, cannotRun[excuse].reason)
		case s.State == "passed":
			passed++
			t.Logf("passed in %s: %s", s.RunTime.Round(time.Second), name)
		default:
			t.Errorf("%s after %s: %s: %s", s.State, s.RunTime.Round(time.Second), name, s.Failure.Message)
		}
	}
	t.Logf("%d specs have passed", passed)
	if passed == 0 {
		t.Errorf("no spec matches %s", chosen)
	}
	for i, specs := range known {
		if specs == 0 {
			t.Errorf("no spec that cannot run matches %s", cannotRun[i].specs)
		}
	}
}
