package kube

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestInstall does what the documentation says, by its own commands: installs with Helm, from the chart of the commit
// before, upgrades, uninstalls; the same with kubectl; and what the README says. "kubectl exec" needs a kubelet's server,
// so that what it would run is run in the same pod by other means; all else is run by bash as it is written.
func TestInstall(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{ControllerManager: true})
	s := newSite(t, c, 2)
	for _, n := range s.nodes {
		s.kubectl("", "taint", "node", n.name, "sallyport.dev/not-ready=:NoSchedule")
	}
	k := newKubelets(s)
	guide := chart.Section(t, "docs/kubernetes.md")
	in := &installation{kubelets: k, now: sources(t, ""), before: sources(t, "HEAD~1")}
	node, both := s.nodes[0], func(pools bool) {
		t.Helper()
		for _, n := range s.nodes {
			if pools {
				n.expectSoon("where pools say so", n.own)
			} else {
				n.expectSoon("where nothing is translated", n.inner)
			}
		}
	}

	helm, try, uninstall := guide("Install it with Helm"), guide("Try it"), guide("Uninstall")
	labtest.Must(t, os.WriteFile(filepath.Join(in.now, "pool.yaml"), []byte(try.YAML[0]), 0o600), os.WriteFile(filepath.Join(in.before, "pool.yaml"), []byte(try.YAML[0]), 0o600))
	in.run(in.before, helm.Shell[1]) // the first builds and pushes the image
	in.run(in.before, try.Shell[0])
	s.apply(pools(true))
	both(true)
	for line := range strings.Lines(try.Shell[1]) {
		_, command, ok := strings.Cut(strings.TrimSpace(line), " exec ds/sallyport-agent -- /sallyport ")
		if !ok {
			t.Fatalf("%q is no kubectl exec", line)
		}
		k.exec("agent", strings.Fields(command)...)
	}
	if out := k.exec("agent", "status"); !strings.Contains(out, "3 pools") {
		t.Errorf("status in the pod says:\n%s", out)
	}
	in.run(in.now, guide("Upgrade").Shell[0]+"kubectl -n sallyport-system rollout status daemonset/sallyport-agent\nkubectl -n sallyport-system rollout status deployment/sallyport-controller\n")
	both(true)
	in.run(in.now, guide("Hold pods back until the node is ready").Shell[1])
	eventually(t, "the agents have taken the taint", func() (bool, string) {
		k.step(t.Context())
		out := s.kubectl("", "get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*].key}")
		return !strings.Contains(out, "sallyport.dev"), out
	})
	in.run(in.now, uninstall.Shell[0])
	both(false)
	in.run(in.now, uninstall.Shell[2])
	s.kubectl("", "get", "ippools", "private", "pods-v4") // they stay

	in.run(in.now, guide("Install it with kubectl").Shell[0])
	both(true)
	in.run(in.now, try.Shell[0])
	in.run(in.now, uninstall.Shell[1])
	both(false)
	in.run(in.now, uninstall.Shell[3])
	s.kubectl("", "get", "ippools", "private", "pods-v4")
	if out := s.kubectl("", "get", "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings", "-o", "name"); strings.Contains(out, "sallyport") {
		t.Errorf("after it was uninstalled there is still:\n%s", out)
	}
	in.run(in.now, uninstall.Shell[5]) // the one before is for a whole network
	if out := s.kubectl("", "get", "crd", "-o", "name"); out != "" {
		t.Errorf("after the definitions were deleted there is still:\n%s", out)
	}

	for _, n := range s.nodes { // as the page says of those who come back
		labtest.Must(t, os.RemoveAll(filepath.Join(k.volumes, n.name)))
	}
	readme := chart.Section(t, "README.md")("On Kubernetes")
	labtest.Must(t, os.WriteFile(filepath.Join(in.now, "pool.yaml"), []byte(readme.YAML[0]), 0o600))
	in.run(in.now, readme.Shell[0])
	node.expectSoon("where no pool holds the pod", node.inner)
}

// installation runs the commands of a page while kubelets work.
type installation struct {
	kubelets    *kubelets
	now, before string // directories that hold deploy/
}

// scriptAtMost is how long the commands of one block may take.
const scriptAtMost = 2 * time.Minute

// run runs a block of commands in a directory.
func (in *installation) run(dir, script string) {
	t := in.kubelets.site.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scriptAtMost)
	defer cancel()
	programs := t.TempDir()
	labtest.Must(t, os.Symlink(chart.Program(t), filepath.Join(programs, "helm")))
	c := in.kubelets.site.c
	cmd := c.Shell(ctx, dir, script, programs)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	labtest.Must(t, c.StartShell(cmd))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			t.Logf("%s\n%s", script, out.String())
			if err != nil {
				t.Fatalf("it ends with: %v", err)
			}
			in.kubelets.step(t.Context())
			return
		case <-tick.C:
			in.kubelets.step(t.Context())
		}
	}
}

// sources makes a directory that holds deploy/ as of a commit, or where that is "" or has no chart, as it is.
func sources(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	if commit != "" {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", `git archive "$1" deploy | tar -x -C "$2"`, "bash", commit, dir)
		cmd.Dir = chart.Root(t)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return dir
		}
		t.Logf("there is no chart in %s, so that the upgrade is one to the same: %s", commit, out)
	}
	labtest.Must(t, os.Symlink(filepath.Join(chart.Root(t), "deploy"), filepath.Join(dir, "deploy")))
	return dir
}
