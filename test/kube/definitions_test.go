package kube

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/yaml"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// The definitions, by their files.
const (
	poolsFile    = "projectcalico.org_ippools.yaml"
	settingsFile = "sallyport.dev_natconfigurations.yaml"
	statusesFile = "sallyport.dev_sallyportnodes.yaml"
)

// TestDefinitions takes away and changes what the kinds are defined by.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{})
	s := newSite(t, c, 2)
	v := &definitions{site: s, probes: s.probe(t)}
	s.scenes([]scene{
		{"start-up taint", v.taint}, {"pools' definition deleted", v.poolsDeleted}, {"settings' definition deleted", v.settingsDeleted},
		{"deleted without a pool", v.emptyDeleted}, {"not understood", v.foreign},
	})
}

type definitions struct {
	site   *site
	probes *prober
}

// install creates a definition and waits until its kind is served.
func (v *definitions) install(t *testing.T, file string) {
	t.Helper()
	crd, err := yaml.Encode(definition(t, file))
	labtest.Must(t, err)
	v.site.kubectl(string(crd), "create", "-f", "-")
	plural, group, _ := strings.Cut(strings.TrimSuffix(file, ".yaml"), "_")
	name := group + "." + plural
	v.site.kubectl("", "wait", "--for=condition=Established", "crd/"+name, "--timeout=20s")
}

// says waits until status on every node has some words.
func (v *definitions) says(t *testing.T, words string) {
	t.Helper()
	for _, n := range v.site.nodes {
		awaiting(t, n.name+" says "+words, func() (bool, string) {
			out, _ := n.sallyport("status", "-o", "json") // that a node is not ready is said by the words
			return strings.Contains(out, words), out
		})
	}
}

// silent waits until status on every node has no warning.
func (v *definitions) silent(t *testing.T) {
	t.Helper()
	for _, n := range v.site.nodes {
		awaiting(t, n.name+" has no warning", func() (bool, string) {
			out, err := n.sallyport("status", "-o", "json")
			var st struct{ Warnings, Faults []any }
			return err == nil && json.Unmarshal([]byte(out), &st) == nil && len(st.Warnings)+len(st.Faults) == 0, out
		})
	}
}

// taint starts agents on nodes that are registered with the taint, before there is anything by which they could be
// ready.
func (v *definitions) taint(t *testing.T) {
	s := v.site
	s.kubectl("", "taint", "node", "n1", "n2", "sallyport.dev/not-ready=:NoSchedule", "example.com/other=:NoSchedule")
	v.install(t, statusesFile)
	taints := func(n *node) string {
		return s.kubectl("", "get", "node", n.name, "-o", "jsonpath={.spec.taints[*].key}")
	}
	for _, n := range s.nodes {
		n.launch()
	}
	for _, n := range s.nodes {
		awaiting(t, n.name+" says that it is not ready", func() (bool, string) {
			st, text := s.nodeStatus(n.name)
			return text != "" && !st.isReady() && len(st.Metadata.OwnerReferences) == 1, text
		})
		if got := taints(n); !strings.Contains(got, "sallyport.dev/not-ready") {
			t.Errorf("before %s is ready, its taints are %q", n.name, got)
		}
	}
	v.says(t, "no CustomResourceDefinition serves IPPools")
	v.install(t, poolsFile)
	v.install(t, settingsFile)
	for _, n := range s.nodes {
		awaiting(t, "of "+n.name+" the start-up taint is gone, and nobody else's", func() (bool, string) {
			got := taints(n)
			return strings.Contains(got, "example.com/other") && !strings.Contains(got, "sallyport.dev"), got
		})
		awaiting(t, n.name+" says that it is ready", func() (bool, string) {
			st, text := s.nodeStatus(n.name)
			return st.isReady(), text
		})
	}
	v.silent(t)
	v.probes.change(t, "pools created", v.probes.own, func() { s.apply(pools(true)) })
}

// poolsDeleted deletes the definition of pools, and all pools with it.
func (v *definitions) poolsDeleted(t *testing.T) {
	s, p := v.site, v.probes
	p.hold(t, "definition of pools deleted", func() {
		s.kubectl("", "delete", "crd", "ippools.projectcalico.org")
		v.says(t, "no CustomResourceDefinition serves IPPools")
	})
	p.hold(t, "agent restarted without a definition", func() {
		s.nodes[0].end(syscall.SIGTERM)
		s.nodes[0].start()
	})
	p.hold(t, "definition installed, without a pool", func() {
		v.install(t, poolsFile)
		v.says(t, "went with their CustomResourceDefinition")
	})
	p.hold(t, "agent restarted meanwhile", func() {
		s.nodes[1].end(syscall.SIGKILL)
		s.nodes[1].start()
		v.says(t, "went with their CustomResourceDefinition")
	})
	p.hold(t, "pools applied again", func() {
		s.apply(pools(true))
		v.silent(t)
	})
	p.change(t, "pools changed", p.inner, func() { s.apply(pools(false)) })
	p.change(t, "pools deleted and created", p.own, func() {
		s.kubectl("", "delete", "ippool", "--all")
		s.apply(pools(true))
	})
}

// settingsDeleted does the same to settings.
func (v *definitions) settingsDeleted(t *testing.T) {
	s, p := v.site, v.probes
	const excluded = "{exclusions: IPPoolsAndHostIPs}"
	s.apply("apiVersion: v1\nkind: Node\nmetadata: {name: elsewhere}\n")
	s.ready("elsewhere", destinations[0][1], destinations[1][1])
	p.change(t, "addresses of nodes excluded", p.except(1), func() { s.apply(settings("default", excluded)) })
	p.hold(t, "definition of settings deleted", func() {
		s.kubectl("", "delete", "crd", "natconfigurations.sallyport.dev")
		v.says(t, "no CustomResourceDefinition serves NATConfigurations")
	})
	p.hold(t, "definition installed, without settings", func() {
		v.install(t, settingsFile)
		v.says(t, "went with their CustomResourceDefinition")
	})
	p.hold(t, "settings applied again", func() {
		s.apply(settings("default", excluded))
		v.silent(t)
	})
	p.change(t, "settings deleted", p.own, func() { s.kubectl("", "delete", "natconfiguration", "default") })
}

// emptyDeleted deletes a definition by which nothing was declared: the next one is another all the same, and a pool
// that is deleted then is deleted.
func (v *definitions) emptyDeleted(t *testing.T) {
	s, p := v.site, v.probes
	p.change(t, "pools deleted", p.inner, func() { s.kubectl("", "delete", "ippool", "--all") })
	s.kubectl("", "delete", "crd", "ippools.projectcalico.org")
	v.says(t, "no CustomResourceDefinition serves IPPools")
	v.install(t, poolsFile)
	p.change(t, "pools created by another definition", p.own, func() { s.apply(pools(true)) })
	p.change(t, "and deleted", p.inner, func() { s.kubectl("", "delete", "ippool", "--all") })
	p.change(t, "and created", p.own, func() { s.apply(pools(true)) })
	v.silent(t)
}

// foreign has the API hold objects that this version does not understand.
func (v *definitions) foreign(t *testing.T) {
	s, p := v.site, v.probes
	for _, crd := range []string{"ippools.projectcalico.org", "natconfigurations.sallyport.dev"} {
		s.kubectl("", "patch", "crd", crd, "--type=json", "-p",
			`[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec","value":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}]`)
	}
	insist := func(manifest string) { // until the server goes by the looser schema
		awaiting(t, "the server takes "+manifest, func() (bool, string) {
			out, err := s.c.Kubectl(t, manifest, "apply", "-f", "-")
			return err == nil, fmt.Sprint(out, err)
		})
	}
	p.hold(t, "pools that nobody understands", func() {
		insist(pool("pods-v4", "{cidr: 10.0.0.0/16, natOutgoing: 'yes'}"))
		insist(pool("nonsense", "{cidr: everything, natOutgoing: true}"))
		for _, n := range s.nodes {
			awaiting(t, n.name+" says which", func() (bool, string) {
				st, text := s.nodeStatus(n.name)
				said := fmt.Sprint(st.Status.Exceptions)
				return st.isReady() && len(st.Status.Exceptions) == 2 && strings.Contains(said, "{IPPool nonsense spec.cidr: ") && strings.Contains(said, "it is left out") &&
					strings.Contains(said, "{IPPool pods-v4 spec.natOutgoing: is a string") && strings.Contains(said, "what it said before stays in force"), text
			})
		}
		for _, words := range []string{`IPPool "pods-v4": spec.natOutgoing: is a string`, "what follows leaves these out", "DIFFERS: the agent, whose plan it holds, says translate"} {
			s.nodes[0].says("explain", words, s.nodes[0].inner[0].String(), destinations[0][0])
		}
	})
	six := func(f flow) bool { return f.family == 1 }
	p.change(t, "the others go on", p.either(six, p.inner, p.own), func() {
		s.kubectl("", "patch", "ippool", "pods-v6", "--type=merge", "-p", `{"spec":{"natOutgoing":false}}`)
	})
	p.hold(t, "agents restarted", func() {
		for _, n := range s.nodes {
			n.end(syscall.SIGKILL)
			n.start()
		}
	})
	p.hold(t, "settings that nobody understands", func() {
		insist(settings("broken", "{nodeSelector: 'has(', portRange: 40000-40100}"))
		v.says(t, "spec.nodeSelector")
	})
	p.change(t, "other settings go on", p.either(six, p.inner, p.except(1)), func() { s.apply(settings("default", "{exclusions: IPPoolsAndHostIPs}")) })
	p.change(t, "all mended", p.own, func() {
		s.kubectl("", "delete", "natconfiguration", "--all")
		s.kubectl("", "delete", "ippool", "nonsense")
		s.apply(pools(true))
		v.silent(t)
	})
}
