package deploy

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/test/chart"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata/chart")

// named returns the object of a kind and a name, or fails.
func named(t *testing.T, all []chart.Object, kind, name string) chart.Object {
	t.Helper()
	for _, o := range all {
		if o.Kind == kind && o.Metadata.Name == name {
			return o
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return chart.Object{}
}

// has says whether there is an object of a kind and a name.
func has(all []chart.Object, kind, name string) bool {
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
	"network":       {"--set", "network.enabled=true"},
	"passwords":     {"--set", "network.enabled=true", "--set", "bgp.passwordSecrets={bgp,rack.a}"},
	"no-network":    {"--set", "bgp.passwordSecrets={bgp}"},
	"end-network":   {"--set", "network.enabled=true", "--set", "uninstall=true"},
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
		if out, err := chart.Helm(t, append([]string{"lint", "--strict", "--quiet", chart.Dir(t)}, values...)...); err != nil || strings.Contains(out, "WARNING") {
			t.Errorf("%s: helm lint: %v\n%s", name, err, out)
		}
	}
}

// TestChartValues compares what values change in what the chart makes with testdata/chart: a difference from
// deploy/kubernetes, which shows the defaults in full.
func TestChartValues(t *testing.T) {
	t.Parallel()
	defaults := chart.Render(t)
	for name, values := range valueSets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := "helm template " + strings.Join(values, " ") + "\n" + difference(t, defaults, chart.Render(t, values...))
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
func difference(t *testing.T, before, after []chart.Object) string {
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
			old = named(t, before, o.Kind, o.Metadata.Name).Text
		} else if o.Kind == "CustomResourceDefinition" {
			all.WriteString("=== new: " + o.String() + "\n") // TestDefinitions looks into it
			continue
		}
		if old == o.Text {
			continue
		}
		dir := t.TempDir()
		for name, text := range map[string]string{"before": old, "after": o.Text} {
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
	defines := func(o chart.Object) bool { return o.Kind == "CustomResourceDefinition" }
	for file, want := range map[string][]chart.Object{
		"deploy/kubernetes/crds.yaml":      slices.DeleteFunc(chart.Render(t), func(o chart.Object) bool { return !defines(o) }),
		"deploy/kubernetes/sallyport.yaml": slices.DeleteFunc(chart.Render(t), defines),
		"deploy/kubernetes/uninstall.yaml": chart.Render(t, "--set", "uninstall=true", "--show-only", "templates/daemonset.yaml"),
	} {
		var got []chart.Object
		for _, o := range chart.Objects(t, read(t, file)) {
			if o.Kind != "Namespace" {
				got = append(got, o)
			}
		}
		text := func(o chart.Object) string { return o.Text }
		if d := cmp.Diff(want, got, cmp.Transformer("text", text)); d != "" {
			t.Errorf("%s is stale: run make manifests\n%s", file, d)
		}
	}
	namespace := named(t, chart.Objects(t, read(t, "deploy/kubernetes/sallyport.yaml")), "Namespace", "sallyport-system")
	if namespace.Metadata.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Error("the namespace does not let the agent's pods in")
	}
}

// TestOldKubernetesRefused: the rules of the definitions need what API servers have since 1.31.
func TestOldKubernetesRefused(t *testing.T) {
	t.Parallel()
	out, err := chart.Helm(t, "template", "sallyport", chart.Dir(t), "--kube-version", "v1.30.9")
	if err == nil || !strings.Contains(out, "requires kubeVersion: >=1.31.0") {
		t.Errorf("%v: %s", err, out)
	}
	for _, version := range []string{"v1.31.0", "v1.31.9-gke.100", "v1.37.2+k3s1"} {
		if out, err := chart.Helm(t, "template", "sallyport", chart.Dir(t), "--kube-version", version); err != nil {
			t.Errorf("%s: %v: %s", version, err, out)
		}
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
		{"image.repository=registry.example.org:5000/sallyport:v1", "/image/repository"},
		{"metrics.agentPort=9471", "metrics.agentPort"},
		{"agent.podLabels.app\\.kubernetes\\.io/name=mine", "app.kubernetes.io/name"},
	}
	for _, tt := range tests {
		out, err := chart.Helm(t, "template", chart.Dir(t), "--set", tt.set)
		if err == nil || !strings.Contains(out, tt.names) {
			t.Errorf("%s: the error does not name %s: %v\n%s", tt.set, tt.names, err, out)
		}
	}
}
