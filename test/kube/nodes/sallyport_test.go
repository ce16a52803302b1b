package nodes

import (
	"context"
	_ "embed" // a manifest
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
)

// The pools of a cluster whose network is Sallyport: pods have their addresses in podRanges, and those that ask for the
// public pool in publicRange.
var podRanges = []string{"10.244.0.0/16", "fd00:10:244::/56"}

const publicRange = "203.0.113.0/24"

const poolManifests = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods-v4}
spec: {cidr: 10.244.0.0/16, natOutgoing: true, vxlanMode: CrossSubnet}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods-v6}
spec: {cidr: 'fd00:10:244::/56', natOutgoing: true, vxlanMode: CrossSubnet}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: public}
spec: {cidr: ` + publicRange + `, natOutgoing: false, vxlanMode: CrossSubnet, assignmentMode: Manual, blockSize: 30}
`

// programs are what Sallyport's image holds.
var programs = []string{"sallyport", "sallyport-cni"}

// buildPrograms builds them into a directory.
func buildPrograms(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-trimpath", "-tags=grpcnotrace", "-ldflags=-s -w", "-o", dir, "./cmd/sallyport", "./cmd/sallyport-cni")
	cmd.Dir = chart.Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	return dir
}

// install installs Sallyport as the cluster's network, by its chart.
func (c *Cluster) install(t *testing.T, image string) {
	t.Helper()
	name, tag, _ := strings.Cut(image, ":")
	c.shell(t, "kubectl create namespace "+chart.Namespace+`
helm install sallyport deploy/helm/sallyport --namespace `+chart.Namespace+` \
  --set network.enabled=true,controller.replicas=1,logLevel=debug,image.pullPolicy=Never,image.repository=`+name+",image.tag="+tag+`
kubectl wait --for=condition=Established crd --all --timeout=150s`)
	c.apply(t, poolManifests)
}

// shellAtMost is how long the commands of one script may take.
const shellAtMost = 5 * time.Minute

// shell runs commands in the root of the repository, with kubectl and helm, and returns what they print.
func (c *Cluster) shell(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), shellAtMost)
	defer cancel()
	programs := t.TempDir()
	labtest.Must(t, os.Symlink(chart.Program(t), filepath.Join(programs, "helm")))
	cmd := c.Shell(ctx, chart.Root(t), script, programs)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	labtest.Must(t, c.StartShell(cmd))
	err := cmd.Wait()
	if t.Logf("%s\n%s", script, out.String()); err != nil {
		t.Fatalf("it ends with: %v", err)
	}
	return out.String()
}

// TestNetwork runs a cluster whose network is Sallyport, and does with it what its users do.
func TestNetwork(t *testing.T) {
	start := time.Now()
	const image = "localhost/sallyport:test"
	built := buildPrograms(t)
	own := Image{Name: image, Command: []string{"/sallyport"}}
	for _, name := range programs {
		own.Programs = append(own.Programs, filepath.Join(built, name))
	}
	specs := buildConformance(t)
	c := New(t, Options{
		PodRanges: podRanges, Images: append(conformanceImages(t, specs), own),
		Before:  func(c *Cluster) { c.install(t, image) },
		Network: func(n *Node) error { return n.copyPlugins("loopback", "portmap", "bandwidth") },
	})
	t.Logf("the cluster is ready after %s", time.Since(start))
	r := &rig{c: c, built: built, outside: serveOutside(t, c), returns: map[netip.Addr]bool{}}
	c.apply(t, coreDNS)
	r.deploy(t)
	t.Logf("its pods are ready after %s", time.Since(start))
	for _, part := range []struct {
		name string
		test func(*rig, *testing.T)
	}{
		{"pods reach each other", (*rig).testMesh},
		{"paths", (*rig).testPaths},
		{"services", (*rig).testServices},
		{"DNS", (*rig).testDNS},
		{"conformance", func(r *rig, t *testing.T) { r.c.conform(t, specs) }},
		{"outgoing connections", (*rig).testOutgoing},
		{"verify", (*rig).testVerify},
		{"pool of a namespace", (*rig).testNamespace},
		{"natOutgoing flipped", (*rig).testFlip},
		{"drain", (*rig).testDrain},
		{"API server away", (*rig).testAway},
		{"reboot", (*rig).testReboot},
		{"uncordon", (*rig).testUncordon},
		{"Node deleted", (*rig).testNodeDeleted},
		{"node gone for good", (*rig).testGone},
		{"uninstall", (*rig).testUninstall},
	} {
		start := time.Now()
		ok := t.Run(part.name, func(t *testing.T) {
			r.enter(t)
			part.test(r, t)
		})
		t.Logf("%s: %s", part.name, time.Since(start))
		if !ok {
			r.explain(t)
			return // the others depend on it
		}
	}
}

// rig is a cluster with pods on all nodes.
type rig struct {
	c       *Cluster
	built   string     // the directory of Sallyport's programs
	web     []*entered // two on each node, behind the service web
	public  []*entered // one on each node, of the public pool
	outside [2]netip.AddrPort
	returns map[netip.Addr]bool // what the router has a route to
}

// entered is a pod with its network.
type entered struct {
	pod   *corev1.Pod
	host  *lab.Host
	addrs [2]netip.Addr
}

//go:embed coredns.yaml
var coreDNS string

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, nodeTaintsPolicy: Honor, labelSelector: {matchLabels: {app: web}}}
      containers:
        - name: agnhost
          image: ` + AgnhostImage + `
          args: [netexec]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// deploy creates the pods, and enters them.
func (r *rig) deploy(t *testing.T) {
	t.Helper()
	r.c.apply(t, web)
	for _, n := range r.c.Nodes {
		r.createPublic(t, n)
	}
	r.c.AwaitDeployment(t, podNamespace, "web")
	r.enter(t)
	r.expectSpread(t, 2, 2, 2)
}

// createPublic creates the pod of the public pool on a node.
func (r *rig) createPublic(t *testing.T, n *Node) {
	t.Helper()
	pod := Agnhost("public-"+n.Name, n, "netexec")
	pod.Labels["pool"] = "public"
	pod.Annotations = map[string]string{"cni.projectcalico.org/ipv4pools": `["public"]`}
	r.c.Create(t, pod)
}

// expectSpread makes sure how many of the service's pods each node has.
func (r *rig) expectSpread(t *testing.T, want ...int) {
	t.Helper()
	count := make([]int, len(r.c.Nodes))
	for _, e := range r.web {
		count[slices.Index(r.c.Nodes, r.c.node(e.pod.Spec.NodeName))]++
	}
	if !slices.Equal(count, want) {
		t.Fatalf("the nodes have %v pods of the deployment, want %v", count, want)
	}
}

// enter looks which pods there are, on nodes that are on, until the test ends.
func (r *rig) enter(t *testing.T) {
	t.Helper()
	r.web, r.public = nil, nil
	for selector, into := range map[string]*[]*entered{"app=web": &r.web, "pool=public": &r.public} {
		pods, err := r.c.Client.CoreV1().Pods(podNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
		labtest.Must(t, err)
		for i := range pods.Items {
			if p := &pods.Items[i]; p.DeletionTimestamp == nil && r.c.node(p.Spec.NodeName).Host != nil {
				*into = append(*into, r.enterPod(t, podNamespace, p.Name))
			}
		}
	}
}

func (r *rig) enterPod(t *testing.T, namespace, name string) *entered {
	t.Helper()
	pod := r.c.AwaitPodIn(t, namespace, name)
	addrs := Addresses(pod)
	if len(addrs) != 2 || !addrs[0].Is4() || !addrs[1].Is6() {
		t.Fatalf("pod %s has the addresses %v", name, addrs)
	}
	return &entered{pod, r.c.Enter(t, pod), [2]netip.Addr(addrs)}
}

// on returns one of the pods on a node; nil: it has none.
func (r *rig) on(n *Node) *entered {
	for _, e := range r.web {
		if e.pod.Spec.NodeName == n.Name {
			return e
		}
	}
	return nil
}

// returnTo has the router know the way to a pod, for what it sends untranslated.
func (r *rig) returnTo(t *testing.T, e *entered) {
	t.Helper()
	if a, n := e.addrs[0], r.c.node(e.pod.Spec.NodeName); !r.returns[a] {
		labtest.Must(t, r.c.Router.AddRoute(lab.Route{To: netip.PrefixFrom(a, 32), Via: n.Addresses[0], Dev: n.subnet.bridge}))
		r.returns[a] = true
	}
}

func (r *rig) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.c.Kubectl(t, "", args...)
	labtest.Must(t, err)
	return out
}

// serveOutside answers outside of the cluster as agnhost does, with the address that it sees.
func serveOutside(t *testing.T, c *Cluster) [2]netip.AddrPort {
	t.Helper()
	var at [2]netip.AddrPort
	for family, a := range c.OutsideAddresses {
		at[family] = netip.AddrPortFrom(a, netexecPort)
		l, err := c.Outside.Listen("tcp", at[family].String())
		labtest.Must(t, err)
		s := &http.Server{ReadHeaderTimeout: askAtMost, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { labtest.Must(t, s.Close()) })
	}
	return at
}

// expect makes sure that a server sees an address.
func expect(t *testing.T, from *lab.Host, server netip.AddrPort, want ...netip.Addr) {
	t.Helper()
	seen, err := AskPort(t.Context(), from, server)
	if err != nil {
		t.Error(err)
	} else if !slices.Contains(want, seen) {
		t.Errorf("%s asks %s, which sees %s, want %v", from.Name(), server, seen, want)
	}
}

// explain shows what the network consists of.
func (r *rig) explain(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}{" "}{.metadata.annotations}{"\n"}{end}`},
		{"get", "ipblocks,ippools,sallyportnodes", "-o", "wide"},
		{"get", "pods", "-A", "-o", "wide"},
	} {
		out, err := r.c.Kubectl(t, "", args...)
		t.Logf("kubectl %s (%v):\n%s", strings.Join(args, " "), err, out)
	}
	for _, n := range r.c.Nodes {
		if n.Host == nil {
			continue // it is off
		}
		for _, command := range []string{"ip -br address", "ip route", "ip -6 route", "ip neigh", "ip -d link show type vxlan", "bridge fdb show", "nft list ruleset"} {
			args := strings.Fields(command)
			out, err := n.Run(t, args[0], args[1:]...)
			t.Logf("%s: %s (%v):\n%s", n.Name, command, err, out)
		}
	}
}

// testMesh: each pod reaches each other one, and each node, and is reached by each node.
func (r *rig) testMesh(t *testing.T) {
	all := slices.Concat(r.web, r.public)
	for family := range 2 {
		for _, to := range all {
			if t.Failed() {
				return // one is enough
			}
			server := netip.AddrPortFrom(to.addrs[family], netexecPort)
			for _, from := range all {
				expect(t, from.host, server, from.addrs[family])
			}
			for _, n := range r.c.Nodes {
				// Through the overlay, a node has another address.
				if _, err := AskPort(t.Context(), n.Host, server); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// testPaths: nodes of one subnet reach each other's pods directly, and those of another one by VXLAN.
func (r *rig) testPaths(t *testing.T) {
	for _, from := range r.c.Nodes {
		for _, to := range r.c.Nodes {
			if from == to || r.on(to) == nil {
				continue
			}
			for family, a := range r.on(to).addrs {
				out, err := from.Run(t, "ip", "route", "get", a.String())
				labtest.Must(t, err)
				want := fmt.Sprintf(" via %s dev eth0 ", to.Addresses[family])
				if from.subnet != to.subnet {
					want = fmt.Sprintf(" dev sallyport.v%d ", []int{4, 6}[family])
				}
				if !strings.Contains(out, want) {
					t.Errorf("%s reaches a pod of %s by %q, want %q", from.Name, to.Name, out, want)
				}
			}
		}
	}
}

// testServices: a service is reached from pods of all nodes, which have kube-proxy in both modes, and from outside.
func (r *rig) testServices(t *testing.T) {
	service, err := r.c.Client.CoreV1().Services(podNamespace).Get(t.Context(), "web", metav1.GetOptions{})
	labtest.Must(t, err)
	for family, ip := range service.Spec.ClusterIPs {
		for _, n := range r.c.Nodes {
			from := r.on(n)
			for range 2 * len(r.web) { // so that it is, most likely, each of its pods
				// Its own pod sees the node, which has to be in between.
				if _, err := AskPort(t.Context(), from.host, netip.AddrPortFrom(netip.MustParseAddr(ip), 80)); err != nil {
					t.Error(err)
				}
			}
			for range len(r.web) {
				if _, err := AskPort(t.Context(), r.c.Outside, netip.AddrPortFrom(n.Addresses[family], 30080)); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// testDNS: pods of all nodes find a service by its name.
func (r *rig) testDNS(t *testing.T) {
	r.c.AwaitDeployment(t, "kube-system", "coredns")
	for _, n := range r.c.Nodes {
		r.kubectl(t, "exec", r.on(n).pod.Name, "--", "/agnhost", "connect", "web:80", "--timeout=5s")
	}
}

// testOutgoing: a server outside sees the node, or where the pool says so, the pod.
func (r *rig) testOutgoing(t *testing.T) {
	for _, n := range r.c.Nodes {
		for family := range 2 {
			expect(t, r.on(n).host, r.outside[family], n.Addresses[family])
		}
	}
	for _, public := range r.public {
		r.returnTo(t, public)
		expect(t, public.host, r.outside[0], public.addrs[0])
		if _, err := AskPort(t.Context(), r.c.Outside, netip.AddrPortFrom(public.addrs[0], netexecPort)); err != nil {
			t.Error(err)
		}
	}
}

// apply applies manifests.
func (c *Cluster) apply(t *testing.T, manifests string) {
	t.Helper()
	_, err := c.Kubectl(t, manifests, "apply", "-f", "-")
	labtest.Must(t, err)
}

// blocks are those of all nodes, each as "UID NODE CIDR".
func (r *rig) blocks(t *testing.T) string {
	t.Helper()
	return r.kubectl(t, "get", "ipblocks", "-o", `jsonpath={range .items[*]}{.metadata.uid} {.spec.node} {.spec.cidr}{"\n"}{end}`)
}
