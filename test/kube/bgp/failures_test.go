package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// nodeSettings is a NodeNetworkConfiguration that says how nodes speak BGP.
const nodeSettings = "apiVersion: sallyport.dev/v1alpha1\nkind: NodeNetworkConfiguration\nmetadata: {name: bgp}\nspec: {bgp: %s}\n"

// second is a BGPPeer for the second router of rack 2.
const second = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor2b}\nspec: {nodeSelector: router == 'tor2', peerIP: 'fe80::fd%eth0', asNumber: 65003}\n"

// generous is for what is to take a second, on a machine that has much else to do.
const generous = 3 * time.Second

// failures are links and routers that fail. The later ones find what the earlier ones have configured.
func (r *racks) failures() []act {
	return []act{
		{name: "links without carrier for 2 s", long: true, do: func() { r.flap("no carrier", r.pull, r.plug) }},
		{name: "links down for 2 s", do: func() { r.flap("down", (*node).down, (*node).up) }},
		{name: "silent loss of a router, hold time 9 s", long: true, do: func() {
			r.apply(fmt.Sprintf(nodeSettings, "{holdTime: 9s}") + "---\n" + second)
			r.away(syscall.SIGTERM) // it is for new sessions
			r.twoRouters()
			r.silence("tor2", 12*time.Second)
		}},
		{name: "(BFD is turned on)", do: func() {
			r.apply(fmt.Sprintf(nodeSettings, "{bfd: {interval: 300ms, multiplier: 3}}") + "---\n" + second)
			r.twoRouters()
			labtest.Eventually(r.t, func() string {
				if out := r.tor2.ask("show bfd peers brief"); !strings.Contains(out, "up") {
					return out
				}
				return ""
			})
			r.tor2b.has("show bfd sessions", "Up")
			r.tor1.has("show bfd sessions", "Up")
		}},
		{name: "silent loss of FRR with BFD", pause: generous, do: func() { r.silence("tor2", 3*time.Second) }},
		{name: "silent loss of BIRD with BFD", long: true, pause: generous, do: func() { r.silence("tor2b", 3*time.Second) }},
		{name: "agent killed, with BFD", long: true, do: func() { r.away(syscall.SIGKILL) }},
		{name: "BIRD restarted, with BFD", long: true, do: func() { r.again(r.tor1) }},
		{name: "FRR restarted, with BFD", long: true, do: func() { r.again(r.tor2) }},
	}
}

// twoRouters waits until n3 has a learned route by both of its routers, and outside comes to it by both.
func (r *racks) twoRouters() {
	r.t.Helper()
	r.sessions()
	r.tor2b.sessions()
	labtest.Eventually(r.t, func() string {
		for _, family := range []string{"-4", "-6"} {
			out := r.nodes[2].ip(family, "route", "show", []string{"198.51.100.0/24", "2001:db8:100::/64"}[strings.Count(family, "6")])
			if strings.Count(out, "nexthop") != 2 {
				return "n3 has the route " + out
			}
		}
		return ""
	})
	r.edge.has("show route 203.0.113.3/32", "tor2_v4", "tor2b_v4")
	r.edge.has("show route 2001:db8:50::3/128", "tor2_v6", "tor2b_v6")
}

// silence has a switch drop all of a router's packets for a time, while its link stays up, and waits until all is as before.
func (r *racks) silence(port string, during time.Duration) {
	r.t.Helper()
	labtest.Must(r.t, r.ports[port].LeaveBridge(port))
	time.Sleep(during) // packets are lost by then, or are not
	labtest.Must(r.t, r.ports[port].AddToBridge("br0", port))
	start := time.Now()
	r.twoRouters()
	r.t.Logf("both routers are in use again after %.1f s", time.Since(start).Seconds())
	if took := time.Since(start); took > 20*time.Second {
		r.t.Errorf("that took %s: a session that BFD has ended is tried again at once", took)
	}
}

// ip runs ip on the node.
func (n *node) ip(args ...string) string {
	cmd := n.host.Command(context.Background(), "ip", args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.host.Start(cmd); err != nil {
		return err.Error()
	}
	_ = cmd.Wait() // the output says it
	return out.String()
}

// learned are the learned routes that the kernel has and uses.
func (n *node) learned() int {
	return strings.Count(n.ip("-4", "route", "show", "proto", "115"), "metric 536870912") + strings.Count(n.ip("-6", "route", "show", "proto", "115"), "metric 536870912")
}

func (r *racks) pull(n *node) { labtest.Must(r.t, r.ports[n.name].SetDown(n.name)) }
func (r *racks) plug(n *node) { labtest.Must(r.t, r.ports[n.name].SetUp(n.name)) }

func (n *node) down() {
	labtest.Must(n.r.t, n.host.Sysctl("ipv6/conf/eth0/keep_addr_on_down", "1"), n.host.SetDown("eth0"))
}

// up gives back the link-local address, too, as the kernel does where it makes that.
func (n *node) up() {
	labtest.Must(n.r.t, n.host.SetUp("eth0"), n.host.AddAddress("eth0", netip.MustParsePrefix(fmt.Sprintf("fe80::%s/64", n.name[1:]))))
}

// flap takes the links of all nodes away for two seconds, of which routers behind a switch see nothing, and prints how long after that
// the learned routes are all there again.
func (r *racks) flap(what string, down, up func(*node)) {
	r.each(func(n *node) {
		before := n.learned()
		down(n)
		time.Sleep(2 * time.Second) // as long as the link is to be away
		during := n.learned()
		up(n)
		start := time.Now()
		labtest.Eventually(r.t, func() string {
			if now := n.learned(); now != before {
				return fmt.Sprintf("%s has %d learned routes after its link was %s, and had %d", n.name, now, what, before)
			}
			return ""
		})
		took := time.Since(start)
		r.t.Logf("%s, link %s: %d learned routes before, %d meanwhile, all again after %d ms", n.name, what, before, during, took.Milliseconds())
		if took > generous {
			r.t.Errorf("%s: that took %s", n.name, took)
		}
	})
	time.Sleep(time.Second) // what is lost after the routes are back belongs to the scene
}
