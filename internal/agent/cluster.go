package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
)

// cluster is where an agent says how its node stands.
type cluster interface {
	Report(ctx context.Context, nodeUID string, status v1alpha1.SallyportNodeStatus) error
	Renew(ctx context.Context, nodeUID string) (unknown bool, err error)
	Nodes(ctx context.Context) (int, error)
	Untaint(ctx context.Context, at []int) error
}

// Bounds of a SallyportNode, as its definition has them.
const (
	maxExceptions  = 50
	maxWarnings    = 10
	maxReason      = 1024
	maxExplanation = 512
	maxVersion     = 128
)

// countEvery is the time between two looks at how many nodes there are, and retryEvery, give or take a half, that
// until one that failed, or the removal of the taint, is tried again.
const (
	countEvery = time.Hour
	retryEvery = 10 * time.Second
)

// freshWithin is how long after its start an agent that is ready with what it had saved says nothing yet, unless it has
// heard all of the API by then: it does not know how far the API was followed.
const freshWithin = 30 * time.Second

// reporter writes how the node stands into the API.
type reporter struct {
	core    *Core
	cluster cluster
	pacing  pacing

	began     time.Time
	unready   time.Time // since when the node is; zero: it is not
	countAt   time.Time
	untaintAt time.Time
}

// complaints are what the agent fails to do in the API, for status. The zero value has none.
type complaints struct {
	mu   sync.Mutex
	open map[string]complaint // by what fails
}

type complaint struct {
	since time.Time
	why   string
}

// The things that may fail.
const (
	failsStatus = "saying in the API how this node stands failed; it will be tried again"
	failsLease  = "saying in the API that this agent lives failed, so that the node may be called unknown; it will be tried again"
	failsTaint  = "removing the start-up taint failed; it will be tried again"
)

// note notes how something went, and says whether an error is another than before.
func (c *complaints) note(what string, err error) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.open, what)
		return false
	}
	was, again := c.open[what]
	now := complaint{time.Now(), err.Error()}
	if again {
		now.since = was.since
	}
	if c.open == nil {
		c.open = map[string]complaint{}
	}
	c.open[what] = now
	return was.why != now.why
}

// warnings are the complaints as status has them.
func (c *complaints) warnings() []model.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []model.Fault
	for _, what := range slices.Sorted(maps.Keys(c.open)) {
		out = append(out, model.Fault{Message: fmt.Sprintf("%s, since %s: %s", what, c.open[what].since.UTC().Format(time.RFC3339), c.open[what].why)})
	}
	return out
}

// reportCluster reports until the context ends. What it cannot write stays to be written; nothing else depends on it.
func (c *Core) reportCluster(ctx context.Context, to cluster) {
	r := &reporter{core: c, cluster: to, pacing: pacing{nodes: 1}}
	called := make(chan struct{}, 1) // the controller has written in the place of this agent
	var beats sync.WaitGroup
	defer beats.Wait()
	beats.Go(func() { c.beat(ctx, to, called) })
	for ctx.Err() == nil {
		_, changed := c.Loop.State()
		read := c.resources.changed()
		next := r.step(ctx, time.Now())
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-read:
		case <-c.Turned:
		case <-called:
			r.pacing.forget()
		case <-t.C:
		}
		t.Stop()
	}
}

// step does what is due, and says when there is more to do without any news.
func (r *reporter) step(ctx context.Context, now time.Time) time.Time {
	held := r.core.resources.get()
	if r.began.IsZero() {
		r.began = now
	}
	heard := held.Fresh || !now.Before(r.began.Add(freshWithin))
	if heard {
		r.untaint(ctx, now, held.Self)
	}
	want := r.wanted(ctx, now, held)
	if want != nil && isReady(want.status) && r.pacing.last == nil && !heard {
		return r.began.Add(freshWithin)
	}
	if want == nil {
		return r.unready.Add(unreadyAfter)
	}
	next := r.count(ctx, now) // first, since others may have started at the same moment
	if !r.unready.IsZero() && isReady(want.status) {
		next = earlier(next, r.unready.Add(unreadyAfter))
	}
	if want.status.BGP != nil { // nothing tells of how many routes there are
		next = earlier(next, now.Add(around(followAfter)))
	}
	due := r.pacing.plan(now, want)
	if len(held.Self.Taints) > 0 && r.untaintAt.After(now) {
		next = earlier(next, r.untaintAt)
	}
	if now.Before(due) {
		return earlier(next, due)
	}
	err := r.cluster.Report(ctx, want.owner, want.status)
	if ctx.Err() != nil {
		return now
	}
	r.complain(failsStatus, err)
	r.pacing.wrote(time.Now(), want, err)
	return earlier(next, r.pacing.plan(time.Now(), want))
}

// untaint removes the start-up taint once the node is ready.
func (r *reporter) untaint(ctx context.Context, now time.Time, self datastore.Self) {
	s, _ := r.core.Loop.State()
	ready, _ := s.Ready()
	if len(self.Taints) == 0 {
		r.complain(failsTaint, nil)
	}
	if !ready || len(self.Taints) == 0 || now.Before(r.untaintAt) {
		return
	}
	r.untaintAt = now.Add(around(retryEvery)) // what was removed may be heard of later
	err := r.cluster.Untaint(ctx, self.Taints)
	if ctx.Err() != nil {
		return
	}
	r.complain(failsTaint, err)
	if err == nil {
		r.core.Log.Info("the rules stand: the start-up taint of this node was removed")
	}
}

// count looks how many nodes there are when that is due, and says when it is due again. Why it fails, the datastore
// says.
func (r *reporter) count(ctx context.Context, now time.Time) time.Time {
	if now.Before(r.countAt) {
		return r.countAt
	}
	n, err := r.cluster.Nodes(ctx)
	if err != nil {
		r.countAt = time.Now().Add(around(retryEvery + time.Duration(r.pacing.nodes)*time.Second/writesPerSecond))
		return r.countAt
	}
	r.pacing.nodes, r.countAt = n, now.Add(countEvery)
	return r.countAt
}

// complain notes how something went, and logs an error that is not the last one.
func (r *reporter) complain(what string, err error) {
	if r.core.complaints.note(what, err) {
		r.core.Log.Warn("the API could not be told something; it will be tried again", "what", what, "error", err)
	}
}

// wanted is what the API should say of this node; nil: nothing yet, since the agent has only just started.
func (r *reporter) wanted(ctx context.Context, now time.Time, held datastore.State) *written {
	loop, _ := r.core.Loop.State()
	settled, reason := ready(loop, held)
	if settled {
		r.unready = time.Time{}
	} else if r.unready.IsZero() {
		r.unready = now
	}
	w := &written{owner: held.Self.UID, status: v1alpha1.SallyportNodeStatus{Conditions: readiness(settled, reason), BootID: r.core.BootID, Version: text.Clip(r.core.Version, maxVersion)}}
	last := r.pacing.last
	if !settled && now.Sub(r.unready) < unreadyAfter { // for a moment, maybe: nothing is to be said of it
		if last == nil {
			return nil
		}
		status := last.status
		return &written{owner: w.owner, status: status}
	}
	if settled {
		w.status.Observed = observed(held, func(f datastore.Followed) uint64 { return f.Seen })
		w.changed = observed(held, func(f datastore.Followed) uint64 { return f.Changed })
	} else if last != nil {
		w.status.Observed = last.status.Observed
	}
	if loop.Plan != nil {
		n := natStatus(&loop.Plan.NAT)
		w.status.TranslatesTo = slices.Compact([]string{n.To4, n.To6})
	}
	w.status.Exceptions, w.status.MoreExceptions = exceptions(held.Exceptions)
	w.status.Warnings = r.warnings(held)
	if r.core.BGP != nil {
		var err error
		if w.status.BGP, err = r.core.BGP(ctx); err != nil && last != nil {
			w.status.BGP = last.status.BGP
		}
	}
	return w
}

// readiness is the condition Ready; when it last changed is left to who writes it.
func readiness(ready bool, reason string) []metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.SallyportNodeConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.SallyportNodeReasonProgrammed,
		Message: "the kernel was read back and equals the pools and settings"}
	if !ready {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.SallyportNodeReasonNotProgrammed, text.Clip(reason, maxReason)
	}
	return []metav1.Condition{c}
}

// isReady says whether a status says that the node is ready.
func isReady(s v1alpha1.SallyportNodeStatus) bool {
	return meta.IsStatusConditionTrue(s.Conditions, v1alpha1.SallyportNodeConditionReady)
}

// observed is how far the API was followed, in one respect, and what was seen there.
func observed(held datastore.State, of func(datastore.Followed) uint64) v1alpha1.Observed {
	text := func(kind string) string {
		if n := of(held.Followed[kind]); n > 0 && !held.Followed[kind].Unclear {
			return strconv.FormatUint(n, 10)
		}
		return ""
	}
	digest := func(kind string) string { return datastore.DigestText(held.Followed[kind].Digest) }
	return v1alpha1.Observed{IPPools: text(datastore.KindIPPool), IPPoolsDigest: digest(datastore.KindIPPool),
		NATConfigurations: text(datastore.KindNATConfiguration), NATConfigurationsDigest: digest(datastore.KindNATConfiguration)}
}

// exceptions are the objects that are not held as they are, as many as there is room for, and how many more.
func exceptions(in []datastore.Exception) (out []v1alpha1.Exception, more int64) {
	for _, e := range in {
		if len(out) == maxExceptions {
			more++
			continue
		}
		out = append(out, v1alpha1.Exception{Kind: e.Kind, Name: e.Name, Generation: e.Generation, Reason: text.Clip(e.Reason, maxExplanation)})
	}
	return out, more
}

// warnings are what is wrong without holding anything back, without what changes all the time.
func (r *reporter) warnings(held datastore.State) []string {
	var out []string
	add := func(s string) {
		if s = text.Clip(s, maxExplanation); len(out) < maxWarnings && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if r.core.Problems != nil {
		for _, p := range r.core.Problems() {
			add(string(p.Kind) + ": " + p.Object)
		}
	}
	for _, f := range held.Faults {
		add(f.String())
	}
	for _, f := range held.Warnings {
		add(f.String())
	}
	return out
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
