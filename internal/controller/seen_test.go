package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
)

// digestOf is the digest of pools as an agent reports it that has seen them so.
func digestOf(pools ...apiv3.IPPool) string {
	var sum uint64
	for _, p := range pools {
		sum += datastore.GenerationDigest(string(p.UID), p.Generation)
	}
	return datastore.DigestText(sum)
}

// TestNewLeader: a pool came to generation 2 by version 100, and by 170 it has the status that an earlier controller wrote. One
// that begins knows the later version alone. It learns from the agents that the pool had come to that before.
func TestNewLeader(t *testing.T) {
	t.Parallel()
	pending, other := testPool("p", "10.0.0.0/16", 170), testPool("q", "10.1.0.0/16", 90)
	pending.Status = &apiv3.IPPoolStatus{Conditions: []metav1.Condition{condition(2, apiv3.IPPoolConditionProgrammed, metav1.ConditionUnknown, apiv3.IPPoolReasonNodesNotReady, "")}}
	earlier := pending
	earlier.Generation = 1
	all, before := digestOf(pending, other), digestOf(earlier, other)
	type report struct {
		version uint64
		digest  string
	}
	for name, test := range map[string]struct {
		n1, n2 report
		reason string
	}{
		"both have seen all objects":                {report{160, all}, report{100, all}, apiv3.IPPoolReasonProgrammed},
		"one has seen it, the other a later change": {report{160, all}, report{180, "of others"}, apiv3.IPPoolReasonProgrammed},
		"one has seen it, the other has not":        {report{160, all}, report{99, before}, apiv3.IPPoolReasonPending},
		"neither has":                               {report{160, before}, report{160, before}, apiv3.IPPoolReasonPending},
		"neither says what it has seen":             {report{160, ""}, report{160, ""}, apiv3.IPPoolReasonPending},
		"one names no number":                       {report{160, before}, report{0, all}, apiv3.IPPoolReasonNodesNotReady},
	} {
		said := []v1alpha1.SallyportNode{testStatus("n1", true, test.n1.version), testStatus("n2", true, test.n2.version)}
		for i, r := range []report{test.n1, test.n2} {
			said[i].Status.Observed.IPPoolsDigest = r.digest
			if r.version == 0 {
				said[i].Status.Observed.IPPools = "xyz"
			}
		}
		pools := []apiv3.IPPool{pending, other}
		s := seen{}
		nodes := []corev1.Node{testNode("n1", true, time.Hour), testNode("n2", true, time.Hour)}
		stand, _ := standings(now, nodes, labels.Everything(), said, nil)
		s.note(now, pools, nil)
		s.learnAll(pools, nil, said)
		if c := judge(pools, nil, s, stand)[0][1]; c.Reason != test.reason {
			t.Errorf("%s: %+v, want the reason %s", name, c, test.reason)
		}
	}
}

// TestLearnIsKept: once it is known by which version a pool had come to its generation, a change of another pool does not make it
// forgotten.
func TestLearnIsKept(t *testing.T) {
	t.Parallel()
	p, q := testPool("p", "10.0.0.0/16", 170), testPool("q", "10.1.0.0/16", 90)
	c := testConfig("c", "", 0, "1000-2000")
	said := testStatus("n1", true, 160)
	said.Status.Observed.IPPoolsDigest = digestOf(p, q)
	said.Status.Observed.NATConfigurations, said.Status.Observed.NATConfigurationsDigest = "40", datastore.DigestText(datastore.GenerationDigest("c", 3))
	s := seen{}
	look := func() {
		s.note(now, []apiv3.IPPool{p, q}, []v1alpha1.NATConfiguration{c})
		s.learnAll([]apiv3.IPPool{p, q}, []v1alpha1.NATConfiguration{c}, []v1alpha1.SallyportNode{said})
	}
	look()
	q.Generation, q.ResourceVersion = 3, "180"
	look()
	if s["p"].version != 160 || s["q"].version != 180 || s["c"].version != 40 {
		t.Errorf("%+v", s)
	}
}

// TestUnsettled: a node that is unknown for a moment is no news, and nothing is said to be Programmed meanwhile that was not.
func TestUnsettled(t *testing.T) {
	t.Parallel()
	both := []corev1.Node{testNode("n1", true, time.Hour), testNode("n2", true, time.Hour)}
	said := []v1alpha1.SallyportNode{testStatus("n1", true, 100), unknown(testStatus("n2", true, 100))}
	const yes, unclear = metav1.ConditionTrue, metav1.ConditionUnknown
	for _, test := range []struct {
		name         string
		nodes        []corev1.Node
		was          metav1.ConditionStatus
		first, later metav1.ConditionStatus
	}{
		{"it was Programmed", both, yes, yes, unclear},
		{"it was not, since another node was unknown", both, unclear, unclear, unclear},
		{"nothing was said", both, "", "", unclear},
		{"there is no other node", both[1:], yes, yes, unclear},
	} {
		p := testPool("p", "10.0.0.0/16", 100)
		if test.was != "" {
			p.Status = &apiv3.IPPoolStatus{Conditions: []metav1.Condition{condition(2, programmedType, test.was, "Before", "")}}
		}
		w := &writer{seen: seen{}, wrote: map[types.UID]write{}, selector: labels.Everything()}
		look := func(at time.Time, said ...v1alpha1.SallyportNode) (metav1.ConditionStatus, time.Duration) {
			stand, _ := standings(at, test.nodes, labels.Everything(), said, nil)
			b := &batch{writer: w, now: at}
			c := find(w.judge(b, &world{pools: []apiv3.IPPool{p}, nodes: test.nodes, said: said}, stand)[0], programmedType)
			if c == nil {
				return "", b.recheck
			}
			return c.Status, b.recheck
		}
		look(now.Add(-time.Hour), testStatus("n1", true, 100), testStatus("n2", true, 100))
		first, recheck := look(now, said...)
		if first != test.first || recheck != settle(len(test.nodes)) {
			t.Errorf("%s: at first it is %q, to be looked at in %s", test.name, first, recheck)
		}
		if later, _ := look(now.Add(recheck), said...); later != test.later {
			t.Errorf("%s: later it is %q", test.name, later)
		}
	}
}
