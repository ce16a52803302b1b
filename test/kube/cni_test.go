package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// exempt are addresses outside that a disabled pool holds.
var exempt = [2]netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:f2::1")}

// TestCNI runs agents on nodes whose pods are attached by the reference plugins bridge and ptp, without their own
// masquerading and with it, and with host ports by portmap.
func TestCNI(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{CRDs: true})
	s := newSite(t, c, 4)
	labtest.Must(t, s.outside.Forward())
	for _, a := range exempt {
		labtest.Must(t, s.outside.AddAddress("lo", netip.PrefixFrom(a, a.BitLen())))
	}
	s.apply(pools(true))
	s.apply(pool("exempt-v4", "{cidr: 203.0.113.0/24, disabled: true}") + "---\n" + pool("exempt-v6", "{cidr: '2001:db8:f2::/64', disabled: true}"))
	for i, n := range s.nodes {
		w := newNetwork(t, n, i+1, []string{"bridge", "ptp"}[i%2], i >= 2)
		n.start()
		one, two := w.add(t, "one", true), w.add(t, "two", false)
		far := s.nodes[(i+1)%len(s.nodes)]
		for _, value := range n.bridging() {
			n.bridge(t, value)
			what := fmt.Sprintf("%s, ipMasq %t, bridge-nf-call %s", w.plugins[0]["type"], w.masquerade, value)
			w.judge(t, what, one, two, far)
			w.judge(t, what+", the other pod", two, one, far)
			w.judgeHostPort(t, what, one, two)
		}
		w.judgeStatus(t)
		two.remove(t)
		three := w.add(t, "three", false)
		w.judge(t, "after another pod has gone", one, three, far)
		w.judge(t, "a pod that has come", three, one, far)
		w.judgeHostPort(t, "after another pod has gone", one, three)
		one.remove(t)
		w.judge(t, "without others", three, nil, far)
		w.judgeStatus(t)
	}
}

// bridgeSettings say whether netfilter sees packets that a bridge passes on. There are none without the module
// br_netfilter, which is as if they were 0.
var bridgeSettings = []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"}

// bridging are the values that bridgeSettings can have.
func (n *node) bridging() []string {
	if _, err := os.Stat("/proc/sys/net/" + bridgeSettings[0]); err != nil {
		return []string{"absent"}
	}
	return []string{"0", "1"}
}

// bridge gives the settings a value.
func (n *node) bridge(t *testing.T, value string) {
	t.Helper()
	for _, f := range bridgeSettings {
		if value != "absent" {
			labtest.Must(t, n.host.Sysctl(f, value))
		}
	}
}

// judge looks how a pod is seen: outside, by another pod of its node, by one of another node, and by its own node.
func (w *network) judge(t *testing.T, when string, from, beside *attached, far *node) {
	t.Helper()
	n := w.node
	for family := range everywhere {
		own, pod := n.own[family], from.addrs[family]
		beyond := pod // what the plugin's own masquerading makes of what it does not know to be a pod
		if w.masquerade {
			beyond = own
		}
		sight := func(what string, at *lab.Host, to, want netip.Addr) {
			t.Helper()
			if got := n.site.seenAt(from.Host, at, to); got != want {
				t.Errorf("%s: %s sees %s as %s, want %s", when, what, from.Name(), got, want)
			}
		}
		sight("the outside", n.site.outside, netip.MustParseAddrPort(n.site.servers[family].LocalAddr().String()).Addr(), own)
		sight("an exempt host", n.site.outside, exempt[family], beyond)
		sight("a pod of another node", far.pod, far.inner[family], beyond)
		sight("its own node", n.host, own, pod)
		sight("its gateway", n.host, w.ranges[family].Addr().Next(), pod)
		if beside != nil {
			sight("a pod beside it", beside.Host, beside.addrs[family], pod)
		}
	}
}

// seenAt opens a new connection from one host to an address of another and says who is seen there.
func (s *site) seenAt(from, at *lab.Host, to netip.Addr) netip.Addr {
	s.t.Helper()
	server, err := at.ListenPacket("udp", netip.AddrPortFrom(to, 0).String())
	labtest.Must(s.t, err)
	defer server.Close()
	return s.sender(from, server)
}

// judgeHostPort connects to the port of the node that leads to a pod: from outside, from another pod, from the
// pod itself, and from the node.
func (w *network) judgeHostPort(t *testing.T, when string, to, beside *attached) {
	t.Helper()
	for family, own := range w.node.own {
		l, err := to.Listen("tcp", netip.AddrPortFrom(to.addrs[family], podPort).String())
		labtest.Must(t, err)
		go greet(l)
		for _, from := range []*lab.Host{w.node.site.outside, beside.Host, to.Host} {
			seen, err := greeting(from, netip.AddrPortFrom(own, hostPort))
			if err != nil {
				t.Errorf("%s: %s reaches nobody at the host port: %v", when, from.Name(), err)
			}
			if far := w.node.site.outside; from == far && seen != [2]string{"192.0.2.254", "2001:db8:f0::fe"}[family] {
				t.Errorf("%s: the pod sees %s at the host port, want who is outside", when, seen)
			}
		}
		labtest.Must(t, l.Close())
	}
}

// greet tells clients their address until the listener is closed.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		host, _, _ := strings.Cut(c.RemoteAddr().String(), "%")
		if a, err := netip.ParseAddrPort(host); err == nil {
			_, _ = io.WriteString(c, a.Addr().String()) // the client complains
		}
		_ = c.Close()
	}
}

// greeting is what greet tells a client.
func greeting(from *lab.Host, to netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience/3)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", to.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(patience / 3)); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// judgeStatus looks whether status names the plugin's masquerading as what stands in the way, and nothing else.
func (w *network) judgeStatus(t *testing.T) {
	t.Helper()
	eventually(t, "status says what translates on "+w.node.name, func() (bool, string) {
		out, err := w.node.sallyport("status", "-o", "json")
		var s agent.Status
		if err := errors.Join(err, json.Unmarshal([]byte(out), &s)); err != nil {
			return false, err.Error() + out
		}
		for _, d := range s.Drivers {
			if d.Repairs > 0 {
				return false, out
			}
		}
		named := 0
		for _, p := range s.Problems {
			if p.Kind != diagnose.ForeignTranslation || !strings.Contains(p.Object, "chain CNI-") {
				return false, p.String()
			}
			named++
		}
		return (named > 0) == w.masquerade, out
	})
}
