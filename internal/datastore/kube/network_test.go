package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/model"
)

// network is what is kept of objects where Sallyport is the pod network; it is never changed.
var network = keeping{network: true}

// openNetwork opens the store of a node whose pod network Sallyport is. It asks no server for anything.
func openNetwork(t *testing.T, state string) *Store {
	t.Helper()
	s, err := Open(Options{Config: &rest.Config{Host: "https://127.0.0.1:1"}, Node: "n", StateDir: state, Version: "1.0.0", Log: slog.New(slog.DiscardHandler), Network: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func blockEntry(cidr, node string, version int) *entry {
	p := netip.MustParsePrefix(cidr)
	return slim(datastore.KindIPBlock, &v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: ipam.Name(p), UID: "u", ResourceVersion: fmt.Sprint(version), Generation: 1},
		Spec: v1alpha1.IPBlockSpec{CIDR: cidr, Node: node, Pool: "p", PoolUID: "v"}}, network)
}

func poolEntry(t *testing.T, version, generation int, status string) *entry {
	t.Helper()
	o := object(t, fmt.Sprintf(`{"metadata":{"name":"p","uid":"v","resourceVersion":"%d"},"spec":{"cidr":"10.0.0.0/8"},"status":%s}`, version, status))
	o.SetGeneration(int64(generation))
	return slim(datastore.KindIPPool, o, network)
}

// heardOf has a store take all of a kind.
func heardOf(s *Store, kind string, entries ...*entry) {
	news := map[string]*entry{}
	for _, e := range entries {
		news[e.Name] = e
	}
	if kind == datastore.KindNode {
		s.apply(s.self.absorb(news, true))
		return
	}
	s.apply(s.kindOf(kind).absorb(news, true))
}

// hearAll has a store take something of each kind, of which blocks are those given.
func hearAll(t *testing.T, s *Store, blocks ...*entry) {
	t.Helper()
	heardOf(s, datastore.KindIPPool, poolEntry(t, 5, 1, "{}"))
	heardOf(s, datastore.KindNATConfiguration)
	heardOf(s, datastore.KindIPReservation, slim(datastore.KindIPReservation, object(t, `{"metadata":{"name":"r","resourceVersion":"6"},"spec":{"reservedCIDRs":["10.0.0.0/30"]}}`), network))
	heardOf(s, datastore.KindNodeNetworkConfiguration, slim(datastore.KindNodeNetworkConfiguration, object(t, `{"metadata":{"name":"c","resourceVersion":"7"},"spec":{"mtu":1500}}`), network))
	heardOf(s, datastore.KindNode, slim(datastore.KindNode, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: "8"}}, network))
	heardOf(s, datastore.KindBGPPeer, slim(datastore.KindBGPPeer, object(t, `{"metadata":{"name":"p","resourceVersion":"8"},"spec":{"peerIP":"192.0.2.1","asNumber":65001}}`), network))
	heardOf(s, datastore.KindBGPConfiguration, slim(datastore.KindBGPConfiguration, object(t, `{"metadata":{"name":"default","resourceVersion":"8"},"spec":{"asNumber":65000}}`), network))
	heardOf(s, datastore.KindBGPFilter, slim(datastore.KindBGPFilter, object(t, `{"metadata":{"name":"f","resourceVersion":"8"},"spec":{}}`), network))
	heardOf(s, datastore.KindIPBlock, blocks...)
}

// TestNetworkSnapshot reads what the pod network needs, and keeps it.
func TestNetworkSnapshot(t *testing.T) {
	t.Parallel()
	s := openNetwork(t, t.TempDir())
	hearAll(t, s, blockEntry("10.200.0.0/26", "a", 9), blockEntry("10.3.0.0/26", "n", 10), blockEntry("fd00::/122", "b", 11))
	check := func(when string, s *Store, want string) {
		t.Helper()
		var got []string
		for _, b := range s.snapshot.Blocks {
			got = append(got, b.CIDR.String()+" "+b.Node)
		}
		if strings.Join(got, ", ") != want || len(s.snapshot.Reservations) != 1 || len(s.snapshot.NodeNetworkConfigurations) != 1 || *s.snapshot.NodeNetworkConfigurations[0].MTU != 1500 ||
			len(s.snapshot.BGPPeers) != 1 || s.snapshot.BGPPeers[0].ASN != 65001 || len(s.snapshot.BGPConfigurations) != 1 || len(s.snapshot.BGPFilters) != 1 {
			t.Errorf("%s: blocks %q, want %q; %+v", when, got, want, s.snapshot)
		}
	}
	check("at first", s, "10.3.0.0/26 n, 10.200.0.0/26 a, fd00::/122 b")
	k, was := s.kindOf(datastore.KindIPBlock), s.snapshot
	s.apply(k.absorb(map[string]*entry{"4-10-100-0-0-26": blockEntry("10.100.0.0/26", "c", 12), "4-10-3-0-0-26": nil}, false))
	s.apply(k.confirmAll())
	check("one came, and one went", s, "10.100.0.0/26 c, 10.200.0.0/26 a, fd00::/122 b")
	if &was.Pools[0] != &s.snapshot.Pools[0] || &was.Nodes[0] != &s.snapshot.Nodes[0] || &was.Reservations[0] != &s.snapshot.Reservations[0] || &was.BGPPeers[0] != &s.snapshot.BGPPeers[0] ||
		&was.BGPConfigurations[0] != &s.snapshot.BGPConfigurations[0] || &was.BGPFilters[0] != &s.snapshot.BGPFilters[0] {
		t.Error("a change of a block makes all kinds again")
	}
	was = s.snapshot
	heardOf(s, datastore.KindIPPool, poolEntry(t, 13, 1, "{}"), slim(datastore.KindIPPool, object(t, `{"metadata":{"name":"q","resourceVersion":"14"},"spec":{"cidr":"fd00::/48"}}`), network))
	if &was.Blocks[0] != &s.snapshot.Blocks[0] || len(s.snapshot.Pools) != 2 {
		t.Error("a change of a pool makes the blocks again")
	}
}

// TestBlocksGoAtOnce: a block that was guarded and is deleted goes without a question about its definition, and no other does.
func TestBlocksGoAtOnce(t *testing.T) {
	t.Parallel()
	guarded := func(cidr string, version int) *entry {
		e := blockEntry(cidr, "a", version)
		e.guarded = true
		return e
	}
	const cidr = "10.3.0.0/26"
	for _, tc := range []struct {
		name   string
		events func(w *watch) error
		want   string // the blocks in force, and "?" where it is asked about the definition
	}{
		{"deleted", func(w *watch) error { return w.Delete(blockEntry(cidr, "a", 21)) }, "10.2.0.0/26"},
		{"the other one, which is not guarded", func(w *watch) error { return w.Delete(blockEntry("10.2.0.0/26", "a", 21)) }, "10.2.0.0/26 10.3.0.0/26 ?"},
		{"not guarded any more before", func(w *watch) error {
			return errors.Join(w.Update(blockEntry(cidr, "a", 21)), w.Delete(blockEntry(cidr, "a", 22)))
		}, "10.2.0.0/26 10.3.0.0/26 ?"},
		{"not in a new list", func(w *watch) error { return w.Replace([]any{blockEntry("10.2.0.0/26", "a", 10)}, "21") }, "10.2.0.0/26 10.3.0.0/26 ?"},
		{"deleted and made again", func(w *watch) error {
			return errors.Join(w.Delete(guarded(cidr, 21)), w.Add(guarded(cidr, 22)))
		}, "10.2.0.0/26 10.3.0.0/26"},
		{"made again without a guard, and deleted", func(w *watch) error {
			return errors.Join(w.Delete(guarded(cidr, 21)), w.Add(blockEntry(cidr, "a", 22)), w.Delete(blockEntry(cidr, "a", 23)))
		}, "10.2.0.0/26 10.3.0.0/26 ?"},
	} {
		s := openNetwork(t, t.TempDir())
		hearAll(t, s)
		k, w := s.kindOf(datastore.KindIPBlock), newWatch(func() {})
		w.live, w.turn = map[string]*entry{}, func(o any) (any, error) { return o, nil }
		k.watch = w
		take := func() { s.apply(k.take()) }
		err := w.Replace([]any{blockEntry("10.2.0.0/26", "a", 10), guarded(cidr, 11)}, "20")
		take()
		if err = errors.Join(err, tc.events(w)); err != nil {
			t.Fatal(err)
		}
		take()
		var got []string
		for _, b := range s.snapshot.Blocks {
			got = append(got, b.CIDR.String())
		}
		if len(k.gone) > 0 {
			got = append(got, "?")
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %v, want %s", tc.name, got, tc.want)
		}
	}
	b := &v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{v1alpha1.BlockFinalizer}}}
	if !slim(datastore.KindIPBlock, b, network).guarded {
		t.Error("a block with the finalizer is not guarded")
	}
}

// TestBlocksAreKept opens a store again that has saved blocks.
func TestBlocksAreKept(t *testing.T) {
	t.Parallel()
	e := blockEntry("10.3.0.0/26", "n", 10)
	back, err := decode(e.key(), e.json)
	if err != nil || back.fault != nil || !same(back.value, e.value) || back.UID != "u" {
		t.Errorf("kept as %s, read as %+v, %v", e.json, back, err)
	}
}

// TestPoolsAreJudgedByTheController: a pool gives out addresses where the controller has said so of its generation, and not
// where an agent on its own finds nothing against it.
func TestPoolsAreJudgedByTheController(t *testing.T) {
	t.Parallel()
	s := openNetwork(t, t.TempDir())
	hearAll(t, s)
	pool := s.kindOf(datastore.KindIPPool)
	for i, test := range []struct {
		generation      int
		status          string
		allocatable     bool
		reason, message string
	}{
		{1, "{}", false, "Pending", `has not said yet whether the pool is allocatable; "sallyport controller --network" does that`},
		{1, `{"conditions":[{"type":"Allocatable","status":"True","observedGeneration":1,"reason":"OK"}]}`, true, "OK", ""},
		{2, `{"conditions":[{"type":"Allocatable","status":"True","observedGeneration":1,"reason":"OK"}]}`, false, "Pending", "judged generation 1 of the pool, which is at 2"},
		{2, `{"conditions":[{"type":"Allocatable","status":"True","observedGeneration":2,"reason":"OK"}]}`, true, "OK", ""},
		{2, `{"conditions":[{"type":"Allocatable","status":"False","observedGeneration":2,"reason":"CIDROverlap","message":"overlaps blocks"}]}`, false, "CIDROverlap", "overlaps blocks"},
	} {
		version := s.number
		e := poolEntry(t, 20+i, test.generation, test.status)
		s.apply(pool.absorb(map[string]*entry{"p": e}, false))
		got := s.conditions["p"]
		if got.Allocatable != test.allocatable || got.Reason != test.reason || !strings.Contains(got.Message, test.message) {
			t.Errorf("generation %d, %s: %+v", test.generation, test.status, got)
		}
		if i > 0 && s.number == version {
			t.Errorf("generation %d, %s: nothing new is published", test.generation, test.status)
		}
		back, err := decode(e.key(), e.json)
		if err != nil || !sameJudgement(e, back) {
			t.Errorf("%s is read from disk as %+v, want %+v", test.status, back.judged, e.judged)
		}
	}
}

// TestAnnouncedNodes: annotations of a Node that cannot be used are ignored, and said.
func TestAnnouncedNodes(t *testing.T) {
	t.Parallel()
	node := func(version, addresses, tunnels string) *entry {
		return slim(datastore.KindNode, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m", ResourceVersion: version, Annotations: map[string]string{
			datastore.AnnotationNetworkAddresses: addresses, datastore.AnnotationTunnelAddresses: tunnels, "other": "x"}}}, network)
	}
	v := newView(datastore.KindNode)
	v.absorb(map[string]*entry{"m": node("1", "192.0.2.1", "10.0.0.1,fd00::1")}, true)
	if n := v.force["m"].value.(model.Node); len(n.NetworkAddresses) != 1 || len(n.Tunnels) != 2 || len(v.bad) != 0 || strings.Contains(string(v.force["m"].json), "other") {
		t.Errorf("%+v, %v, %s", n, v.bad, v.force["m"].json)
	}
	v.absorb(map[string]*entry{"m": node("2", "192.0.2.1, x", "10.0.0.1")}, false)
	exceptions, warnings := v.exceptions()
	if n := v.force["m"].value.(model.Node); len(n.NetworkAddresses) != 0 || len(n.Tunnels) != 1 {
		t.Errorf("%+v", n)
	}
	if len(exceptions) != 1 || len(warnings) != 1 || warnings[0].Field != "metadata.annotations[sallyport.dev/network-addresses]" || !strings.Contains(warnings[0].Message, "it is ignored") {
		t.Errorf("%+v, %+v", exceptions, warnings)
	}
	v.absorb(map[string]*entry{"m": node("3", "192.0.2.1", "")}, false)
	if exceptions, _ := v.exceptions(); len(exceptions) != 0 {
		t.Errorf("after it was made right: %+v", exceptions)
	}
	if n := slim(datastore.KindNode, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m", Annotations: map[string]string{datastore.AnnotationNetworkAddresses: "x"}}}, keeping{}); n.fault != nil {
		t.Errorf("where Sallyport is not the pod network: %v", n.fault)
	}
}

// TestAnnotationsAboutBGP: one that cannot be used leaves the Node as it is without it.
func TestAnnotationsAboutBGP(t *testing.T) {
	t.Parallel()
	node := func(asn, cluster string) *entry {
		return slim(datastore.KindNode, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m", Annotations: map[string]string{
			datastore.AnnotationNetworkAddresses: "192.0.2.1", model.AnnotationASNumber: asn, model.AnnotationClusterID: cluster}}}, network)
	}
	for _, test := range []struct {
		asn, cluster string
		want         uint32
		fault        string
	}{
		{"65010", "244.0.0.1", 65010, ""},
		{"", "", 0, ""},
		{"0", "244.0.0.1", 0, "metadata.annotations[projectcalico.org/ASNumber]"},
		{"65010", "reflector", 65010, "metadata.annotations[projectcalico.org/RouteReflectorClusterID]"},
	} {
		e := node(test.asn, test.cluster)
		n, ok := e.value.(model.Node)
		if !ok || n.ASN != test.want || n.ClusterID.IsValid() != (test.cluster == "244.0.0.1") || len(n.NetworkAddresses) != 1 {
			t.Errorf("%q, %q: %+v", test.asn, test.cluster, e.value)
		}
		if (e.fault == nil) != (test.fault == "") || e.fault != nil && !strings.HasPrefix(e.fault.Error(), test.fault) {
			t.Errorf("%q, %q: %v, want one about %q", test.asn, test.cluster, e.fault, test.fault)
		}
		if back, err := decode(e.key(), e.json); err != nil || !same(back.value, e.value) {
			t.Errorf("kept as %s, read as %+v, %v", e.json, back, err)
		}
	}
}

// TestLabelsOfOthers: the labels of other nodes are kept where a BGPPeer selects peers by them, and not else.
func TestLabelsOfOthers(t *testing.T) {
	t.Parallel()
	s := openNetwork(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		s.othersWatch.end()
	}()
	hearAll(t, s)
	watched := func(want bool) *watch {
		t.Helper()
		if err := s.watchOthers(ctx); err != nil || s.othersWatch == nil || s.othersLabels != want {
			t.Fatalf("watched with labels: %t, want %t; %v", s.othersLabels, want, err)
		}
		turned, err := s.othersWatch.turn(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m", Labels: map[string]string{"a": "b"}}})
		if err != nil || strings.Contains(string(turned.(*entry).json), `"labels"`) != want {
			t.Errorf("kept: %s, %v", turned.(*entry).json, err)
		}
		return s.othersWatch
	}
	first := watched(false)
	if watched(false) != first {
		t.Error("the watch is begun again for nothing")
	}
	heardOf(s, datastore.KindBGPPeer, slim(datastore.KindBGPPeer, object(t, `{"metadata":{"name":"p","resourceVersion":"9"},"spec":{"peerSelector":"has(a)"}}`), network))
	second := watched(true)
	select {
	case <-first.done:
	default:
		t.Error("the first watch goes on")
	}
	heardOf(s, datastore.KindBGPPeer, slim(datastore.KindBGPPeer, object(t, `{"metadata":{"name":"p","resourceVersion":"10"},"spec":{"peerIP":"192.0.2.1","asNumber":1}}`), network))
	if watched(false) == second {
		t.Error("the watch with labels goes on")
	}
}

// TestNetworkIsReadWhereItIsWanted: NAT alone asks for no definition that it does not need.
func TestNetworkIsReadWhereItIsWanted(t *testing.T) {
	t.Parallel()
	if s := openStore(t); len(s.kinds) != 2 || s.kindOf(datastore.KindIPBlock) != nil {
		t.Errorf("NAT alone reads %d kinds", len(s.kinds))
	}
	if s := openNetwork(t, t.TempDir()); len(s.kinds) != 8 {
		t.Errorf("the pod network reads %d kinds", len(s.kinds))
	}
}

// TestManyBlocks: of 10,000 blocks each one is small, and a change of one makes none of the others again. Not parallel: it counts
// what the process allocates.
func TestManyBlocks(t *testing.T) {
	const many = 10_000
	cidr := func(i int) string { return fmt.Sprintf("10.%d.%d.%d/26", i>>10, i>>2&0xff, i&3<<6) }
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	s := openNetwork(t, t.TempDir())
	before := heap()
	blocks := make([]*entry, many)
	for i := range blocks {
		blocks[i] = blockEntry(cidr(i), fmt.Sprintf("node-%d", i/2), i+1)
	}
	hearAll(t, s, blocks...)
	if each := (heap() - before) / many; each > 1500 || len(s.snapshot.Blocks) != many {
		t.Errorf("each of %d blocks takes %d bytes", len(s.snapshot.Blocks), each)
	} else {
		t.Logf("each block takes %d bytes", each)
	}
	k, version := s.kindOf(datastore.KindIPBlock), many
	change := func() {
		version++
		e := blockEntry(cidr(version%many), fmt.Sprintf("node-%d", version), version)
		s.apply(k.absorb(map[string]*entry{e.Name: e}, false))
	}
	change()
	if n := testing.AllocsPerRun(20, change); n > 100 {
		t.Errorf("a change of one block of %d makes %g allocations", many, n)
	} else {
		t.Logf("a change of one block makes %g allocations", n)
	}
}
