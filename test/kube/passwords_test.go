package kube

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestPasswords has the datastore of an agent read the passwords of BGP sessions, with the rights that the chart gives it.
func TestPasswords(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{Audit: true})
	all := chart.Render(t, "--set", "network.enabled=true", "--set", "bgp.passwordSecrets={bgp,absent}")
	installChart(t, c, all)
	kubectl := func(stdin string, args ...string) {
		t.Helper()
		_, err := c.Kubectl(t, stdin, args...)
		labtest.Must(t, err)
	}
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: bgp, namespace: " + chart.Namespace + "}\nstringData: {"
	kubectl("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\n"+secret+"rack: \"s3cret\\n\", empty: \"\", long: "+strings.Repeat("x", 81)+"}\n---\n"+
		strings.ReplaceAll(secret, "name: bgp", "name: other")+"rack: s3cret}\n", "apply", "-f", "-")
	s := openNetwork(t, c, "n1", "boot-1")
	for _, test := range []struct {
		ref      model.BGPPassword
		want     string
		why      string
		whatever bool // optional makes no difference
	}{
		{ref: model.BGPPassword{Name: "bgp", Key: "rack"}, want: "s3cret", whatever: true},
		{ref: model.BGPPassword{Name: "bgp", Key: "spine"}, why: "the Secret sallyport-system/bgp has no key spine: add it"},
		{ref: model.BGPPassword{Name: "absent", Key: "rack"}, why: "the Secret sallyport-system/absent does not exist: create it, with the key rack"},
		{ref: model.BGPPassword{Name: "bgp", Key: "empty"}, why: "the key empty of the Secret sallyport-system/bgp is empty", whatever: true},
		{ref: model.BGPPassword{Name: "bgp", Key: "long"}, why: "more than the 80 bytes", whatever: true},
		{ref: model.BGPPassword{Name: "other", Key: "rack"}, why: "may not read the Secret sallyport-system/other: add other to bgp.passwordSecrets", whatever: true},
	} {
		for _, test.ref.Optional = range []bool{false, true} {
			why := test.why
			if test.ref.Optional && !test.whatever {
				why = ""
			}
			got, err := s.Password(t.Context(), test.ref)
			if got != test.want || (err != nil) != (why != "") || err != nil && (!strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "xxx")) {
				t.Errorf("%+v: %q, %v; want %q, %q", test.ref, got, err, test.want, why)
			}
		}
	}
	kubectl(secret+"rack: another}\n", "apply", "-f", "-")
	if got, err := s.Password(t.Context(), model.BGPPassword{Name: "bgp", Key: "rack"}); got != "another" || err != nil {
		t.Errorf("after it was changed: %q, %v", got, err)
	}
	for _, e := range requestsOf(t, c, agentAccount) {
		if e.Resource == "secrets" && (e.Verb != "get" || e.Code == http.StatusForbidden && e.Name != "other") {
			t.Errorf("the agent did more than it should, or was refused: %s %s", e.Verb, e.URI)
		}
	}
	c.StopServer(t)
	if _, err := s.Password(t.Context(), model.BGPPassword{Name: "bgp", Key: "rack", Optional: true}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("without an API server: %v", err)
	}
}
