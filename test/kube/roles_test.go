package kube

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/yaml"
	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// The accounts of the chart, and their names as users.
const (
	agentAccount      = "sallyport-agent"
	controllerAccount = "sallyport-controller"
	accountsPrefix    = "system:serviceaccount:" + chart.Namespace + ":"
)

// permission is one verb on one resource.
type permission struct {
	verb, group, resource string // the resource with its subresource, as in ippools/status
	name                  string // of the one object; empty: all
	namespace             string // of a Role; empty: all, or none
}

func (p permission) String() string {
	s := p.verb + " " + p.resource
	if p.group != "" {
		s += "." + p.group
	}
	if p.name != "" {
		s += " " + p.name
	}
	if p.namespace != "" {
		s += " in " + p.namespace
	}
	return s
}

// allows says whether a request is what the permission is for.
func (p permission) allows(e cluster.Event) bool {
	resource := e.Resource
	if e.Subresource != "" {
		resource += "/" + e.Subresource
	}
	return p.verb == e.Verb && p.group == e.Group && p.resource == resource &&
		(p.name == "" || p.name == e.Name) && (p.namespace == "" || p.namespace == e.Namespace)
}

// permissions are what the roles of an account's name grant, each verb of each resource and name on its own.
func permissions(t *testing.T, all []chart.Object, account string) []permission {
	t.Helper()
	var out []permission
	for _, o := range all {
		if o.Kind != "ClusterRole" && o.Kind != "Role" || o.Metadata.Name != account {
			continue
		}
		var role rbacv1.ClusterRole
		labtest.Must(t, yaml.Unmarshal([]byte(o.Text), &role))
		for _, r := range role.Rules {
			names := r.ResourceNames
			if len(names) == 0 {
				names = []string{""}
			}
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					for _, verb := range r.Verbs {
						for _, name := range names {
							out = append(out, permission{verb, group, resource, name, o.Metadata.Namespace})
						}
					}
				}
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("no role is named %s", account)
	}
	return out
}

// manifests joins the objects that are to be kept.
func manifests(all []chart.Object, keep func(chart.Object) bool) string {
	var texts []string
	for _, o := range all {
		if keep(o) {
			texts = append(texts, o.Text)
		}
	}
	return strings.Join(texts, "---\n")
}

// isWorkload says whether an object makes pods.
func isWorkload(o chart.Object) bool { return o.Kind == "DaemonSet" || o.Kind == "Deployment" }

func isDefinition(o chart.Object) bool { return o.Kind == "CustomResourceDefinition" }

// isPools says whether an object is the definition of IPPool.
func isPools(o chart.Object) bool { return isDefinition(o) && o.Metadata.Name == poolsDefinition }

const poolsDefinition = "ippools.projectcalico.org"

// legacyPools is a definition as that under which Calico stores its pools.
const legacyPools = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ippools.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  names: {kind: IPPool, listKind: IPPoolList, plural: ippools, singular: ippool}
  scope: Cluster
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// aggregated is what Calico's API server is registered by.
const aggregated = `apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v3.projectcalico.org}
spec:
  group: projectcalico.org
  version: v3
  groupPriorityMinimum: 1500
  versionPriority: 200
  insecureSkipTLSVerify: true
  service: {name: calico-api, namespace: calico-apiserver}
`

// installChart applies what the chart makes of values, but for workloads and what is left out.
func installChart(t *testing.T, c *cluster.Cluster, all []chart.Object, without ...func(chart.Object) bool) {
	t.Helper()
	kubectl := func(stdin string, args ...string) {
		t.Helper()
		_, err := c.Kubectl(t, stdin, args...)
		labtest.Must(t, err)
	}
	kubectl("", "create", "namespace", chart.Namespace)
	kubectl(manifests(all, func(o chart.Object) bool {
		return !isWorkload(o) && !slices.ContainsFunc(without, func(is func(chart.Object) bool) bool { return is(o) })
	}), "apply", "-f", "-")
	for _, o := range all {
		if isDefinition(o) && !slices.ContainsFunc(without, func(is func(chart.Object) bool) bool { return is(o) }) {
			kubectl("", "wait", "--for=condition=Established", "--timeout=30s", "crd/"+o.Metadata.Name)
		}
	}
}

// account has the agent of a node be a pod of the agents' account on it.
func (n *node) account(name string) {
	n.site.t.Helper()
	n.kubeconfig = n.site.c.TokenKubeconfig(n.site.t, cluster.PodIdentity{
		Namespace: chart.Namespace, ServiceAccount: name, Pod: name + "-" + n.name, Node: n.name})
	n.env = append(n.env, "POD_NAMESPACE="+chart.Namespace)
}

// requestsOf are the requests of an account, as they are judged: one that is a watch is there once.
func requestsOf(t *testing.T, c *cluster.Cluster, account string) []cluster.Event {
	t.Helper()
	var out []cluster.Event
	for _, e := range c.Audit(t) {
		if e.User != accountsPrefix+account {
			continue
		}
		out = append(out, e)
		if e.Verb == "patch" && e.Code == 201 { // server-side apply that makes an object needs both
			e.Verb = "create"
			out = append(out, e)
		}
	}
	return out
}

// compareWithAudit compares what an account was granted with what it has used: nothing was refused, and nothing
// was granted in vain.
func compareWithAudit(t *testing.T, c *cluster.Cluster, account string, granted []permission) {
	t.Helper()
	requests := requestsOf(t, c, account)
	strange := map[string]bool{}
	for _, e := range requests {
		said := fmt.Sprintf("%s %s answered by %d", e.Verb, e.URI, e.Code)
		switch {
		case e.Resource == "secrets" || e.Resource == "configmaps":
			t.Errorf("%s has touched a %s: %s", account, e.Resource, said)
		case e.Code == 401 || e.Code == 403:
			strange["was refused: "+said] = true
		case !slices.ContainsFunc(granted, func(p permission) bool { return p.allows(e) }):
			strange["used what its role does not grant: "+said] = true
		}
	}
	for said := range strange {
		t.Errorf("%s %s", account, said)
	}
	for _, p := range granted {
		if !slices.ContainsFunc(requests, p.allows) {
			t.Errorf("%s has never used: %s", account, p)
		}
	}
	slices.SortFunc(requests, func(a, b cluster.Event) int { return cmp.Compare(a.URI, b.URI) })
	t.Logf("%s: %d requests", account, len(requests))
}
