package kube

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestHeartbeat takes the agent of one of two nodes away in each way that there is: the API says that nobody knows how that node
// stands, and says how it does once the agent is back. The program's two minutes are seconds here.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{CRDs: true})
	s := newSite(t, c, 2)
	for _, n := range s.nodes {
		n.env = append(n.env, quickEnv+"=1")
		n.start()
	}
	s.own()
	leading := s.nodes[0].control(t)
	s.apply(pools(true))
	v := &liveness{site: s, lost: s.nodes[1]}
	v.back("at first")

	v.lost.end(syscall.SIGKILL)
	v.unknown("killed", "HeartbeatMissing")
	eventually(t, "an event tells of it", func() (bool, string) {
		out := s.events()
		return strings.Contains(out, "Warning HeartbeatMissing n2: "), out
	})
	// Another controller knows no silence: what is unknown stays so, and what is ready too.
	labtest.Must(t, leading.Process.Kill())
	_ = leading.Wait() // it was killed
	s.nodes[0].control(t)
	for end := time.Now().Add(quickUnknown + 2*time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if dead, alive := v.reason("n2"), v.reason("n1"); dead != "Unknown HeartbeatMissing" || alive != "True Programmed" {
			t.Fatalf("with another controller n2 is %s and n1 is %s", dead, alive)
		}
	}
	v.lost.start() // of what changed before, the other controller learns from n1 by which version agents hold it
	v.back("started again")

	c.Disconnect(t, v.lost.host)
	v.unknown("cut off", "HeartbeatMissing")
	c.Reconnect(t, v.lost.host)
	v.back("connected again, without having noticed more than that")

	boot := s.kubectl("", "get", "sallyportnode", "n2", "-o", "jsonpath={.status.bootID}")
	if len(boot) != 36 {
		t.Errorf("the boot id is %q", boot)
	}
	v.lost.end(syscall.SIGKILL)
	start := time.Now()
	v.boot("another")
	v.unknown("booted", "Rebooted")
	t.Logf("that a node has booted was said after %s", time.Since(start).Round(time.Millisecond))
	v.lost.start()
	v.boot(boot) // as the kubelet says a moment later
	v.back("started after a boot")

	v.settings()
}

// liveness are tests of what the API says of a node that may be lost.
type liveness struct {
	*site
	lost *node
}

// reason is the status and reason of a node's condition Ready.
func (v *liveness) reason(node string) string {
	return v.kubectl("", "get", "sallyportnode", node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].reason}`)
}

// unknown waits until nobody knows how the node stands.
func (v *liveness) unknown(when, reason string) {
	v.t.Helper()
	v.kubectl("", "wait", "--for=condition=Ready=Unknown", "sallyportnode/n2", "--timeout=30s")
	if got := v.reason("n2"); got != "Unknown "+reason {
		v.t.Errorf("%s: n2 is %s, want %s", when, got, reason)
	}
	for _, p := range []string{"pods-v4", "pods-v6"} {
		eventually(v.t, when+": "+p+" is not Programmed, and n2 is named", func() (bool, string) {
			got := v.condition(p, "Programmed")
			return got.Status == "Unknown" && got.Reason == "NodesNotReady" && strings.Contains(got.Message, "1 of 2 ready nodes") && strings.Contains(got.Message, "n2: is unknown"), fmt.Sprint(got)
		})
	}
	if got := v.reason("n1"); got != "True Programmed" {
		v.t.Errorf("%s: n1 is %s", when, got)
	}
}

// back waits until all is well.
func (v *liveness) back(when string) {
	v.t.Helper()
	start := time.Now()
	v.kubectl("", "wait", "--for=condition=Ready", "sallyportnode/n1", "sallyportnode/n2", "--timeout=30s")
	v.kubectl("", "wait", "--for=condition=Programmed", "ippool/pods-v4", "ippool/pods-v6", "--timeout=30s")
	v.t.Logf("%s: all is well after %s", when, time.Since(start).Round(time.Millisecond))
}

// boot has the Node of the lost node be of another boot.
func (v *liveness) boot(id string) {
	v.t.Helper()
	v.kubectl("", "patch", "node", "n2", "--subresource=status", "--type=merge", "-p", fmt.Sprintf(`{"status":{"nodeInfo":{"bootID":%q}}}`, id))
}

// settings judges NATConfigurations as people wait for them.
func (v *liveness) settings() {
	config := func(name, spec string) {
		v.apply("apiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata: {name: " + name + "}\nspec: " + spec + "\n")
	}
	wait := func(name, condition, reason string) {
		v.t.Helper()
		v.kubectl("", "wait", "--for=condition="+condition, "natconfiguration/"+name, "--timeout=30s")
		kind, _, _ := strings.Cut(condition, "=")
		if got := v.kubectl("", "get", "natconfiguration", name, "-o", `jsonpath={.status.conditions[?(@.type=="`+kind+`")].reason}`); got != reason {
			v.t.Errorf("of %s the reason of %s is %s, want %s", name, condition, got, reason)
		}
	}
	config("low", "{portRange: 20000-30000}")
	wait("low", "Accepted", "Accepted")
	wait("low", "Programmed", "Programmed")
	config("high", "{priority: 1, portRange: 30000-40000}")
	wait("high", "Programmed", "Programmed")
	wait("low", "Accepted=false", "Overridden")
	wait("low", "Programmed=false", "Overridden")
	config("high", "{priority: 1, portRange: 30000-40000, nodeSelector: zone == 'a'}")
	wait("high", "Programmed=false", "NoNodes")
	wait("low", "Programmed", "Programmed")
	config("high", "{priority: 1, portRange: 30000-40000, nodeSelector: has(}")
	wait("high", "Accepted=false", "InvalidSelector")
	v.lost.end(syscall.SIGTERM)
	config("low", "{portRange: 20000-40000}")
	wait("low", "Programmed=unknown", "NodesNotReady")
	v.lost.start()
	wait("low", "Programmed", "Programmed")
	if row := strings.Fields(v.kubectl("", "get", "natconfiguration", "low", "--no-headers")); !strings.Contains(strings.Join(row, " "), "20000-40000 True True") {
		v.t.Errorf("get prints %v", row)
	}
	for _, words := range []string{"Warning Overridden low: ", "Warning NoNodes high: ", "Warning InvalidSelector high: "} {
		eventually(v.t, "an event says "+words, func() (bool, string) { out := v.events(); return strings.Contains(out, words), out })
	}
}
