package e2e

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestCNIInstalled lets install-cni write the network configuration, and a runtime use it with the plugins of the CNI project:
// a hostPort is reached from outside, with the client's address, and the bandwidth is bounded.
func TestCNIInstalled(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, cniPools("10.244.0.0/16", "fd00:244::/112"))
	n.start()
	bin, conf := filepath.Join(n.home, "bin"), filepath.Join(n.home, "net.d")
	labtest.Must(t, os.Mkdir(bin, 0o755))
	for _, name := range []string{"portmap", "bandwidth"} {
		if _, err := os.Stat(filepath.Join(debianPlugins, name)); err != nil {
			t.Fatalf("%v: run hack/install-deps host-local", err)
		}
		labtest.Must(t, os.Symlink(filepath.Join(debianPlugins, name), filepath.Join(bin, name)))
	}
	plugins, err := buildPlugin()
	labtest.Must(t, err)
	install := n.command(t.Context(), "install-cni", "--once", "--plugin", filepath.Join(plugins, "sallyport-cni"), "--bin-dir", bin, "--conf-dir", conf)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install-cni: %v\n%s", err, out)
	}
	list, err := libcni.LoadNetworkConf(conf, "sallyport")
	labtest.Must(t, err)
	list.Plugins[0], err = libcni.InjectConf(list.Plugins[0], map[string]any{"socket": n.socket})
	labtest.Must(t, err)
	n.runtime = libcni.NewCNIConfigWithCacheDir([]string{bin}, filepath.Join(n.home, "cache"), n.started)

	p := n.pod("pod")
	p.conf.CapabilityArgs = map[string]any{
		"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
		"bandwidth":    map[string]any{"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000},
	}
	_, addrs, err := n.add(list, p)
	labtest.Must(t, err)
	n.reach(p, addrs)
	for i, host := range []string{"192.0.2.1:8080", "[2001:db8:f0::1]:8080"} {
		l, err := p.Listen("tcp", netip.AddrPortFrom(addrs[i], 80).String())
		labtest.Must(t, err)
		near, err := n.outside.Dial(t.Context(), "tcp", host)
		if err != nil {
			t.Fatalf("hostPort %s: %v", host, err)
		}
		far, err := l.Accept()
		labtest.Must(t, err)
		if near.LocalAddr().String() != far.RemoteAddr().String() {
			t.Errorf("hostPort %s: the pod sees %s, and the client is %s", host, far.RemoteAddr(), near.LocalAddr())
		}
		labtest.Must(t, near.Close(), far.Close(), l.Close())
	}
	link, err := n.routes.LinkByName(n.link(p))
	labtest.Must(t, err)
	qdiscs, err := n.routes.QdiscList(link)
	labtest.Must(t, err)
	bounded := false
	for _, q := range qdiscs {
		if tbf, ok := q.(*netlink.Tbf); ok && tbf.Rate == 1_000_000 {
			bounded = true
		}
	}
	if !bounded {
		t.Errorf("%s has the queues %v, want one of 1,000,000 bytes a second", link.Attrs().Name, qdiscs)
	}
	labtest.Must(t, n.del(list, p)) // no CHECK: portmap v1.1.1 looks for the IPv4 rules among those of IPv6
	n.nothingLeft()
	rules := n.node.Command(t.Context(), "iptables-save", "-t", "nat")
	var out bytes.Buffer
	rules.Stdout = &out
	labtest.Must(t, n.node.Start(rules), rules.Wait())
	if bytes.Contains(out.Bytes(), []byte("8080")) {
		t.Errorf("DEL leaves a hostPort:\n%s", &out)
	}

	uninstall := n.command(t.Context(), "uninstall-cni", "--bin-dir", bin, "--conf-dir", conf)
	if out, err := uninstall.CombinedOutput(); err != nil {
		t.Errorf("uninstall-cni: %v\n%s", err, out)
	}
	left, err := filepath.Glob(filepath.Join(n.home, "*", "*sallyport*"))
	if err != nil || len(left) > 0 {
		t.Errorf("uninstall-cni leaves %s, %v", left, err)
	}
}
