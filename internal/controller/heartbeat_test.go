package controller

import (
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore/kube"
)

// listening is a controller that looks at the heartbeats of some nodes, of which each beats when it is told to.
type listening struct {
	heartbeats
	now    time.Time
	said   []v1alpha1.SallyportNode
	leases map[string]kube.Heartbeat
	beats  int
}

func listen(names ...string) *listening {
	l := &listening{heartbeats: heartbeats{bound: UnknownAfter}, now: now, leases: map[string]kube.Heartbeat{}}
	for _, n := range names {
		l.said = append(l.said, testStatus(n, true, 1))
	}
	return l
}

// pass has time pass, in which the nodes named beat, and then the controller look.
func (l *listening) pass(d time.Duration, beating ...string) {
	l.now = l.now.Add(d)
	for _, n := range beating {
		l.beats++
		l.leases[kube.LeaseOf(n)] = kube.Heartbeat{Renewed: strconv.Itoa(l.beats)}
	}
	l.look(l.now, l.said, l.leases)
}

// TestHeartbeats: a node is unknown once its Lease was seen to be the same for 2 minutes, and not sooner.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	every := UnknownAfter / looksPerBound
	l := listen("alive", "dead", "never")
	l.pass(0, "alive", "dead")
	for range looksPerBound - 1 {
		l.pass(every, "alive")
	}
	if got := l.calls(nil, l.said); len(got) != 0 {
		t.Errorf("after %s there are called %v", l.now.Sub(now), got)
	}
	l.pass(every, "alive")
	got := l.calls(nil, l.said)
	if len(got) != 2 || got["dead"].reason != v1alpha1.SallyportNodeReasonHeartbeatMissing || got["never"].reason != v1alpha1.SallyportNodeReasonHeartbeatMissing {
		t.Errorf("after %s there are called %v", l.now.Sub(now), got)
	}
	l.pass(every, "dead")
	if got := l.calls(nil, l.said); got["dead"].reason != "" {
		t.Errorf("one that beats again is called %v", got["dead"])
	}
}

// TestSilenceOfTheController: time in which the controller could not look is no silence of the agents.
func TestSilenceOfTheController(t *testing.T) {
	t.Parallel()
	every := UnknownAfter / looksPerBound
	l := listen("n1")
	if l.due(l.now) != 0 {
		t.Error("the first look is not due")
	}
	l.pass(0, "n1")
	if got := l.due(l.now.Add(every / 2)); got != every/2 {
		t.Errorf("the next look is due in %s", got)
	}
	l.pass(every)
	l.pass(time.Hour) // the API server was away for both
	l.pass(every)
	if got := l.calls(nil, l.said); len(got) != 0 {
		t.Errorf("after an hour without an API server there are called %v", got)
	}
	l.pass(every)
	l.pass(every)
	l.pass(every)
	if got := l.calls(nil, l.said); len(got) != 1 {
		t.Error("one that is silent after that is not called")
	}
	l = &listening{heartbeats: heartbeats{bound: UnknownAfter}, now: l.now, said: l.said, leases: l.leases} // another controller leads
	l.pass(0)
	if got := l.calls(nil, l.said); len(got) != 0 {
		t.Errorf("a controller that has just begun calls %v", got)
	}
}

// TestRebooted: what an agent said in an earlier boot is not how the node stands.
func TestRebooted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		node, said string
		called     bool
	}{{"b", "a", true}, {"a", "a", false}, {"", "a", false}, {"a", "", true}} {
		l := listen("n1")
		l.pass(0, "n1")
		l.said[0].Status.BootID = test.said
		node := testNode("n1", true, time.Hour)
		node.Status.NodeInfo.BootID = test.node
		got := l.calls([]corev1.Node{node}, l.said)
		if (got["n1"].reason == v1alpha1.SallyportNodeReasonRebooted) != test.called {
			t.Errorf("in boot %q of what was said in boot %q there is called %v", test.node, test.said, got)
		}
	}
	trimmed, err := trim(&corev1.Node{Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: "a"}}})
	if err != nil || trimmed.(*corev1.Node).Status.NodeInfo.BootID != "a" || trimmed.(*corev1.Node).Annotations != nil {
		t.Errorf("of a Node there is kept %+v: %v", trimmed, err)
	}
}

// TestBootOrder: whether a node has booted since its agent reported is told by the order in which the controller hears of both,
// since the kubelet may be later than the agent.
func TestBootOrder(t *testing.T) {
	t.Parallel()
	type step struct {
		node, said string
		unknown    bool // the controller has taken the condition over
		called     bool
	}
	for name, steps := range map[string][]step{
		"the agent is later":  {{"a", "a", false, false}, {"b", "a", false, true}, {"b", "a", true, true}, {"b", "b", false, false}, {"c", "b", false, true}},
		"the agent is sooner": {{"a", "a", false, false}, {"a", "b", false, false}, {"a", "b", false, false}, {"b", "b", false, false}, {"c", "b", false, true}},
		// The Node had become unknown to the API for a while, and comes back as it was.
		"the Node is away":              {{"a", "a", false, false}, {"", "a", false, false}, {"b", "a", false, true}},
		"both between two looks":        {{"a", "a", false, false}, {"c", "b", false, true}, {"c", "c", false, false}},
		"a controller begins, rebooted": {{"b", "a", false, true}, {"b", "a", true, true}, {"b", "b", false, false}},
		// It cannot know which came first, until the agent answers that it lives.
		"a controller begins, the agent was sooner": {{"a", "b", false, true}, {"a", "b", true, true}, {"a", "b", false, false}, {"a", "b", false, false}, {"b", "b", false, false}},
		"an earlier one has called it":              {{"a", "b", true, true}, {"a", "b", false, false}, {"c", "b", false, true}},
		"the first report":                          {{"b", "", false, true}, {"b", "b", false, false}},
		"the first report, sooner":                  {{"a", "", false, true}, {"a", "b", false, false}, {"b", "b", false, false}},
	} {
		l := listen("n1")
		l.pass(0, "n1")
		for i, s := range steps {
			l.said[0] = testStatus("n1", true, 1)
			if s.unknown {
				l.said[0] = unknown(l.said[0])
			}
			l.said[0].Status.BootID = s.said
			node := testNode("n1", true, time.Hour)
			node.Status.NodeInfo.BootID = s.node
			for range 2 { // a look without news changes nothing
				if got := l.calls([]corev1.Node{node}, l.said)["n1"]; (got.reason == v1alpha1.SallyportNodeReasonRebooted) != s.called {
					t.Errorf("%s: step %d, in boot %q of what was said in boot %q: %v", name, i, s.node, s.said, got)
				}
			}
		}
	}
}

// TestCall: the controller writes that a node is unknown once for each reason, and has the agent hear of each time once.
func TestCall(t *testing.T) {
	t.Parallel()
	l := listen("n1")
	l.pass(0, "n1")
	dead := call{v1alpha1.SallyportNodeReasonHeartbeatMissing, "no heartbeat"}
	at := metav1.Time{Time: now}
	c, differs := dead.unknown(&l.said[0], at)
	if !differs || c.Status != metav1.ConditionUnknown || c.Reason != dead.reason || !c.LastTransitionTime.Equal(&at) {
		t.Errorf("of a node that was ready: %t %+v", differs, c)
	}
	if since := l.mark(&l.said[0]); since != "" {
		t.Errorf("the agent of a node that is ready hears %q", since)
	}
	l.said[0].Status.Conditions = []metav1.Condition{c}
	later := metav1.Time{Time: now.Add(time.Hour)}
	if c, differs := dead.unknown(&l.said[0], later); differs || !c.LastTransitionTime.Equal(&at) {
		t.Errorf("again: %t %+v", differs, c)
	}
	if c, differs := (call{v1alpha1.SallyportNodeReasonRebooted, "it has booted"}).unknown(&l.said[0], later); !differs || !c.LastTransitionTime.Equal(&at) {
		t.Errorf("for another reason: %t %+v", differs, c)
	}
	since := l.mark(&l.said[0])
	if since != at.UTC().Format(time.RFC3339) {
		t.Errorf("its agent hears %q", since)
	}
	l.leases[kube.LeaseOf("n1")] = kube.Heartbeat{Renewed: "1", UnknownSince: since}
	l.pass(time.Second)
	if since := l.mark(&l.said[0]); since != "" {
		t.Errorf("its agent hears %q again", since)
	}
	l.said = append(l.said, unknown(testStatus("n2", true, 1)))
	if since := l.mark(&l.said[1]); since != "" {
		t.Errorf("of a Lease that is not there it is said %q", since)
	}
}
