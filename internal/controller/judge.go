package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// joining is how long a node may be ready before it counts though no agent has ever reported from it: a node that joins is no
// news about any pool.
const joining = time.Minute

// named is how many nodes a message names.
const named = 3

// standing is how one node stands.
type standing struct {
	node       string
	labels     labels.Set
	ready      metav1.ConditionStatus
	fault      string               // why it holds nothing as it is, or ""
	unknown    bool                 // the fault is that nobody knows how it stands
	pools      uint64               // how far it has followed the pools
	settings   uint64               // and the NATConfigurations
	exceptions map[string]exception // by kind and name
}

type exception struct {
	generation int64
	reason     string
}

// hasAgent says whether a node is one that should have an agent.
func hasAgent(n *corev1.Node, agents labels.Selector) bool {
	return n.Labels[corev1.LabelOSStable] != "windows" && agents.Matches(labels.Set(n.Labels))
}

// standings are those of the nodes that count, which are ready and are to have an agent, by how far they have followed
// the pools, the farthest behind first. What the controller says of a node goes before what its agent has said.
func standings(now time.Time, nodes []corev1.Node, agents labels.Selector, said []v1alpha1.SallyportNode, calls map[string]call) (out []standing, recheck time.Duration) {
	byName := make(map[string]*v1alpha1.SallyportNode, len(said))
	for i := range said {
		byName[said[i].Name] = &said[i]
	}
	for i := range nodes {
		n := &nodes[i]
		since, ready := readySince(n)
		if !ready || !hasAgent(n, agents) {
			continue
		}
		if left := joining - now.Sub(since); byName[n.Name] == nil && left > 0 {
			recheck = sooner(recheck, left)
			continue
		}
		s := standingOf(n.Name, byName[n.Name], calls[n.Name])
		s.labels = n.Labels
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b standing) int {
		return cmp.Or(cmp.Compare(a.pools, b.pools), strings.Compare(a.node, b.node))
	})
	return out, recheck
}

func standingOf(node string, n *v1alpha1.SallyportNode, c call) standing {
	s := standing{node: node, ready: metav1.ConditionUnknown}
	if n == nil {
		s.fault = "no agent has reported"
		return s
	}
	st, ready := &n.Status, readiness(n)
	if c.reason == "" && ready != nil {
		s.ready = ready.Status
	}
	switch {
	case c.reason != "":
		s.fault, s.unknown = "is unknown: "+c.message, true
	case ready == nil:
		s.fault, s.unknown = "does not say whether it is ready", true
	case ready.Status == metav1.ConditionUnknown:
		s.fault, s.unknown = "is unknown: "+ready.Message, true
	case ready.Status != metav1.ConditionTrue:
		s.fault = "is not ready: " + ready.Message
	case st.MoreExceptions > 0:
		s.fault = fmt.Sprintf("cannot hold %d pools and settings as they are", len(st.Exceptions)+int(st.MoreExceptions))
	}
	s.pools, s.settings = s.followed(st.Observed.IPPools), s.followed(st.Observed.NATConfigurations)
	for _, e := range st.Exceptions {
		if s.exceptions == nil {
			s.exceptions = map[string]exception{}
		}
		s.exceptions[e.Kind+"/"+e.Name] = exception{e.Generation, e.Reason}
	}
	return s
}

// followed is how far a node says that it has followed.
func (s *standing) followed(observed string) uint64 {
	if observed == "" {
		return 0 // it has seen none
	}
	n, numbered := datastore.VersionNumber(observed)
	if !numbered && s.fault == "" {
		s.fault, s.unknown = fmt.Sprintf("says that it has followed up to %q, which is no number", observed), true
	}
	return n
}

// readySince says whether a node is ready, and since when.
func readySince(n *corev1.Node) (time.Time, bool) {
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

// judge says what the conditions of each pool should be; the times of transition are left to the writer.
func judge(pools []apiv3.IPPool, blocks []*v1alpha1.IPBlock, s seen, nodes []standing) [][]metav1.Condition {
	allocatable := compile.Allocatable(models(pools))
	yield(allocatable, pools, blocks)
	faulty := slices.DeleteFunc(slices.Clone(nodes), func(n standing) bool { return n.fault == "" && len(n.exceptions) == 0 })
	out := make([][]metav1.Condition, len(pools))
	for i := range pools {
		p := &pools[i]
		if c, ok := allocatable[p.Name]; ok {
			out[i] = append(out[i], condition(p.Generation, apiv3.IPPoolConditionAllocatable, is(c.Allocatable), c.Reason, c.Message))
		}
		h := holding{what: "pool", key: apiv3.KindIPPool + "/" + p.Name, generation: p.Generation, reached: s[p.UID], at: func(n *standing) uint64 { return n.pools }, sorted: true}
		out[i] = append(out[i], h.judge(nodes, faulty))
	}
	return out
}

// models are the pools as values; one that cannot be one is left out.
func models(pools []apiv3.IPPool) []*model.Pool {
	out := make([]*model.Pool, 0, len(pools))
	for i := range pools {
		p := &pools[i]
		m, err := datastore.Pool(p)
		if err != nil {
			continue
		}
		out = append(out, m)
	}
	return out
}

// holding is an object of which nodes are to have taken up a generation.
type holding struct {
	what, key  string // in words, and by kind and name
	generation int64
	reached    reached
	at         func(*standing) uint64 // how far a node is in what matters
	sorted     bool                   // nodes come by that, the farthest behind first
}

// judge says whether every node holds the object; the faulty ones are those that may not.
func (h *holding) judge(nodes, faulty []standing) metav1.Condition {
	var failed, unknown, behind few
	for i := range faulty {
		n := &faulty[i]
		if n.unknown {
			unknown.add(n.node, ": ", n.fault)
		} else if n.fault != "" {
			failed.add(n.node, ": ", n.fault)
		} else if e, ok := n.exceptions[h.key]; ok && e.generation == h.generation { // of another, it says nothing any more
			failed.add(n.node, ": ", e.reason)
		}
	}
	needed := max(h.reached.version, 1) // a node that has heard of the object names a number
	for i := range nodes {
		if n := &nodes[i]; h.at(n) < needed && n.fault == "" {
			behind.add(n.node)
		} else if h.sorted && h.at(n) >= needed {
			break
		}
	}
	say := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return condition(h.generation, programmedType, status, reason, message)
	}
	switch {
	case failed.count > 0:
		count := failed.count
		failed.take(unknown)
		return say(metav1.ConditionFalse, apiv3.IPPoolReasonNodesNotReady,
			fmt.Sprintf("%d of %d ready nodes do not hold the %s: %s", count, len(nodes), h.what, failed.join("; ")))
	case unknown.count > 0:
		return say(metav1.ConditionUnknown, apiv3.IPPoolReasonNodesNotReady,
			fmt.Sprintf("whether %d of %d ready nodes hold the %s is not known: %s", unknown.count, len(nodes), h.what, unknown.join("; ")))
	case len(nodes) == 0:
		return say(metav1.ConditionFalse, apiv3.IPPoolReasonPending, "there is no ready node whose agent has reported")
	case !h.reached.numbered:
		return say(metav1.ConditionUnknown, apiv3.IPPoolReasonNotComparable,
			"the API server's resourceVersions are no numbers, so that how far nodes are cannot be compared")
	case behind.count > 0:
		return say(metav1.ConditionFalse, apiv3.IPPoolReasonPending,
			fmt.Sprintf("%d of %d ready nodes have not taken up the %s yet: %s", behind.count, len(nodes), h.what, behind.join(", ")))
	default:
		return say(metav1.ConditionTrue, apiv3.IPPoolReasonProgrammed, fmt.Sprintf("every ready node holds the %s (%d)", h.what, len(nodes)))
	}
}

// programmedType is the type of the condition of pools and settings that says whether nodes hold them.
const programmedType = apiv3.IPPoolConditionProgrammed

func condition(generation int64, kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: generation}
}

func is(yes bool) metav1.ConditionStatus {
	if yes {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// few are texts of which only the first are named. There are as many as pools and nodes make.
type few struct {
	count int
	first []string
}

// add adds a text, given in parts.
func (f *few) add(parts ...string) {
	if f.count++; f.count <= named {
		f.first = append(f.first, strings.Join(parts, ""))
	}
}

// take takes the texts of others after its own.
func (f *few) take(others few) {
	f.first = append(f.first, others.first...)
	f.first = f.first[:min(len(f.first), named)]
	f.count += others.count
}

// join joins the first texts, and says how many more there are.
func (f *few) join(by string) string {
	if f.count > named {
		return strings.Join(f.first, by) + fmt.Sprintf(" and %d more", f.count-named)
	}
	return strings.Join(f.first, by)
}

// conditions are those of a pool as they stand.
func conditions(p *apiv3.IPPool) []metav1.Condition {
	if p.Status == nil {
		return nil
	}
	return p.Status.Conditions
}

// find is a condition, or nil.
func find(conditions []metav1.Condition, kind string) *metav1.Condition {
	return meta.FindStatusCondition(conditions, kind)
}

// hold leaves the condition Programmed as it was, or out.
func hold(was, want []metav1.Condition) []metav1.Condition {
	out := slices.DeleteFunc(slices.Clone(want), func(c metav1.Condition) bool { return c.Type == programmedType })
	if c := find(was, programmedType); c != nil {
		out = append(out, *c)
	}
	return out
}

// pending says whether conditions say that nodes have not taken up an object.
func pending(want []metav1.Condition) bool {
	c := find(want, programmedType)
	return c != nil && c.Reason == apiv3.IPPoolReasonPending
}

// news is how much the conditions of an object differ from those that it has.
type news int

const (
	none    news = iota
	message      // only what is said of a condition that is not True
	byNodes      // how nodes stand, which every object has in common
	verdict      // status, reason or generation, for the object's own sake
)

// merge is what the conditions of an object become, with their times of transition, and how much that is news. What is
// said of a condition that is True is none: it names nobody who should be looked at.
func merge(was, want []metav1.Condition, now metav1.Time) (out []metav1.Condition, differs news) {
	for _, c := range want {
		before := find(was, c.Type)
		c.LastTransitionTime = now
		if before != nil && before.Status == c.Status {
			c.LastTransitionTime = before.LastTransitionTime
		}
		switch {
		case before == nil || before.ObservedGeneration != c.ObservedGeneration:
			differs = verdict
		case before.Status != c.Status || before.Reason != c.Reason:
			differs = max(differs, why(before.Reason, c.Reason))
		case before.Message != c.Message && c.Status != metav1.ConditionTrue:
			differs = max(differs, message)
		}
		out = append(out, c)
	}
	return out, differs
}

// why says for whose sake a condition has another reason: where it comes or goes since nodes are not ready, for theirs.
func why(was, is string) news {
	if was != apiv3.IPPoolReasonPending && is != apiv3.IPPoolReasonPending && (was == apiv3.IPPoolReasonNodesNotReady || is == apiv3.IPPoolReasonNodesNotReady) {
		return byNodes
	}
	return verdict
}
