package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/cniexec"
)

// cniNode is a node whose pod network is the real program, which libcni, the library of CNI's own cnitool, asks for pods by
// the real plugin.
//
//	node: eth0 192.0.2.1/24 ── eth0 192.0.2.254/24 :outside
type cniNode struct {
	t       *testing.T
	node    *lab.Host
	outside *lab.Host
	routes  *netlink.Handle
	home    string
	socket  string
	network string
	agent   *exec.Cmd
	log     *os.File
	runtime *libcni.CNIConfig
	started *cniexec.Exec
}

// buildPlugin builds the plugin once, beside this program, whose directory go removes.
var buildPlugin = sync.OnceValues(func() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(filepath.Dir(program), "plugins")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", "github.com/sallyport/sallyport/cmd/sallyport-cni")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the plugin: %w\n%s", err, out)
	}
	return dir, nil
})

// debianPlugins is where Debian keeps the plugins of the CNI project.
const debianPlugins = "/usr/lib/cni"

// cniPools are the manifests of a pool in each family.
func cniPools(v4, v6 string) string {
	const manifest = "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: %s\nspec:\n  cidr: %s\n  natOutgoing: true\n"
	out := ""
	if v4 != "" {
		out += fmt.Sprintf(manifest, "v4", v4)
	}
	if v6 != "" {
		out += fmt.Sprintf(manifest, "v6", v6)
	}
	return out
}

func newCNINode(t *testing.T, pools string) *cniNode {
	t.Helper()
	plugins, err := buildPlugin()
	labtest.Must(t, err)
	n := &cniNode{t: t, node: labtest.NewHost(t, "node"), outside: labtest.NewHost(t, "outside"), home: t.TempDir(), network: "sallyport"}
	n.socket = filepath.Join(n.home, "cni.sock")
	labtest.Must(t, n.node.Forward(), lab.Link(
		lab.Port{Host: n.node, Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8:f0::1/64")}},
		lab.Port{Host: n.outside, Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.254/24"), netip.MustParsePrefix("2001:db8:f0::fe/64")}}))
	labtest.Must(t, n.node.Do(func() (err error) {
		n.routes, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}))
	t.Cleanup(n.routes.Close)
	labtest.Must(t, os.Mkdir(filepath.Join(n.home, "resources"), 0o755), os.WriteFile(filepath.Join(n.home, "resources", "pools.yaml"), []byte(pools), 0o644))
	n.log, err = os.Create(filepath.Join(n.home, "log"))
	labtest.Must(t, err)
	n.started = &cniexec.Exec{Node: n.node}
	n.runtime = libcni.NewCNIConfigWithCacheDir([]string{plugins, debianPlugins}, filepath.Join(n.home, "cache"), n.started)
	t.Cleanup(func() {
		if n.agent != nil {
			n.end(syscall.SIGKILL)
		}
		if said, err := os.ReadFile(n.log.Name()); t.Failed() || err != nil {
			t.Logf("the agent said (%v):\n%s", err, said[max(0, len(said)-20_000):])
		}
		labtest.Must(t, n.log.Close())
	})
	return n
}

// command is the program with arguments.
func (n *cniNode) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := n.node.Command(ctx, "/proc/self/exe", append([]string{"--dir", filepath.Join(n.home, "resources"), "--socket", filepath.Join(n.home, "agent.sock")}, args...)...)
	cmd.Env = append(os.Environ(), programEnv+"=1")
	return cmd
}

// launch begins the agent.
func (n *cniNode) launch() {
	n.t.Helper()
	n.agent = n.command(context.Background(), "run", "--network", "--cni-socket", n.socket, "--state-dir", filepath.Join(n.home, "state"), "--node-name", "node", "--metrics-address", "")
	n.agent.Stderr = n.log
	labtest.Must(n.t, n.node.Start(n.agent))
}

// start begins the agent, and waits until it is ready.
func (n *cniNode) start() {
	n.t.Helper()
	n.launch()
	cmd := n.command(n.t.Context(), "status", "--wait", "20s")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	labtest.Must(n.t, n.node.Start(cmd))
	if err := cmd.Wait(); err != nil {
		n.t.Fatalf("the agent is not ready: %v\n%s", err, &out)
	}
}

func (n *cniNode) end(by os.Signal) {
	n.t.Helper()
	labtest.Must(n.t, n.agent.Process.Signal(by))
	_ = n.agent.Wait() // what it says of a signal does not matter
	n.agent = nil
}

// list is the list of plugins with keys of ours.
func (n *cniNode) list(cniVersion string, more map[string]any, chained ...map[string]any) *libcni.NetworkConfigList {
	n.t.Helper()
	own := map[string]any{"type": "sallyport-cni", "socket": n.socket, "capabilities": map[string]bool{"ips": true}}
	for k, v := range more {
		own[k] = v
	}
	b, err := json.Marshal(map[string]any{"cniVersion": cniVersion, "name": n.network, "plugins": append([]map[string]any{own}, chained...)})
	labtest.Must(n.t, err)
	list, err := libcni.NetworkConfFromBytes(b)
	labtest.Must(n.t, err)
	return list
}

// cniPod is a pod: a network namespace with a path.
type cniPod struct {
	*lab.Host
	conf *libcni.RuntimeConf
}

func (n *cniNode) pod(name string) *cniPod {
	n.t.Helper()
	p := &cniPod{Host: labtest.NewHost(n.t, name), conf: &libcni.RuntimeConf{ContainerID: name, NetNS: filepath.Join(n.t.TempDir(), name), IfName: "eth0"}}
	labtest.Must(n.t, os.WriteFile(p.conf.NetNS, nil, 0o600), p.Do(func() error { return unix.Mount("/proc/thread-self/ns/net", p.conf.NetNS, "", unix.MS_BIND, "") }))
	n.t.Cleanup(p.vanish)
	return p
}

// vanish removes the path of the namespace, as a runtime does it.
func (p *cniPod) vanish() { _ = unix.Unmount(p.conf.NetNS, unix.MNT_DETACH) }

// add returns the addresses of the result in its newest form.
func (n *cniNode) add(list *libcni.NetworkConfigList, p *cniPod) (*current.Result, []netip.Addr, error) {
	r, err := n.runtime.AddNetworkList(n.t.Context(), list, p.conf)
	if err != nil {
		return nil, nil, err
	}
	c, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, nil, err
	}
	var addrs []netip.Addr
	for _, ip := range c.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		addrs = append(addrs, a.Unmap())
	}
	return c, addrs, nil
}

func (n *cniNode) check(list *libcni.NetworkConfigList, p *cniPod) error {
	return n.runtime.CheckNetworkList(n.t.Context(), list, p.conf)
}

func (n *cniNode) del(list *libcni.NetworkConfigList, p *cniPod) error {
	return n.runtime.DelNetworkList(n.t.Context(), list, p.conf)
}

// link is the name of the device on the node.
func (n *cniNode) link(p *cniPod) string {
	return cni.LinkName(cni.NetworkHash(n.network), p.conf.ContainerID, p.conf.IfName)
}

// left are the names of the devices of workloads.
func (n *cniNode) left() []string {
	n.t.Helper()
	links, err := n.routes.LinkList()
	labtest.Must(n.t, err)
	var names []string
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, cni.LinkPrefix) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// nothingLeft waits until no device is left: they are deleted behind DEL.
func (n *cniNode) nothingLeft() {
	n.t.Helper()
	eventually(n.t, func() error {
		if left := n.left(); len(left) > 0 {
			return fmt.Errorf("%d devices are left: %s", len(left), left)
		}
		return nil
	})
}

// eventually fails where a condition does not come true within patience.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	for start := time.Now(); ; {
		err := check()
		if err == nil {
			return
		}
		if time.Since(start) > patience {
			t.Fatal(err)
		}
	}
}

// refused says with which code a plugin has failed, and 0 where it has not.
func refused(err error) uint {
	if e, ok := errors.AsType[*types.Error](err); ok {
		return e.Code
	}
	return 0
}
