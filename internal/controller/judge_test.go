package controller

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
)

var now = time.Unix(1_000_000, 0)

func testPool(name, cidr string, version uint64) apiv3.IPPool {
	return apiv3.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 2, ResourceVersion: strconv.FormatUint(version, 10), CreationTimestamp: metav1.Time{Time: now}},
		Spec: apiv3.IPPoolSpec{CIDR: cidr}}
}

func testNode(name string, ready bool, since time.Duration) corev1.Node {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.Time{Time: now.Add(-since)}}}}}
}

func testStatus(name string, ready bool, version uint64, exceptions ...string) v1alpha1.SallyportNode {
	c := metav1.Condition{Type: v1alpha1.SallyportNodeConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.SallyportNodeReasonProgrammed}
	if !ready {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.SallyportNodeReasonNotProgrammed, "the kernel said no"
	}
	s := v1alpha1.SallyportNode{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), ResourceVersion: "1"},
		Status: v1alpha1.SallyportNodeStatus{Conditions: []metav1.Condition{c}, Observed: v1alpha1.Observed{IPPools: strconv.FormatUint(version, 10)}}}
	for _, e := range exceptions {
		s.Status.Exceptions = append(s.Status.Exceptions, v1alpha1.Exception{Kind: apiv3.KindIPPool, Name: e, Generation: 2, Reason: "not understood"})
	}
	return s
}

// unknown is a node that the controller has called unknown.
func unknown(n v1alpha1.SallyportNode) v1alpha1.SallyportNode {
	n.Status.Conditions = []metav1.Condition{{Type: v1alpha1.SallyportNodeConditionReady, Status: metav1.ConditionUnknown, Reason: v1alpha1.SallyportNodeReasonHeartbeatMissing, Message: "no heartbeat", LastTransitionTime: metav1.Time{Time: now}}}
	return n
}

func TestProgrammed(t *testing.T) {
	t.Parallel()
	windows := testNode("w", true, time.Hour)
	windows.Labels = map[string]string{corev1.LabelOSStable: "windows"}
	virtual := testNode("v", true, time.Hour)
	virtual.Labels = map[string]string{"type": "virtual-kubelet"}
	agents, err := labels.Parse("type!=virtual-kubelet")
	if err != nil {
		t.Fatal(err)
	}
	both := []corev1.Node{testNode("n1", true, time.Hour), testNode("n2", true, time.Hour)}
	mended := testStatus("n1", true, 100, "p")
	mended.Status.Exceptions[0].Generation = 1
	settings, opaque, mute := testStatus("n1", true, 100, "p"), testStatus("n2", true, 100), testStatus("n2", true, 100)
	settings.Status.Exceptions[0].Kind = v1alpha1.KindNATConfiguration
	opaque.Status.Observed.IPPools = "xyz"
	mute.Status.Conditions = nil
	dead := map[string]call{"n2": {v1alpha1.SallyportNodeReasonHeartbeatMissing, "no heartbeat"}}
	rebooted := map[string]call{"n2": {v1alpha1.SallyportNodeReasonRebooted, "it has booted"}}
	for _, test := range []struct {
		name     string
		nodes    []corev1.Node
		statuses []v1alpha1.SallyportNode
		reason   string
		says     string
		calls    map[string]call
		status   metav1.ConditionStatus // "": True if the reason says so, or else False
	}{
		{"every node is as far", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100), testStatus("n2", true, 250)}, apiv3.IPPoolReasonProgrammed, "(2)", nil, ""},
		{"one is behind", both, []v1alpha1.SallyportNode{testStatus("n1", true, 99), testStatus("n2", true, 250)}, apiv3.IPPoolReasonPending, "1 of 2 ready nodes have not taken up the pool yet: n1", nil, ""},
		{"one is not ready", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100), testStatus("n2", false, 250)}, apiv3.IPPoolReasonNodesNotReady, "n2: is not ready: the kernel said no", nil, ""},
		{"one cannot hold it", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100, "p"), testStatus("n2", true, 250)}, apiv3.IPPoolReasonNodesNotReady, "n1: not understood", nil, ""},
		{"one cannot hold another", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100, "q"), testStatus("n2", true, 250)}, apiv3.IPPoolReasonProgrammed, "", nil, ""},
		{"one could not hold what it was before", both, []v1alpha1.SallyportNode{mended, testStatus("n2", true, 250)}, apiv3.IPPoolReasonProgrammed, "(2)", nil, ""},
		{"one has no agent", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100)}, apiv3.IPPoolReasonNodesNotReady, "n2: no agent has reported", nil, ""},
		{"one has just joined", []corev1.Node{both[0], testNode("n2", true, time.Second)}, []v1alpha1.SallyportNode{testStatus("n1", true, 100)}, apiv3.IPPoolReasonProgrammed, "(1)", nil, ""},
		{"one has just joined and is not ready", []corev1.Node{both[0], testNode("n2", true, time.Second)}, []v1alpha1.SallyportNode{testStatus("n1", true, 100), testStatus("n2", false, 0)}, apiv3.IPPoolReasonNodesNotReady, "n2: is not ready: the kernel said no", nil, ""},
		{"one is down", []corev1.Node{both[0], testNode("n2", false, time.Hour)}, []v1alpha1.SallyportNode{testStatus("n1", true, 100), testStatus("n2", true, 1)}, apiv3.IPPoolReasonProgrammed, "(1)", nil, ""},
		{"one runs Windows", []corev1.Node{both[0], windows}, []v1alpha1.SallyportNode{testStatus("n1", true, 100)}, apiv3.IPPoolReasonProgrammed, "(1)", nil, ""},
		{"one is to have no agent", []corev1.Node{both[0], virtual}, []v1alpha1.SallyportNode{testStatus("n1", true, 100)}, apiv3.IPPoolReasonProgrammed, "(1)", nil, ""},
		{"there is none", nil, nil, apiv3.IPPoolReasonPending, "no ready node", nil, ""},
		{"one is dead", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100), testStatus("n2", true, 250)}, apiv3.IPPoolReasonNodesNotReady, "whether 1 of 2 ready nodes hold the pool is not known: n2: is unknown: no heartbeat", dead, metav1.ConditionUnknown},
		{"one was called dead before", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100), unknown(testStatus("n2", true, 250))}, apiv3.IPPoolReasonNodesNotReady, "n2: is unknown: no heartbeat", nil, metav1.ConditionUnknown},
		{"one is dead and one not ready", both, []v1alpha1.SallyportNode{testStatus("n1", false, 100), testStatus("n2", true, 250)}, apiv3.IPPoolReasonNodesNotReady, "1 of 2 ready nodes do not hold the pool: n1: is not ready: the kernel said no; n2: is unknown", dead, ""},
		{"one says nothing of itself", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100), mute}, apiv3.IPPoolReasonNodesNotReady, "n2: does not say whether it is ready", nil, metav1.ConditionUnknown},
		{"one says how far it is in no number", both, []v1alpha1.SallyportNode{testStatus("n1", true, 100), opaque}, apiv3.IPPoolReasonNodesNotReady, `n2: says that it has followed up to "xyz", which is no number`, nil, metav1.ConditionUnknown},
		{"one has booted, and just joined again", []corev1.Node{both[0], testNode("n2", true, time.Second)}, []v1alpha1.SallyportNode{testStatus("n1", true, 100), testStatus("n2", true, 250)}, apiv3.IPPoolReasonNodesNotReady, "n2: is unknown: it has booted", rebooted, metav1.ConditionUnknown},
		{"one is dead and its Node has just become ready", []corev1.Node{both[0], testNode("n2", true, time.Second)}, []v1alpha1.SallyportNode{testStatus("n1", true, 100), testStatus("n2", true, 250)}, apiv3.IPPoolReasonNodesNotReady, "n2: is unknown: no heartbeat", dead, metav1.ConditionUnknown},
		{"one was called dead before and its Node has just become ready", []corev1.Node{both[0], testNode("n2", true, time.Second)}, []v1alpha1.SallyportNode{testStatus("n1", true, 100), unknown(testStatus("n2", true, 250))}, apiv3.IPPoolReasonNodesNotReady, "n2: is unknown: no heartbeat", nil, metav1.ConditionUnknown},
		{"one cannot hold settings of the same name", both, []v1alpha1.SallyportNode{settings, testStatus("n2", true, 100)}, apiv3.IPPoolReasonProgrammed, "(2)", nil, ""},
	} {
		pools := []apiv3.IPPool{testPool("p", "10.0.0.0/16", 100)}
		s := seen{}
		s.note(now, pools, nil)
		stand, _ := standings(now, test.nodes, agents, test.statuses, test.calls)
		conditions := judge(pools, nil, s, stand)[0]
		if len(conditions) != 2 {
			t.Fatalf("%s: %d conditions", test.name, len(conditions))
		}
		c, status := conditions[1], test.status
		if status == "" {
			status = is(test.reason == apiv3.IPPoolReasonProgrammed)
		}
		if c.Type != apiv3.IPPoolConditionProgrammed || c.Reason != test.reason || !strings.Contains(c.Message, test.says) || c.ObservedGeneration != 2 || c.Status != status {
			t.Errorf("%s: %+v", test.name, c)
		}
	}
}

// TestStatusOfPoolsIsNotWaitedFor: the resourceVersion of a pool grows with its status, which agents do not report
// at once.
func TestStatusOfPoolsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	pools := []apiv3.IPPool{testPool("p", "10.0.0.0/16", 100)}
	nodes, statuses := []corev1.Node{testNode("n1", true, time.Hour)}, []v1alpha1.SallyportNode{testStatus("n1", true, 100)}
	s := seen{}
	programmed := func() metav1.ConditionStatus {
		s.note(now, pools, nil)
		stand, _ := standings(now, nodes, labels.Everything(), statuses, nil)
		c := judge(pools, nil, s, stand)[0]
		merged, _ := merge(conditions(&pools[0]), c, metav1.Time{Time: now})
		pools[0].Status = &apiv3.IPPoolStatus{Conditions: merged}
		return merged[1].Status
	}
	if programmed() != metav1.ConditionTrue {
		t.Fatal("the pool is not programmed")
	}
	pools[0].ResourceVersion = "150" // as of the write
	if programmed() != metav1.ConditionTrue {
		t.Error("what the controller wrote itself is waited for")
	}
	s = seen{} // another controller takes over
	if programmed() != metav1.ConditionTrue {
		t.Error("what an earlier controller wrote is waited for")
	}
	pools[0].Generation, pools[0].ResourceVersion = 3, "160"
	if programmed() != metav1.ConditionFalse {
		t.Error("a new generation is not waited for")
	}
	s = seen{}
	if programmed() != metav1.ConditionFalse {
		t.Error("after a take-over a new generation is not waited for")
	}
	statuses[0] = testStatus("n1", true, 160)
	if programmed() != metav1.ConditionTrue {
		t.Error("the new generation is not found")
	}
}

// TestNothingObserved: an earlier controller found that every node held the pool, and a later one does not know by which
// version. A node that says nothing of how far it has followed pools does not hold it.
func TestNothingObserved(t *testing.T) {
	t.Parallel()
	pools := []apiv3.IPPool{testPool("p", "10.0.0.0/16", 100)}
	pools[0].Status = &apiv3.IPPoolStatus{Conditions: []metav1.Condition{condition(2, apiv3.IPPoolConditionProgrammed, metav1.ConditionTrue, apiv3.IPPoolReasonProgrammed, "")}}
	for observed, reason := range map[string]string{"": apiv3.IPPoolReasonPending, "1": apiv3.IPPoolReasonProgrammed} {
		status := testStatus("n1", true, 0)
		status.Status.Observed.IPPools = observed
		s := seen{}
		s.note(now, pools, nil)
		stand, _ := standings(now, []corev1.Node{testNode("n1", true, time.Hour)}, labels.Everything(), []v1alpha1.SallyportNode{status}, nil)
		if c := judge(pools, nil, s, stand)[0][1]; c.Reason != reason {
			t.Errorf("of a node that has followed the pools up to %q it is said %+v, want the reason %s", observed, c, reason)
		}
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	later := metav1.Time{Time: now.Add(time.Hour)}
	want := []metav1.Condition{{Type: "Programmed", Status: metav1.ConditionFalse, Reason: "Pending", Message: "n1", ObservedGeneration: 2}}
	was, differs := merge(nil, want, metav1.Time{Time: now})
	if differs != verdict || !was[0].LastTransitionTime.Time.Equal(now) {
		t.Fatalf("the first: %v %+v", differs, was)
	}
	if _, differs := merge(was, want, later); differs != none {
		t.Errorf("the same is news %d", differs)
	}
	want[0].Message = "n2"
	if next, differs := merge(was, want, later); differs != message || next[0].Message != "n2" {
		t.Errorf("another message is news %d: %+v", differs, next)
	}
	want[0].Reason = "NodesNotReady"
	next, differs := merge(was, want, later)
	if differs != verdict || !next[0].LastTransitionTime.Time.Equal(now) {
		t.Errorf("another reason: %v %+v; the status did not change", differs, next)
	}
	want[0].Status = metav1.ConditionTrue
	true1, differs := merge(was, want, later)
	if differs != verdict || true1[0].LastTransitionTime.Time.Equal(now) {
		t.Errorf("another status: %v %+v", differs, true1)
	}
	want[0].Message = "every ready node holds the pool (3)"
	if _, differs := merge(true1, want, later); differs != none {
		t.Errorf("another message of what is True is news %d", differs)
	}
}

// TestProgrammedMeansHeld compares the condition with what it should mean, for clusters drawn at random.
func TestProgrammedMeansHeld(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var nodes []corev1.Node
		var statuses []v1alpha1.SallyportNode
		held, count := true, 0
		before := rapid.Bool().Draw(t, "before") // an earlier controller found that every node held it
		version := uint64(rapid.IntRange(1, 5).Draw(t, "version"))
		for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
			name := fmt.Sprintf("n%d", i)
			up, settled, reports := rapid.Bool().Draw(t, "up"), rapid.Bool().Draw(t, "settled"), rapid.Bool().Draw(t, "reports")
			at, ready, excepts := uint64(rapid.IntRange(0, 5).Draw(t, "at")), rapid.Bool().Draw(t, "ready"), rapid.Bool().Draw(t, "excepts")
			since := time.Second
			if settled {
				since = time.Hour
			}
			nodes = append(nodes, testNode(name, up, since))
			if reports {
				var exceptions []string
				if excepts {
					exceptions = []string{"p"}
				}
				statuses = append(statuses, testStatus(name, ready, at, exceptions...))
			}
			if !up || !reports && !settled {
				continue
			}
			count++
			held = held && reports && ready && !excepts && (at >= version || before && at > 0)
		}
		pools := []apiv3.IPPool{testPool("p", "10.0.0.0/16", version)}
		if before {
			pools[0].Status = &apiv3.IPPoolStatus{Conditions: []metav1.Condition{condition(pools[0].Generation, apiv3.IPPoolConditionProgrammed, metav1.ConditionTrue, apiv3.IPPoolReasonProgrammed, "")}}
		}
		s := seen{}
		s.note(now, pools, nil)
		stand, _ := standings(now, nodes, labels.Everything(), statuses, nil)
		c := judge(pools, nil, s, stand)[0][1]
		if want := held && count > 0; (c.Status == metav1.ConditionTrue) != want {
			t.Fatalf("%+v, want %t", c, want)
		}
	})
}

// TestPendingIsNotSaidAtOnce: a change that comes to all nodes in time is one write.
func TestPendingIsNotSaidAtOnce(t *testing.T) {
	t.Parallel()
	p := testPool("p", "10.0.0.0/16", 100)
	s := seen{}
	s.note(now, []apiv3.IPPool{p}, nil)
	stand, _ := standings(now, []corev1.Node{testNode("n1", true, time.Hour)}, labels.Everything(), []v1alpha1.SallyportNode{testStatus("n1", true, 1)}, nil)
	want := judge([]apiv3.IPPool{p}, nil, s, stand)[0]
	if !pending(want) || s.settles(now, p.UID, 1) <= 0 || s.settles(now.Add(settling+settlingPerNode), p.UID, 1) > 0 {
		t.Fatalf("%+v settles in %s", want, s.settles(now, p.UID, 1))
	}
	if held := hold(conditions(&p), want); len(held) != 1 || held[0].Type != apiv3.IPPoolConditionAllocatable {
		t.Errorf("of a new pool it is said %+v", held)
	}
	p.Status = &apiv3.IPPoolStatus{Conditions: []metav1.Condition{{Type: apiv3.IPPoolConditionProgrammed, Status: metav1.ConditionTrue, Reason: apiv3.IPPoolReasonProgrammed, ObservedGeneration: 1}}}
	held := hold(conditions(&p), want)
	if len(held) != 2 || held[1].Status != metav1.ConditionTrue || held[1].ObservedGeneration != 1 {
		t.Errorf("of a pool that was changed it is said %+v", held)
	}
}

// TestSeenAsHeard: a pool changed, and then its status. What counts is the version of the change, in whatever order that is
// heard of and looked at: agents report a later one only after a while.
func TestSeenAsHeard(t *testing.T) {
	t.Parallel()
	older, changed, status := testPool("p", "10.0.0.0/16", 90), testPool("p", "10.0.0.0/16", 101), testPool("p", "10.0.0.0/16", 103)
	older.Generation = 1
	stand, _ := standings(now, []corev1.Node{testNode("n1", true, time.Hour)}, labels.Everything(), []v1alpha1.SallyportNode{testStatus("n1", true, 101)}, nil)
	hear := func(pools ...*apiv3.IPPool) func(*writer) {
		return func(w *writer) {
			for _, p := range pools {
				w.hear(p)
			}
		}
	}
	judged := func(w *writer) [][]metav1.Condition {
		return w.judge(&batch{writer: w, now: time.Now()}, &world{pools: []apiv3.IPPool{status}}, stand)
	}
	look := func(w *writer) { judged(w) }
	for name, steps := range map[string][]func(*writer){
		"heard, then looked at":   {hear(&older, &older, &changed, &changed, &status), look}, // each change comes with what was before
		"looked at between":       {hear(&older, &changed), look, hear(&changed, &status)},
		"looked at, then heard":   {look, hear(&older, &older, &changed, &changed, &status)},
		"known, then looked at":   {hear(&older), look, hear(&older, &changed, &changed, &status)},
		"heard again by a resync": {hear(&older, &changed, &status, &status), look, hear(&status, &status)},
	} {
		w := &writer{seen: seen{}, wrote: map[types.UID]write{}, selector: labels.Everything()}
		for _, step := range steps {
			step(w)
		}
		wants := judged(w)
		if got := w.seen["p"]; got.generation != 2 || got.version != 101 || len(wants[0]) != 2 || wants[0][1].Status != metav1.ConditionTrue {
			t.Errorf("%s: %+v, want generation 2 by version 101; %+v", name, got, wants[0])
		}
	}
}

// TestSeenWhileLooking: a pool that was heard of after a look began is not forgotten by it, nor for what it was before; one that
// is gone is.
func TestSeenWhileLooking(t *testing.T) {
	t.Parallel()
	p := testPool("p", "10.0.0.0/16", 100)
	older := p
	older.Generation, older.ResourceVersion = 1, "90"
	s := seen{}
	s.hear(now.Add(time.Millisecond), &p)
	s.note(now, nil, nil)
	s.hear(now.Add(time.Millisecond), &older) // as each change comes with what was before
	if got := s["p"]; got.generation != 2 || got.version != 100 {
		t.Errorf("of a new pool there is %+v", got)
	}
	s.note(now.Add(time.Second), nil, nil)
	if len(s) != 0 {
		t.Error("a pool that is gone was not forgotten")
	}
}
