package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// stormEnv is how long TestCNIStorm goes on, such as 1m. Without it, it is short.
const stormEnv = "SALLYPORT_E2E_STORM"

// podsEnv is how many pods TestCNICrowd starts at once, such as 1000. Without it, they are fewer.
const podsEnv = "SALLYPORT_E2E_PODS"

// holders are the pods by the addresses that a runtime believes them to have.
type holders struct {
	t  *testing.T
	mu sync.Mutex
	by map[netip.Addr]string
}

func (h *holders) take(pod string, addrs []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addrs {
		if other, held := h.by[a]; held {
			h.t.Errorf("%s and %s have the same address %s", pod, other, a)
		}
		h.by[a] = pod
	}
}

func (h *holders) drop(addrs []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addrs {
		delete(h.by, a)
	}
}

// TestCNICrowd starts many pods at once, and ends them at once: no address is given out twice.
func TestCNICrowd(t *testing.T) {
	t.Parallel()
	pods := 60
	if s := os.Getenv(podsEnv); s != "" {
		var err error
		pods, err = strconv.Atoi(s)
		labtest.Must(t, err)
	}
	n := newCNINode(t, cniPools("10.244.0.0/20", "fd00:244::/112"))
	n.start()
	list := n.list("1.1.0", nil)
	have := &holders{t: t, by: map[netip.Addr]string{}}
	all := make([]*cniPod, pods)
	for i := range all {
		all[i] = n.pod(fmt.Sprintf("pod-%d", i))
	}
	start := time.Now()
	each(all, func(p *cniPod) {
		_, addrs, err := n.add(list, p)
		if err != nil {
			t.Errorf("ADD of %s: %v", p.conf.ContainerID, err)
		}
		have.take(p.conf.ContainerID, addrs)
	})
	t.Logf("%d pods were added in %s", pods, time.Since(start))
	if len(have.by) != 2*pods || len(n.left()) != pods {
		t.Errorf("%d pods have %d addresses and %d devices", pods, len(have.by), len(n.left()))
	}
	for addr, name := range have.by {
		if i := slices.IndexFunc(all, func(p *cniPod) bool { return p.conf.ContainerID == name }); i%10 == 0 {
			n.reach(all[i], []netip.Addr{addr})
		}
	}
	start = time.Now()
	each(all, func(p *cniPod) {
		if err := n.del(list, p); err != nil {
			t.Errorf("DEL of %s: %v", p.conf.ContainerID, err)
		}
	})
	t.Logf("%d pods were deleted in %s", pods, time.Since(start))
	n.nothingLeft()
	agent := n.agent
	n.end(syscall.SIGTERM)
	t.Logf("the agent has used %s of the processor in user space and %s in the kernel", agent.ProcessState.UserTime(), agent.ProcessState.SystemTime())
}

// stormPool has as many addresses as the storm can hold at once, so that one that is lost is missed at the end.
const (
	stormPool = "10.244.0.0/26"
	stormPods = 64
)

// TestCNIStorm adds and deletes pods at random, while plugins and the agent are killed and devices are deleted by hand. No
// address belongs to two pods at any moment, and at the end none is lost and nothing is left over.
func TestCNIStorm(t *testing.T) {
	t.Parallel()
	d := 3 * time.Second
	if s := os.Getenv(stormEnv); s != "" {
		var err error
		d, err = time.ParseDuration(s)
		labtest.Must(t, err)
	}
	rnd := newRand(t)
	n := newCNINode(t, cniPools(stormPool, ""))
	n.start()
	s := &cniStorm{cniNode: n, list: n.list("1.1.0", nil), have: &holders{t: t, by: map[netip.Addr]string{}}, count: map[string]int{}}
	var lottery sync.Mutex
	kills := rand.New(rand.NewPCG(rnd.Uint64(), 0))
	n.started.Killed = func() time.Duration {
		lottery.Lock()
		defer lottery.Unlock()
		if kills.IntN(4) > 0 {
			return 0
		}
		return time.Duration(1 + kills.Int64N(int64(20*time.Millisecond)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for i := range 8 {
		own := rand.New(rand.NewPCG(rnd.Uint64(), 0))
		var pods []*stormPod
		for k := range stormPods / 8 {
			pods = append(pods, &stormPod{cniPod: n.pod(fmt.Sprintf("pod-%d-%d", i, k))})
		}
		group.Go(func() {
			for ctx.Err() == nil {
				s.step(own, pods[own.IntN(len(pods))])
			}
			for _, p := range pods {
				s.del(p)
			}
		})
	}
	missing := func() string {
		for _, what := range []string{"added", "add failed", "deleted", "deleted by hand", "agent killed"} {
			if s.counted(what, 0) == 0 {
				return what
			}
		}
		return ""
	}
	// A machine that has much else to do takes longer until all has happened.
	for start := time.Now(); time.Since(start) < d || missing() != "" && time.Since(start) < d+6*patience; {
		<-time.After(time.Duration(200+rnd.IntN(800)) * time.Millisecond)
		n.end(syscall.SIGKILL)
		n.launch()
		s.counted("agent killed", 1)
	}
	cancel()
	group.Wait()
	t.Logf("what happened: %v", s.count)
	if what := missing(); what != "" {
		t.Errorf("the storm had no %q: it tests less than it should", what)
	}
	n.started.Killed = nil
	s.aftermath()
}

type cniStorm struct {
	*cniNode

	list  *libcni.NetworkConfigList
	have  *holders
	mu    sync.Mutex
	count map[string]int
}

type stormPod struct {
	*cniPod

	addrs []netip.Addr // of which the runtime knows
	added bool
}

// counted adds to how often something has happened, and returns the sum.
func (s *cniStorm) counted(what string, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[what] += n
	return s.count[what]
}

// step does something to a pod.
func (s *cniStorm) step(rnd *rand.Rand, p *stormPod) {
	switch {
	case !p.added:
		_, addrs, err := s.add(s.list, p.cniPod)
		if err != nil {
			s.counted("add failed", 1)
			s.del(p) // as a runtime does
			return
		}
		p.added, p.addrs = true, addrs
		s.have.take(p.conf.ContainerID, addrs)
		s.counted("added", 1)
	case rnd.IntN(4) == 0:
		// The addresses are free from the moment when the kernel has deleted the device.
		s.have.drop(p.addrs)
		p.addrs = nil
		if link, err := s.routes.LinkByName(s.link(p.cniPod)); err == nil && s.routes.LinkDel(link) == nil {
			s.counted("deleted by hand", 1)
		}
	default:
		s.del(p)
	}
}

// del deletes a pod, as often as it takes.
func (s *cniStorm) del(p *stormPod) {
	s.have.drop(p.addrs) // it may be given out as soon as DEL begins
	p.added, p.addrs = false, nil
	for start := time.Now(); ; {
		err := s.cniNode.del(s.list, p.cniPod)
		if err == nil {
			s.counted("deleted", 1)
			return
		}
		s.counted("del failed", 1)
		if time.Since(start) > 3*patience {
			s.t.Errorf("DEL of %s: %v", p.conf.ContainerID, err)
			return
		}
	}
}

// aftermath makes sure that nothing is left, and that the pool can be used to its last address.
func (s *cniStorm) aftermath() {
	s.t.Helper()
	s.nothingLeft()
	labtest.Must(s.t, s.runtime.GCNetworkList(s.t.Context(), s.list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}))
	pods := make([]*cniPod, stormPods)
	for i := range pods {
		pods[i] = s.pod(fmt.Sprintf("after-%d", i))
	}
	each(pods, func(p *cniPod) {
		_, addrs, err := s.add(s.list, p)
		if err != nil {
			s.t.Errorf("one of %d pods of a pool with %d addresses: %v", stormPods, stormPods, err)
		}
		s.have.take(p.conf.ContainerID, addrs)
	})
	if len(s.have.by) != stormPods {
		s.t.Errorf("%d pods have the addresses %v", stormPods, slices.Collect(maps.Keys(s.have.by)))
	}
	each(pods, func(p *cniPod) {
		if err := s.cniNode.del(s.list, p); err != nil {
			s.t.Errorf("DEL of %s: %v", p.conf.ContainerID, err)
		}
	})
	s.nothingLeft()
}

// each does something to all pods at once.
func each(pods []*cniPod, do func(*cniPod)) {
	var group sync.WaitGroup
	for _, p := range pods {
		group.Go(func() { do(p) })
	}
	group.Wait()
}
