package nodes

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Of the cluster's services.
const (
	serviceRange = "10.96.0.0/16,fd00:10:96::/112"
	dnsService   = "10.96.0.10"
)

// containerdConfiguration is containerd's. Without CAP_SYS_RESOURCE nothing may lower its oom_score_adj.
const containerdConfiguration = `version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
`

// kubeletConfiguration is kubelet's: it takes machines as they are.
const kubeletConfiguration = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {x509: {clientCAFile: /etc/kubernetes/ca.crt}, anonymous: {enabled: false}, webhook: {enabled: true}}
authorization: {mode: Webhook}
clusterDNS: [` + dnsService + `]
clusterDomain: cluster.local
staticPodPath: /etc/kubernetes/manifests
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
oomScoreAdj: 0
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
evictionHard: {memory.available: 1Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
resolvConf: ""
nodeStatusUpdateFrequency: 2s
`

// configure writes what the programs of a node read that talk to the API server.
func (n *Node) configure() error {
	c := n.cluster
	files := map[string]string{
		"etc/kubernetes/kubelet.yaml": kubeletConfiguration,
		"etc/kubernetes/ca.crt":       string(c.CA()),
	}
	for file, user := range map[string][]string{
		"kubelet":    {"system:node:" + n.Name, "system:nodes"},
		"kube-proxy": {"system:kube-proxy"},
	} {
		config, err := os.ReadFile(c.Kubeconfig(c.t, user[0], user[1:]...))
		if err != nil {
			return err
		}
		files["etc/kubernetes/"+file+".conf"] = string(config)
	}
	for name, content := range files {
		if err := n.WriteFile(name, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// contain starts containerd, and gives it the images where it lacks them.
func (n *Node) contain() error {
	if err := n.Serve("containerd", nil, "containerd", "--config", "/etc/containerd.toml"); err != nil {
		return err
	}
	err := n.await("containerd's socket", func() bool {
		_, err := os.Stat(n.Now("/run/containerd/containerd.sock"))
		return err == nil
	})
	if err != nil || n.boots > 1 {
		return err
	}
	images, err := os.Open(n.cluster.file("images.tar"))
	if err != nil {
		return err
	}
	defer images.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startAtMost)
	defer cancel()
	cmd := n.Command(ctx, "ctr", "--namespace=k8s.io", "images", "import", "-")
	cmd.Stdin = images
	_, err = n.output(cmd)
	return err
}

// work starts what makes the machine a node.
func (n *Node) work() error {
	if n.cluster.network != nil {
		if err := n.cluster.network(n); err != nil {
			return fmt.Errorf("the network of node %s: %w", n.Name, err)
		}
	}
	err := n.Serve("kubelet", nil, "kubelet", "--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=/etc/kubernetes/kubelet.conf",
		"--hostname-override="+n.Name, fmt.Sprintf("--node-ip=%s,%s", n.Addresses[0], n.Addresses[1]))
	if err != nil {
		return err
	}
	return n.Serve("kube-proxy", nil, "kube-proxy", "--kubeconfig=/etc/kubernetes/kube-proxy.conf", "--hostname-override="+n.Name,
		"--proxy-mode="+n.proxy, "--cluster-cidr="+strings.Join(n.cluster.podRanges, ","), "--conntrack-max-per-core=0")
}

// Boot starts a node that was killed, and returns when it is ready.
func (n *Node) Boot() error {
	if err := n.power(); err != nil {
		return err
	}
	if err := n.work(); err != nil {
		return err
	}
	return n.cluster.awaitReady(n)
}
