package bgp

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// longEnv asks for what takes longer, and for what cannot be without loss, in figures.
const longEnv = "SALLYPORT_E2E_BGP"

// TestRacks has outside and pods reach each other through routers of every kind, and counts what is lost while agents and routers
// restart, and links and routers fail.
func TestRacks(t *testing.T) {
	r := newRacks(t)
	defer r.dump()
	r.each(func(n *node) { n.launch(); n.ready() })
	var public, private []*pod
	for i, n := range r.nodes {
		public = append(public, n.add(fmt.Sprintf("public%d", i+1), fmt.Sprintf("203.0.113.%d", i+1), fmt.Sprintf("2001:db8:50::%d", i+1)))
		private = append(private, n.add(fmt.Sprintf("private%d", i+1), fmt.Sprintf("10.244.%d.5", i+1), fmt.Sprintf("fd00:244::%d05", i+1)))
	}
	r.sessions()
	r.reach(public, private)
	r.move(public[1])
	var results table
	defer func() { t.Logf("packets lost, both ways and in both families:\n%s", &results.rows) }()
	f := startFlows(r, public)
	for _, s := range append(r.restarts(), r.failures()...) {
		if only := os.Getenv("SALLYPORT_E2E_SCENE"); only != "" && !regexp.MustCompile(only).MatchString(s.name) || s.long && os.Getenv(longEnv) == "" {
			continue
		}
		at := f.scene(s.name)
		s.do()
		losses := at.end()
		results.add(at, losses)
		for kind, l := range losses {
			if l.lost > 0 && s.none {
				t.Errorf("%s, %s: %d of %d packets were lost:%s", s.name, kind, l.lost, l.sent, l.text)
			}
			if s.pause > 0 && l.pause > s.pause {
				t.Errorf("%s, %s: all packets of a flow were lost for %s", s.name, kind, l.pause)
			}
		}
	}
}

// move takes an address from node to node, one in each rack: outside follows.
func (r *racks) move(beside *pod) {
	const v4, v6 = "203.0.113.77", "2001:db8:50::77"
	for i, n := range []*node{r.nodes[0], r.nodes[2], r.nodes[1]} {
		p := n.add(fmt.Sprintf("moving%d", i), v4, v6)
		sees(r.t, r.outside, outsideAt, p.Host, p.at, outsideAt)
		sees(r.t, p.Host, p.at, r.outside, outsideAt, p.at)
		sees(r.t, p.Host, p.at, beside.Host, beside.at, p.at)
		p.remove()
		for _, block := range []string{v4 + "/32", v6 + "/128"} {
			labtest.Eventually(r.t, func() string { // the device is deleted behind DEL
				if out, err := n.sallyport("ipam", "release", block); err != nil {
					return fmt.Sprintf("releasing %s on %s: %v\n%s", block, n.name, err, out)
				}
				return ""
			})
		}
		labtest.Eventually(r.t, func() string { // no node has a route to it any more
			for _, other := range r.nodes {
				if out := other.ip("-4", "route") + other.ip("-6", "route"); strings.Contains(out, v4+" ") || strings.Contains(out, v6+" ") {
					return other.name + " has\n" + out
				}
			}
			return ""
		})
	}
}

// act is what happens in a scene.
type act struct {
	name  string
	none  bool          // nothing may be lost
	long  bool          // only where longEnv is set
	pause time.Duration // how long all may be lost at most; 0: as it is
	do    func()
}

// sessions waits until all sessions are up.
func (r *racks) sessions() {
	r.t.Helper()
	for _, one := range []router{r.edge, r.tor1, r.tor2, r.rs} {
		one.sessions()
	}
}

// again restarts routers, and waits until all is as it was.
func (r *racks) again(routers ...router) {
	for _, one := range routers {
		one.restart()
	}
	r.sessions()
	time.Sleep(time.Second) // whatever a new session does afterwards belongs to the scene
}

// away ends the agents for a second, and waits until all is as it was.
func (r *racks) away(by os.Signal) {
	r.each(func(n *node) { n.end(by) })
	time.Sleep(time.Second) // packets flow without agents
	r.each(func(n *node) { n.launch(); n.ready() })
	r.sessions()
	time.Sleep(time.Second) // whatever a new session does afterwards belongs to the scene
}

// restarts are agents and routers that go and come back.
func (r *racks) restarts() []act {
	return []act{
		{name: "agent killed", none: true, long: true, do: func() { r.away(syscall.SIGKILL) }},
		{name: "agent stopped", none: true, long: true, do: func() { r.away(syscall.SIGTERM) }},
		{name: "agent upgraded", none: true, do: func() {
			for _, n := range r.nodes {
				n.program = r.upgraded
			}
			r.away(syscall.SIGTERM)
		}},
		{name: "agent killed, API away", none: true, long: true, do: func() { r.withoutAPI(false) }},
		{name: "agent killed, second router dead", none: true, long: true, do: func() {
			r.withDeadRouter(func() { r.each(func(n *node) { n.end(syscall.SIGKILL); n.launch(); n.ready() }) })
		}},
		{name: "agent killed, both, and nothing saved", none: true, do: func() { r.withDeadRouter(func() { r.withoutAPI(true) }) }},
		{name: "BIRD restarted", none: true, do: func() { r.again(r.tor1) }},
		{name: "gobgpd restarted", none: true, long: true, do: func() { r.again(r.rs) }},
		{name: "BIRD and gobgpd restarted", none: true, long: true, do: func() { r.again(r.tor1, r.rs) }},
		// bgpd has zebra forget what peers said before that are not up yet, as soon as those that are have said all.
		{name: "FRR restarted", long: true, do: func() { r.tor2.restart(); r.sessions(); time.Sleep(time.Second) }},
	}
}

// withDeadRouter does something while nodes have a BGPPeer that does not answer, and waits until nodes wait for it no more.
func (r *racks) withDeadRouter(do func()) {
	const dead = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: dead-%s}\nspec: {nodeSelector: all(), peerIP: '%s', asNumber: 65099}\n---\n"
	r.apply(fmt.Sprintf(dead, "v4", "10.255.9.9") + fmt.Sprintf(dead, "v6", "2001:db8:ff:9::9"))
	do()
	time.Sleep(16 * time.Second)
	r.kubectl("", "delete", "bgppeer", "dead-v4", "dead-v6")
	r.sessions()
}

// withoutAPI kills agents and starts them again while the API server is away.
func (r *racks) withoutAPI(forget bool) {
	r.c.StopServer(r.t)
	r.each(func(n *node) {
		n.end(syscall.SIGKILL)
		if forget {
			labtest.Must(r.t, os.RemoveAll(filepath.Join(n.home, "state")))
		}
		n.launch()
	})
	time.Sleep(2 * time.Second)
	r.c.StartServer(r.t)
	r.each((*node).ready)
	r.sessions()
	time.Sleep(time.Second)
}
