package bgp

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// pod is a pod that the real plugin has attached.
type pod struct {
	*lab.Host
	node *node
	list *libcni.NetworkConfigList
	conf *libcni.RuntimeConf
	at   [2]netip.Addr
}

// add makes a pod with an address of each family.
func (n *node) add(name string, v4, v6 string) *pod {
	t := n.r.t
	t.Helper()
	p := &pod{Host: labtest.NewHost(t, name), node: n, at: [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}}
	p.conf = &libcni.RuntimeConf{ContainerID: name, NetNS: filepath.Join(t.TempDir(), name), IfName: "eth0", CapabilityArgs: map[string]any{"ips": []string{v4, v6}}}
	labtest.Must(t, os.WriteFile(p.conf.NetNS, nil, 0o600), p.Do(func() error { return unix.Mount("/proc/thread-self/ns/net", p.conf.NetNS, "", unix.MS_BIND, "") }))
	t.Cleanup(func() { _ = unix.Unmount(p.conf.NetNS, unix.MNT_DETACH) })
	b, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "sallyport", "plugins": []map[string]any{
		{"type": "sallyport-cni", "socket": filepath.Join(n.home, "cni.sock"), "capabilities": map[string]bool{"ips": true}}}})
	labtest.Must(t, err)
	p.list, err = libcni.NetworkConfFromBytes(b)
	labtest.Must(t, err)
	labtest.Eventually(t, func() string { // a runtime tries again, too
		if _, err := n.runtime.AddNetworkList(t.Context(), p.list, p.conf); err != nil {
			return fmt.Sprintf("adding the pod %s to %s: %v", name, n.name, err)
		}
		return ""
	})
	return p
}

// remove takes the pod away.
func (p *pod) remove() {
	p.node.r.t.Helper()
	labtest.Must(p.node.r.t, p.node.runtime.DelNetworkList(p.node.r.t.Context(), p.list, p.conf))
}
