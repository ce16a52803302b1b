package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/model"
)

var errInjected = errors.New("injected")

// kernel stands in for the links of one node, so that calls can be made to fail. It outlives the manager, as a kernel does.
type kernel struct {
	mu    sync.Mutex
	links map[string]links.Held
	fail  int // how many of the next calls fail
}

// failNext makes that many of the next calls fail.
func (k *kernel) failNext(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = n
}

// now is the links that there are.
func (k *kernel) now() map[string]links.Held {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.links)
}

func (k *kernel) failing() bool {
	if k.fail > 0 {
		k.fail--
		return true
	}
	return false
}

func (k *kernel) Held(context.Context) ([]links.Held, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failing() {
		return nil, errInjected
	}
	return slices.Collect(maps.Values(k.links)), nil
}

func (k *kernel) Add(_ context.Context, w links.Workload, _, _ *os.File, _ int) (links.Made, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failing() {
		return links.Made{}, errInjected
	}
	name := linkOf(w.ContainerID)
	if _, there := k.links[name]; there {
		return links.Made{}, fmt.Errorf("%s is there", name)
	}
	k.links[name] = links.Held{Workload: w, Link: name}
	return links.Made{}, nil
}

func (k *kernel) Leave(_ context.Context, names []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failing() {
		return errInjected
	}
	for _, n := range names {
		delete(k.links, n)
	}
	return nil
}

func (k *kernel) Check(context.Context, links.Workload, *os.File) error { return nil }

func linkOf(container string) string { return linkName("net", container, "eth0") }

// api stands in for the API of a cluster: blocks, of which a node hears later.
type api struct {
	mu     sync.Mutex
	blocks map[netip.Prefix]model.Block
	fail   map[string]int // by node: how many of the next calls fail, each after it was done
}

// failNext makes that many of the next calls of a node fail.
func (a *api) failNext(node string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail[node] = n
}

// now is the blocks that there are.
func (a *api) now() map[netip.Prefix]model.Block {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.blocks)
}

// claims is the API as one node sees it.
type claims struct {
	*api
	node string
	pool func(name string) *model.Pool
}

func (c claims) lost() error {
	if c.fail[c.node] > 0 {
		c.fail[c.node]--
		return errInjected
	}
	return nil
}

func (c claims) Claim(_ context.Context, cidr netip.Prefix, pool string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, there := c.blocks[cidr]; there && b.Node != c.node {
		return &datastore.TakenError{CIDR: cidr, Node: b.Node}
	}
	if p := c.pool(pool); p == nil || p.Disabled {
		return &datastore.RefusedError{Pool: pool, Why: "it is disabled"}
	}
	c.blocks[cidr] = model.Block{CIDR: cidr, Pool: pool, Node: c.node}
	return c.lost()
}

func (c claims) GiveBack(_ context.Context, cidr netip.Prefix) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks[cidr].Node == c.node {
		delete(c.blocks, cidr)
	}
	return c.lost()
}

func (c claims) Alone() error                                        { return nil }
func (c claims) Usage(context.Context, []datastore.BlockUsage) error { return nil }

// site is nodes with one API.
type site struct {
	t     *rapid.T
	api   *api
	pools []*model.Pool
	nodes []*node
	// version counts what was declared.
	version uint64
}

type node struct {
	name    string
	kernel  *kernel
	manager *Manager
	stop    func()
	next    int
	heard   *datastore.State
}

func newSite(t *rapid.T) *site {
	s := &site{t: t, api: &api{blocks: map[netip.Prefix]model.Block{}, fail: map[string]int{}}}
	for _, p := range []struct {
		name, cidr string
		size       int
	}{{"four", "10.0.0.0/27", 30}, {"more", "10.1.0.0/28", 32}, {"six", "fd00::/120", 124}} {
		s.pools = append(s.pools, &model.Pool{Name: p.name, CIDR: netip.MustParsePrefix(p.cidr), BlockSize: p.size, AllowedUses: model.UseWorkload,
			NodeSelector: "all()", NamespaceSelector: "all()"})
	}
	for i := range 2 {
		n := &node{name: fmt.Sprintf("n%d", i), kernel: &kernel{links: map[string]links.Held{}}}
		s.nodes = append(s.nodes, n)
		s.start(n)
	}
	return s
}

// start starts a manager on a node, as an agent does that finds what the kernel has.
func (s *site) start(n *node) {
	ctx, cancel := context.WithCancel(context.Background())
	n.manager = New(Options{Node: n.name, Links: n.kernel, Claims: claims{s.api, n.name, s.pool}, Log: slog.New(slog.DiscardHandler),
		Stands: func(context.Context, uint64) error { return nil },
		Forget: func(context.Context, func(netip.Addr) bool) error { return nil },
		Random: rand.New(rand.NewPCG(rapid.Uint64().Draw(s.t, "seed"), 0)).Uint64})
	n.manager.SetLinks(nil)
	done := make(chan struct{})
	go func() { defer close(done); n.manager.Run(ctx) }()
	n.stop = func() { cancel(); <-done }
	synctest.Wait()
	s.tell(n)
}

func (s *site) pool(name string) *model.Pool {
	i := slices.IndexFunc(s.pools, func(p *model.Pool) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return s.pools[i]
}

// tell tells a node what the API has now.
func (s *site) tell(n *node) {
	s.hear(n)
	n.manager.SetState(*n.heard)
}

// hear makes what the API has now the news of a node, of which its manager may be told later.
func (s *site) hear(n *node) {
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	s.version++
	snapshot := &model.Snapshot{Pools: slices.Clone(s.pools)}
	for _, b := range s.api.blocks {
		snapshot.Blocks = append(snapshot.Blocks, &b)
	}
	slices.SortFunc(snapshot.Blocks, func(a, b *model.Block) int { return a.CIDR.Compare(b.CIDR) })
	n.heard = &datastore.State{Snapshot: snapshot, Version: s.version, Fresh: true, Conditions: compile.Allocatable(snapshot.Pools)}
}

// check looks that no address has two workloads, and that each is in a block of its node.
func (s *site) check(*rapid.T) {
	synctest.Wait()
	owner := map[netip.Addr]string{}
	for _, n := range s.nodes {
		for name, h := range n.kernel.now() {
			for _, a := range h.Addresses {
				if other := owner[a]; other != "" {
					s.t.Fatalf("%s has workloads %s and %s of node %s", a, other, name, n.name)
				}
				owner[a] = name
				inBlock := false
				for cidr, b := range s.api.now() {
					inBlock = inBlock || cidr.Contains(a) && b.Node == n.name
				}
				if !inBlock {
					s.t.Fatalf("%s of workload %s is in no block of node %s", a, name, n.name)
				}
			}
		}
	}
}

func (s *site) draw() *node { return s.nodes[rapid.IntRange(0, len(s.nodes)-1).Draw(s.t, "node")] }

func (s *site) request(n *node, container string) *cni.Request {
	return &cni.Request{Network: "net", ContainerID: n.name + container, Interface: "eth0", UID: "uid-" + container}
}

// actions are what may happen to nodes, in any order.
func (s *site) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": s.check,
		"add": func(*rapid.T) {
			n := s.draw()
			n.next++
			r := s.request(n, fmt.Sprint("c", n.next))
			out, err := n.manager.Add(context.Background(), r, nil, nil)
			if err == nil && len(out.Addresses) == 0 {
				s.t.Fatal("no address and no error")
			}
			if _, there := n.kernel.now()[linkOf(r.ContainerID)]; there != (err == nil) {
				s.t.Fatalf("a link is there: %t, and the error is %v", there, err)
			}
		},
		"together": func(*rapid.T) {
			n := s.draw()
			var wg sync.WaitGroup
			for range 5 {
				n.next++
				r := s.request(n, fmt.Sprint("c", n.next))
				wg.Go(func() { _, _ = n.manager.Add(context.Background(), r, nil, nil) }) // the pools may be used up
			}
			wg.Wait()
		},
		"delete": func(*rapid.T) {
			n := s.draw()
			r := s.request(n, fmt.Sprint("c", rapid.IntRange(1, n.next+1).Draw(s.t, "which")))
			if err := n.manager.Delete(context.Background(), r); err == nil && n.kernel.now()[linkOf(r.ContainerID)].Link != "" {
				s.t.Fatal("deleted, and still there")
			}
		},
		"vanish": func(*rapid.T) {
			n := s.draw()
			for _, name := range slices.Sorted(maps.Keys(n.kernel.now())) {
				h := n.kernel.now()[name]
				n.kernel.mu.Lock()
				delete(n.kernel.links, name)
				n.kernel.mu.Unlock()
				n.manager.Gone(h)
				break
			}
		},
		"collect": func(*rapid.T) {
			n := s.draw()
			r := &cni.Request{Network: "net"}
			for _, h := range n.kernel.now() {
				if rapid.Bool().Draw(s.t, "known") {
					r.Attachments = append(r.Attachments, cni.Attachment{ContainerID: h.ContainerID, Interface: h.Interface})
				}
			}
			if err := n.manager.GC(context.Background(), r); err == nil && len(n.kernel.now()) != len(r.Attachments) {
				s.t.Fatalf("%d links are left, want %d", len(n.kernel.now()), len(r.Attachments))
			}
		},
		"hear":   func(*rapid.T) { s.hear(s.draw()) },
		"late":   func(*rapid.T) { n := s.draw(); n.manager.SetState(*n.heard) },
		"tell":   func(*rapid.T) { s.tell(s.draw()) },
		"wait":   func(*rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 100).Draw(s.t, "seconds")) * time.Second) },
		"kernel": func(*rapid.T) { s.draw().kernel.failNext(1) },
		"lose":   func(*rapid.T) { s.api.failNext(s.draw().name, 1) },
		"restart": func(*rapid.T) {
			n := s.draw()
			n.stop()
			n.kernel.failNext(0)
			s.start(n)
		},
		"pool": func(*rapid.T) {
			i := rapid.IntRange(0, len(s.pools)-1).Draw(s.t, "pool")
			changed := *s.pools[i]
			changed.Disabled = !changed.Disabled
			s.pools[i] = &changed
		},
	}
}

func TestManager(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		bubble(t, func() {
			s := newSite(r)
			defer s.stop()
			r.Repeat(s.actions())
			s.drain()
		})
	})
}

// TestClaimedBeforeHeard has a node hear of its own claim late: it goes on with the block that it has.
func TestClaimedBeforeHeard(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		bubble(t, func() {
			s := newSite(r)
			defer s.stop()
			n := s.nodes[0]
			for i := range 2 {
				if _, err := n.manager.Add(context.Background(), s.request(n, fmt.Sprint(i)), nil, nil); err != nil {
					r.Fatal(err)
				}
				n.manager.SetState(*n.heard) // of the time before
			}
			if len(s.api.now()) != 2 { // one of each family
				r.Fatalf("%d blocks are claimed for two workloads: %v", len(s.api.now()), s.api.now())
			}
		})
	})
}

// bubble runs a case of rapid in a bubble of time. Rapid says by a panic that a case failed, which must leave the bubble.
func bubble(t *testing.T, run func()) {
	var failure any
	synctest.Test(t, func(*testing.T) {
		defer func() { failure = recover() }()
		run()
	})
	if failure != nil {
		panic(failure)
	}
}

// stop ends all managers.
func (s *site) stop() {
	for _, n := range s.nodes {
		n.stop()
	}
}

// drain deletes all workloads: then each node has one block of each family at most, and no address is in use.
func (s *site) drain() {
	for _, n := range s.nodes {
		n.kernel.failNext(0)
		s.api.failNext(n.name, 0)
		if err := n.manager.GC(context.Background(), &cni.Request{Network: "net"}); err != nil {
			s.t.Fatal(err)
		}
	}
	for range 20 {
		time.Sleep(lookEvery)
		for _, n := range s.nodes {
			s.tell(n)
		}
	}
	kept := map[string]int{}
	for cidr, b := range s.api.now() {
		kept[fmt.Sprint(b.Node, cidr.Addr().Is6())]++
	}
	for which, n := range kept {
		if n > 1 {
			s.t.Fatalf("%s has %d blocks, and no workload", which, n)
		}
	}
	for _, n := range s.nodes {
		for _, u := range n.manager.Counts().Blocks {
			if u.Used+u.Cooling > 0 {
				s.t.Fatalf("%+v of node %s, which has no workload", u, n.name)
			}
		}
	}
}
