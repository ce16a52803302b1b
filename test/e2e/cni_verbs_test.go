package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestCNIVerbs does what CNI's SPEC.md says of each verb, for each version of it.
func TestCNIVerbs(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, cniPools("10.244.0.0/16", "fd00:244::/112"))
	n.start()
	info, err := n.runtime.GetVersionInfo(t.Context(), "sallyport-cni")
	labtest.Must(t, err)
	if got := fmt.Sprint(info.SupportedVersions()); got != "[0.3.1 0.4.0 1.0.0 1.1.0]" {
		t.Errorf("VERSION says %s", got)
	}
	for i, v := range info.SupportedVersions() {
		list := n.list(v, map[string]any{"dns": map[string]any{"nameservers": []string{"192.0.2.53"}}})
		p := n.pod(fmt.Sprintf("pod-%d", i))
		if v == "1.1.0" {
			labtest.Must(t, n.runtime.GetStatusNetworkList(t.Context(), list))
		}
		r, addrs, err := n.add(list, p)
		if err != nil {
			t.Fatalf("%s: ADD: %v", v, err)
		}
		if len(addrs) != 2 || !netip.MustParsePrefix("10.244.0.0/16").Contains(addrs[0]) || !netip.MustParsePrefix("fd00:244::/112").Contains(addrs[1]) {
			t.Errorf("%s: the addresses are %v", v, addrs)
		}
		if len(r.Interfaces) != 2 || r.Interfaces[0].Name != n.link(p) || r.Interfaces[0].Sandbox != "" || r.Interfaces[0].Mac == "" ||
			r.Interfaces[1].Name != "eth0" || r.Interfaces[1].Sandbox != p.conf.NetNS || len(r.DNS.Nameservers) != 1 || len(r.Routes) != 2 {
			t.Errorf("%s: the result is %+v", v, r)
		}
		if mac, err := p.MAC("eth0"); err != nil || mac.String() != r.Interfaces[1].Mac {
			t.Errorf("%s: the pod's interface has %v, %v, and the result says %s", v, mac, err, r.Interfaces[1].Mac)
		}
		n.reach(p, addrs)
		if _, _, err := n.add(list, p); err == nil {
			t.Errorf("%s: the same ADD has succeeded twice", v)
		}
		n.reach(p, addrs)
		if v != "0.3.1" {
			if err := n.check(list, p); err != nil {
				t.Errorf("%s: CHECK: %v", v, err)
			}
		}
		for range 2 {
			if err := n.del(list, p); err != nil {
				t.Errorf("%s: DEL: %v", v, err)
			}
		}
		n.nothingLeft()
	}
}

// reach makes sure that the node and the pod reach each other at once, both ways and in both families.
func (n *cniNode) reach(p *cniPod, addrs []netip.Addr) {
	n.t.Helper()
	for _, a := range addrs {
		node := netip.MustParseAddr("192.0.2.1")
		if a.Is6() {
			node = netip.MustParseAddr("2001:db8:f0::1")
		}
		for _, way := range []struct {
			listen func(network, address string) (net.Listener, error)
			at     netip.Addr
			dial   *cniPod
		}{{p.Listen, a, nil}, {n.node.Listen, node, p}} {
			l, err := way.listen("tcp", netip.AddrPortFrom(way.at, 0).String())
			labtest.Must(n.t, err)
			host := n.node
			if way.dial != nil {
				host = way.dial.Host
			}
			near, err := host.Dial(n.t.Context(), "tcp", l.Addr().String())
			if err != nil {
				n.t.Errorf("%s does not reach %s: %v", host.Name(), l.Addr(), err)
				_ = l.Close()
				continue
			}
			far, err := l.Accept()
			labtest.Must(n.t, err)
			if from := far.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); way.dial != nil && from != a {
				n.t.Errorf("the pod %s reaches its node as %s", a, from)
			}
			labtest.Must(n.t, near.Close(), far.Close(), l.Close())
		}
	}
}

// TestCNIConfiguration: what a network configuration and a runtime can ask for, and what they cannot.
func TestCNIConfiguration(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, cniPools("10.244.0.0/16", "fd00:244::/112"))
	n.start()
	tests := []struct {
		name string
		conf map[string]any
		args [][2]string
		ips  []string
		want string // the addresses; "": an error
		code uint
		says string
	}{
		{name: "IPv4 alone", conf: map[string]any{"families": []string{"IPv4"}}, want: "10.244."},
		{name: "IPv6 alone", conf: map[string]any{"families": []string{"IPv6"}}, want: "fd00:244::"},
		{name: "an address by argument", conf: map[string]any{"families": []string{"IPv4"}}, args: [][2]string{{"IgnoreUnknown", "1"}, {"IP", "10.244.7.7"}}, want: "[10.244.7.7]"},
		{name: "addresses by capability", ips: []string{"10.244.8.8/16", "fd00:244::8"}, want: "[10.244.8.8 fd00:244::8]"},
		{name: "an address of no pool", ips: []string{"10.1.1.1"}, code: 110, says: "10.1.1.1"},
		{name: "a misspelt key", conf: map[string]any{"mtus": 1400}, code: 7, says: `"mtus"`},
		{name: "an MTU that IPv6 cannot have", conf: map[string]any{"mtu": 1000, "families": []string{"IPv6"}}, code: 7, says: "1280"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := n.pod(fmt.Sprintf("pod-%d", i))
			p.conf.Args = tt.args
			if tt.ips != nil {
				p.conf.CapabilityArgs = map[string]any{"ips": tt.ips}
			}
			list := n.list("1.0.0", tt.conf)
			_, addrs, err := n.add(list, p)
			if tt.want == "" {
				if refused(err) != tt.code || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("said %v (code %d), want %d and %q", err, refused(err), tt.code, tt.says)
				}
				n.nothingLeft()
				return
			}
			if err != nil || !strings.Contains(fmt.Sprint(addrs), tt.want) {
				t.Fatalf("got %s, %v, want %s", addrs, err, tt.want)
			}
			n.reach(p, addrs)
			labtest.Must(t, n.del(list, p))
		})
	}
}

// TestCNINeighboursOfTheNode: no pod gets an address of a subnet that the node is in, until the node leaves it.
func TestCNINeighboursOfTheNode(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, cniPools("192.0.2.0/24", ""))
	n.start()
	list, p := n.list("1.0.0", nil), n.pod("pod")
	if _, addrs, err := n.add(list, p); refused(err) != 110 || !strings.Contains(err.Error(), "pool v4: ") || !strings.Contains(err.Error(), "subnet 192.0.2.0/24 of this node's interface eth0") {
		t.Errorf("got %s, %v (code %d)", addrs, err, refused(err))
	}
	n.nothingLeft()
	link, err := n.routes.LinkByName("eth0")
	labtest.Must(t, err)
	own, err := n.routes.AddrList(link, netlink.FAMILY_V4)
	labtest.Must(t, err)
	for i := range own {
		labtest.Must(t, n.routes.AddrDel(link, &own[i]))
	}
	eventually(t, func() error { // once the agent has heard of it
		_, _, err := n.add(list, p)
		return err
	})
	labtest.Must(t, n.del(list, p))
}

// TestCNIOverlayIsNotTranslated: a node takes packets for its overlay from addresses of nodes, so none of a pod may leave with one, also to
// a node of which the pod's has not heard.
func TestCNIOverlayIsNotTranslated(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, cniPools("10.244.0.0/16", "fd00:244::/112"))
	n.start()
	list, p := n.list("1.0.0", nil), n.pod("pod")
	_, _, err := n.add(list, p)
	labtest.Must(t, err)
	heard, err := n.outside.ListenPacket("udp", "[::]:4790")
	labtest.Must(t, err)
	defer heard.Close()
	for i, node := range []struct{ own, outside string }{{"192.0.2.1", "192.0.2.254"}, {"2001:db8:f0::1", "2001:db8:f0::fe"}} {
		for _, port := range []uint16{4789, 4790} {
			c, err := p.Dial(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(node.outside), port).String())
			labtest.Must(t, err)
			_, err = c.Write([]byte{byte(port)})
			labtest.Must(t, err, c.Close())
		}
		b := make([]byte, 1)
		_, from, err := heard.ReadFrom(b)
		labtest.Must(t, err)
		if a := from.(*net.UDPAddr).AddrPort().Addr().Unmap(); a != netip.MustParseAddr(node.own) {
			t.Errorf("another port is translated to %s", a)
		}
		var out bytes.Buffer
		cmd := n.command(t.Context(), "status", "-o", "json")
		cmd.Stdout = &out
		labtest.Must(t, n.node.Start(cmd))
		labtest.Must(t, cmd.Wait())
		if want := fmt.Sprintf(`"droppedOut": %d`, i+1); !strings.Contains(out.String(), want) {
			t.Errorf("status does not say %s: %s", want, &out)
		}
	}
	labtest.Must(t, n.del(list, p))
}

// TestCNIWithoutAgent: DEL needs none, ADD waits for it, and STATUS says that it is away.
func TestCNIWithoutAgent(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, cniPools("10.244.0.0/16", ""))
	list := n.list("1.1.0", nil)
	p, gone, late := n.pod("pod"), n.pod("gone"), n.pod("late")
	if err := n.runtime.GetStatusNetworkList(t.Context(), list); refused(err) != cni.CodeUnavailable {
		t.Errorf("STATUS without an agent: %v", err)
	}
	if err := n.runtime.GCNetworkList(t.Context(), list, &libcni.GCArgs{}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("GC without an agent: %v", err)
	}
	n.start()
	for _, p := range []*cniPod{p, gone} {
		_, _, err := n.add(list, p)
		labtest.Must(t, err)
	}
	n.end(syscall.SIGTERM)
	labtest.Must(t, n.del(list, p))
	gone.vanish()
	gone.conf.NetNS = ""
	for range 2 {
		labtest.Must(t, n.del(list, gone))
	}
	if left := n.left(); len(left) > 0 {
		t.Errorf("DEL without an agent leaves %s", left)
	}
	added := make(chan error, 1)
	go func() {
		_, _, err := n.add(list, late)
		added <- err
	}()
	n.start()
	if err := <-added; err != nil {
		t.Errorf("an ADD that began before the agent: %v", err)
	}
	labtest.Must(t, n.runtime.GetStatusNetworkList(t.Context(), list), n.del(list, late))
	n.nothingLeft()
}

// TestCNIAgentAway: an ADD waits for an agent for ten seconds, and then says that it is worth trying again.
func TestCNIAgentAway(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, "")
	if _, _, err := n.add(n.list("1.0.0", nil), n.pod("pod")); refused(err) != cni.CodeTryAgain || !strings.Contains(err.Error(), n.socket) {
		t.Errorf("said %v (code %d)", err, refused(err))
	}
}

// TestCNILinksDeletedByHand: a device that is deleted by hand gives its address back, CHECK says so, and DEL does not mind.
func TestCNILinksDeletedByHand(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, cniPools("10.244.0.0/16", ""))
	n.start()
	list := n.list("1.1.0", nil)
	p := n.pod("pod")
	_, addrs, err := n.add(list, p)
	labtest.Must(t, err, n.check(list, p))
	link, err := n.routes.LinkByName(n.link(p))
	labtest.Must(t, err, n.routes.LinkDel(link))
	if err := n.check(list, p); err == nil {
		t.Error("CHECK does not miss the device")
	}
	other := n.pod("other")
	other.conf.CapabilityArgs = map[string]any{"ips": []string{addrs[0].String()}}
	eventually(t, func() error { // once the agent has heard of it
		_, again, err := n.add(list, other)
		if err == nil && !slices.Equal(again, addrs) {
			t.Errorf("got %s, want %s", again, addrs)
		}
		return err
	})
	n.reach(other, addrs)
	labtest.Must(t, n.del(list, p), n.check(list, other), n.del(list, other))
	n.nothingLeft()
}

// TestCNIGC removes what the runtime no longer knows, of this network alone.
func TestCNIGC(t *testing.T) {
	t.Parallel()
	n := newCNINode(t, cniPools("10.244.0.0/16", ""))
	n.start()
	list := n.list("1.1.0", nil)
	keep, forget, foreign := n.pod("keep"), n.pod("forget"), n.pod("foreign")
	for _, p := range []*cniPod{keep, forget} {
		_, _, err := n.add(list, p)
		labtest.Must(t, err)
	}
	n.network = "another"
	other := n.list("1.1.0", nil)
	_, _, err := n.add(other, foreign)
	labtest.Must(t, err)
	n.network = "sallyport"
	labtest.Must(t, n.runtime.GCNetworkList(t.Context(), list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "keep", IfName: "eth0"}}}))
	want := []string{n.link(keep)}
	n.network = "another"
	want = append(want, n.link(foreign))
	slices.Sort(want)
	eventually(t, func() error {
		left := n.left()
		if slices.Sort(left); !slices.Equal(left, want) {
			return fmt.Errorf("GC leaves %s, want %s", left, want)
		}
		return nil
	})
	if err := n.check(other, foreign); err != nil {
		t.Errorf("CHECK of the other network: %v", err)
	}
	n.network = "sallyport"
	labtest.Must(t, n.check(list, keep), n.del(list, forget), n.del(list, keep), n.del(other, foreign))
	n.nothingLeft()
}
