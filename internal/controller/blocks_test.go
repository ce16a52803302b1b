package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore/kube"
)

// testBlock is a block of a pool whose UID is its name.
func testBlock(cidr, node, pool string) *v1alpha1.IPBlock {
	return &v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: cidr, UID: types.UID(cidr), ResourceVersion: "1", Finalizers: []string{v1alpha1.BlockFinalizer}},
		Spec: v1alpha1.IPBlockSpec{CIDR: cidr, Node: node, Pool: pool, PoolUID: pool}}
}

// TestAbsences: a node that owns blocks is gone for good once neither its Node nor a heartbeat was seen for 15 minutes of the
// controller's clock.
func TestAbsences(t *testing.T) {
	t.Parallel()
	blocks := []*v1alpha1.IPBlock{testBlock("10.0.0.0/26", "a", "p"), testBlock("10.0.0.64/26", "b", "p"), testBlock("10.0.1.0/26", "a", "p")}
	a := absences{bound: AbsentAfter}
	at := now
	leases := map[string]kube.Heartbeat{}
	beat := func(node string) { leases[kube.LeaseOf(node)] = kube.Heartbeat{Renewed: at.String()} }
	look := func(pass time.Duration, nodes ...string) string {
		t.Helper()
		var there []corev1.Node
		for _, n := range nodes {
			there = append(there, testNode(n, true, time.Hour))
		}
		at = at.Add(pass)
		gone, recheck := a.look(at, there, blocks, leases)
		var names []string
		for n := range gone {
			names = append(names, n)
		}
		slices.Sort(names)
		return fmt.Sprint(names, " ", recheck)
	}
	expect := func(when, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	expect("all are there", look(time.Hour, "a", "b", "c"), "[] 0s")
	expect("one is absent", look(time.Hour, "b"), "[] 30s")
	for range 29 {
		expect("for a while", look(30*time.Second, "b"), "[] 30s")
	}
	expect("for 15 minutes", look(30*time.Second, "b"), "[a] 0s")
	expect("it is back", look(time.Second, "a", "b"), "[] 0s")
	expect("and absent again", look(time.Second, "b"), "[] 30s")
	expect("while the controller could not look", look(24*time.Hour, "b"), "[] 30s")
	expect("both are absent", look(30*time.Second), "[] 30s")
	for range 27 {
		look(30 * time.Second)
	}
	expect("the first one for 15 minutes", look(30*time.Second), "[a] 30s")
	for range 100 {
		beat("a")
		expect("its agent lives", look(30*time.Second, "b"), "[] 30s")
	}
	for range 29 {
		look(30*time.Second, "b")
	}
	delete(leases, kube.LeaseOf("a"))
	expect("the garbage collector took the Lease", look(30*time.Second, "b"), "[] 30s")
	for range 29 {
		expect("there is none", look(30*time.Second, "b"), "[] 30s")
	}
	expect("for 15 minutes", look(30*time.Second, "b"), "[a] 0s")
	beat("a")
	expect("its agent is back", look(30*time.Second, "b"), "[] 30s")
	expect("another controller begins", func() string { a = absences{bound: AbsentAfter}; return look(time.Hour) }(), "[] 30s")
}

// TestYield: a pool gives out nothing while blocks in its range are another pool's.
func TestYield(t *testing.T) {
	t.Parallel()
	again := testBlock("10.0.0.0/26", "n", "p")
	again.Spec.PoolUID = "earlier"
	for name, test := range map[string]struct {
		blocks []*v1alpha1.IPBlock
		reason string
		says   string
	}{
		"no block":                  {nil, "OK", ""},
		"its own":                   {[]*v1alpha1.IPBlock{testBlock("10.0.0.0/26", "n", "p")}, "OK", ""},
		"another's elsewhere":       {[]*v1alpha1.IPBlock{testBlock("10.1.0.0/26", "n", "q")}, "OK", ""},
		"another's":                 {[]*v1alpha1.IPBlock{testBlock("10.0.9.0/26", "m", "q"), testBlock("10.0.3.0/26", "n", "q"), testBlock("10.0.4.0/26", "n", "p")}, "CIDROverlap", "the block 10.0.3.0/26, which node n has from the pool q"},
		"another's, larger than it": {[]*v1alpha1.IPBlock{testBlock("10.0.0.0/15", "n", "q")}, "CIDROverlap", "10.0.0.0/15"},
		"of the pool of before":     {[]*v1alpha1.IPBlock{again}, "CIDROverlap", "from the pool p of before"},
	} {
		pools := []apiv3.IPPool{testPool("p", "10.0.0.0/16", 1)}
		for range 3 {
			c := find(judge(pools, test.blocks, seen{}, nil)[0], apiv3.IPPoolConditionAllocatable)
			if c.Reason != test.reason || !strings.Contains(c.Message, test.says) || c.ObservedGeneration != 2 {
				t.Errorf("%s: %+v", name, c)
			}
			slices.Reverse(test.blocks)
		}
	}
}

// recorded is what was asked of an API about finalizers.
type recorded struct {
	calls  []string
	nodes  map[string]bool
	blocks map[types.UID]bool
	fails  bool
}

func (r *recorded) note(what string, o *metav1.ObjectMeta, finalizer string) error {
	r.calls = append(r.calls, strings.TrimSpace(what+" "+o.Name+" "+finalizer))
	if r.fails {
		return errors.New("the API server is away")
	}
	return nil
}

func (r *recorded) Finalize(_ context.Context, _ schema.GroupVersionResource, o *metav1.ObjectMeta, finalizer, _ string) error {
	return r.note("finalize", o, finalizer)
}

func (r *recorded) LetGo(_ context.Context, _ schema.GroupVersionResource, o *metav1.ObjectMeta, finalizer, _ string) error {
	return r.note("let go", o, finalizer)
}

func (r *recorded) Delete(_ context.Context, _ schema.GroupVersionResource, o *metav1.ObjectMeta) error {
	return r.note("delete", o, "")
}

func (r *recorded) SetNodeCondition(_ context.Context, o *metav1.ObjectMeta, c corev1.NodeCondition, _ string) error {
	return r.note("set "+string(c.Type)+" "+string(c.Status), o, c.Reason)
}

func (r *recorded) HasNode(_ context.Context, name string) (bool, error) { return r.nodes[name], nil }

func (r *recorded) HasBlocks(_ context.Context, pool types.UID) (bool, error) {
	return r.blocks[pool], nil
}

// TestChores: what is done about finalizers, and that it is done once for each version of an object.
func TestChores(t *testing.T) {
	t.Parallel()
	kept := func(name string, deleted bool) apiv3.IPPool {
		p := testPool(name, "10.0.0.0/16", 1)
		p.Finalizers = []string{v1alpha1.PoolFinalizer}
		if deleted {
			p.DeletionTimestamp = &metav1.Time{Time: now}
		}
		return p
	}
	leaving := testPool("plain", "10.0.0.0/16", 1)
	leaving.DeletionTimestamp = &metav1.Time{Time: now}
	dying := testBlock("10.0.0.0/26", "gone", "p")
	dying.DeletionTimestamp = &metav1.Time{Time: now}
	for name, test := range map[string]struct {
		pools  []apiv3.IPPool
		blocks []*v1alpha1.IPBlock
		api    recorded
		want   []string
	}{
		"a new pool":                         {pools: []apiv3.IPPool{testPool("p", "10.0.0.0/16", 1)}, want: []string{"finalize p sallyport.dev/blocks"}},
		"one that is kept":                   {pools: []apiv3.IPPool{kept("p", false)}},
		"one that goes, with a block":        {pools: []apiv3.IPPool{kept("p", true)}, blocks: []*v1alpha1.IPBlock{testBlock("10.0.0.0/26", "n", "p")}},
		"one that goes, with another's":      {pools: []apiv3.IPPool{kept("p", true)}, blocks: []*v1alpha1.IPBlock{testBlock("10.9.0.0/26", "n", "q")}, want: []string{"let go p sallyport.dev/blocks"}},
		"one that goes, and a claim unheard": {pools: []apiv3.IPPool{kept("p", true)}, api: recorded{blocks: map[types.UID]bool{"p": true}}},
		"one that goes, and was never kept":  {pools: []apiv3.IPPool{leaving}},
		"a block of a node that is gone":     {blocks: []*v1alpha1.IPBlock{testBlock("10.0.0.0/26", "gone", "p"), testBlock("10.0.1.0/26", "n", "p")}, want: []string{"delete 10.0.0.0/26", "let go 10.0.0.0/26 sallyport.dev/block"}},
		"one that it was giving back":        {blocks: []*v1alpha1.IPBlock{dying}, want: []string{"let go 10.0.0.0/26 sallyport.dev/block"}},
		"one of a node that is just back":    {blocks: []*v1alpha1.IPBlock{testBlock("10.0.0.0/26", "gone", "p")}, api: recorded{nodes: map[string]bool{"gone": true}}},
	} {
		w := &writer{log: slog.New(slog.DiscardHandler), wrote: map[types.UID]write{}, network: &network{api: &test.api, absent: absences{bound: AbsentAfter, looked: now.Add(-time.Second), of: map[string]absence{"gone": {silent: AbsentAfter}}}}}
		there := &world{pools: test.pools, nodes: []corev1.Node{testNode("n", true, time.Hour)}, blocks: test.blocks}
		do := func(fails bool) {
			test.api.calls, test.api.fails = nil, fails
			b := &batch{writer: w, now: now}
			for _, c := range w.chores(b, there, nil) {
				if err := b.tidy(t.Context(), c); (err != nil) != (fails && len(test.api.calls) > 0) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if do(true); len(test.api.calls) > 1 || (len(test.api.calls) == 0) != (len(test.want) == 0) {
			t.Errorf("%s, while the API fails: %q", name, test.api.calls)
		}
		if do(false); !slices.Equal(test.api.calls, test.want) {
			t.Errorf("%s: %q, want %q", name, test.api.calls, test.want)
		}
		if do(false); len(test.want) > 0 && len(test.api.calls) > 0 {
			t.Errorf("%s, before that was heard of: %q", name, test.api.calls)
		}
	}
}
