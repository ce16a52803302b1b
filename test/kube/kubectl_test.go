package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestKubectl does with pools what people do.
func TestKubectl(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{})
	c.InstallCRDs(t)
	k := &kubectl{t: t, c: c}
	t.Run("apply", k.apply)
	t.Run("server-side apply", k.serverSide)
	t.Run("columns and short names", k.columns)
	t.Run("status", k.status)
	t.Run("explain", k.explain)
}

// kubectl is the program, for one cluster.
type kubectl struct {
	t *testing.T
	c *cluster.Cluster
}

// run runs kubectl and returns what it prints.
func (k *kubectl) run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := k.c.Kubectl(t, stdin, args...)
	labtest.Must(t, err)
	return out
}

// refused runs kubectl, which must fail, with a message that has some words.
func (k *kubectl) refused(t *testing.T, stdin, words string, args ...string) {
	t.Helper()
	out, err := k.c.Kubectl(t, stdin, args...)
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("kubectl %v with %s\nprints %s and fails with %v; want a message with %q", args, stdin, out, err, words)
	}
}

// pool is a manifest in the form in which people write them.
func pool(name, spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: " + name + "\nspec: " + spec + "\n"
}

func (k *kubectl) apply(t *testing.T) {
	for _, step := range []struct{ spec, says string }{
		{"{cidr: 10.1.0.0/16, natOutgoing: true}", "created"},
		{"{cidr: 10.1.0.0/16, natOutgoing: true}", "unchanged"},
		{"{cidr: 10.1.0.0/16, natOutgoing: true, blockSize: 26}", "configured"}, // the default, written out
		{"{cidr: 10.1.0.0/16}", "configured"},
	} {
		if out := k.run(t, pool("applied", step.spec), "apply", "-f", "-"); !strings.Contains(out, step.says) {
			t.Errorf("apply of %s says %s, want %s", step.spec, out, step.says)
		}
	}
	if spec := k.run(t, "", "get", "ippool", "applied", "-o", "jsonpath={.spec}"); spec != `{"cidr":"10.1.0.0/16"}` {
		t.Errorf("the spec is %s: what was not written was filled in, or what was taken out is left", spec)
	}
	k.refused(t, pool("applied", "{cidr: 10.2.0.0/16}"), "spec.cidr: Invalid value: cannot change from 10.1.0.0/16", "apply", "-f", "-")
	k.refused(t, pool("applied", "{cidr: 10.1.0.0/16, natoutgoing: true}"), `unknown field "spec.natoutgoing"`, "apply", "-f", "-")
	// The list is an object too.
	k.run(t, "apiVersion: projectcalico.org/v3\nkind: IPPoolList\nitems: [{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: listed}, spec: {cidr: 10.3.0.0/16}}]\n", "apply", "-f", "-")
}

func (k *kubectl) serverSide(t *testing.T) {
	as := func(manager string, more ...string) []string {
		return append([]string{"apply", "--server-side", "--field-manager=" + manager, "-f", "-"}, more...)
	}
	k.run(t, pool("shared", "{cidr: 10.4.0.0/16, allowedUses: [Workload]}"), as("one")...)
	k.run(t, pool("shared", "{cidr: 10.4.0.0/16, natOutgoing: true, allowedUses: [Tunnel]}"), as("two")...)
	if uses := k.run(t, "", "get", "ippool", "shared", "-o", "jsonpath={.spec.allowedUses}"); uses != `["Workload","Tunnel"]` {
		t.Errorf("two managers of a set make of it %s", uses)
	}
	k.refused(t, pool("shared", "{cidr: 10.4.0.0/16, natOutgoing: false}"), "conflict with \"two\": .spec.natOutgoing", as("one")...)
	k.run(t, pool("shared", "{cidr: 10.4.0.0/16, natOutgoing: false}"), as("one", "--force-conflicts")...)
	if nat := k.run(t, "", "get", "ippool", "shared", "-o", "jsonpath={.spec}"); nat != `{"allowedUses":["Tunnel"],"cidr":"10.4.0.0/16","natOutgoing":false}` {
		t.Errorf("after the first manager has taken over, the spec is %s", nat)
	}
}

func (k *kubectl) columns(t *testing.T) {
	k.run(t, pool("shown", "{cidr: 'fd00::/64', natOutgoing: true, vxlanMode: Always}"), "apply", "-f", "-")
	want := []string{"NAME", "CIDR", "NAT", "VXLAN", "IPIP", "ALLOCATABLE", "PROGRAMMED", "AGE"}
	for _, name := range []string{"ippools", "ippool", "ipp", "ipps", "ippools.projectcalico.org"} {
		out := k.run(t, "", "get", name)
		if head := strings.Fields(strings.SplitN(out, "\n", 2)[0]); fmt.Sprint(head) != fmt.Sprint(want) {
			t.Errorf("get %s has the columns %v, want %v", name, head, want)
		}
		if !strings.Contains(out, "fd00::/64") {
			t.Errorf("get %s prints\n%s", name, out)
		}
	}
	out := k.run(t, "", "get", "ippool", "shown", "--no-headers")
	if row := strings.Fields(out); len(row) < 4 || fmt.Sprint(row[:4]) != "[shown fd00::/64 true Always]" {
		t.Errorf("the row is %s", out)
	}
}

func (k *kubectl) status(t *testing.T) {
	k.run(t, pool("judged", "{cidr: 10.5.0.0/16}")+"status: {conditions: [{type: Allocatable}]}\n", "apply", "-f", "-")
	if status := k.run(t, "", "get", "ippool", "judged", "-o", "jsonpath={.status}"); status != "" {
		t.Errorf("a manifest set the status: %s", status)
	}
	condition := func(kind, status, reason string) string {
		return fmt.Sprintf(`{"type":%q,"status":%q,"reason":%q,"message":"","lastTransitionTime":%q,"observedGeneration":1}`,
			kind, status, reason, time.Now().UTC().Format(time.RFC3339))
	}
	patch := func(body string) []string {
		return []string{"patch", "ippool", "judged", "--subresource=status", "--type=merge", "-p", body}
	}
	k.run(t, "", patch(`{"spec":{"natOutgoing":true},"status":{"conditions":[`+condition("Allocatable", "True", "OK")+`,`+condition("Programmed", "False", "Pending")+`]}}`)...)
	if spec := k.run(t, "", "get", "ippool", "judged", "-o", "jsonpath={.spec} {.metadata.generation}"); spec != `{"cidr":"10.5.0.0/16"} 1` {
		t.Errorf("a change of the status changed the spec or the generation: %s", spec)
	}
	if row := strings.Fields(k.run(t, "", "get", "ippool", "judged", "--no-headers")); len(row) != 5 || row[2] != "True" || row[3] != "False" {
		t.Errorf("the row with conditions is %v", row)
	}
	k.run(t, "", "wait", "ippool/judged", "--for=condition=Allocatable", "--timeout=5s")
	k.refused(t, "", "status.conditions[0].status", patch(`{"status":{"conditions":[`+condition("Allocatable", "Perhaps", "OK")+`]}}`)...)
	k.refused(t, "", "Duplicate value", patch(`{"status":{"conditions":[`+condition("Allocatable", "True", "OK")+`,`+condition("Allocatable", "True", "OK")+`]}}`)...)
	k.run(t, pool("judged", "{cidr: 10.5.0.0/16, natOutgoing: true}"), "apply", "-f", "-")
	if status := k.run(t, "", "get", "ippool", "judged", "-o", "jsonpath={.status.conditions[*].type} {.metadata.generation}"); status != "Allocatable Programmed 2" {
		t.Errorf("after a change of the spec, status and generation are %s", status)
	}
}

func (k *kubectl) explain(t *testing.T) {
	for _, path := range []string{"ippool.spec.cidr", "natconfiguration.spec.portRange", "sallyportnode.status.observed"} {
		if out := k.run(t, "", "explain", path); !strings.Contains(out, "DESCRIPTION") {
			t.Errorf("explain %s prints\n%s", path, out)
		}
	}
}
