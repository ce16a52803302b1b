package deploy

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata/chart")

const chart = root + "/deploy/helm/sallyport"

// helmPath finds Helm, which the Makefile builds: in the variable HELM, or where the Makefile puts it.
func helmPath(t *testing.T) string {
	t.Helper()
	path := os.Getenv("HELM")
	if path == "" {
		m := regexp.MustCompile(`(?m)^HELM_VERSION\s*:=\s*(\S+)$`).FindStringSubmatch(read(t, "Makefile"))
		if m == nil {
			t.Fatal("the Makefile names no HELM_VERSION")
		}
		path = filepath.Join(root, "bin", "helm-"+m[1])
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make manifests, which builds it", err)
	}
	return path
}

// helm runs Helm with none of its user's settings, and returns its standard output.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), helmPath(t), args...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + filepath.Join(home, "none")}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		return errs.String(), err
	}
	return out.String(), nil
}

// object is a manifest that the chart made.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	text string
}

func (o object) String() string { return o.Kind + " " + o.Metadata.Name }

// render returns what the chart makes of values, given as arguments of Helm.
func render(t *testing.T, values ...string) []object {
	t.Helper()
	out, err := helm(t, append([]string{"template", "sallyport", chart, "--namespace", "sallyport-system"}, values...)...)
	if err != nil {
		t.Fatalf("helm template %s: %v\n%s", strings.Join(values, " "), err, out)
	}
	return objects(t, out)
}

// objects splits a stream of manifests.
func objects(t *testing.T, stream string) []object {
	t.Helper()
	var all []object
	for text := range strings.SplitSeq("\n"+stream, "\n---\n") {
		text = regexp.MustCompile(`(?m)^#.*\n?`).ReplaceAllString(text, "")
		if strings.TrimSpace(text) == "" {
			continue
		}
		o := object{text: strings.TrimSpace(text) + "\n"}
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		all = append(all, o)
	}
	if len(all) == 0 {
		t.Fatal("no object was rendered")
	}
	return all
}

// named returns the object of a kind and a name, or fails.
func named(t *testing.T, all []object, kind, name string) object {
	t.Helper()
	for _, o := range all {
		if o.Kind == kind && o.Metadata.Name == name {
			return o
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return object{}
}

// has says whether there is an object of a kind and a name.
func has(all []object, kind, name string) bool {
	for _, o := range all {
		if o.Kind == kind && o.Metadata.Name == name {
			return true
		}
	}
	return false
}

// valueSets are values under which the chart is looked at, by name.
var valueSets = map[string][]string{
	"default":       nil,
	"uninstall":     {"--set", "uninstall=true"},
	"startup-taint": {"--set", "startupTaint=true"},
	"api-server":    {"--set", "apiServer.host=2001:db8::1,apiServer.port=443"},
	"open-metrics":  {"--set", "metrics.address=0.0.0.0,metrics.agentPort=19470,metrics.controllerPort=19471"},
	"loopback6":     {"--set", "metrics.address=::1"},
	"one-node":      {"--set", "controller.replicas=1,agent.maxUnavailable=1,logLevel=debug"},
	"plain":         {"--set", "agent.resources=null,controller.resources=null,agent.tolerations=null,agent.seLinuxOptions=null"},
	"private-image": {"--set", "image.repository=registry.example.org/net/sallyport,imagePullSecrets[0].name=pull," +
		"image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,image.pullPolicy=Always"},
	"placed": {"--set", "agent.nodeSelector.pool=workers,controller.nodeSelector.pool=infra,agent.podLabels.team=net," +
		"controller.podAnnotations.note=x,agent.priorityClassName=high,controller.priorityClassName=low"},
}

// TestChartLint has Helm look at the chart.
func TestChartLint(t *testing.T) {
	t.Parallel()
	for name, values := range valueSets {
		if out, err := helm(t, append([]string{"lint", "--strict", "--quiet", chart}, values...)...); err != nil || strings.Contains(out, "WARNING") {
			t.Errorf("%s: helm lint: %v\n%s", name, err, out)
		}
	}
}

// TestChartValues compares what values change in what the chart makes with testdata/chart: a difference from
// deploy/kubernetes/sallyport.yaml, which shows the defaults in full.
func TestChartValues(t *testing.T) {
	t.Parallel()
	defaults := render(t)
	for name, values := range valueSets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := "helm template " + strings.Join(values, " ") + "\n" + difference(t, defaults, render(t, values...))
			golden := filepath.Join("testdata/chart", name+".diff")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("the chart makes something else than %s says; if that is right, run go test ./test/deploy -update\n%s", golden, d)
			}
		})
	}
}

// difference says which objects are gone, and shows how the others differ, without line numbers, which would
// change with every other change.
func difference(t *testing.T, before, after []object) string {
	t.Helper()
	var all strings.Builder
	for _, o := range before {
		if !has(after, o.Kind, o.Metadata.Name) {
			all.WriteString("=== gone: " + o.String() + "\n")
		}
	}
	for _, o := range after {
		var old string
		if has(before, o.Kind, o.Metadata.Name) {
			old = named(t, before, o.Kind, o.Metadata.Name).text
		}
		if old == o.text {
			continue
		}
		dir := t.TempDir()
		for name, text := range map[string]string{"before": old, "after": o.text} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.CommandContext(t.Context(), program(t, "diff"), "-U2", dir+"/before", dir+"/after").Output()
		if len(out) == 0 {
			t.Fatalf("diff: %v", err)
		}
		hunks := regexp.MustCompile(`(?m)^@@.*$`).ReplaceAllString(string(out[bytes.Index(out, []byte("@@")):]), "@@")
		all.WriteString("=== " + o.String() + "\n" + hunks)
	}
	return all.String()
}

// TestManifestsFresh makes sure that the plain manifests are what the chart makes.
func TestManifestsFresh(t *testing.T) {
	t.Parallel()
	for file, args := range map[string][]string{
		"deploy/kubernetes/sallyport.yaml": nil,
		"deploy/kubernetes/uninstall.yaml": {"--set", "uninstall=true", "--show-only", "templates/daemonset.yaml"},
	} {
		var got []object
		for _, o := range objects(t, read(t, file)) {
			if o.Kind != "Namespace" {
				got = append(got, o)
			}
		}
		text := func(o object) string { return o.text }
		if d := cmp.Diff(render(t, args...), got, cmp.Transformer("text", text)); d != "" {
			t.Errorf("%s is stale: run make manifests\n%s", file, d)
		}
	}
	namespace := named(t, objects(t, read(t, "deploy/kubernetes/sallyport.yaml")), "Namespace", "sallyport-system")
	if namespace.Metadata.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Error("the namespace does not let the agent's pods in")
	}
}

// TestValuesRefused makes sure that a wrong value is an error, and that it names the value.
func TestValuesRefused(t *testing.T) {
	t.Parallel()
	tests := []struct{ set, names string }{
		{"uninstal=true", "uninstal"},
		{"agent.memory=1Gi", "memory"},
		{"uninstall=perhaps", "/uninstall"},
		{"startupTaint=1", "/startupTaint"},
		{"crds.ippool=always", "/crds/ippool"},
		{"image.pullPolicy=Sometimes", "/image/pullPolicy"},
		{"image.tag=a:b", "/image/tag"},
		{"image.digest=sha256:12", "/image/digest"},
		{"imagePullSecrets={pull}", "/imagePullSecrets/0"},
		{"apiServer.host=https://example.org", "/apiServer/host"},
		{"apiServer.host=example.org:6443", "/apiServer/host"},
		{"apiServer.host=[2001:db8::1]", "/apiServer/host"},
		{"apiServer.port=70000", "/apiServer/port"},
		{"metrics.address=[::1]", "/metrics/address"},
		{"metrics.agentPort=no", "/metrics/agentPort"},
		{"logLevel=loud", "/logLevel"},
		{"agent.maxUnavailable=0", "/agent/maxUnavailable"},
		{"agent.maxUnavailable=120%", "/agent/maxUnavailable"},
		{"controller.replicas=-1", "/controller/replicas"},
		{"agent.tolerations[0].operator=Maybe", "/agent/tolerations/0/operator"},
		{"metrics=null", "metrics"},
	}
	for _, tt := range tests {
		out, err := helm(t, "template", chart, "--set", tt.set)
		if err == nil || !strings.Contains(out, tt.names) {
			t.Errorf("%s: the error does not name %s: %v\n%s", tt.set, tt.names, err, out)
		}
	}
}
