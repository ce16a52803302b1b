package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
	"github.com/sallyport/sallyport/internal/waiting"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// blocksOfNode is how many blocks each node has.
const blocksOfNode = 2

// blockPool is the pool of which they are.
var blockPool = netip.MustParsePrefix("10.0.0.0/12")

// blockAt is the i-th block of the pool.
func blockAt(i int) netip.Prefix {
	n := uint32(10)<<24 + uint32(i)<<(32-blockBits)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), blockBits)
}

// nodeAt is the address of the i-th Node, and tunnelAt that of its VXLAN device.
func nodeAt(i int) netip.Addr   { return netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}) }
func tunnelAt(i int) netip.Addr { return blockAt(blocksOfNode * i).Addr().Next() }

// measuredNode is the Node whose agent is measured.
const measuredNode = 1

// manyBlocks is a cluster of many nodes that have blocks, and one agent in it.
type manyBlocks struct {
	o          options
	scope      *scope
	cluster    *cluster.Cluster
	api        dynamic.Interface
	kubeconfig string
	pool       string // UID of the pool
	what       string // begins what is said of it
}

// measureBlocks measures an agent that has routes to the blocks of many nodes, all of them by VXLAN: how long it takes to
// have all, how soon it follows a change, what memory it needs.
func measureBlocks(ctx context.Context, o options, tmp string) (out []result, err error) {
	err = within(ctx, tmp, func(s *scope) error {
		m := &manyBlocks{o: o, scope: s, cluster: cluster.New(s, cluster.Options{CRDs: true}), what: fmt.Sprintf("%d IPBlocks of %d Nodes", blocksOfNode*o.nodes, o.nodes)}
		if m.api, err = newClient(m.cluster.Config()); err != nil {
			return err
		}
		m.kubeconfig = m.cluster.Kubeconfig(s, "admin", "system:masters")
		if err := m.populate(s.ctx); err != nil {
			return err
		}
		out, err = m.measure(s.ctx)
		return err
	})
	return out, err
}

// populate makes the pool, which the controller has found allocatable, the Nodes, and their blocks.
func (m *manyBlocks) populate(ctx context.Context) error {
	p := &apiv3.IPPool{TypeMeta: metav1.TypeMeta{APIVersion: apiv3.GroupVersion().String(), Kind: apiv3.KindIPPool}, ObjectMeta: metav1.ObjectMeta{Name: "pods"}}
	p.Spec.CIDR, p.Spec.VXLANMode, p.Spec.NATOutgoing = blockPool.String(), apiv3.VXLANModeAlways, true
	if err := create(ctx, m.api.Resource(kube.IPPools), p); err != nil {
		return err
	}
	made, err := m.api.Resource(kube.IPPools).Get(ctx, "pods", metav1.GetOptions{})
	if err != nil {
		return err
	}
	m.pool = string(made.GetUID())
	p.ResourceVersion = made.GetResourceVersion()
	p.Status = &apiv3.IPPoolStatus{Conditions: []metav1.Condition{{Type: apiv3.IPPoolConditionAllocatable, Status: metav1.ConditionTrue, Reason: "OK", ObservedGeneration: made.GetGeneration(), LastTransitionTime: metav1.Now()}}}
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(p)
	if err == nil {
		_, err = m.api.Resource(kube.IPPools).UpdateStatus(ctx, &unstructured.Unstructured{Object: status}, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("judging pool pods: %w", err)
	}
	err = createAll(ctx, m.api.Resource(kube.Nodes), m.o.nodes, func(i int) any {
		n := node(i)
		n.Annotations = map[string]string{datastore.AnnotationNetworkAddresses: nodeAt(i).String(), datastore.AnnotationTunnelAddresses: tunnelAt(i).String()}
		return n
	})
	if err != nil {
		return err
	}
	return createAll(ctx, m.api.Resource(kube.IPBlocks), blocksOfNode*m.o.nodes, func(i int) any { return m.block(i, i/blocksOfNode) })
}

// block is the i-th block, of a Node, as its agent claims it.
func (m *manyBlocks) block(i, node int) *v1alpha1.IPBlock {
	cidr := blockAt(i)
	return &v1alpha1.IPBlock{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.KindIPBlock}, ObjectMeta: metav1.ObjectMeta{Name: ipam.Name(cidr), Finalizers: []string{v1alpha1.BlockFinalizer}},
		Spec: v1alpha1.IPBlockSpec{CIDR: cidr.String(), Node: nodeName(node), Pool: "pods", PoolUID: m.pool}}
}

// mostStarts is how many times an agent is started from nothing at most: each takes some seconds.
const mostStarts = 3

func (m *manyBlocks) measure(ctx context.Context) ([]result, error) {
	var cold, warm, changes, gone []time.Duration
	var resident, peak, changed []float64
	var cpu time.Duration
	rounds := min(m.o.rounds, mostStarts)
	for round := range rounds {
		err := m.withNode(func(h *lab.Host, state string) error {
			for _, took := range []*[]time.Duration{&cold, &warm} {
				err := m.withAgent(ctx, h, state, func(a *agentProcess, d time.Duration) error {
					*took = append(*took, d)
					if took == &cold || round < rounds-1 {
						return nil
					}
					time.Sleep(m.o.settle)
					if err := look(a, &resident, &peak); err != nil {
						return err
					}
					before, err := a.cpu()
					if err == nil {
						changes, gone, err = m.changes(ctx, h)
					}
					after, failed := a.cpu()
					cpu = after - before
					return errors.Join(err, failed, look(a, &changed, nil))
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	routes := fmt.Sprintf("%d routes and %d tunnel entries", blocksOfNode*(m.o.nodes-1), m.o.nodes-1)
	return []result{
		milliseconds(m.what+": agent started to "+routes+", nothing there before", cold),
		milliseconds(m.what+": agent restarted on these and what it has saved", warm),
		milliseconds(m.what+": one claimed, from the API's answer to the route", changes),
		milliseconds(m.what+": one given back, from the API's answer to the route gone", gone),
		one(m.what+": the agent's CPU for one of these changes", "ms", float64(cpu)/float64(time.Millisecond)/float64(2*m.o.changes)),
		summary(m.what+": resident after a restart", "MiB", resident),
		summary(m.what+": at most during a restart", "MiB", peak),
		summary(m.what+": resident right after the changes", "MiB", changed),
	}, nil
}

// withNode makes a node that is linked to the control plane, with a directory for its agent.
func (m *manyBlocks) withNode(do func(h *lab.Host, state string) error) error {
	h, err := lab.NewHost("node")
	if err != nil {
		return err
	}
	peer, err := lab.NewHost("peer")
	if err != nil {
		return errors.Join(err, h.Close())
	}
	err = lab.Link(lab.Port{Host: h, Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(nodeAt(measuredNode), 16)}}, lab.Port{Host: peer, Name: "eth0"})
	if err == nil {
		m.cluster.Connect(m.scope, h)
		err = do(h, filepath.Join(m.scope.TempDir(), "state"))
	}
	return errors.Join(err, peer.Close(), h.Close())
}

// withAgent runs an agent until it has all routes, and says how long that took.
func (m *manyBlocks) withAgent(ctx context.Context, h *lab.Host, state string, do func(*agentProcess, time.Duration) error) error {
	c, err := rtnetlink.Dial(h.FD())
	if err != nil {
		return err
	}
	defer c.Close()
	begin := time.Now()
	a, err := runAgent(ctx, m.o, &network{node: h}, state, "--datastore", "kubernetes", "--kubeconfig", m.kubeconfig, "--lease-namespace", "default",
		"--node-name", nodeName(measuredNode), "--metrics-address", probes, "--network", "--cni-socket", filepath.Join(filepath.Dir(state), "cni.sock"))
	if err != nil {
		return err
	}
	want := blocksOfNode * (m.o.nodes - 1)
	if err = a.probed(ctx); err == nil {
		err = m.await(ctx, c, a, want)
	}
	if err == nil {
		err = do(a, time.Since(begin))
	}
	return errors.Join(err, a.stop())
}

// await waits until the kernel has that many routes to blocks of others.
func (m *manyBlocks) await(ctx context.Context, c *rtnetlink.Conn, a *agentProcess, want int) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		n := 0
		var b rtnetlink.Batch
		b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: everywhere, Protocol: rtnetlink.RouteProtocol}.Encode())
		err := c.Dump(ctx, "listing routes", &b, func(msg nfnetlink.Message) error {
			r, err := rtnetlink.ParseRoute(msg)
			if r.Via.IsValid() {
				n++
			}
			return err
		})
		if n >= want || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("the kernel has %d routes of %d after a minute", n, want), a.late())
		}
	}
}

// giveBack has a block go as its agent does it: all see that it is about to go, and then it goes.
func giveBack(ctx context.Context, in dynamic.ResourceInterface, name string) error {
	if err := in.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	_, err := in.Patch(ctx, name, types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{})
	return err
}

// changes has another node claim a block and give it back, again and again, and returns how long after the API's answer the kernel
// had the route, and had it no more; 0 where it was so by then.
func (m *manyBlocks) changes(ctx context.Context, h *lab.Host) (claimed, back []time.Duration, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	i := blocksOfNode * m.o.nodes
	once, err := followRoute(ctx, h, blockAt(i))
	if err != nil {
		return nil, nil, err
	}
	in := m.api.Resource(kube.IPBlocks)
	for range m.o.changes {
		d, err := once(unix.RTM_NEWROUTE, func() error { return create(ctx, in, m.block(i, 0)) })
		if err != nil {
			return nil, nil, err
		}
		claimed = append(claimed, d)
		d, err = once(unix.RTM_DELROUTE, func() error { return giveBack(ctx, in, ipam.Name(blockAt(i))) })
		if err != nil {
			return nil, nil, err
		}
		back = append(back, d)
	}
	return claimed, back, nil
}

// followRoute follows a route in the kernel of a host until the context ends. What it returns does something, and says how long after
// that the kernel told of the route coming or going; 0 where it had done so by then.
func followRoute(ctx context.Context, h *lab.Host, to netip.Prefix) (once func(kind uint16, do func() error) (time.Duration, error), err error) {
	type event struct {
		kind uint16
		at   time.Time
	}
	seen, ended, stands := make(chan event, 64), make(chan error, 1), make(chan struct{}, 1)
	go func() {
		ended <- rtnetlink.Subscribe(ctx, h.FD(), []uint32{unix.RTNLGRP_IPV4_ROUTE}, rtnetlink.Unheard{}, func() { waiting.Signal(stands) }, func(msg nfnetlink.Message) {
			if r, err := rtnetlink.ParseRoute(msg); err == nil && r.To == to {
				seen <- event{msg.Kind, time.Now()}
			}
		})
	}()
	select {
	case <-stands: // the subscription
	case err := <-ended:
		return nil, err
	}
	return func(kind uint16, do func() error) (time.Duration, error) {
		time.Sleep(20 * time.Millisecond) // idle, as most nodes are when a route changes
		if err := do(); err != nil {
			return 0, err
		}
		done := time.Now()
		for {
			select {
			case e := <-seen:
				if e.kind == kind {
					return max(0, e.at.Sub(done)), nil
				}
			case err := <-ended:
				return 0, err
			case <-time.After(10 * time.Second):
				return 0, fmt.Errorf("the kernel did not follow a change of the route to %s within 10 s", to)
			}
		}
	}, nil
}
