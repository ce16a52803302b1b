package deploy

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/sallyport/sallyport/internal/yaml"
	"github.com/sallyport/sallyport/test/chart"
)

// kinds are the types of what the chart may make.
func kinds() map[string]any {
	return map[string]any{
		"v1 Namespace":                                                     new(corev1.Namespace),
		"v1 ServiceAccount":                                                new(corev1.ServiceAccount),
		"apps/v1 DaemonSet":                                                new(appsv1.DaemonSet),
		"apps/v1 Deployment":                                               new(appsv1.Deployment),
		"rbac.authorization.k8s.io/v1 Role":                                new(rbacv1.Role),
		"rbac.authorization.k8s.io/v1 ClusterRole":                         new(rbacv1.ClusterRole),
		"rbac.authorization.k8s.io/v1 RoleBinding":                         new(rbacv1.RoleBinding),
		"rbac.authorization.k8s.io/v1 ClusterRoleBinding":                  new(rbacv1.ClusterRoleBinding),
		"apiextensions.k8s.io/v1 CustomResourceDefinition":                 new(apiextensionsv1.CustomResourceDefinition),
		"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy":        new(admissionv1.ValidatingAdmissionPolicy),
		"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding": new(admissionv1.ValidatingAdmissionPolicyBinding),
	}
}

// as parses an object as its type. A field that the type does not have is an error.
func as[T any](t *testing.T, o chart.Object) T {
	t.Helper()
	var v T
	if err := yaml.UnmarshalStrict([]byte(o.Text), &v); err != nil {
		t.Fatalf("%s: %v", o, err)
	}
	return v
}

// TestObjectsParse reads every object under every set of values as the type that it says it is.
func TestObjectsParse(t *testing.T) {
	t.Parallel()
	for name, values := range valueSets {
		for _, o := range chart.Render(t, values...) {
			v, known := kinds()[o.APIVersion+" "+o.Kind]
			if !known {
				t.Errorf("%s: %s %s is of no known type", name, o.APIVersion, o)
				continue
			}
			if err := yaml.UnmarshalStrict([]byte(o.Text), v); err != nil {
				t.Errorf("%s: %s: %v", name, o, err)
			}
			if o.Metadata.Labels["app.kubernetes.io/part-of"] != "sallyport" {
				t.Errorf("%s: %s is not labelled as part of Sallyport", name, o)
			}
		}
	}
}

// TestDefinitions makes sure that the chart installs the generated definitions, whole, and never deletes one.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(root + "/api/crds/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d definitions were found: %v", len(files), err)
	}
	var installed []chart.Object
	for _, o := range chart.Render(t, "--set", "network.enabled=true") {
		if o.Kind == "CustomResourceDefinition" {
			installed = append(installed, o)
		}
	}
	// Calico has a definition of the same name as the first, which must stay as it is where Sallyport only translates.
	for _, name := range []string{"ipreservations.projectcalico.org", "nodenetworkconfigurations.sallyport.dev", "ipblocks.sallyport.dev",
		"bgppeers.projectcalico.org", "bgpconfigurations.projectcalico.org", "bgpfilters.projectcalico.org"} {
		if has(chart.Render(t), "CustomResourceDefinition", name) {
			t.Errorf("the chart installs %s where Sallyport is not the pod network", name)
		}
	}
	if len(installed) != len(files) {
		t.Errorf("the chart installs %d definitions, and there are %d", len(installed), len(files))
	}
	for _, file := range files {
		text := read(t, "api/crds/"+filepath.Base(file))
		if copied := read(t, "deploy/helm/sallyport/files/crds/"+filepath.Base(file)); copied != text {
			t.Errorf("the chart's copy of %s is stale: run make manifests", filepath.Base(file))
		}
		want := as[apiextensionsv1.CustomResourceDefinition](t, chart.Object{Text: text})
		o := named(t, installed, "CustomResourceDefinition", want.Name)
		got := as[apiextensionsv1.CustomResourceDefinition](t, o)
		if got.Annotations["helm.sh/resource-policy"] != "keep" || got.Annotations["sallyport.dev/version"] == "" {
			t.Errorf("%s would be deleted with the release, or is not to be told from others': %v", o, got.Annotations)
		}
		if got.Labels["sallyport.dev/crd"] != want.Spec.Names.Plural {
			t.Errorf("%s cannot be left out by its label: %v", o, got.Labels)
		}
		if d := cmp.Diff(want.Spec, got.Spec); d != "" {
			t.Errorf("%s is not what was generated:\n%s", o, d)
		}
	}
	without := chart.Render(t, "--set", "crds.ippool=never")
	if has(without, "CustomResourceDefinition", "ippools.projectcalico.org") || !has(without, "CustomResourceDefinition", "sallyportnodes.sallyport.dev") {
		t.Error("crds.ippool=never does not leave out the definition of IPPool, and it alone")
	}
}

// podSpecs returns the pods that the chart makes under a set of values, by the name of who makes them.
func podSpecs(t *testing.T, values []string) map[string]corev1.PodSpec {
	t.Helper()
	specs := map[string]corev1.PodSpec{}
	for _, o := range chart.Render(t, values...) {
		switch o.Kind {
		case "DaemonSet":
			specs[o.Metadata.Name] = as[appsv1.DaemonSet](t, o).Spec.Template.Spec
		case "Deployment":
			specs[o.Metadata.Name] = as[appsv1.Deployment](t, o).Spec.Template.Spec
		}
	}
	return specs
}

// TestPodsConfined makes sure that no value widens what pods may do.
func TestPodsConfined(t *testing.T) {
	t.Parallel()
	for name, values := range valueSets {
		for owner, pod := range podSpecs(t, values) {
			agent := owner == "sallyport-agent"
			if pod.HostPID || pod.HostIPC || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: %s shares more of the host than its network, or has no seccomp profile", name, owner)
			}
			if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks || pod.DNSPolicy != corev1.DNSDefault {
				t.Errorf("%s: %s depends on the cluster's services or its DNS", name, owner)
			}
			var paths []string
			for _, v := range pod.Volumes {
				if v.HostPath == nil {
					t.Errorf("%s: %s has the volume %s, which is no directory of the host", name, owner, v.Name)
					continue
				}
				paths = append(paths, v.HostPath.Path)
			}
			var want []string
			if agent {
				want = []string{"/var/lib/sallyport", "/run/sallyport"}
			}
			if agent && slices.Contains(values, "network.enabled=true") {
				want = append(want, "/proc/sys/net", "/opt/cni/bin", "/etc/cni/net.d")
			}
			if !slices.Equal(paths, want) {
				t.Errorf("%s: %s has the host's %q, want %q", name, owner, paths, want)
			}
			for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
				checkContainer(t, name+": "+owner+": "+c.Name, pod, c, agent, slices.Contains(values, "network.enabled=true"))
			}
		}
	}
}

// checkContainer looks at one container of the agent's or the controller's, where Sallyport is the pod network or is not.
func checkContainer(t *testing.T, where string, pod corev1.PodSpec, c corev1.Container, agent, network bool) {
	t.Helper()
	s := c.SecurityContext
	if s == nil || s.Capabilities == nil {
		t.Errorf("%s: has no security context", where)
		return
	}
	if *s.Privileged || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%s: is privileged, may become so, or writes to its image", where)
	}
	var add []corev1.Capability
	if agent && !strings.HasSuffix(c.Name, "-cni") {
		add = []corev1.Capability{"NET_ADMIN"}
		if network {
			add = append(add, "NET_BIND_SERVICE")
		}
	}
	if !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, add) {
		t.Errorf("%s: has the capabilities %v", where, s.Capabilities)
	}
	if !agent && (!*pod.SecurityContext.RunAsNonRoot || *pod.SecurityContext.RunAsUser == 0) {
		t.Errorf("%s: runs as root", where)
	}
	if len(c.Command) != 0 {
		t.Errorf("%s: runs something else than the image's entry point: %q", where, c.Command)
	}
	if len(c.EnvFrom) != 0 {
		t.Errorf("%s: takes its environment from elsewhere", where)
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && (e.ValueFrom.SecretKeyRef != nil || e.ValueFrom.ConfigMapKeyRef != nil) {
			t.Errorf("%s: takes %s from elsewhere", where, e.Name)
		}
	}
}

// TestProbes makes sure that who serves is asked, where it serves.
func TestProbes(t *testing.T) {
	t.Parallel()
	tests := []struct{ values, host string }{
		{"default", "127.0.0.1"}, {"open-metrics", ""}, {"loopback6", "::1"}, {"api-server", "127.0.0.1"},
	}
	for _, tt := range tests {
		specs := podSpecs(t, valueSets[tt.values])
		if len(specs) != 2 {
			t.Fatalf("%s: %d workloads, want 2", tt.values, len(specs))
		}
		for owner, pod := range specs {
			c := pod.Containers[0]
			probes := map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe}
			if c.StartupProbe == nil || c.StartupProbe.HTTPGet.Path != "/healthz" {
				t.Errorf("%s: %s has no startup probe", tt.values, owner)
			}
			for path, p := range probes {
				if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != path || p.HTTPGet.Host != tt.host || p.HTTPGet.Port.StrVal != c.Ports[0].Name {
					t.Errorf("%s: %s is asked for %s by %+v, want the host %q", tt.values, owner, path, p, tt.host)
				}
			}
			at := c.Args[slices.Index(c.Args, "--metrics-address")+1]
			if port := ":" + json.Number(jsonOf(t, c.Ports[0].ContainerPort)).String(); !strings.HasSuffix(at, port) {
				t.Errorf("%s: %s serves at %s and is asked at %s", tt.values, owner, at, port)
			}
		}
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// permissions are what an account may do: lines of "group/resource verb", and where only some objects are meant
// their names behind it.
func permissions(t *testing.T, all []chart.Object, account string) []string {
	t.Helper()
	granted := map[string]bool{}
	for _, o := range all {
		if o.Kind != "ClusterRole" && o.Kind != "Role" || o.Metadata.Name != account {
			continue
		}
		for _, r := range as[rbacv1.ClusterRole](t, o).Rules {
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					for _, verb := range r.Verbs {
						line := resource + " " + verb
						if group != "" {
							line = resource + "." + group + " " + verb
						}
						if len(r.ResourceNames) > 0 {
							line += " of " + strings.Join(r.ResourceNames, ", ")
						}
						granted[line] = true
					}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(granted))
}

// TestPermissions lists what the accounts may do, so that nobody grants more in passing.
func TestPermissions(t *testing.T) {
	t.Parallel()
	both := []string{
		"apiservices.apiregistration.k8s.io get of v3.projectcalico.org",
		"ippools.projectcalico.org list", "ippools.projectcalico.org watch",
		"nodes list", "nodes watch",
	}
	agent := slices.Concat(both, []string{
		"customresourcedefinitions.apiextensions.k8s.io get of ippools.projectcalico.org, ippools.crd.projectcalico.org, natconfigurations.sallyport.dev",
		"ippools.crd.projectcalico.org list", "ippools.crd.projectcalico.org watch",
		"natconfigurations.sallyport.dev list", "natconfigurations.sallyport.dev watch",
		"sallyportnodes.sallyport.dev create", "sallyportnodes.sallyport.dev get", "sallyportnodes.sallyport.dev patch", "sallyportnodes/status.sallyport.dev patch",
		"leases.coordination.k8s.io create", "leases.coordination.k8s.io patch",
	})
	controller := slices.Concat(both, []string{
		"customresourcedefinitions.apiextensions.k8s.io get of ippools.projectcalico.org, ippools.crd.projectcalico.org",
		"events.events.k8s.io create",
		"ippools/status.projectcalico.org patch",
		"leases.coordination.k8s.io create",
		"leases.coordination.k8s.io get of sallyport-controller", "leases.coordination.k8s.io update of sallyport-controller",
		"leases.coordination.k8s.io list", "leases.coordination.k8s.io patch",
		"natconfigurations.sallyport.dev list", "natconfigurations.sallyport.dev watch", "natconfigurations/status.sallyport.dev patch",
		"sallyportnodes.sallyport.dev list", "sallyportnodes.sallyport.dev watch", "sallyportnodes/status.sallyport.dev patch",
	})
	for name, values := range valueSets {
		all := chart.Render(t, values...)
		want := map[string][]string{"sallyport-agent": slices.Clone(agent), "sallyport-controller": slices.Clone(controller)}
		switch name {
		case "startup-taint":
			want["sallyport-agent"] = append(want["sallyport-agent"], "nodes patch")
		case "network", "passwords":
			want["sallyport-agent"] = append(slices.DeleteFunc(want["sallyport-agent"], func(line string) bool { return strings.HasPrefix(line, "customresourcedefinitions") }),
				"customresourcedefinitions.apiextensions.k8s.io get of ippools.projectcalico.org, ippools.crd.projectcalico.org, natconfigurations.sallyport.dev, ipreservations.projectcalico.org, nodenetworkconfigurations.sallyport.dev, ipblocks.sallyport.dev, bgppeers.projectcalico.org, bgpconfigurations.projectcalico.org, bgpfilters.projectcalico.org",
				"ippools.projectcalico.org get", "ipreservations.projectcalico.org list", "ipreservations.projectcalico.org watch",
				"bgppeers.projectcalico.org list", "bgppeers.projectcalico.org watch", "bgpconfigurations.projectcalico.org list", "bgpconfigurations.projectcalico.org watch",
				"bgpfilters.projectcalico.org list", "bgpfilters.projectcalico.org watch",
				"nodenetworkconfigurations.sallyport.dev list", "nodenetworkconfigurations.sallyport.dev watch",
				"ipblocks.sallyport.dev create", "ipblocks.sallyport.dev delete", "ipblocks.sallyport.dev get", "ipblocks.sallyport.dev list", "ipblocks.sallyport.dev patch", "ipblocks.sallyport.dev watch",
				"ipblocks/status.sallyport.dev patch", "leases.coordination.k8s.io get", "nodes patch",
				"namespaces get", "namespaces list", "namespaces watch", "pods get", "pods list", "pods watch")
			want["sallyport-controller"] = append(want["sallyport-controller"], "ippools.projectcalico.org patch", "nodes get", "nodes/status patch",
				"ipblocks.sallyport.dev delete", "ipblocks.sallyport.dev list", "ipblocks.sallyport.dev patch", "ipblocks.sallyport.dev watch")
			if name == "passwords" {
				want["sallyport-agent"] = append(want["sallyport-agent"], "secrets get of bgp, rack.a")
			}
		case "uninstall", "end-network":
			want = map[string][]string{"sallyport-agent": nil, "sallyport-controller": nil}
		}
		for account, lines := range want {
			slices.Sort(lines)
			got := permissions(t, all, account)
			if d := cmp.Diff(lines, got); d != "" {
				t.Errorf("%s: permissions of %s:\n%s", name, account, d)
			}
			for _, line := range got {
				if strings.ContainsAny(line, "*") || strings.Contains(line, "secret") && line != "secrets get of bgp, rack.a" {
					t.Errorf("%s: %s may do too much: %s", name, account, line)
				}
			}
		}
	}
}

// TestBindings makes sure that every role is bound to the account of its name, in the release's namespace.
func TestBindings(t *testing.T) {
	t.Parallel()
	all := chart.Render(t)
	bound := 0
	for _, o := range all {
		if o.Kind != "ClusterRoleBinding" && o.Kind != "RoleBinding" {
			continue
		}
		b := as[rbacv1.ClusterRoleBinding](t, o)
		role := named(t, all, b.RoleRef.Kind, b.RoleRef.Name)
		if len(b.Subjects) != 1 || b.Subjects[0].Namespace != "sallyport-system" || b.Subjects[0].Name != role.Metadata.Name || !has(all, "ServiceAccount", b.Subjects[0].Name) {
			t.Errorf("%s binds %s to %v", o, role, b.Subjects)
		}
		bound++
	}
	if bound != 4 {
		t.Errorf("%d bindings, want 4", bound)
	}
}

// TestUninstall makes sure that a node counts as clean when cleanup has ended, and not before.
func TestUninstall(t *testing.T) {
	t.Parallel()
	all := chart.Render(t, valueSets["uninstall"]...)
	if has(all, "Deployment", "sallyport-controller") {
		t.Error("the controller runs while the nodes are cleaned")
	}
	agent := as[appsv1.DaemonSet](t, named(t, chart.Render(t), "DaemonSet", "sallyport-agent"))
	cleanup := as[appsv1.DaemonSet](t, named(t, all, "DaemonSet", "sallyport-agent"))
	if d := cmp.Diff(agent.Spec.Selector, cleanup.Spec.Selector); d != "" {
		t.Errorf("the selector changes, which Kubernetes refuses:\n%s", d)
	}
	pod := cleanup.Spec.Template.Spec
	if got, want := pod.InitContainers[0].Args, []string{"cleanup"}; !slices.Equal(got, want) {
		t.Errorf("the init container runs %q", got)
	}
	if got, want := pod.Containers[0].Args, []string{"cleanup", "--stay"}; !slices.Equal(got, want) {
		t.Errorf("the container runs %q", got)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("cleanup gets a token, and needs none")
	}
}
