package controller

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
)

func testConfig(name, selector string, priority int32, ports string, addresses ...string) v1alpha1.NATConfiguration {
	c := v1alpha1.NATConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 3, ResourceVersion: "50"},
		Spec: v1alpha1.NATConfigurationSpec{NodeSelector: selector, Priority: priority, Addresses: addresses}}
	if ports != "" {
		c.Spec.PortRange = &ports
	}
	return c
}

// TestSettings judges one NATConfiguration, named c, among others on two nodes: one in zone a, one in zone b.
func TestSettings(t *testing.T) {
	t.Parallel()
	inZone := func(name, zone string) corev1.Node {
		n := testNode(name, true, time.Hour)
		n.Labels = map[string]string{"zone": zone}
		return n
	}
	both := []corev1.Node{inZone("n1", "a"), inZone("n2", "b")}
	follows := func(name, version string) v1alpha1.SallyportNode {
		s := testStatus(name, true, 1)
		s.Status.Observed.NATConfigurations = version
		return s
	}
	held := []v1alpha1.SallyportNode{follows("n1", "50"), follows("n2", "60")}
	cannot := []v1alpha1.SallyportNode{follows("n1", "50"), follows("n2", "60")}
	cannot[1].Status.Exceptions = []v1alpha1.Exception{{Kind: v1alpha1.KindNATConfiguration, Name: "c", Generation: 3, Reason: "not understood"}}
	windows := inZone("w", "c")
	windows.Labels[corev1.LabelOSStable] = "windows"
	opaque := testConfig("c", "", 0, "1000-2000")
	opaque.ResourceVersion = "xyz"
	const yes, no, unclear = metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown
	for _, test := range []struct {
		name     string
		configs  []v1alpha1.NATConfiguration
		nodes    []corev1.Node
		said     []v1alpha1.SallyportNode
		accepted metav1.ConditionStatus
		why      string // reason of Accepted
		status   metav1.ConditionStatus
		reason   string
		says     string // one of them
	}{
		{"all hold it", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000")}, both, held, yes, "Accepted", yes, "Programmed", "(2)"},
		{"it sets nothing", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "")}, both, held, yes, "Accepted", yes, "Programmed", "(2)"},
		{"one is behind", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000")}, both, []v1alpha1.SallyportNode{held[0], follows("n2", "49")}, yes, "Accepted", no, "Pending", "taken up the settings yet: n2"},
		{"one that it does not select is behind", []v1alpha1.NATConfiguration{testConfig("c", "zone == 'a'", 0, "1000-2000")}, both, []v1alpha1.SallyportNode{held[0], follows("n2", "")}, yes, "Accepted", yes, "Programmed", "(1)"},
		{"one has no agent", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000")}, both, held[:1], yes, "Accepted", no, "NodesNotReady", "n2: no agent has reported"},
		{"one is unknown", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000")}, both, []v1alpha1.SallyportNode{held[0], unknown(held[1])}, yes, "Accepted", unclear, "NodesNotReady", "n2: is unknown"},
		{"one cannot hold it", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000")}, both, cannot, yes, "Accepted", no, "NodesNotReady", "n2: not understood"},
		{"no node has the labels", []v1alpha1.NATConfiguration{testConfig("c", "zone == 'c'", 0, "1000-2000")}, append(both, windows), held, yes, "Accepted", no, "NoNodes", "look at the labels"},
		{"no selector", []v1alpha1.NATConfiguration{testConfig("c", "has(", 0, "1000-2000")}, both, held, no, "InvalidSelector", no, "InvalidSelector", "spec.nodeSelector: is not a selector"},
		{"not understood", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "many")}, both, held, no, "Invalid", no, "Invalid", "spec.portRange"},
		{"overridden by priority", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000"), testConfig("d", "", 1, "3000-4000")}, both, held, no, "Overridden", no, "Overridden", "decide every field that it sets: d"},
		{"overridden by name", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000"), testConfig("b", "", 0, "3000-4000")}, both, held, no, "Overridden", no, "Overridden", "every field that it sets: b"},
		{"overridden by two", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000"), testConfig("d", "zone == 'a'", 1, "3000-4000"), testConfig("e", "zone == 'b'", 1, "3000-4000")}, both, held, no, "Overridden", no, "Overridden", ": d, e"},
		{"overridden on one node", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000"), testConfig("d", "zone == 'a'", 1, "3000-4000")}, both, held, yes, "Accepted", yes, "Programmed", "the rest is decided by d"},
		{"overridden in one field", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000", "192.0.2.1"), testConfig("d", "", 1, "3000-4000")}, both, held, yes, "Accepted", yes, "Programmed", "the rest is decided by d"},
		{"others that cannot be used override nothing", []v1alpha1.NATConfiguration{testConfig("c", "", 0, "1000-2000"), testConfig("d", "has(", 1, "3000-4000")}, both, held, yes, "Accepted", yes, "Programmed", "(2)"},
		{"its version is no number", []v1alpha1.NATConfiguration{opaque}, both, held, yes, "Accepted", unclear, "NotComparable", "no numbers"},
	} {
		s := seen{}
		s.note(now, nil, test.configs)
		stand, _ := standings(now, test.nodes, labels.Everything(), test.said, nil)
		got := judgeSettings(test.configs, s, withAgent(test.nodes, labels.Everything()), stand)[0]
		if len(got) != 2 || got[0].Type != "Accepted" || got[1].Type != "Programmed" || got[0].ObservedGeneration != 3 || got[1].ObservedGeneration != 3 {
			t.Fatalf("%s: %+v", test.name, got)
		}
		if got[0].Status != test.accepted || got[0].Reason != test.why || got[1].Status != test.status || got[1].Reason != test.reason || !strings.Contains(got[0].Message+got[1].Message, test.says) {
			t.Errorf("%s:\n%+v\n%+v", test.name, got[0], got[1])
		}
	}
}

// TestVersionsThatAreNoNumbers: of a pool whose resourceVersion cannot be compared, it is never said that nodes hold it.
func TestVersionsThatAreNoNumbers(t *testing.T) {
	t.Parallel()
	p := testPool("p", "10.0.0.0/16", 100)
	p.ResourceVersion = "xyz"
	s := seen{}
	s.hear(now, &p)
	s.hear(now, &p)
	stand, _ := standings(now, []corev1.Node{testNode("n1", true, time.Hour)}, labels.Everything(), []v1alpha1.SallyportNode{testStatus("n1", true, 100)}, nil)
	if c := judge([]apiv3.IPPool{p}, nil, s, stand)[0][1]; c.Status != metav1.ConditionUnknown || c.Reason != "NotComparable" {
		t.Errorf("%+v", c)
	}
}
