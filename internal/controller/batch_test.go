package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore/kube"
)

// TestMessagesFollow: what is said of a condition that is not True follows 30 s after the last write.
func TestMessagesFollow(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		since   time.Duration
		due     bool
		recheck time.Duration
	}{
		"soon after a write": {10 * time.Second, false, 20 * time.Second},
		"after 30 s":         {30 * time.Second, true, 0},
	} {
		p := testPool("p", "10.0.0.0/16", 1)
		w := &writer{wrote: map[types.UID]write{p.UID: {from: "0", at: now.Add(-test.since)}}}
		b := &batch{writer: w, now: now}
		if got := b.follows(&p.ObjectMeta); got != test.due || b.recheck != test.recheck {
			t.Errorf("%s: follows %t, again in %s", name, got, b.recheck)
		}
	}
}

// manyPools is how many pools a crowded cluster has: as many as take the controller 14 s to write.
const manyPools = 700

// crowded is an API with many pools and three nodes, which answers as fast as a controller may ask.
type crowded struct {
	t       *testing.T
	w       *writer
	limiter flowcontrol.RateLimiter

	mu      sync.Mutex
	there   world
	byName  map[string]int // pools
	writes  int
	written []string // the names of pools, in order
	refuses int      // so many pools
	listed  []time.Time
	beats   int
	marked  []string // the nodes whose Leases were written
}

func newCrowded(t *testing.T) *crowded {
	c := &crowded{t: t, limiter: flowcontrol.NewTokenBucketRateLimiter(requests, 2*requests), byName: map[string]int{}}
	for i := range manyPools {
		p := testPool(fmt.Sprintf("p%d", i), fmt.Sprintf("10.%d.%d.0/24", i/250, i%250), uint64(i+1))
		c.byName[p.Name] = i
		c.there.pools = append(c.there.pools, p)
	}
	for i := range 3 {
		n := testNode(fmt.Sprintf("n%d", i), true, time.Hour)
		n.Status.NodeInfo.BootID = "first"
		c.there.nodes, c.there.said = append(c.there.nodes, n), append(c.there.said, c.said(n.Name, "first"))
	}
	c.w = &writer{selector: labels.Everything(), beats: heartbeats{bound: UnknownAfter}, api: c, metrics: newMetrics(), log: slog.New(slog.DiscardHandler),
		events: newTeller(nil, "", slog.New(slog.DiscardHandler)), wake: make(chan struct{}, 1), seen: seen{}, wrote: map[types.UID]write{}}
	return c
}

func (c *crowded) ApplyStatus(ctx context.Context, resource schema.GroupVersionResource, name string, applied []byte, _ string) error {
	if err := c.limiter.Wait(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var in struct {
		Status struct{ Conditions []metav1.Condition }
	}
	if err := json.Unmarshal(applied, &in); err != nil {
		return err
	}
	c.writes++
	if resource == kube.SallyportNodes {
		for i := range c.there.said {
			if s := &c.there.said[i]; s.Name == name {
				s.Status.Conditions, s.ResourceVersion = in.Status.Conditions, s.ResourceVersion+"1"
			}
		}
		return nil
	}
	if c.byName[name] < c.refuses {
		return errors.New("an admission policy says no")
	}
	p := &c.there.pools[c.byName[name]]
	p.Status, p.ResourceVersion = &apiv3.IPPoolStatus{Conditions: in.Status.Conditions}, p.ResourceVersion+"0"
	c.written = append(c.written, name)
	return nil
}

func (c *crowded) Heartbeats(context.Context, string) (map[string]kube.Heartbeat, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed = append(c.listed, time.Now())
	c.beats++
	out := map[string]kube.Heartbeat{}
	for _, n := range c.there.nodes {
		out[kube.LeaseOf(n.Name)] = kube.Heartbeat{Renewed: strconv.Itoa(c.beats)}
	}
	return out, nil
}

func (c *crowded) MarkUnknown(ctx context.Context, _, node, _ string) error {
	if err := c.limiter.Wait(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	c.marked = append(c.marked, node)
	return nil
}

// look has the controller look once, and returns how many writes that made.
func (c *crowded) look() int {
	c.mu.Lock()
	there, before := world{pools: append([]apiv3.IPPool(nil), c.there.pools...), nodes: append([]corev1.Node(nil), c.there.nodes...),
		said: append([]v1alpha1.SallyportNode(nil), c.there.said...)}, c.writes
	c.mu.Unlock()
	b := &batch{writer: c.w, now: time.Now()}
	if err := errors.Join(c.w.bring(c.t.Context(), b, &there), b.group.Wait()); err != nil && c.refuses == 0 {
		c.t.Errorf("a look says %v", err)
	}
	time.Sleep(pause)
	return c.writes - before
}

// pass has the controller look for some time, and returns how many writes that made.
func (c *crowded) pass(d time.Duration) (writes int) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		n := c.look()
		writes += n
		if n == 0 { // nothing is news until a heartbeat or a time that has passed
			time.Sleep(time.Second)
		}
	}
	return writes
}

// programmed says of how many pools a status is said.
func (c *crowded) programmed(status metav1.ConditionStatus) (n int) {
	for i := range c.there.pools {
		if meta.IsStatusConditionPresentAndEqual(conditions(&c.there.pools[i]), programmedType, status) {
			n++
		}
	}
	return n
}

// boot has a node boot, and report has its agent report after that.
func (c *crowded) boot(id string) { c.there.nodes[2].Status.NodeInfo.BootID = id }

func (c *crowded) report(id string) { c.there.said[2] = c.said("n2", id) }

// said is what an agent reports that has taken up all pools.
func (c *crowded) said(node, boot string) v1alpha1.SallyportNode {
	s := testStatus(node, true, manyPools)
	s.Status.BootID, s.Status.Observed.IPPoolsDigest = boot, digestOf(c.there.pools...)
	return s
}

// TestNodeThatFlaps counts the writes that a node costs which is unknown for a moment, for a while, and for long.
func TestNodeThatFlaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowded(t)
		began := time.Now()
		if writes := c.pass(20 * time.Second); writes != manyPools || c.programmed(metav1.ConditionTrue) != manyPools {
			t.Fatalf("at first there are %d writes, and %d pools are Programmed", writes, c.programmed(metav1.ConditionTrue))
		}
		c.boot("second")
		writes := c.look()
		time.Sleep(settling - time.Second)
		writes += c.look()
		c.report("second")
		if writes += c.pass(20 * time.Second); writes != 1 || c.programmed(metav1.ConditionTrue) != manyPools {
			t.Errorf("a node that was unknown for a second cost %d writes, want 1: of its own SallyportNode", writes)
		}

		c.boot("third")
		writes = c.pass(10 * time.Second)
		if unknown := c.programmed(metav1.ConditionUnknown); unknown == 0 || unknown == manyPools {
			t.Errorf("after 10 s of a node of which nothing is known, it is said so of %d pools", unknown)
		}
		c.report("third")
		if writes += c.pass(20 * time.Second); writes > 22*requests || c.programmed(metav1.ConditionTrue) != manyPools {
			t.Errorf("a node that was unknown for 10 s cost %d writes, want %d at most", writes, 22*requests)
		}

		t.Logf("unknown for 10 s: %d writes for %d pools", writes, manyPools)

		c.boot("fourth")
		c.pass(5 * time.Second)
		c.written = nil
		p := &c.there.pools[manyPools-1]
		p.Generation, p.ResourceVersion = 3, "1"
		c.look()
		if len(c.written) != maxWrites || !slices.Contains(c.written, p.Name) {
			t.Errorf("a pool that was changed meanwhile is not among the %d that the next look writes", len(c.written))
		}
		if writes := c.pass(30 * time.Second); c.programmed(metav1.ConditionUnknown) != manyPools {
			t.Errorf("a node of which nothing is known for half a minute: after %d writes it is said so of %d pools", writes, c.programmed(metav1.ConditionUnknown))
		}
		for i, at := range c.listed {
			if last := append([]time.Time{began}, c.listed...)[i]; at.Sub(last) > UnknownAfter/looksPerBound+2*time.Second {
				t.Errorf("heartbeats were looked at %s after the last time", at.Sub(last))
			}
		}
	})
}

// TestRefusedWritesHoldUpNoOther: what the API refuses is tried last.
func TestRefusedWritesHoldUpNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowded(t)
		c.refuses = maxWrites + 10
		for range manyPools / maxWrites {
			c.look()
		}
		if want := manyPools - c.refuses; len(c.written) != want {
			t.Errorf("beside %d that are refused, %d pools were written, want %d", c.refuses, len(c.written), want)
		}
	})
}

// TestMarksHoldUpNoChange: after an outage of the API server each node may be called unknown. Their agents hear so, and what a
// person changes meanwhile is written all the same.
func TestMarksHoldUpNoChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowded(t)
		c.there.pools = c.there.pools[:1]
		for i := range 10 * maxWrites {
			name := fmt.Sprintf("lost%d", i)
			said := c.said(name, "first")
			said.Status.Conditions = []metav1.Condition{{Type: v1alpha1.SallyportNodeConditionReady, Status: metav1.ConditionUnknown, LastTransitionTime: metav1.Now()}}
			c.there.nodes, c.there.said = append(c.there.nodes, testNode(name, true, time.Hour)), append(c.there.said, said)
		}
		for range 3 {
			if n := c.look(); n > maxWrites {
				t.Errorf("a look writes %d objects", n)
			}
		}
		if len(c.written) == 0 {
			t.Error("the pool waits for the Leases")
		}
		for range 20 {
			c.look()
		}
		slices.Sort(c.marked)
		if got := len(slices.Compact(c.marked)); got != 10*maxWrites {
			t.Errorf("%d Leases were written", got)
		}
	})
}
