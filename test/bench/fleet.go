package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// fleet are many agents in this process: real datastores, loops and reports, each with a connection of its own, and no
// kernel.
type fleet struct {
	traffic *traffic
	members []*member
	work    *errgroup.Group
}

// member is one of them; it is the driver of its loop.
type member struct {
	mu    sync.Mutex
	since time.Time // since when the pod's pool is translated or not
	state int8      // 1: it is, -1: it is not, 0: there is no plan yet
}

func (*member) Name() string { return "recorder" }

// Apply notes when the plan began to say something else of the pod's pool.
func (m *member) Apply(_ context.Context, p *compile.Plan) error {
	state := int8(-1)
	for _, s := range p.NAT.Sources {
		if s.Range.Contains(podAddr) {
			state = 1
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if state != m.state {
		m.state, m.since = state, time.Now()
	}
	return nil
}

func (*member) Observe(context.Context) (int, error) { return 0, nil }

// stands says since when the plan translates the pod's pool, or does not; zero: it is not so.
func (m *member) stands(translated bool) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == 1 == translated && m.state != 0 {
		return m.since
	}
	return time.Time{}
}

// leaseNamespace is where the agents' Leases are.
const leaseNamespace = "default"

// startFleet starts agents, all at once, on the first Nodes of a cluster. They end with the context.
func startFleet(ctx context.Context, cfg *rest.Config, size int, tmp string) (*fleet, error) {
	f := &fleet{traffic: &traffic{}}
	f.traffic.begin()
	f.work, ctx = errgroup.WithContext(ctx)
	for i := range size {
		store, err := kube.Open(kube.Options{Config: f.traffic.config(cfg), Node: nodeName(i), LeaseNamespace: leaseNamespace,
			StateDir: filepath.Join(tmp, nodeName(i)), Version: "bench", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return f, err
		}
		m := &member{}
		f.members = append(f.members, m)
		loop := reconcile.New(reconcile.Options{Drivers: []reconcile.Driver{m}, Log: slog.New(slog.DiscardHandler)})
		loop.SetLocal(model.Local{Name: nodeName(i), Interfaces: []netip.Prefix{netip.PrefixFrom(nodeAddr, 24)}})
		core := &agent.Core{Store: store, Loop: loop, Version: "bench", Log: slog.New(slog.DiscardHandler)}
		f.work.Go(func() error { loop.Run(ctx); return nil })
		f.work.Go(func() error { return errors.Join(core.Run(ctx), store.Close()) })
	}
	return f, nil
}

// fleetPatience bounds what all agents of a fleet are waited for.
const fleetPatience = 10 * time.Minute

// await waits until all agents translate the pod's pool, or do not, and returns how long after a moment each did.
func (f *fleet) await(ctx context.Context, translated bool, from time.Time) ([]time.Duration, error) {
	took := make([]time.Duration, len(f.members))
	missing := 0
	for deadline := time.Now().Add(fleetPatience); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		missing = 0
		for i, m := range f.members {
			at := m.stands(translated)
			if at.IsZero() {
				missing++
			}
			took[i] = max(0, at.Sub(from))
		}
		if missing == 0 {
			return took, nil
		}
	}
	return nil, errors.Join(ctx.Err(), fmt.Errorf("after %s %d of %d agents do not follow", fleetPatience, missing, len(f.members)))
}

// statuses follows what the agents say of their nodes.
type statuses struct {
	mu   sync.Mutex
	last map[string]said
}

// said is how far a node was, and since when.
type said struct {
	pools uint64 // resourceVersion
	since time.Time
	ready bool
}

// watchStatuses follows until the context ends.
func watchStatuses(ctx context.Context, api dynamic.Interface) *statuses {
	s := &statuses{last: map[string]said{}}
	go func() {
		for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			if w, err := api.Resource(kube.SallyportNodes).Watch(ctx, metav1.ListOptions{}); err == nil { // else the API server is about to come back
				s.follow(w)
			}
		}
	}()
	return s
}

// follow notes what a watch brings, until it ends.
func (s *statuses) follow(w watch.Interface) {
	defer w.Stop()
	for e := range w.ResultChan() {
		u, ok := e.Object.(*unstructured.Unstructured)
		if !ok || e.Type == watch.Deleted {
			continue
		}
		var o v1alpha1.SallyportNode
		if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &o) != nil {
			continue
		}
		pools, _ := strconv.ParseUint(o.Status.Observed.IPPools, 10, 64) // empty before any was seen
		s.mu.Lock()
		ready := meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.SallyportNodeConditionReady)
		if was, ok := s.last[o.Name]; !ok || was.pools != pools || was.ready != ready {
			s.last[o.Name] = said{pools, time.Now(), ready}
		}
		s.mu.Unlock()
	}
}

// await waits until that many nodes say that they are ready and hold a version of the pools, and returns how long
// after a moment each did.
func (s *statuses) await(ctx context.Context, n int, version string, from time.Time) ([]time.Duration, error) {
	want, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for deadline := time.Now().Add(fleetPatience); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		took = took[:0]
		s.mu.Lock()
		for _, v := range s.last {
			if v.ready && v.pools >= want {
				took = append(took, max(0, v.since.Sub(from)))
			}
		}
		s.mu.Unlock()
		if len(took) >= n {
			return took, nil
		}
	}
	return nil, errors.Join(ctx.Err(), fmt.Errorf("after %s %d of %d nodes say that they hold version %s", time.Since(from), len(took), n, version))
}
