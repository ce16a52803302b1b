package kube

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/sallyport/sallyport/test/kube/cluster"
)

// collectorOnly has the controller manager collect what lost its owner, and nothing else: no kubelet is there whose
// word a node's readiness would rest on.
var collectorOnly = []string{"--controllers=garbage-collector-controller"}

// TestConverge lets three nodes follow everything that is declared, while new flows are opened all the time.
func TestConverge(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{ControllerManager: true, ControllerManagerArgs: collectorOnly, CRDs: true})
	s := newSite(t, c, 3)
	s.own()
	p := s.probe(t)
	for _, n := range s.nodes {
		n.start()
	}
	p.hold(t, "without pools", func() {})
	v := &convergence{site: s, probes: p}
	s.scenes([]scene{
		{"pools", v.pools}, {"settings of one node", v.settings}, {"addresses of other nodes", v.exclusions},
		{"statuses", v.statuses}, {"conditions", v.conditions}, {"leader", v.leader}, {"node without agent", v.silent},
		{"collected", v.collected},
	})
}

// scene is one thing that happens to a site.
type scene struct {
	name string
	play func(*testing.T)
}

// scenes lets things happen, each where the one before it ended.
func (s *site) scenes(all []scene) {
	defer func() { s.t = s.whole }()
	for _, scene := range all {
		if !s.whole.Run(scene.name, func(t *testing.T) { s.t = t; scene.play(t) }) {
			return
		}
	}
}

// own has the definitions be Sallyport's, as an installation does.
func (s *site) own() {
	s.t.Helper()
	s.kubectl("", "annotate", "--overwrite", "crd", "ippools.projectcalico.org", "natconfigurations.sallyport.dev", "sallyportnodes.sallyport.dev", "sallyport.dev/version=test")
}

type convergence struct {
	site    *site
	probes  *prober
	leading *exec.Cmd // the controller that writes
}

// pools creates, changes, deletes and creates pools.
func (v *convergence) pools(t *testing.T) {
	s, p := v.site, v.probes
	p.change(t, "pools created", p.own, func() { s.apply(pools(true)) })
	p.change(t, "natOutgoing taken away", p.inner, func() { s.apply(pools(false)) })
	p.change(t, "natOutgoing given back", p.own, func() { s.apply(pools(true)) })
	p.hold(t, "a pool that is none of the pods'", func() {
		s.apply(pool("elsewhere", "{cidr: 10.77.0.0/16, natOutgoing: true}"))
		s.kubectl("", "delete", "ippool", "elsewhere")
	})
	p.hold(t, "disabled", func() {
		s.kubectl("", "patch", "ippool", "pods-v4", "pods-v6", "--type=merge", "-p", `{"spec":{"disabled":true}}`)
		s.kubectl("", "patch", "ippool", "pods-v4", "pods-v6", "--type=merge", "-p", `{"spec":{"disabled":null}}`)
	})
	p.change(t, "a destination becomes a pool's", p.except(2), func() {
		s.apply(pool("there-v4", "{cidr: 198.51.100.5/32, disabled: true}") + "---\n" + pool("there-v6", "{cidr: '2001:db8:f1::5/128', disabled: true}"))
	})
	p.change(t, "a destination is no pool's any more", p.own, func() { s.kubectl("", "delete", "ippool", "there-v4", "there-v6") })
	p.change(t, "pools deleted", p.inner, func() { s.kubectl("", "delete", "ippool", "pods-v4", "pods-v6") })
	p.change(t, "pools created again", p.own, func() { s.apply(pools(true)) })
}

func settings(name, spec string) string {
	return "apiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

// settings gives one node addresses and ports of its own.
func (v *convergence) settings(t *testing.T) {
	s, p := v.site, v.probes
	other := [2]netip.Addr{netip.MustParseAddr("192.0.2.102"), netip.MustParseAddr("2001:db8:f0::102")}
	second := func(f flow) netip.Addr {
		if f.node == 1 {
			return other[f.family]
		}
		return p.own(f)
	}
	p.change(t, "addresses for one node", second, func() {
		s.apply(settings("second", fmt.Sprintf("{nodeSelector: \"kubernetes.io/hostname == 'n2'\", addresses: [%q, %q], portRange: 40000-49999}", other[0], other[1])))
	})
	p.mu.Lock()
	for f, tally := range p.tally {
		if f.node == 1 && (tally.port < 40000 || tally.port > 49999) {
			t.Errorf("to %s the port is %d", destinations[f.family][f.to], tally.port)
		}
	}
	p.mu.Unlock()
	moved := func(f flow) netip.Addr {
		if f.node == 2 {
			return other[f.family]
		}
		return p.own(f)
	}
	p.change(t, "the same for another node", moved, func() {
		s.kubectl("", "patch", "natconfiguration", "second", "--type=merge", "-p", `{"spec":{"nodeSelector":"role == 'gateway'"}}`)
		s.kubectl("", "label", "node", "n3", "role=gateway")
	})
	p.change(t, "the label is gone", p.own, func() { s.kubectl("", "label", "node", "n3", "role-") })
	p.hold(t, "settings deleted", func() { s.kubectl("", "delete", "natconfiguration", "second") })
}

// elsewhere declares a Node at one of the destinations of both families.
func (v *convergence) elsewhere(to int) {
	v.site.apply("apiVersion: v1\nkind: Node\nmetadata: {name: elsewhere}\n")
	v.site.kubectl("", "patch", "node", "elsewhere", "--subresource=status", "--type=merge", "-p",
		fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q},{"type":"ExternalIP","address":%q}]}}`, destinations[0][to], destinations[1][to]))
}

// exclusions has packets to the addresses of nodes stay as they are, while Nodes come and go.
func (v *convergence) exclusions(t *testing.T) {
	s, p := v.site, v.probes
	p.hold(t, "a Node where nobody asks for its addresses", func() { v.elsewhere(1) })
	p.change(t, "addresses of nodes are excluded", p.except(1), func() { s.apply(settings("default", "{exclusions: IPPoolsAndHostIPs}")) })
	p.change(t, "the Node has another address", p.except(2), func() { v.elsewhere(2) })
	p.change(t, "the Node is gone", p.own, func() { s.kubectl("", "delete", "node", "elsewhere") })
	p.change(t, "the Node is there again", p.except(1), func() { v.elsewhere(1) })
	p.change(t, "addresses of nodes are not excluded any more", p.own, func() {
		s.apply(settings("default", "{exclusions: IPPoolsOnly}"))
	})
	p.change(t, "they are, a moment later", p.except(1), func() { s.apply(settings("default", "{exclusions: IPPoolsAndHostIPs}")) })
	p.change(t, "settings and Node deleted", p.own, func() { s.kubectl("", "delete", "natconfiguration/default", "node/elsewhere") })
}
