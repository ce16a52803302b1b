package deploy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/test/chart"
)

// clusterKinds are the kinds that a cluster has, as far as the chart goes, by their group and version.
var clusterKinds = map[string][]string{
	"v1":                              {"ServiceAccount"},
	"apps/v1":                         {"DaemonSet", "Deployment"},
	"rbac.authorization.k8s.io/v1":    {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"},
	"apiextensions.k8s.io/v1":         {"CustomResourceDefinition"},
	"apiregistration.k8s.io/v1":       {"APIService"},
	"admissionregistration.k8s.io/v1": {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"},
}

func groupList(t *testing.T) string {
	t.Helper()
	var all metav1.APIGroupList
	for version := range clusterKinds {
		if group, v, ok := strings.Cut(version, "/"); ok {
			all.Groups = append(all.Groups, metav1.APIGroup{Name: group, Versions: []metav1.GroupVersionForDiscovery{{GroupVersion: version, Version: v}}})
		}
	}
	return jsonOf(t, all)
}

// cluster answers as an API server would to Helm's lookup: it knows the kinds that the chart looks for, and the
// objects that it is given, by their path.
func cluster(t *testing.T, objects map[string]string) (kubeconfig string) {
	t.Helper()
	known := map[string]string{
		"/version": `{"major": "1", "minor": "31", "gitVersion": "v1.31.0"}`,
		"/api":     `{"kind": "APIVersions", "versions": ["v1"]}`,
		"/apis":    groupList(t),
	}
	for version, kinds := range clusterKinds {
		path := "/apis/" + version
		if version == "v1" {
			path = "/api/v1"
		}
		list := metav1.APIResourceList{GroupVersion: version}
		for _, kind := range kinds {
			name := strings.TrimSuffix(strings.ToLower(kind), "y")
			if name != strings.ToLower(kind) {
				name += "ie"
			}
			namespaced := slices.Contains([]string{"ServiceAccount", "Role", "RoleBinding", "DaemonSet", "Deployment"}, kind)
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: name + "s", Kind: kind, Namespaced: namespaced, Verbs: []string{"get"}})
		}
		known[path] = jsonOf(t, list)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, answers := range []map[string]string{known, objects} {
			if text, ok := answers[r.URL.Path]; ok {
				fmt.Fprint(w, text)
				return
			}
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`)
	}))
	t.Cleanup(s.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\n"+
		"contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n", s.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

const (
	definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
	apiService  = "/apis/apiregistration.k8s.io/v1/apiservices/v3.projectcalico.org"
	poolsV3     = "ippools.projectcalico.org"
	poolsV1     = "ippools.crd.projectcalico.org"
	statuses    = "sallyportnodes.sallyport.dev"
)

// definition is one in a cluster, with annotations as "key: value" lines; ours are as Helm has installed them.
func definition(t *testing.T, name string, ours bool, annotations ...string) string {
	t.Helper()
	o := metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"}}
	o.Name, o.Annotations = name, map[string]string{}
	if ours {
		o.Labels = map[string]string{"app.kubernetes.io/part-of": "sallyport", "app.kubernetes.io/managed-by": "Helm"}
		annotations = append(annotations, "sallyport.dev/version: 0.1.0", "helm.sh/resource-policy: keep",
			"meta.helm.sh/release-name: sallyport", "meta.helm.sh/release-namespace: sallyport-system")
	}
	for _, a := range annotations {
		key, value, _ := strings.Cut(a, ": ")
		o.Annotations[key] = value
	}
	return jsonOf(t, o)
}

// installed has Helm install the chart into a cluster with these objects, without doing it, and returns what it prints.
func installed(t *testing.T, objects map[string]string) (string, error) {
	t.Helper()
	return chart.Helm(t, "install", "sallyport", chart.Dir(t), "--namespace", "sallyport-system", "--dry-run=server",
		"--disable-openapi-validation", "--kubeconfig", cluster(t, objects))
}

// TestIPPoolDefinition installs the chart into clusters with and without IPPools of somebody else's.
func TestIPPoolDefinition(t *testing.T) {
	t.Parallel()
	service := func(spec string) string {
		return `{"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v3.projectcalico.org"}, "spec": {` + spec + `}}`
	}
	aggregated := service(`"service": {"namespace": "calico-apiserver", "name": "calico-api"}`)
	ours, theirs := definition(t, poolsV3, true), definition(t, poolsV3, false)
	tests := []struct {
		name      string
		objects   map[string]string
		installed bool
	}{
		{"nothing", nil, true},
		{"our own", map[string]string{definitions + poolsV3: ours, apiService: service("")}, true},
		{"our own, beside what Calico stores", map[string]string{definitions + poolsV3: ours, definitions + poolsV1: definition(t, poolsV1, false)}, true},
		{"one of somebody else's", map[string]string{definitions + poolsV3: theirs}, false},
		{"half ours", map[string]string{definitions + poolsV3: definition(t, poolsV3, false, "sallyport.dev/version: 0.1.0")}, false},
		{"Calico's API server", map[string]string{apiService: aggregated}, false},
		{"Calico's API server, before our own", map[string]string{definitions + poolsV3: ours, apiService: aggregated}, false},
		{"what Calico stores", map[string]string{definitions + poolsV1: definition(t, poolsV1, false)}, false},
		{"one of somebody else's, always so", map[string]string{definitions + poolsV3: theirs,
			definitions + statuses: definition(t, statuses, true, "sallyport.dev/ippools: elsewhere")}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, err := installed(t, tt.objects)
			if err != nil {
				t.Fatalf("helm install: %v\n%s", err, out)
			}
			if got := strings.Contains(out, "\n  name: "+poolsV3+"\n"); got != tt.installed {
				t.Errorf("the definition of IPPool is installed: %v, want %v", got, tt.installed)
			}
			if said := strings.Contains(out, "The definition of IPPool was not installed: "); said == tt.installed {
				t.Errorf("the notes say that it was left out: %v\n%s", said, out[strings.LastIndex(out, "NOTES:"):])
			}
			if !strings.Contains(out, "\n  name: "+statuses+"\n") {
				t.Error("the other definitions are missing")
			}
		})
	}
}

// TestIPPoolsSurvive makes sure that the chart refuses what would have Helm delete all pools: leaving out a definition
// that a release has brought, when the one in its place does not say "keep".
func TestIPPoolsSurvive(t *testing.T) {
	t.Parallel()
	brought := definition(t, statuses, true, "sallyport.dev/ippools: here")
	out, err := installed(t, map[string]string{definitions + poolsV3: definition(t, poolsV3, false), definitions + statuses: brought})
	if want := "kubectl annotate crd ippools.projectcalico.org helm.sh/resource-policy=keep"; err == nil || !strings.Contains(out, want) {
		t.Errorf("it does not end with the advice %q: %v\n%s", want, err, out)
	}
	kept := definition(t, poolsV3, false, "helm.sh/resource-policy: keep")
	if out, err := installed(t, map[string]string{definitions + poolsV3: kept, definitions + statuses: brought}); err != nil {
		t.Errorf("the advice does not help: %v\n%s", err, out)
	}
	if out, err := installed(t, map[string]string{definitions + poolsV3: definition(t, poolsV3, true), definitions + statuses: brought}); err != nil {
		t.Errorf("an ordinary upgrade fails: %v\n%s", err, out)
	}
}
