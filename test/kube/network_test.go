package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// pluginDir is where Debian keeps the reference plugins of the Container Network Interface.
const pluginDir = "/usr/lib/cni"

// hostPort is the port of a node that portmap leads to port podPort of a pod.
const (
	hostPort = 8080
	podPort  = 80
)

// network is one that plugins attach pods of a node to, as a container runtime has them do it.
type network struct {
	node       *node
	masquerade bool
	ranges     [2]netip.Prefix
	plugins    []map[string]any // the list of a network configuration
}

// newNetwork makes the configuration of a network by the plugin bridge or ptp, with portmap; and tells the rest of
// the site the way to it.
func newNetwork(t *testing.T, n *node, number int, plugin string, masquerade bool) *network {
	t.Helper()
	w := &network{node: n, masquerade: masquerade, ranges: [2]netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(100 + number), 0}), 24),
		netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%x::/64", 100+number)),
	}}
	var ranges, routes []any
	for family, r := range w.ranges {
		ranges = append(ranges, []any{map[string]any{"subnet": r.String()}})
		routes = append(routes, map[string]any{"dst": everywhere[family].String()})
		labtest.Must(t, n.site.outside.AddRoute(lab.Route{To: r, Via: n.own[family], Dev: n.name}))
	}
	main := map[string]any{
		"type": plugin, "ipMasq": masquerade,
		"ipam": map[string]any{"type": "host-local", "dataDir": filepath.Join(t.TempDir(), "addresses"), "ranges": ranges, "routes": routes},
	}
	if plugin == "bridge" {
		main["bridge"], main["isGateway"], main["hairpinMode"] = "cni0", true, true
	}
	w.plugins = []map[string]any{main, {"type": "portmap", "capabilities": map[string]any{"portMappings": true}}}
	return w
}

// attached is a pod of a network.
type attached struct {
	*lab.Host
	network *network
	addrs   [2]netip.Addr
	ports   []any          // of the node that lead to it
	result  map[string]any // of the last plugin
}

// add attaches a new pod; with exposed the hostPort leads to it.
func (w *network) add(t *testing.T, name string, exposed bool) *attached {
	t.Helper()
	a := &attached{Host: labtest.NewHost(t, name+" on "+w.node.name), network: w, ports: []any{}}
	if exposed {
		for _, protocol := range []string{"tcp", "udp"} {
			a.ports = append(a.ports, map[string]any{"hostPort": hostPort, "containerPort": podPort, "protocol": protocol})
		}
	}
	for _, p := range w.plugins {
		out := a.run(t, "ADD", p)
		a.result = nil
		labtest.Must(t, json.Unmarshal(out, &a.result))
	}
	var given struct {
		IPs []struct{ Address netip.Prefix }
	}
	b, err := json.Marshal(a.result)
	labtest.Must(t, err, json.Unmarshal(b, &given))
	if len(given.IPs) != 2 {
		t.Fatalf("the plugins gave %s the addresses %v", name, given.IPs)
	}
	a.addrs = [2]netip.Addr{given.IPs[0].Address.Addr(), given.IPs[1].Address.Addr()}
	return a
}

// remove detaches the pod.
func (a *attached) remove(t *testing.T) {
	t.Helper()
	for i := len(a.network.plugins) - 1; i >= 0; i-- {
		a.run(t, "DEL", a.network.plugins[i])
	}
	labtest.Must(t, a.Close())
}

// run runs a plugin in the node's namespace and returns what it prints.
func (a *attached) run(t *testing.T, command string, plugin map[string]any) []byte {
	t.Helper()
	config := map[string]any{"cniVersion": "1.0.0", "name": "pods", "prevResult": a.result, "runtimeConfig": map[string]any{"portMappings": a.ports}}
	if a.result == nil {
		delete(config, "prevResult")
	}
	for k, v := range plugin {
		config[k] = v
	}
	input, err := json.Marshal(config)
	labtest.Must(t, err)
	var ns *os.File
	labtest.Must(t, a.Do(func() (err error) {
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	}))
	defer ns.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := a.network.node.host.Command(ctx, filepath.Join(pluginDir, plugin["type"].(string)))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+fmt.Sprintf("%x", a.Name()), "CNI_NETNS=/proc/self/fd/3", "CNI_IFNAME=eth0", "CNI_PATH="+pluginDir)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = bytes.NewReader(input), &out, &complaint, []*os.File{ns}
	err = a.network.node.host.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: run hack/install-deps host-local", err)
	}
	if err != nil {
		t.Fatalf("plugin %s, %s: %v: %s%s", plugin["type"], command, err, out.Bytes(), complaint.Bytes())
	}
	return out.Bytes()
}
