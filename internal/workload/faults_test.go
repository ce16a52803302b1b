package workload

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// single is a node without a cluster. Forgetting connections fails as often as forgetFails says.
type single struct {
	*Manager
	t           *testing.T
	kernel      *kernel
	forgetFails int
	version     uint64
}

func newSingle(t *testing.T, o Options, pools ...*model.Pool) *single {
	s := &single{t: t, kernel: &kernel{links: map[string]links.Held{}}}
	if o.Links == nil {
		o.Links = s.kernel
	}
	o.Node, o.Log, o.Owns, o.Random = "n", slog.New(slog.DiscardHandler), func([]model.Block) {}, func() uint64 { return 0 }
	o.Stands = func(context.Context, uint64) error { return nil }
	o.Forget = func(context.Context, func(netip.Addr) bool) error {
		if s.forgetFails > 0 {
			s.forgetFails--
			return errInjected
		}
		return nil
	}
	s.Manager = New(o)
	s.SetLinks(nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if pools != nil {
		s.declare(pools...)
	}
	return s
}

func (s *single) declare(pools ...*model.Pool) {
	synctest.Wait()
	s.version++
	s.SetState(datastore.State{Snapshot: &model.Snapshot{Pools: pools}, Version: s.version, Fresh: true, Conditions: compile.Allocatable(pools)})
	synctest.Wait()
}

// add adds a workload and returns its address.
func (s *single) add(container string) netip.Addr {
	s.t.Helper()
	out, err := s.Add(context.Background(), &cni.Request{Network: "net", ContainerID: container, Interface: "eth0"}, nil, nil)
	labtest.Must(s.t, err)
	return out.Addresses[0]
}

func poolOf(name, cidr string, size int, uses model.Uses) *model.Pool {
	return &model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), BlockSize: size, AllowedUses: uses, NodeSelector: "all()", NamespaceSelector: "all()"}
}

// TestAddedAgainBeforeItsConnectionsEnd deletes a workload, and adds another one of the same name before the connections of
// the first have ended: the second is known, and no address is lost.
func TestAddedAgainBeforeItsConnectionsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t, Options{}, poolOf("p", "10.0.0.0/24", 26, model.UseWorkload))
		first := s.add("a")
		s.forgetFails = 1
		r := &cni.Request{Network: "net", ContainerID: "a", Interface: "eth0"}
		labtest.Must(t, s.Delete(t.Context(), r))
		if second := s.add("a"); second == first {
			t.Errorf("%s is given out before its connections have ended", first)
		}
		time.Sleep(5 * time.Second)
		labtest.Must(t, s.Check(t.Context(), r, nil), s.Delete(t.Context(), r))
		time.Sleep(5 * time.Minute)
		if c := s.Counts(); c.Workloads != 0 || c.Blocks[0].Used != 0 {
			t.Errorf("%+v after all were deleted", c)
		}
	})
}

// TestBlocksThatTakeThePlaceOfOthers changes the blocks of a pool under running workloads: their addresses stay in use.
func TestBlocksThatTakeThePlaceOfOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t, Options{}, poolOf("p", "10.0.0.0/26", 28, model.UseWorkload))
		seen := map[netip.Addr]string{}
		for i := range 30 {
			if i == 3 {
				s.declare(poolOf("p", "10.0.0.0/26", 27, model.UseWorkload))
			}
			name := fmt.Sprint("c", i)
			a := s.add(name)
			if other := seen[a]; other != "" {
				t.Fatalf("%s is given to %s and %s", a, other, name)
			}
			seen[a] = name
		}
	})
}

// vanishing is a kernel in which a link goes right after it was listed, of which nothing tells.
type vanishing struct{ *kernel }

func (v vanishing) Held(ctx context.Context) ([]links.Held, error) {
	held, err := v.kernel.Held(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.links)
	return held, err
}

func TestLinkThatGoesUnnoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := vanishing{&kernel{links: map[string]links.Held{}}}
		k.links["sly0"] = links.Held{Link: "sly0", Workload: links.Workload{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}}
		s := newSingle(t, Options{Links: k}, poolOf("p", "10.0.0.0/24", 26, model.UseWorkload))
		if c := s.Counts(); c.Workloads != 1 {
			t.Fatalf("%+v at the start, want the workload that was listed", c)
		}
		time.Sleep(2 * compareEvery)
		if c := s.Counts(); c.Workloads != 0 || c.Blocks[0].Used != 0 {
			t.Errorf("%+v long after the link has gone", c)
		}
	})
}

// TestTunnelOfOneFamily has no address for one family: the other has its own all the same.
func TestTunnelOfOneFamily(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t, Options{}, poolOf("four", "10.0.0.0/24", 26, model.UseTunnel), poolOf("six", "fd00::/112", 122, model.UseWorkload))
		got, err := s.Tunnels(t.Context(), true, true)
		if len(got) != 1 || !got[0].Is4() || err == nil {
			t.Errorf("tunnels %v, error %v; want that of IPv4, and an error about IPv6", got, err)
		}
		again, _ := s.Tunnels(t.Context(), true, true)
		if len(again) != 1 || again[0] != got[0] {
			t.Errorf("then %v", again)
		}
	})
}

// TestNoPodBeforeOldConnectionsHaveEnded has what ends the connections of earlier workloads fail for a while.
func TestNoPodBeforeOldConnectionsHaveEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t, Options{})
		s.forgetFails = 20
		s.declare(poolOf("p", "10.0.0.0/24", 26, model.UseWorkload))
		r := &cni.Request{Network: "net", ContainerID: "a", Interface: "eth0"}
		if _, err := s.Add(t.Context(), r, nil, nil); err == nil {
			t.Error("a pod starts before the connections of earlier ones have ended")
		}
		time.Sleep(time.Minute)
		_, err := s.Add(t.Context(), r, nil, nil)
		labtest.Must(t, err)
	})
}

// telling is an API of which the node hears in the middle of a call.
type telling struct {
	claims
	during func()
}

func (c *telling) GiveBack(ctx context.Context, cidr netip.Prefix) error {
	if c.during != nil {
		c.during()
	}
	return c.claims.GiveBack(ctx, cidr)
}

// TestGiveBackOfWhatIsGone has a node hear, while it gives back one block, that another one is gone already: from then on it may
// be claimed again, and must not be given back.
func TestGiveBackOfWhatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := poolOf("p", "10.0.0.0/24", 32, model.UseWorkload)
		shared := &api{blocks: map[netip.Prefix]model.Block{}, fail: map[string]int{}}
		c := &telling{claims: claims{shared, "n", func(string) *model.Pool { return p }}}
		s := newSingle(t, Options{Claims: c})
		var blocks []*model.Block
		for i := range 3 {
			cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)
			blocks = append(blocks, &model.Block{CIDR: cidr, Pool: "p", Node: "n"})
			shared.blocks[cidr] = *blocks[i]
		}
		hear := func(blocks ...*model.Block) {
			s.version++
			pools := []*model.Pool{p}
			s.SetState(datastore.State{Snapshot: &model.Snapshot{Pools: pools, Blocks: blocks}, Version: s.version, Fresh: true, Conditions: compile.Allocatable(pools)})
		}
		var given atomic.Int32
		c.during = func() {
			given.Add(1)
			hear(blocks[0]) // the one that is kept
		}
		hear(blocks...)
		time.Sleep(lookEvery + time.Second)
		if n := given.Load(); n != 1 {
			t.Errorf("%d blocks are given back, though all but the first were gone by then", n)
		}
	})
}

// TestRelease gives back a block by hand: not while an address of it is in use, and then also the last one, with addresses that
// cool down.
func TestRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := poolOf("p", "10.0.0.0/24", 26, model.UseWorkload)
		shared := &api{blocks: map[netip.Prefix]model.Block{}, fail: map[string]int{}}
		s := newSingle(t, Options{Claims: claims{shared, "n", func(string) *model.Pool { return p }}})
		s.declare(p)
		s.add("a")
		cidr := s.Counts().Blocks[0].CIDR
		for of, says := range map[netip.Prefix]string{cidr: "are in use (1)", netip.MustParsePrefix("10.9.0.0/26"): "is not a block of this node"} {
			if err := s.Release(t.Context(), of); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("releasing %s says %v", of, err)
			}
		}
		labtest.Must(t, s.Delete(t.Context(), &cni.Request{Network: "net", ContainerID: "a", Interface: "eth0"}))
		time.Sleep(time.Second) // of the bubble's clock: its connections end
		if c := s.Counts(); len(c.Blocks) != 1 || c.Blocks[0].Cooling != 1 {
			t.Fatalf("%+v", c)
		}
		labtest.Must(t, s.Release(t.Context(), cidr))
		if c := s.Counts(); len(c.Blocks) != 0 || len(shared.blocks) != 0 {
			t.Errorf("%+v, and in the API %v", c, shared.blocks)
		}
	})
}

// TestDeleteWaitsForNoConnections: those of one workload that has gone may be many, and another one is deleted meanwhile.
func TestDeleteWaitsForNoConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t, Options{}, poolOf("p", "10.0.0.0/24", 26, model.UseWorkload))
		a, b := s.add("a"), s.add("b")
		s.forgetFails = 10
		start := time.Now()
		for _, container := range []string{"a", "b"} {
			labtest.Must(t, s.Delete(t.Context(), &cni.Request{Network: "net", ContainerID: container, Interface: "eth0"}))
			synctest.Wait()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %s", took)
		}
		if u := s.Counts().Blocks[0]; u.Used != 2 {
			t.Errorf("%d addresses are in use, want %s and %s until their connections have ended", u.Used, a, b)
		}
		time.Sleep(time.Minute)
		if u := s.Counts().Blocks[0]; u.Used != 0 {
			t.Errorf("%d addresses are in use", u.Used)
		}
	})
}

// quick is a kernel that tells that a link has gone before the call that removes it returns.
type quick struct {
	*kernel
	gone func(links.Held)
}

func (k *quick) Leave(ctx context.Context, names []string) error {
	before := k.now()
	err := k.kernel.Leave(ctx, names)
	for _, name := range names {
		k.gone(before[name])
	}
	return err
}

// TestGoneByRequest: the log does not say of a link that no request has removed it, where one has.
func TestGoneByRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &quick{kernel: &kernel{links: map[string]links.Held{}}}
		s := newSingle(t, Options{Links: k}, poolOf("p", "10.0.0.0/24", 26, model.UseWorkload))
		k.gone = s.Gone
		var log strings.Builder
		s.opts.Log = slog.New(slog.NewTextHandler(&log, nil))
		s.add("a")
		labtest.Must(t, s.Delete(t.Context(), &cni.Request{Network: "net", ContainerID: "a", Interface: "eth0"}))
		synctest.Wait()
		if u := s.Counts(); u.Workloads != 0 || u.Blocks[0].Used != 0 || strings.Contains(log.String(), "without a request") {
			t.Errorf("%+v, and the log says %s", u, &log)
		}
	})
}

// TestGivenBackBeforeItsClaimIsHeardOf has a node hear late that it has claimed a block, which it has given back meanwhile: another node may
// have it by now.
func TestGivenBackBeforeItsClaimIsHeardOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := poolOf("p", "10.0.0.0/24", 32, model.UseWorkload)
		shared := &api{blocks: map[netip.Prefix]model.Block{}, fail: map[string]int{}}
		s := newSingle(t, Options{Claims: claims{shared, "n", func(string) *model.Pool { return p }}}, p)
		first, kept := s.add("a"), s.add("b")
		block := &model.Block{CIDR: netip.PrefixFrom(first, 32), Pool: "p", Node: "n"}
		labtest.Must(t, s.Delete(t.Context(), &cni.Request{Network: "net", ContainerID: "a", Interface: "eth0"}))
		time.Sleep(2 * time.Minute) // nothing is heard of the API
		if b := shared.now(); len(b) != 1 || !slices.Contains(slices.Collect(maps.Keys(b)), netip.PrefixFrom(kept, 32)) {
			t.Fatalf("the API has %v, want that of %s alone", b, kept)
		}
		hear := func(blocks ...*model.Block) {
			pools := []*model.Pool{p}
			s.SetState(datastore.State{Snapshot: &model.Snapshot{Pools: pools, Blocks: blocks}, Fresh: true, Conditions: compile.Allocatable(pools)})
			synctest.Wait()
		}
		hear(block)
		if next := s.add("c"); next == first {
			t.Errorf("%s is given out, of a block that was given back", next)
		}
		hear()
		if _, there := s.pending[block.CIDR]; there {
			t.Error("it is still borne in mind that the block was given back")
		}
	})
}
