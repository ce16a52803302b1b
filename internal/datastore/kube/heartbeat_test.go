package kube

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// TestLeaseOf: each node has a Lease of its own, under a name that an API server takes.
func TestLeaseOf(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 199) + "." + strings.Repeat("b", 52)
	names := map[string]bool{}
	for _, node := range []string{"n1", "n1.example.org", long + "1", long + "2", strings.Repeat("a", maxLease-len(LeasePrefix)), strings.Repeat("a", 253)} {
		name := LeaseOf(node)
		if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 || names[name] || !strings.HasPrefix(name, LeasePrefix) {
			t.Errorf("of %s: %s: %v", node, name, wrong)
		}
		names[name] = true
	}
}

// TestReported: what is known of the API is read again once the controller has written in the place of the agent.
func TestReported(t *testing.T) {
	t.Parallel()
	var r reported
	for _, step := range []struct {
		since string
		news  bool
	}{{"", false}, {"1", true}, {"1", false}, {"2", true}} {
		r.set(&v1alpha1.SallyportNode{})
		if news := r.hear(step.since); news != step.news || (r.get() == nil) != step.news {
			t.Errorf("%q: news %t, known %v", step.since, news, r.get())
		}
	}
}

// TestSlowest: in a large cluster a server that is away is asked less often, and once a minute at least.
func TestSlowest(t *testing.T) {
	t.Parallel()
	c := newContact()
	for nodes, want := range map[int64]string{0: "5s", 500: "5s", 1000: "10s", 5000: "50s", 6000: "1m0s", 100000: "1m0s"} {
		c.nodes.Store(nodes)
		if got := c.slowest().String(); got != want {
			t.Errorf("of %d nodes it is %s, want %s", nodes, got, want)
		}
	}
}

// TestWhatMovesConditions: each field of a pool by which it is told which ones are allocatable, and no other.
func TestWhatMovesConditions(t *testing.T) {
	t.Parallel()
	was := model.Pool{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/16"), NodeSelector: "all()", NamespaceSelector: "all()"}
	for name, test := range map[string]struct {
		change func(*model.Pool)
		moves  bool
	}{
		"nothing":           {func(*model.Pool) {}, false},
		"CIDR":              {func(p *model.Pool) { p.CIDR = netip.MustParsePrefix("10.1.0.0/16") }, true},
		"disabled":          {func(p *model.Pool) { p.Disabled = true }, true},
		"terminating":       {func(p *model.Pool) { p.Terminating = true }, true},
		"rank":              {func(p *model.Pool) { p.Rank++ }, true}, // deleted and made again, it is the younger one
		"nodeSelector":      {func(p *model.Pool) { p.NodeSelector = "a" }, true},
		"namespaceSelector": {func(p *model.Pool) { p.NamespaceSelector = "a" }, true},
		"natOutgoing":       {func(p *model.Pool) { p.NATOutgoing = true }, false},
		"its condition":     {func(p *model.Pool) { p.WasAllocatable = true }, false},
	} {
		now := was
		test.change(&now)
		if got := movesConditions(&was, &now); got != test.moves {
			t.Errorf("%s: %t", name, got)
		}
	}
	if movesConditions(model.Node{}, model.Node{}) {
		t.Error("of Nodes it is said too")
	}
}

// TestUnclear: of a resourceVersion that is no number it is noted that how far the API was followed cannot be said.
func TestUnclear(t *testing.T) {
	t.Parallel()
	v := newView(datastore.KindIPPool)
	e := stored("a", 1, 7)
	v.absorb(map[string]*entry{"a": e}, true)
	if v.followed.Seen != 7 || v.followed.Changed != 7 || v.followed.Unclear {
		t.Errorf("followed %+v", v.followed)
	}
	odd := stored("b", 1, 8)
	odd.ResourceVersion = "8x"
	if c := v.absorb(map[string]*entry{"b": odd}, false); !v.followed.Unclear || !c.followed {
		t.Errorf("followed %+v, news %t", v.followed, c.followed)
	}
}
