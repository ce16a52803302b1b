package kube

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestWithoutVerb takes each verb on each resource from an agent in turn, which is started anew without it: its rules
// stay, status says what is missing, and with it all goes on.
func TestWithoutVerb(t *testing.T) {
	t.Parallel()
	all := chart.Render(t, "--set", "startupTaint=true")
	var common, legacy []permission
	for _, p := range permissions(t, all, agentAccount) {
		if p.group == "crd.projectcalico.org" || p.name == "ippools.crd.projectcalico.org" {
			legacy = append(legacy, p)
		} else {
			common = append(common, p)
		}
	}
	t.Run("Sallyport's definition", func(t *testing.T) {
		t.Parallel()
		c := cluster.New(t, cluster.Options{})
		installChart(t, c, all)
		withoutVerbs(t, c, permissions(t, all, agentAccount), common, "projectcalico.org/v3")
	})
	t.Run("Calico's definition", func(t *testing.T) {
		t.Parallel()
		c := cluster.New(t, cluster.Options{})
		installChart(t, c, all, isPools)
		_, err := c.Kubectl(t, legacyPools, "apply", "-f", "-")
		labtest.Must(t, err)
		_, err = c.Kubectl(t, "", "wait", "--for=condition=Established", "--timeout=30s", "crd/ippools.crd.projectcalico.org")
		labtest.Must(t, err)
		withoutVerbs(t, c, permissions(t, all, agentAccount), legacy, "crd.projectcalico.org/v1")
	})
}

// withoutVerbs takes each of some permissions from an agent that has all. Each has a node, and an account with a role
// of its own.
func withoutVerbs(t *testing.T, c *cluster.Cluster, all, each []permission, poolVersion string) {
	s := newSite(t, c, len(each))
	for i, p := range each {
		n := s.nodes[i]
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			here := *s
			here.t, n.site = t, &here
			n.withoutVerb(all, p, poolVersion)
		})
	}
}

// withoutVerb takes a permission from a node's agent and gives it back.
func (n *node) withoutVerb(all []permission, p permission, poolVersion string) {
	s := n.site
	account := "agent-" + n.name
	n.account(account)
	n.env = append(n.env, quickEnv+"=1")
	// Who does not know streaming lists is refused a list first.
	if p.verb == "list" {
		n.env = append(n.env, "KUBE_FEATURE_WatchListClient=false")
	}
	own := func(natOutgoing bool) string { // of a node, in IPv4 and IPv6
		return strings.ReplaceAll(pool("p4-"+n.name, fmt.Sprintf("{cidr: %s/24, natOutgoing: %t}", n.inner[0].Prev().Prev(), natOutgoing))+"---\n"+
			pool("p6-"+n.name, fmt.Sprintf("{cidr: '%s/64', natOutgoing: %t}", n.inner[1].Prev().Prev(), natOutgoing)), "projectcalico.org/v3", poolVersion)
	}
	s.apply(own(true))
	s.apply(rolesFor(account, all))
	n.start()
	n.expectSoon("with all rights", n.own)
	eventually(s.t, "the SallyportNode is written", func() (bool, string) {
		out, err := s.c.Kubectl(s.t, "", "get", "sallyportnode", n.name)
		return err == nil, out
	})
	n.end(syscall.SIGTERM)

	s.apply(rolesFor(account, slices.DeleteFunc(slices.Clone(all), func(q permission) bool { return q == p })))
	switch {
	case p.resource == "sallyportnodes" && p.verb != "get":
		s.kubectl("", "delete", "sallyportnode", n.name)
	case p.resource == "leases" && p.verb == "create":
		s.kubectl("", "delete", "lease", "--ignore-not-found", "-n", chart.Namespace, "sallyport-node-"+n.name)
	case p.resource == "nodes" && p.verb == "patch":
		s.kubectl("", "taint", "node", n.name, "sallyport.dev/not-ready=:NoSchedule")
	}
	n.launch()
	needed := p.needed()
	eventually(s.t, "status says: "+strings.Join(needed, ", "), func() (bool, string) {
		out, _ := n.sallyport("status") // it fails while the agent is not ready, and before it runs
		return !slices.ContainsFunc(needed, func(words string) bool { return !strings.Contains(out, words) }), out
	})
	n.expect("without the right to "+p.String(), n.own)

	s.apply(rolesFor(account, all))
	eventually(s.t, "status has forgotten it", func() (bool, string) {
		out, err := n.sallyport("status", "--wait", "20s")
		return err == nil && !strings.Contains(out, needed[0]), out
	})
	s.apply(own(false))
	n.expectSoon("after a change", n.inner)
	s.kubectl("", "wait", "--for=condition=Ready", "--timeout=30s", "sallyportnode/"+n.name)
	if p.resource == "nodes" && p.verb == "patch" {
		eventually(s.t, "the taint is gone", func() (bool, string) {
			out := s.kubectl("", "get", "node", n.name, "-o", "jsonpath={.spec.taints}")
			return !strings.Contains(out, "sallyport.dev"), out
		})
	}
}

// needed are words that tell an operator what to grant.
func (p permission) needed() []string {
	resource := p.resource
	if p.group != "" {
		resource += "." + p.group
	}
	return append([]string{"grant " + p.verb + " on " + resource}, p.name)
}

// rolesFor is a ClusterRole with some permissions, bound to an account.
func rolesFor(account string, granted []permission) string {
	type object map[string]any
	rules := []object{}
	for _, p := range granted {
		r := object{"apiGroups": []string{p.group}, "resources": []string{p.resource}, "verbs": []string{p.verb}}
		if p.name != "" {
			r["resourceNames"] = []string{p.name}
		}
		rules = append(rules, r)
	}
	const group = "rbac.authorization.k8s.io"
	list, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": []object{
		{"apiVersion": group + "/v1", "kind": "ClusterRole", "metadata": object{"name": account}, "rules": rules},
		{"apiVersion": group + "/v1", "kind": "ClusterRoleBinding", "metadata": object{"name": account},
			"roleRef":  object{"apiGroup": group, "kind": "ClusterRole", "name": account},
			"subjects": []object{{"kind": "ServiceAccount", "name": account, "namespace": chart.Namespace}}},
	}})
	if err != nil {
		panic(err) // text in maps always encodes
	}
	return string(list)
}
