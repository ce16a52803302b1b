package cluster

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestMain(m *testing.M) { Main(m) }

const pool = `{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: kept}, spec: {cidr: 10.244.0.0/16}}`

// kubectl runs kubectl and ends the test where that fails.
func kubectl(t *testing.T, c *Cluster, stdin string, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t, stdin, args...)
	labtest.Must(t, err)
	return out
}

// TestCluster starts a control plane, takes parts of it away and brings them back.
func TestCluster(t *testing.T) {
	t.Parallel()
	start := time.Now()
	c := New(t, Options{Audit: true})
	t.Logf("ready after %s", time.Since(start))
	if v := kubectl(t, c, "", "version"); !strings.Contains(v, "Server Version: v1.37.") {
		t.Errorf("kubectl version says %s", v)
	}
	start = time.Now()
	c.InstallCRDs(t)
	t.Logf("definitions served after %s", time.Since(start))
	kubectl(t, c, pool, "apply", "-f", "-")

	start = time.Now()
	c.StopServer(t)
	t.Logf("API server stopped after %s", time.Since(start))
	if out, err := c.Kubectl(t, "", "get", "ippools"); err == nil {
		t.Errorf("an API server that is stopped answers %s", out)
	}
	start = time.Now()
	c.StartServer(t)
	t.Logf("API server started after %s", time.Since(start))
	if out := kubectl(t, c, "", "get", "ippools"); !strings.Contains(out, "kept") {
		t.Errorf("after a restart of the API server there is:\n%s", out)
	}

	start = time.Now()
	c.RestartEtcd(t)
	t.Logf("etcd restarted after %s", time.Since(start))
	if out := kubectl(t, c, "", "get", "ippools"); !strings.Contains(out, "kept") {
		t.Errorf("after a restart of etcd there is:\n%s", out)
	}
	if !slices.ContainsFunc(c.Audit(t), func(e Event) bool {
		return e.User == adminUser && e.Verb == "create" && e.Group == "projectcalico.org" && e.Resource == "ippools" && e.Name == "kept" && e.Code == 201
	}) {
		t.Errorf("no creation of the pool is among %+v", c.Audit(t))
	}
}

// TestNodes lets programs on two nodes talk to the API server: with a certificate, and with a Pod's token.
func TestNodes(t *testing.T) {
	t.Parallel()
	c := New(t, Options{Audit: true, ControllerManager: true, CRDs: true})
	id := PodIdentity{Namespace: "kube-system", ServiceAccount: "agent", Pod: "agent-x", Node: "n1"}
	for i, kubeconfig := range []string{c.TokenKubeconfig(t, id), c.Kubeconfig(t, "system:node:n1", "system:nodes")} {
		host := labtest.NewHost(t, "n"+strconv.Itoa(i))
		c.Connect(t, host)
		whoami := func(timeout string) (string, error) {
			return run(t, host, program(kubectlProgram), "--kubeconfig="+kubeconfig, "--cache-dir="+t.TempDir(),
				"--request-timeout="+timeout, "auth", "whoami", "-o", "json")
		}
		want := []string{`"username": "system:serviceaccount:kube-system:agent"`, `"username": "system:node:n1"`}[i]
		if out, err := whoami("30s"); err != nil || !strings.Contains(out, want) {
			t.Errorf("host %d is to the API server:\n%s(%v)", i, out, err)
		}
		c.Disconnect(t, host)
		if out, err := whoami("500ms"); err == nil {
			t.Errorf("host %d is cut off, and is answered %s", i, out)
		}
		c.Reconnect(t, host)
		if out, err := whoami("30s"); err != nil || !strings.Contains(out, want) {
			t.Errorf("host %d is connected again, and is to the API server:\n%s(%v)", i, out, err)
		}
	}
	if !slices.ContainsFunc(c.Audit(t), func(e Event) bool {
		return e.NodeName == "n1" && e.User == "system:serviceaccount:kube-system:agent" && e.Resource == "selfsubjectreviews" && e.Code == 201
	}) {
		t.Errorf("no request from the Pod on n1 is among %+v", c.Audit(t))
	}
	if out, err := c.Kubectl(t, "", "auth", "can-i", "get", "pods", "--as=system:serviceaccount:kube-system:agent"); err == nil || out != "no\n" {
		t.Errorf("a service account without any role may get pods: %s (%v)", out, err)
	}

	// A controller is at work: what lost its owner goes.
	uid := kubectl(t, c, "", "get", "node", "n1", "-o", "jsonpath={.metadata.uid}")
	owned := "{apiVersion: sallyport.dev/v1alpha1, kind: SallyportNode, metadata: {name: n1, ownerReferences: [{apiVersion: v1, kind: Node, name: n1, uid: " + uid + "}]}, status: {version: v1}}"
	kubectl(t, c, owned, "create", "-f", "-")
	kubectl(t, c, "", "delete", "node", "n1")
	kubectl(t, c, "", "wait", "--for=delete", "sallyportnode/n1", "--timeout=50s")
}

// run runs a program on a host and returns what it prints.
func run(t *testing.T, host *lab.Host, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := host.Command(ctx, name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	labtest.Must(t, host.Start(cmd))
	err := cmd.Wait()
	return out.String(), err
}

// TestOpenWatch stops an API server that is being watched: it must not wait for the watch to end.
func TestOpenWatch(t *testing.T) {
	t.Parallel()
	c := New(t, Options{})
	objects, err := dynamic.NewForConfig(c.Config())
	labtest.Must(t, err)
	watch, err := objects.Resource(nodeResource).Watch(t.Context(), metav1.ListOptions{})
	labtest.Must(t, err)
	defer watch.Stop()
	start := time.Now()
	c.StopServer(t)
	t.Logf("API server stopped after %s", time.Since(start))
	select {
	case _, open := <-watch.ResultChan():
		if open {
			t.Error("the watch goes on")
		}
	case <-time.After(10 * time.Second):
		t.Error("the watch did not end")
	}
}
