package controller

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// joining is how long a node may be ready without an agent that is before it counts: a node that joins is no news about
// any pool.
const joining = time.Minute

// named is how many nodes a message names.
const named = 3

// seen remembers by which resourceVersion a pool came to its generation, since a later one may be that of a change
// of its status, which agents report only after a while. A controller that began after such a change knows only its
// version: a pool that is Pending then may be so until agents report that.
type seen map[types.UID]reached

type reached struct {
	generation int64
	version    uint64
	since      time.Time // when it was first seen
}

// Nodes have settling, and settlingPerNode for each of them, to take up a pool before it is said that they have not: so
// a change that comes to all in time is one write, and who is named then is really behind.
const (
	settling        = 2 * time.Second
	settlingPerNode = 10 * time.Millisecond
)

// note brings what is remembered up to date with the pools that a look found which began at a time.
func (s seen) note(now time.Time, pools []apiv3.IPPool) {
	there := make(map[types.UID]bool, len(pools))
	for i := range pools {
		there[pools[i].UID] = true
		s.hear(now, &pools[i])
	}
	for uid, r := range s {
		if !there[uid] && r.since.Before(now) { // heard of later, it may be new
			delete(s, uid)
		}
	}
}

// hear takes what was heard of one pool. All that is heard should come here, be it after a look that found more: a look
// may find the pool after its status was written too.
func (s seen) hear(now time.Time, p *apiv3.IPPool) {
	version := number(p.ResourceVersion)
	was, known := s[p.UID]
	switch {
	case known && was.generation > p.Generation:
		return
	case known && was.generation == p.Generation:
		was.version = min(was.version, version)
		s[p.UID] = was
		return
	}
	r := reached{p.Generation, version, now}
	// What every node held when another controller looked, every node holds.
	if c := find(p, apiv3.IPPoolConditionProgrammed); c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == p.Generation {
		r.version = 0
	}
	s[p.UID] = r
}

// standing is how one node stands.
type standing struct {
	node       string
	fault      string                            // why it holds no pool as it is, or ""
	version    uint64                            // how far it has followed the pools
	exceptions map[string]v1alpha1.PoolException // by pool
}

// standings are those of the nodes that count, which are ready and are to have an agent, by how far they have followed,
// the farthest behind first.
func standings(now time.Time, nodes []corev1.Node, agents labels.Selector, statuses []v1alpha1.SallyportNode) (out []standing, recheck time.Duration) {
	byName := make(map[string]*v1alpha1.SallyportNodeStatus, len(statuses))
	for i := range statuses {
		byName[statuses[i].Name] = &statuses[i].Status
	}
	for i := range nodes {
		n := &nodes[i]
		since, ready := readySince(n)
		if !ready || n.Labels[corev1.LabelOSStable] == "windows" || !agents.Matches(labels.Set(n.Labels)) {
			continue
		}
		st := byName[n.Name]
		if left := joining - now.Sub(since); (st == nil || !st.Ready) && left > 0 {
			recheck = sooner(recheck, left)
			continue
		}
		out = append(out, standingOf(n.Name, st))
	}
	slices.SortFunc(out, func(a, b standing) int {
		switch {
		case a.version != b.version && a.version < b.version:
			return -1
		case a.version != b.version:
			return 1
		}
		return strings.Compare(a.node, b.node)
	})
	return out, recheck
}

func standingOf(node string, st *v1alpha1.SallyportNodeStatus) standing {
	s := standing{node: node}
	switch {
	case st == nil:
		s.fault = "no agent has reported"
		return s
	case !st.Ready:
		s.fault = "is not ready: " + st.Reason
	case st.MoreExceptions > 0:
		s.fault = fmt.Sprintf("cannot hold %d pools as they are", len(st.Exceptions)+int(st.MoreExceptions))
	}
	s.version = number(st.Observed.IPPools)
	for _, e := range st.Exceptions {
		if s.exceptions == nil {
			s.exceptions = map[string]v1alpha1.PoolException{}
		}
		s.exceptions[e.Pool] = e
	}
	return s
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
func judge(pools []apiv3.IPPool, s seen, nodes []standing) [][]metav1.Condition {
	allocatable := compile.Allocatable(models(pools))
	faulty := slices.DeleteFunc(slices.Clone(nodes), func(n standing) bool { return n.fault == "" && len(n.exceptions) == 0 })
	out := make([][]metav1.Condition, len(pools))
	for i := range pools {
		p := &pools[i]
		if c, ok := allocatable[p.Name]; ok {
			out[i] = append(out[i], condition(p, apiv3.IPPoolConditionAllocatable, c.Allocatable, c.Reason, c.Message))
		}
		out[i] = append(out[i], programmed(p, s[p.UID].version, nodes, faulty))
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

// programmed says whether every node holds a pool that came to its generation by a resourceVersion.
func programmed(p *apiv3.IPPool, version uint64, nodes, faulty []standing) metav1.Condition {
	var failed, behind few
	for _, n := range faulty {
		if n.fault != "" {
			failed.add(n.node, ": ", n.fault)
		} else if e, ok := n.exceptions[p.Name]; ok && e.Generation == p.Generation { // of another, it says nothing any more
			failed.add(n.node, ": ", e.Reason)
		}
	}
	for _, n := range nodes { // the farthest behind come first
		if n.version >= version {
			break
		}
		if n.fault == "" {
			behind.add(n.node)
		}
	}
	switch {
	case failed.count > 0:
		return condition(p, apiv3.IPPoolConditionProgrammed, false, apiv3.IPPoolReasonNodesNotReady,
			fmt.Sprintf("%d of %d ready nodes do not hold the pool: %s", failed.count, len(nodes), failed.join("; ")))
	case behind.count > 0:
		return condition(p, apiv3.IPPoolConditionProgrammed, false, apiv3.IPPoolReasonPending,
			fmt.Sprintf("%d of %d ready nodes have not taken up the pool yet: %s", behind.count, len(nodes), behind.join(", ")))
	case len(nodes) == 0:
		return condition(p, apiv3.IPPoolConditionProgrammed, false, apiv3.IPPoolReasonPending, "there is no ready node whose agent has reported")
	default:
		return condition(p, apiv3.IPPoolConditionProgrammed, true, apiv3.IPPoolReasonProgrammed, fmt.Sprintf("every ready node holds the pool (%d)", len(nodes)))
	}
}

func condition(p *apiv3.IPPool, kind string, status bool, reason, message string) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: p.Generation}
	if status {
		c.Status = metav1.ConditionTrue
	}
	return c
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

// join joins the first texts, and says how many more there are.
func (f *few) join(by string) string {
	if f.count > named {
		return strings.Join(f.first, by) + fmt.Sprintf(" and %d more", f.count-named)
	}
	return strings.Join(f.first, by)
}

// find is a condition of a pool, or nil.
func find(p *apiv3.IPPool, kind string) *metav1.Condition {
	if p.Status == nil {
		return nil
	}
	return meta.FindStatusCondition(p.Status.Conditions, kind)
}

// settles says for how long nothing is to be said yet about a pool that nodes have not taken up; 0: it is.
func (s seen) settles(now time.Time, p *apiv3.IPPool, nodes int) time.Duration {
	return s[p.UID].since.Add(settling + time.Duration(nodes)*settlingPerNode).Sub(now)
}

// hold leaves the condition Programmed as it was, or out.
func hold(p *apiv3.IPPool, want []metav1.Condition) []metav1.Condition {
	out := slices.DeleteFunc(slices.Clone(want), func(c metav1.Condition) bool { return c.Type == apiv3.IPPoolConditionProgrammed })
	if was := find(p, apiv3.IPPoolConditionProgrammed); was != nil {
		out = append(out, *was)
	}
	return out
}

// pending says whether conditions say that nodes have not taken up a pool.
func pending(want []metav1.Condition) bool {
	c := meta.FindStatusCondition(want, apiv3.IPPoolConditionProgrammed)
	return c != nil && c.Reason == apiv3.IPPoolReasonPending
}

// merge is what the conditions of a pool become, with their times of transition, and whether that is worth writing:
// a message alone is not.
func merge(p *apiv3.IPPool, want []metav1.Condition, now metav1.Time) (out []metav1.Condition, differs bool) {
	for _, c := range want {
		was := find(p, c.Type)
		c.LastTransitionTime = now
		if was != nil && was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
		differs = differs || was == nil || was.Status != c.Status || was.Reason != c.Reason || was.ObservedGeneration != c.ObservedGeneration
		out = append(out, c)
	}
	return out, differs
}

func number(version string) uint64 {
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
