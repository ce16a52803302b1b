package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

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
