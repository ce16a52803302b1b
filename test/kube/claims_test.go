package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// networkStore is the datastore of an agent of the pod network, in this process.
type networkStore struct {
	*kube.Store
	mu   sync.Mutex
	last datastore.State
	// after is called with each request that was answered, where it is set; its error takes the place of the answer.
	after atomic.Pointer[func(*http.Request) error]
}

type afterwards struct {
	next http.RoundTripper
	s    *networkStore
}

func (a *afterwards) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := a.next.RoundTrip(req)
	if f := a.s.after.Load(); f != nil && err == nil {
		if err := (*f)(req); err != nil {
			return nil, errors.Join(err, resp.Body.Close())
		}
	}
	return resp, err
}

// counts counts the requests to a path and below from now on, until what it returns says how many there were.
func (s *networkStore) counts(path string) (stop func() int32) {
	var n atomic.Int32
	count := func(req *http.Request) error {
		if strings.HasPrefix(req.URL.Path, path) {
			n.Add(1)
		}
		return nil
	}
	s.after.Store(&count)
	return func() int32 { s.after.Store(nil); return n.Load() }
}

// asAccount is how a pod of an account of the chart's on a node reaches the API server.
func asAccount(t *testing.T, c *cluster.Cluster, account, node, pod string) *rest.Config {
	t.Helper()
	file := c.TokenKubeconfig(t, cluster.PodIdentity{Namespace: chart.Namespace, ServiceAccount: account, Pod: pod, Node: node})
	cfg, err := kube.AgentConfig(file)
	labtest.Must(t, err)
	cfg.Dial = c.Config().Dial // from outside of the control plane's namespace
	return cfg
}

// openNetwork runs the datastore of a node's agent until the test ends, with the rights that the chart gives agents.
func openNetwork(t *testing.T, c *cluster.Cluster, node, boot string) *networkStore {
	t.Helper()
	return openMachine(t, c, node, boot, "", nil)
}

// openMachine does so on a machine that is known, which booted at a time.
func openMachine(t *testing.T, c *cluster.Cluster, node, boot, machine string, booted func() time.Time) *networkStore {
	t.Helper()
	s := &networkStore{}
	cfg := asAccount(t, c, agentAccount, node, strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))+"-"+node+"-"+boot)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &afterwards{next, s} })
	var err error
	s.Store, err = kube.Open(kube.Options{Config: cfg, Node: node, LeaseNamespace: chart.Namespace, StateDir: t.TempDir(), Version: "0.1.0-dev",
		Log: slog.New(slog.DiscardHandler), Network: true, BootID: boot, Machine: machine, Booted: booted})
	labtest.Must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, func(st datastore.State) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.last = st
		})
	}()
	t.Cleanup(func() {
		stop()
		labtest.Must(t, errors.Join(<-ended, s.Close()))
	})
	return s
}

// state is what was published last.
func (s *networkStore) state() datastore.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// owner is the node that owns a block, as the last Snapshot says; empty: none does.
func (s *networkStore) owner(cidr netip.Prefix) string {
	if st := s.state(); st.Snapshot != nil {
		for _, b := range st.Snapshot.Blocks {
			if b.CIDR == cidr && !b.Terminating {
				return b.Node
			}
		}
	}
	return ""
}

// ready waits until a store has all, and may claim.
func (s *networkStore) ready(t *testing.T) {
	t.Helper()
	awaiting(t, "the store has read everything", func() (bool, string) {
		st := s.state()
		return st.Fresh && s.Alone() == nil, fmt.Sprintf("%+v, %v", st, s.Alone())
	})
}

// claims are the parts that the scenes of TestClaims share.
type claims struct {
	c      *cluster.Cluster
	a, b   *networkStore // of the nodes n1 and n2
	blocks []netip.Prefix
	whole  *testing.T // for what outlives a scene
}

func (v *claims) kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := v.c.Kubectl(t, stdin, args...)
	labtest.Must(t, err)
	return out
}

// servingPool is a pool as it is once the controller has taken it up.
func servingPool(name, cidr string) string {
	return "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: " + name + ", finalizers: [sallyport.dev/blocks]}\nspec: {cidr: " + cidr + "}\n"
}

// TestClaims has the datastores of two nodes claim blocks from a real API server.
func TestClaims(t *testing.T) {
	t.Parallel()
	v := &claims{whole: t, c: cluster.New(t, cluster.Options{Audit: true})}
	installChart(t, v.c, chart.Render(t, "--set", "network.enabled=true"))
	v.kubectl(t, "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n2}\n", "apply", "-f", "-")
	v.kubectl(t, servingPool("p", "10.0.0.0/16"), "apply", "-f", "-")
	for i := range 16 {
		v.blocks = append(v.blocks, netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/26", i)))
	}
	v.a, v.b = openNetwork(t, v.c, "n1", "boot-1"), openNetwork(t, v.c, "n2", "boot-2")
	v.a.ready(t)
	v.b.ready(t)
	for _, scene := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"race", v.race}, {"answer lost", v.lost}, {"refused", v.refused}, {"pool deleted meanwhile", v.deleted}, {"given back", v.givenBack},
		{"taken away", v.takenAway}, {"in use", v.used}, {"pods", v.pods}, {"announced", v.announced},
		{"kept", v.kept}, {"pool deleted in use", v.terminating}, {"overlapping blocks", v.overlapping}, {"network unavailable", v.unavailable}, {"node absent", v.absent}, {"two of one name", v.two}, {"rebooted", v.rebooted},
	} {
		if !t.Run(scene.name, scene.run) {
			return
		}
	}
	for _, account := range []string{agentAccount, controllerAccount} {
		for _, e := range requestsOf(t, v.c, account) {
			if e.Code == http.StatusForbidden {
				t.Errorf("%s was refused: %s %s", account, e.Verb, e.URI)
			}
		}
	}
}

// race has both nodes claim all blocks at once: each block becomes one node's, who knows it at once.
func (v *claims) race(t *testing.T) {
	var won [2]atomic.Int64
	var group errgroup.Group
	for _, cidr := range v.blocks {
		for i, s := range []*networkStore{v.a, v.b} {
			group.Go(func() error {
				err := s.Claim(t.Context(), cidr, "p")
				var taken *datastore.TakenError
				switch {
				case errors.As(err, &taken):
					return nil
				case err != nil:
					return err
				case s.owner(cidr) != fmt.Sprintf("n%d", i+1):
					return fmt.Errorf("n%d has claimed %s, and its Snapshot has it as that of %q", i+1, cidr, s.owner(cidr))
				}
				won[i].Add(1)
				return nil
			})
		}
	}
	labtest.Must(t, group.Wait())
	if n := won[0].Load() + won[1].Load(); n != int64(len(v.blocks)) {
		t.Errorf("%d claims of %d blocks have succeeded", n, len(v.blocks))
	}
	for _, s := range []*networkStore{v.a, v.b} {
		awaiting(t, "each node knows all blocks, in order", func() (bool, string) {
			var cidrs []netip.Prefix
			for _, b := range s.state().Snapshot.Blocks {
				cidrs = append(cidrs, b.CIDR)
			}
			return fmt.Sprint(cidrs) == fmt.Sprint(v.blocks), fmt.Sprint(cidrs)
		})
	}
}

// lost loses the answer of the API server to the creation of a block: the next try succeeds.
func (v *claims) lost(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.100.0/26")
	once := func(req *http.Request) error {
		if req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/ipblocks") {
			v.a.after.Store(nil)
			return errors.New("the connection broke")
		}
		return nil
	}
	v.a.after.Store(&once)
	err := v.a.Claim(t.Context(), cidr, "p")
	var away *datastore.UnreachableError
	if !errors.As(err, &away) {
		t.Errorf("the first try says %v", err)
	}
	labtest.Must(t, v.a.Claim(t.Context(), cidr, "p"))
	var taken *datastore.TakenError
	if err := v.b.Claim(t.Context(), cidr, "p"); !errors.As(err, &taken) || taken.Node != "n1" {
		t.Errorf("the other node hears %v", err)
	}
}

// refused asks pools that give out no address.
func (v *claims) refused(t *testing.T) {
	v.kubectl(t, strings.ReplaceAll(servingPool("idle", "10.8.0.0/16"), "spec: {", "spec: {disabled: true, ")+"---\n"+
		strings.ReplaceAll(servingPool("young", "10.9.0.0/16"), ", finalizers: [sallyport.dev/blocks]", ""), "apply", "-f", "-")
	for _, test := range []struct{ pool, cidr, why string }{
		{"idle", "10.8.0.0/26", "it is disabled"},
		{"young", "10.9.0.0/26", `has not put the finalizer sallyport.dev/blocks on it yet, without which it could vanish under its pods; "sallyport controller --network" does that`},
		{"none", "10.10.0.0/26", "it was deleted"},
	} {
		err := v.a.Claim(t.Context(), netip.MustParsePrefix(test.cidr), test.pool)
		var refused *datastore.RefusedError
		if !errors.As(err, &refused) || refused.Pool != test.pool || !strings.Contains(err.Error(), test.why) {
			t.Errorf("of the pool %s: %v, want one with %q", test.pool, err, test.why)
		}
	}
}

// deleted deletes the pool after the block was created, and before it counts.
func (v *claims) deleted(t *testing.T) {
	v.kubectl(t, servingPool("brief", "10.7.0.0/16"), "apply", "-f", "-")
	cidr := netip.MustParsePrefix("10.7.0.0/26")
	once := func(req *http.Request) error {
		if req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/ipblocks") {
			v.a.after.Store(nil)
			v.kubectl(t, "", "delete", "ippool", "brief", "--wait=false")
		}
		return nil
	}
	v.a.after.Store(&once)
	err := v.a.Claim(t.Context(), cidr, "brief")
	var refused *datastore.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "is being deleted") {
		t.Errorf("claiming says %v", err)
	}
	if out := v.kubectl(t, "", "get", "ipblocks", ipam.Name(cidr), "--ignore-not-found"); out != "" {
		t.Errorf("the block is not given back: %s", out)
	}
	v.kubectl(t, "", "patch", "ippool", "brief", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
}

// givenBack gives back blocks, and leaves those of others.
func (v *claims) givenBack(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.101.0/26")
	labtest.Must(t, v.a.Claim(t.Context(), cidr, "p"))
	labtest.Must(t, v.b.GiveBack(t.Context(), cidr)) // it is not n2's
	if v.a.owner(cidr) != "n1" {
		t.Error("another node has given the block back")
	}
	asked := v.b.counts(definitionsPath)
	labtest.Must(t, v.a.GiveBack(t.Context(), cidr))
	labtest.Must(t, v.a.GiveBack(t.Context(), cidr))
	for _, s := range []*networkStore{v.a, v.b} {
		awaiting(t, "the block is gone", func() (bool, string) {
			blocks := s.state().Snapshot.Blocks
			return !slices.ContainsFunc(blocks, func(b *model.Block) bool { return b.CIDR == cidr }), fmt.Sprint(len(blocks))
		})
	}
	if n := asked(); n != 0 {
		t.Errorf("another node has asked %d times whether the definition of blocks is there", n)
	}
	labtest.Must(t, v.b.Claim(t.Context(), cidr, "p"))
	// An agent that ended halfway has deleted the block, and not let it go.
	v.kubectl(t, "", "delete", "ipblock", ipam.Name(cidr), "--wait=false")
	var taken *datastore.TakenError
	if err := v.a.Claim(t.Context(), cidr, "p"); !errors.As(err, &taken) || !strings.Contains(err.Error(), "giving it back") {
		t.Errorf("claiming a block that is being given back: %v", err)
	}
	labtest.Must(t, v.b.GiveBack(t.Context(), cidr))
	labtest.Must(t, v.a.Claim(t.Context(), cidr, "p"))
}

// takenAway has an administrator delete a block under its node, and give it to the other one: the Snapshot says so.
func (v *claims) takenAway(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.102.0/26")
	labtest.Must(t, v.a.Claim(t.Context(), cidr, "p"))
	v.kubectl(t, "", "delete", "ipblock", ipam.Name(cidr), "--wait=false")
	v.kubectl(t, "", "patch", "ipblock", ipam.Name(cidr), "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	awaiting(t, "the node knows that its block is gone", func() (bool, string) { return v.a.owner(cidr) == "", "" })
	labtest.Must(t, v.b.Claim(t.Context(), cidr, "p"))
	awaiting(t, "the node knows that its block is another's", func() (bool, string) { return v.a.owner(cidr) == "n2", "" })
}

// used says how much is in use.
func (v *claims) used(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.103.0/26")
	labtest.Must(t, v.a.Claim(t.Context(), cidr, "p"))
	var writes atomic.Int64
	count := func(req *http.Request) error {
		if req.Method == http.MethodPatch && strings.HasSuffix(req.URL.Path, "/status") {
			writes.Add(1)
		}
		return nil
	}
	v.a.after.Store(&count)
	defer v.a.after.Store(nil)
	gone := netip.MustParsePrefix("10.0.250.0/26")
	for _, allocated := range []int{5, 5, 0} {
		labtest.Must(t, v.a.Usage(t.Context(), []datastore.BlockUsage{{CIDR: cidr, Allocated: allocated, Cooling: 2}, {CIDR: gone, Allocated: 1}}))
		want := fmt.Sprintf("%d 2 true", allocated)
		if got := v.kubectl(t, "", "get", "ipblock", ipam.Name(cidr), "-o", "go-template={{.status.allocated}} {{.status.cooling}} {{ne .status.observedTime \"\"}}"); got != want {
			t.Errorf("the status is %q, want %q", got, want)
		}
	}
	if n := writes.Load(); n != 3 { // of the block twice, and of the one that does not exist once
		t.Errorf("%d writes", n)
	}
}

// pods looks at pods of the node, of others, and at such as come and go.
func (v *claims) pods(t *testing.T) {
	pod := func(name, node, note string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: web, annotations: {" + note + "other: x}}\n" +
			"spec: {nodeName: " + node + ", containers: [{name: c, image: i}]}\n---\n"
	}
	v.kubectl(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {team: a}, annotations: {cni.projectcalico.org/ipv4pools: '[\"p\"]', other: x}}\n---\n"+
		pod("one", "n1", "cni.projectcalico.org/ipAddrs: '[\"10.0.0.5\"]', ")+pod("far", "n2", "")+pod("static", "n1", "kubernetes.io/config.mirror: 0123abcd, "), "apply", "-f", "-")
	var asks atomic.Int64
	count := func(req *http.Request) error {
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/namespaces/web") {
			asks.Add(1)
		}
		return nil
	}
	v.a.after.Store(&count)
	defer v.a.after.Store(nil)
	uid := v.kubectl(t, "", "get", "pod", "-n", "web", "one", "-o", "jsonpath={.metadata.uid}")
	want := fmt.Sprint(datastore.PodInfo{Annotations: map[string]string{datastore.AnnotationAddresses: `["10.0.0.5"]`},
		NamespaceLabels: map[string]string{"team": "a", "kubernetes.io/metadata.name": "web"}, NamespaceAnnotations: map[string]string{datastore.AnnotationPools4: `["p"]`}})
	awaiting(t, "the node knows its pod without asking", func() (bool, string) {
		before := asks.Load()
		got, err := v.a.Pod(t.Context(), "web", "one", uid)
		if err != nil || fmt.Sprint(got) != want {
			t.Fatalf("%v, %v, want %s", got, err, want)
		}
		return asks.Load() == before, ""
	})
	before := asks.Load()
	if _, err := v.a.Pod(t.Context(), "web", "far", ""); err != nil || asks.Load() != before+1 {
		t.Errorf("of a pod that is not the node's: %v, after %d questions", err, asks.Load()-before)
	}
	if _, err := v.a.Pod(t.Context(), "web", "static", "0123abcd"); err != nil {
		t.Errorf("of a static pod by the UID that its node has for it: %v", err)
	}
	for _, test := range []struct{ name, uid, want string }{
		{"none", "", "the pod web/none does not exist any more"},
		{"one", "another", "the pod web/one with the UID another does not exist any more"},
	} {
		if _, err := v.a.Pod(t.Context(), "web", test.name, test.uid); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	broken := func(*http.Request) error { return errors.New("no way there") }
	v.a.after.Store(&broken)
	var away *datastore.UnreachableError
	if _, err := v.a.Pod(t.Context(), "web", "none", ""); !errors.As(err, &away) {
		t.Errorf("while the API is away: %v", err)
	}
	if _, err := v.a.Pod(t.Context(), "web", "one", uid); err != nil {
		t.Errorf("of a pod that is known, while the API is away: %v", err)
	}
}

// announced says the node's addresses on its Node, also on one that was made again.
func (v *claims) announced(t *testing.T) {
	address, tunnel := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1")
	labtest.Must(t, v.a.Announce(t.Context(), []netip.Addr{netip.MustParseAddr("2001:db8::1"), address}, []netip.Addr{tunnel}))
	seen := func(when string, addresses string) {
		t.Helper()
		awaiting(t, when+", the other node knows the addresses", func() (bool, string) {
			nodes := v.b.state().Snapshot.Nodes
			var got model.Node
			for _, n := range nodes {
				if n.Name == "n1" {
					got = n
				}
			}
			return fmt.Sprint(got.NetworkAddresses, got.Tunnels) == addresses, fmt.Sprint(nodes)
		})
	}
	seen("announced", "[192.0.2.1 2001:db8::1] [10.0.0.1]")
	v.kubectl(t, "", "delete", "node", "n1")
	v.kubectl(t, "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n", "apply", "-f", "-")
	seen("on a Node that was made again", "[192.0.2.1 2001:db8::1] [10.0.0.1]")
	v.kubectl(t, "", "annotate", "node", "n1", "--overwrite", "sallyport.dev/network-addresses=nonsense")
	seen("after a third party wrote", "[192.0.2.1 2001:db8::1] [10.0.0.1]")
	labtest.Must(t, v.a.Announce(t.Context(), []netip.Addr{address}, nil))
	seen("announced otherwise", "[192.0.2.1] []")
}

// absentAfter is how long the controller of TestClaims sees neither a Node nor a heartbeat before it gives back the node's blocks.
const absentAfter = 4 * time.Second
