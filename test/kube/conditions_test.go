package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// nodeStatus is what a node says of itself in the API.
type nodeStatus struct {
	Metadata struct {
		OwnerReferences []struct{ Kind, Name, UID string }
	}
	Status struct {
		Conditions      []condition
		BootID, Version string
		Observed        struct{ IPPools, NATConfigurations string }
		TranslatesTo    []string
		Warnings        []string
		Exceptions      []struct{ Kind, Name, Reason string }
	}
}

// ready says whether it is ready, and since when it has said what it says of that.
func (s *nodeStatus) ready() (ready bool, since time.Time) {
	for _, c := range s.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True", c.LastTransitionTime
		}
	}
	return false, time.Time{}
}

func (s *nodeStatus) isReady() bool { ready, _ := s.ready(); return ready }

func (s *site) nodeStatus(name string) (st nodeStatus, text string) {
	s.t.Helper()
	text = s.kubectl("", "get", "sallyportnode", name, "--ignore-not-found", "-o", "json")
	if text != "" {
		labtest.Must(s.t, json.Unmarshal([]byte(text), &st))
	}
	return st, text
}

// statuses holds what nodes say against what there is.
func (v *convergence) statuses(t *testing.T) {
	s := v.site
	s.apply(pool("counted", "{cidr: 10.78.0.0/16}"))
	version := s.kubectl("", "get", "ippool", "counted", "-o", "jsonpath={.metadata.resourceVersion}")
	for _, n := range s.nodes {
		eventually(t, n.name+" says that it has followed", func() (bool, string) {
			st, text := s.nodeStatus(n.name)
			owners := st.Metadata.OwnerReferences
			uid := s.kubectl("", "get", "node", n.name, "-o", "jsonpath={.metadata.uid}")
			return st.isReady() && st.Status.Observed.IPPools == version && len(st.Status.Exceptions) == 0 && st.Status.Version != "" && st.Status.BootID != "" &&
				len(owners) == 1 && owners[0].Kind == "Node" && owners[0].Name == n.name && owners[0].UID == uid &&
				fmt.Sprint(st.Status.TranslatesTo) == "[node]", text
		})
	}
	s.kubectl("", "delete", "ippool", "counted")
}

// control runs a controller on a node until the whole test ends or the command is killed.
func (n *node) control(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := n.command(context.Background(), "controller", "--kubeconfig", n.kubeconfig, "--lease-namespace", "default", "--metrics-address", "127.0.0.1:9471")
	cmd.Stderr = n.log
	labtest.Must(t, n.host.Start(cmd))
	n.site.whole.Cleanup(func() {
		if cmd.ProcessState != nil {
			return
		}
		labtest.Must(n.site.whole, cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil {
			n.site.whole.Errorf("after SIGTERM the controller ended with: %v", err)
		}
	})
	return cmd
}

// conditions holds what a controller writes against what there is.
func (v *convergence) conditions(t *testing.T) {
	s := v.site
	v.leading = s.nodes[0].control(t)
	s.programmed(t, "pods-v4", "pods-v6")
	s.kubectl("", "wait", "--for=condition=Allocatable", "ippool/pods-v4", "ippool/pods-v6", "--timeout=10s")
	s.kubectl("", "patch", "ippool", "pods-v4", "--type=merge", "-p", `{"spec":{"disabled":true}}`)
	s.programmed(t, "pods-v4")
	if got := s.condition("pods-v4", "Allocatable"); got.Status != "False" || got.Reason != "PoolDisabled" {
		t.Errorf("of a disabled pool Allocatable is %+v", got)
	}
	s.kubectl("", "patch", "ippool", "pods-v4", "--type=merge", "-p", `{"spec":{"disabled":false}}`)
	s.programmed(t, "pods-v4")

	v.probes.hold(t, "a selector that does not parse", func() {
		s.kubectl("", "patch", "ippool", "pods-v4", "--type=merge", "-p", `{"spec":{"nodeSelector":"has("}}`)
		s.programmed(t, "pods-v4")
		if got := s.condition("pods-v4", "Allocatable"); got.Status != "False" || got.Reason != "InvalidSelector" {
			t.Errorf("of a pool whose selector does not parse Allocatable is %+v", got)
		}
		eventually(t, "an event tells of the selector", func() (bool, string) {
			out := s.events()
			return strings.Contains(out, "Warning InvalidSelector pods-v4: "), out
		})
		s.kubectl("", "patch", "ippool", "pods-v4", "--type=merge", "-p", `{"spec":{"nodeSelector":null}}`)
		s.programmed(t, "pods-v4")
	})

	s.nodes[2].end(syscall.SIGTERM)
	s.apply(pool("later", "{cidr: 10.79.0.0/16, natOutgoing: true}"))
	eventually(t, "the node whose agent was stopped is named", func() (bool, string) {
		got := s.condition("later", "Programmed")
		return got.Status == "False" && got.Reason == "Pending" && strings.HasSuffix(got.Message, ": n3"), fmt.Sprint(got)
	})
	s.nodes[2].start()
	s.programmed(t, "later")

	s.apply(pool("overlaps", "{cidr: 10.79.1.0/24}"))
	eventually(t, "an event tells of the overlap", func() (bool, string) {
		out := s.events()
		return strings.Contains(out, "Warning CIDROverlap overlaps: "), out
	})
	s.kubectl("", "delete", "ippool", "later", "overlaps")
}

// events are all there are, one a line.
func (s *site) events() string {
	s.t.Helper()
	return s.kubectl("", "get", "events", "-A", "-o", `jsonpath={range .items[*]}{.type} {.reason} {.involvedObject.name}: {.message}{"\n"}{end}`)
}

type condition struct {
	Type, Status, Reason, Message string
	ObservedGeneration            int64
	LastTransitionTime            time.Time
}

// condition is that of a pool, or the zero value.
func (s *site) condition(pool, kind string) condition {
	s.t.Helper()
	var got struct {
		Metadata struct{ Generation int64 }
		Status   struct{ Conditions []condition }
	}
	labtest.Must(s.t, json.Unmarshal([]byte(s.kubectl("", "get", "ippool", pool, "-o", "json")), &got))
	for _, c := range got.Status.Conditions {
		if c.Type == kind && c.ObservedGeneration == got.Metadata.Generation {
			return c
		}
	}
	return condition{}
}

// programmed waits as people do until pools are held by all nodes, and makes sure of which generation.
func (s *site) programmed(t *testing.T, pools ...string) {
	t.Helper()
	start := time.Now()
	for _, p := range pools {
		awaiting(t, p+" is programmed", func() (bool, string) {
			got := s.condition(p, "Programmed")
			return got.Status == "True", fmt.Sprint(got)
		})
		s.kubectl("", "wait", "--for=condition=Programmed", "ippool/"+p, "--timeout=10s")
	}
	t.Logf("%v: programmed after %s", pools, time.Since(start).Round(time.Millisecond))
}

// leader kills the controller that writes, while another waits.
func (v *convergence) leader(t *testing.T) {
	s := v.site
	holder := func() string {
		return s.kubectl("", "get", "lease", "-n", "default", "sallyport-controller", "-o", "jsonpath={.spec.holderIdentity}")
	}
	first := holder()
	next := s.nodes[1].control(t)
	v.probes.hold(t, "the controller killed", func() {
		labtest.Must(t, v.leading.Process.Kill())
		_ = v.leading.Wait() // it was killed
		s.kubectl("", "patch", "ippool", "pods-v4", "--type=merge", "-p", `{"spec":{"disabled":true}}`)
		s.programmed(t, "pods-v4")
		s.kubectl("", "patch", "ippool", "pods-v4", "--type=merge", "-p", `{"spec":{"disabled":false}}`)
		s.programmed(t, "pods-v4")
	})
	if now := holder(); now == first || now == "" {
		t.Errorf("the lease is held by %q, as before", now)
	}
	v.leading = next
}

// silent has a Node without an agent.
func (v *convergence) silent(t *testing.T) {
	s := v.site
	s.kubectl("apiVersion: v1\nkind: Node\nmetadata: {name: silent}\n", "apply", "-f", "-")
	s.ready("silent", "192.0.2.99", "2001:db8:f0::99")
	eventually(t, "the node without agent is named", func() (bool, string) {
		got := s.condition("pods-v4", "Programmed")
		return got.Status == "False" && got.Reason == "NodesNotReady" && strings.Contains(got.Message, "silent: no agent has reported"), fmt.Sprint(got)
	})
	eventually(t, "an event tells of it", func() (bool, string) {
		out := s.events()
		return strings.Contains(out, "Warning NodesNotReady pods-v4: "), out
	})
	s.kubectl("", "delete", "node", "silent")
	s.programmed(t, "pods-v4", "pods-v6")
}

// collected deletes a Node: what its agent said of it goes too.
func (v *convergence) collected(t *testing.T) {
	s, n := v.site, v.site.nodes[2]
	n.end(syscall.SIGTERM)
	v.probes.hold(t, "Node deleted", func() {
		s.kubectl("", "delete", "node", n.name)
		s.kubectl("", "wait", "--for=delete", "sallyportnode/"+n.name, "--timeout=50s")
	})
	v.probes.hold(t, "Node made anew", func() {
		s.declare(n)
		n.start()
		uid := s.kubectl("", "get", "node", n.name, "-o", "jsonpath={.metadata.uid}")
		eventually(t, "its status is there again, and the Node's", func() (bool, string) {
			st, text := s.nodeStatus(n.name)
			return st.isReady() && len(st.Metadata.OwnerReferences) == 1 && st.Metadata.OwnerReferences[0].UID == uid, text
		})
	})
}
