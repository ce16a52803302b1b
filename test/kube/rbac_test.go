package kube

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestRoles has an agent and controllers do all that they ever do, with the accounts and roles of the chart, and compares
// these with what the API server has noted: every verb is used, and none is missing.
func TestRoles(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{Audit: true})
	all := chart.Render(t, "--set", "startupTaint=true")
	installChart(t, c, all, isPools)
	s := newSite(t, c, 2)
	n, other := s.nodes[0], s.nodes[1]
	n.account(agentAccount)
	s.kubectl("", "taint", "node", "n1", "sallyport.dev/not-ready=:NoSchedule")
	s.kubectl("", "label", "node", "n2", "kubernetes.io/os=windows", "--overwrite") // no agent runs there
	other.env = append(other.env, quickEnv+"=1")
	controllers := []*controller{newController(n), newController(other)}

	// Calico keeps its pools where only an agent reads them. Servers and clients that know no streaming lists list first.
	s.apply(legacyPools)
	s.kubectl("", "wait", "--for=condition=Established", "--timeout=30s", "crd/ippools.crd.projectcalico.org")
	calicos := func(natOutgoing bool) string {
		return strings.ReplaceAll(pools(natOutgoing), "projectcalico.org/v3", "crd.projectcalico.org/v1")
	}
	s.apply(calicos(true))
	controllers[0].start()
	controllers[0].awaitLog("a third party's")
	n.env = append(n.env, quickEnv+"=1", "KUBE_FEATURE_WatchListClient=false")
	n.start()
	n.expectSoon("with Calico's pools", n.own)
	eventually(t, "the start-up taint is gone", func() (bool, string) {
		out := s.kubectl("", "get", "node", "n1", "-o", "jsonpath={.spec.taints}")
		return !strings.Contains(out, "sallyport.dev"), out
	})
	n.end(syscall.SIGTERM)

	// Where Calico's API server answers for v3, a definition of v3 has nobody's pools.
	s.apply(aggregated)
	s.apply(manifests(all, isPools))
	s.kubectl("", "wait", "--for=condition=Established", "--timeout=30s", "crd/"+poolsDefinition)
	n.start()
	s.apply(calicos(false)) // what an agent says before a change may be what it had saved
	n.expectSoon("after a change behind Calico's API server", n.inner)
	s.apply(calicos(true))
	n.expectSoon("after it was taken back", n.own)
	if out, err := n.sallyport("status"); err != nil || strings.Contains(out, "alone are followed") {
		t.Errorf("with Calico's API server, status says (%v)\n%s", err, out)
	}
	n.end(syscall.SIGTERM)

	// Without that server, somebody must have installed our definition by mistake.
	s.kubectl("", "delete", "apiservice", "v3.projectcalico.org")
	eventually(t, "the API server itself answers for v3", func() (bool, string) {
		out := s.kubectl("", "get", "apiservice", "v3.projectcalico.org", "--ignore-not-found", "-o", "jsonpath={.metadata.name}{.spec.service}")
		return out == "v3.projectcalico.org", out
	})
	n.start()
	eventually(t, "status says that there are two definitions", func() (bool, string) {
		out, err := n.sallyport("status")
		return err == nil && strings.Contains(out, "those of crd.projectcalico.org/v1 alone are followed"), out
	})
	n.expectSoon("with Calico's pools still", n.own)
	n.end(syscall.SIGTERM)

	s.kubectl("", "delete", "crd", "ippools.crd.projectcalico.org")
	n.start() // still without streaming lists
	s.apply(pools(true))
	n.expectSoon("with pools", n.own)
	n.end(syscall.SIGTERM)
	n.env = n.env[:len(n.env)-1]
	n.start()
	s.apply("apiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata: {name: default}\nspec: {exclusions: IPPoolsAndHostIPs}\n")
	eventually(t, "the agent knows the other node", func() (bool, string) {
		out, err := n.sallyport("status")
		return err == nil && strings.Contains(out, "2 nodes"), out
	})
	// The controller says something of every pool; of one that overlaps it makes an event.
	s.apply(pool("overlaps", "{cidr: 10.0.0.0/20}"))
	controllers[0].awaitLog("condition changed")
	s.kubectl("", "wait", "--for=condition=Allocatable=false", "--timeout=30s", "ippool/overlaps")
	eventually(t, "there is an event", func() (bool, string) {
		out := s.kubectl("", "get", "events", "-A")
		return strings.Contains(out, "CIDROverlap"), out
	})
	s.kubectl("", "delete", "ippool", "pods-v4", "overlaps")
	n.expectSoon("after a pool was deleted", [2]netip.Addr{n.inner[0], n.own[1]})
	s.kubectl("", "wait", "--for=condition=Programmed", "--timeout=30s", "ippool/pods-v6")
	// The other controller takes over.
	other.env = append(other.env, "KUBE_FEATURE_WatchListClient=false")
	controllers[1].start()
	controllers[0].end()
	s.apply(pool("later", "{cidr: 10.9.0.0/20}"))
	s.kubectl("", "wait", "--for=condition=Allocatable", "--timeout=30s", "ippool/later")
	s.kubectl("", "wait", "--for=condition=Programmed", "--timeout=30s", "natconfiguration/default")
	// It calls the node unknown once the agent is gone, and has it hear of that when it is back.
	n.end(syscall.SIGTERM)
	s.kubectl("", "wait", "--for=condition=Ready=Unknown", "--timeout=30s", "sallyportnode/n1")
	n.start()
	s.kubectl("", "wait", "--for=condition=Ready", "--timeout=30s", "sallyportnode/n1")
	controllers[1].end()
	n.end(syscall.SIGTERM)

	compareWithAudit(t, c, agentAccount, permissions(t, all, agentAccount))
	compareWithAudit(t, c, controllerAccount, permissions(t, all, controllerAccount))
}

// controller is "sallyport controller" on a node, as the account of the chart.
type controller struct {
	n          *node
	kubeconfig string
	cmd        *exec.Cmd
	log        string // path
}

func newController(n *node) *controller {
	n.site.t.Helper()
	return &controller{n: n, log: filepath.Join(n.site.t.TempDir(), "log"), kubeconfig: n.site.c.TokenKubeconfig(n.site.t, cluster.PodIdentity{
		Namespace: chart.Namespace, ServiceAccount: controllerAccount, Pod: controllerAccount + "-" + n.name, Node: n.name})}
}

func (k *controller) start() {
	t := k.n.site.t
	t.Helper()
	log, err := os.Create(k.log)
	labtest.Must(t, err)
	defer log.Close()
	k.cmd = k.n.command(context.Background(), "controller", "--kubeconfig", k.kubeconfig, "--lease-namespace", chart.Namespace)
	k.cmd.Stderr = log
	labtest.Must(t, k.n.host.Start(k.cmd))
	t.Cleanup(func() {
		if k.cmd != nil {
			_ = k.cmd.Process.Kill()
			_ = k.cmd.Wait() // it was killed
		}
		if t.Failed() {
			t.Logf("the controller of %s said:\n%s", k.n.name, k.said())
		}
	})
}

func (k *controller) said() string {
	data, err := os.ReadFile(k.log)
	labtest.Must(k.n.site.t, err)
	return string(data)
}

// awaitLog waits until the controller has said something.
func (k *controller) awaitLog(words string) {
	k.n.site.t.Helper()
	eventually(k.n.site.t, "the controller says "+words, func() (bool, string) { said := k.said(); return strings.Contains(said, words), said })
}

// end has the controller end, and give up its lease.
func (k *controller) end() {
	t := k.n.site.t
	t.Helper()
	labtest.Must(t, k.cmd.Process.Signal(syscall.SIGTERM))
	if err := k.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM the controller of %s ended with: %v", k.n.name, err)
	}
	k.cmd = nil
}
