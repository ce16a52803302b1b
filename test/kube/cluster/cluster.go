package cluster

import (
	"context"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// Where the servers are, in the namespace of every cluster.
const (
	etcdURL              = "http://127.0.0.1:2379"
	etcdPeerURL          = "http://127.0.0.1:2380"
	apiServerURL         = "https://127.0.0.1:6443"
	apiServerPort        = "6443"
	controllerManagerURL = "https://127.0.0.1:10257"
	schedulerURL         = "https://127.0.0.1:10259"
	serviceRange         = "10.96.0.0/16"
)

var (
	// address is the API server's on the links to nodes.
	address = netip.MustParseAddr("192.168.255.1")
	// serviceAddress is what the service kubernetes has: the first of serviceRange.
	serviceAddress = netip.MustParseAddr("10.96.0.1")
)

// requestAtMost bounds the requests that this package makes for a test.
const requestAtMost = 30 * time.Second

// Options says what a cluster is to have beside etcd and an API server.
type Options struct {
	// ControllerManager runs kube-controller-manager, with all its controllers. Without it nothing is collected that
	// lost its owner, no namespace ends, and no service account comes with a namespace or is asked for by a Pod.
	ControllerManager bool
	// Scheduler runs kube-scheduler: without it no Pod gets a node.
	Scheduler bool
	// CRDs does what InstallCRDs does, before the controller manager starts: that notices kinds that come later after up
	// to half a minute.
	CRDs bool
	// Audit lets the API server note all requests but its own, for Cluster.Audit.
	Audit bool
	// APIServerArgs are further arguments of kube-apiserver, and ControllerManagerArgs those of kube-controller-manager. One
	// that is given already counts as it is here.
	APIServerArgs, ControllerManagerArgs []string
}

// Cluster is a control plane. Config, Kubectl and what only asks may be called at any time; the methods that start,
// stop and connect by one goroutine at a time.
type Cluster struct {
	host      *lab.Host
	dir       string // keys, data, logs
	authority *authority
	admin     *rest.Config
	client    *http.Client      // of the admin
	objects   dynamic.Interface // of the admin
	adminFile string            // the admin's kubeconfig, for kubectl

	etcd, api          *server
	manager, scheduler *server // nil where there is none
	audit              bool
	links              map[*lab.Host]link // to the hosts that were connected
}

// New starts a control plane that the end of the test ends. It is ready when New returns, which takes some seconds.
// Where the test has failed, its log has what the servers said.
func New(t labtest.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{host: labtest.NewHost(t, "control plane"), dir: t.TempDir(), audit: o.Audit, links: map[*lab.Host]link{}}
	var err error
	c.authority, err = newAuthority()
	labtest.Must(t, err)
	labtest.Must(t, c.host.AddAddress("lo", netip.PrefixFrom(address, 32)), // for who runs beside the API server
		c.authority.writeKeys(c.dir), c.writeAuditPolicy(), c.makeClients())
	c.adminFile = c.Kubeconfig(t, adminUser, adminGroup)

	local := c.host.HTTPClient()
	c.etcd = newServer(c.host, c.dir, etcdProgram, func(ctx context.Context) error {
		return serves(ctx, local, etcdURL+"/health")
	}, c.etcdArgs()...)
	c.api = newServer(c.host, c.dir, apiServerProgram, func(ctx context.Context) error {
		return serves(ctx, c.client, apiServerURL+"/readyz")
	}, append(c.apiServerArgs(o.ControllerManager), o.APIServerArgs...)...)
	if o.ControllerManager {
		kubeconfig := c.Kubeconfig(t, "system:kube-controller-manager")
		c.manager = newServer(c.host, c.dir, controllerManagerProgram, func(ctx context.Context) error {
			return serves(ctx, c.client, controllerManagerURL+"/healthz")
		}, append(c.controllerManagerArgs(kubeconfig), o.ControllerManagerArgs...)...)
	}
	if o.Scheduler {
		c.scheduler = newServer(c.host, c.dir, schedulerProgram, func(ctx context.Context) error {
			return serves(ctx, c.client, schedulerURL+"/healthz")
		}, c.schedulerArgs(c.Kubeconfig(t, "system:kube-scheduler"))...)
	}
	t.Cleanup(func() { c.end(t) })
	labtest.Must(t, c.etcd.start())
	labtest.Must(t, c.api.start())
	if o.CRDs {
		c.InstallCRDs(t)
	}
	for _, s := range c.servers()[2:] {
		labtest.Must(t, s.start())
	}
	return c
}

// servers are those of the cluster, in the order in which they start.
func (c *Cluster) servers() []*server {
	return slices.DeleteFunc([]*server{c.etcd, c.api, c.manager, c.scheduler}, func(s *server) bool { return s == nil })
}

// end kills the servers: nobody needs their data any more.
func (c *Cluster) end(t labtest.TB) {
	c.client.CloseIdleConnections()
	for _, s := range c.servers() {
		if err := s.kill(); err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		for _, s := range c.servers() {
			t.Logf("%s said at last:\n%s", s.name, s.said())
		}
	}
}

func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }

// etcdArgs are the arguments of etcd. Nobody needs its data after a crash of the machine, so it waits for no disk.
func (c *Cluster) etcdArgs() []string {
	return []string{
		"--name=test", "--data-dir=" + c.file("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
		"--listen-peer-urls=" + etcdPeerURL, "--initial-advertise-peer-urls=" + etcdPeerURL,
		"--initial-cluster=test=" + etcdPeerURL,
		"--heartbeat-interval=20", "--election-timeout=100", // it is alone and elects itself
	}
}

// apiServerArgs are the arguments of kube-apiserver.
func (c *Cluster) apiServerArgs(serviceAccounts bool) []string {
	args := []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=0.0.0.0", "--advertise-address=" + address.String(), "--secure-port=" + apiServerPort,
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=" + serviceRange,
		"--tls-cert-file=" + c.file(serverCertFile), "--tls-private-key-file=" + c.file(serverKeyFile),
		"--client-ca-file=" + c.file(caCertFile),
		"--kubelet-client-certificate=" + c.file(kubeletCertFile), "--kubelet-client-key=" + c.file(kubeletKeyFile),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.file(tokenPubFile), "--service-account-signing-key-file=" + c.file(tokenKeyFile),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--enable-priority-and-fairness=false", "--profiling=false",
	}
	if !serviceAccounts {
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	if c.audit {
		args = append(args, "--audit-policy-file="+c.file(auditPolicyFile), "--audit-log-path="+c.file(auditLogFile))
	}
	return args
}

// controllerManagerArgs are the arguments of kube-controller-manager.
func (c *Cluster) controllerManagerArgs(kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig, "--bind-address=127.0.0.1", "--authentication-skip-lookup",
		"--tls-cert-file=" + c.file(serverCertFile), "--tls-private-key-file=" + c.file(serverKeyFile),
		"--leader-elect=false", "--use-service-account-credentials", "--profiling=false",
		"--service-account-private-key-file=" + c.file(tokenKeyFile), "--root-ca-file=" + c.file(caCertFile),
		"--cluster-signing-cert-file=" + c.file(caCertFile), "--cluster-signing-key-file=" + c.file(caKeyFile),
	}
}

// schedulerArgs are the arguments of kube-scheduler.
func (c *Cluster) schedulerArgs(kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig, "--bind-address=127.0.0.1", "--authentication-skip-lookup",
		"--tls-cert-file=" + c.file(serverCertFile), "--tls-private-key-file=" + c.file(serverKeyFile),
		"--leader-elect=false", "--profiling=false",
	}
}

// APIServerPID is the number of the API server's process, or of the last one that was.
func (c *Cluster) APIServerPID() int { return c.api.pid }

// StopServer takes the API server away, and returns when it is gone. The data stay.
func (c *Cluster) StopServer(t labtest.TB) {
	t.Helper()
	labtest.Must(t, c.api.stop())
}

// StartServer brings the API server back at its address, and returns when it is ready.
func (c *Cluster) StartServer(t labtest.TB) {
	t.Helper()
	labtest.Must(t, c.api.start())
}

// RestartEtcd kills etcd and starts it with the same data; it returns when an API server that runs is ready again.
func (c *Cluster) RestartEtcd(t labtest.TB) {
	t.Helper()
	labtest.Must(t, c.etcd.kill())
	labtest.Must(t, c.etcd.start())
	if c.api.cmd != nil {
		labtest.Must(t, c.api.await())
	}
}
