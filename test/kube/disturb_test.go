package kube

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// awayVariable says how long the API server is to be away, such as 1m.
const awayVariable = "SALLYPORT_API_AWAY"

// away is how long the API server is away: longer than status calls a moment.
func away(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(awayVariable)
	if text == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(text)
	labtest.Must(t, err)
	return d
}

// TestDisturbances takes away, one after another, all that agents rest on, while new flows are opened all the time.
func TestDisturbances(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{CRDs: true, Audit: true})
	s := newSite(t, c, 3)
	p := s.probe(t)
	for _, n := range s.nodes {
		n.start()
	}
	p.change(t, "pools created", p.own, func() { s.apply(pools(true)) })
	v := &disturbances{site: s, probes: p}
	s.scenes([]scene{
		{"agent killed", v.agentKilled}, {"API server away", v.serverAway}, {"etcd restarted", v.etcdRestarted},
		{"node booted while the API server is away", v.booted}, {"node cut off", v.cutOff}, {"agent away", v.agentAway},
		{"watch expired", v.expired},
	})
}

type disturbances struct {
	site   *site
	probes *prober
}

// flip is a change of pools and back, by which every node is seen to follow.
func (v *disturbances) flip(t *testing.T, when string) {
	t.Helper()
	v.probes.change(t, when+", pools changed", v.probes.inner, func() { v.site.apply(pools(false)) })
	v.probes.change(t, when+", pools changed back", v.probes.own, func() { v.site.apply(pools(true)) })
}

func (v *disturbances) agentKilled(t *testing.T) {
	v.probes.hold(t, "agents killed and started", func() {
		for _, n := range v.site.nodes {
			n.end(syscall.SIGKILL)
		}
		for _, n := range v.site.nodes {
			n.start()
		}
	})
	v.flip(t, "after a restart of all agents")
}

// serverAway stops the API server, and changes pools as soon as it is back.
func (v *disturbances) serverAway(t *testing.T) {
	s, p := v.site, v.probes
	p.hold(t, "API server away", func() {
		s.c.StopServer(t)
		start, want := time.Now(), away(t)
		awaiting(t, "the API server was away long enough, and status says so", func() (bool, string) {
			if time.Since(start) < want {
				return false, ""
			}
			out, err := s.nodes[0].sallyport("status")
			return err == nil && regexp.MustCompile(`Ready: +yes`).MatchString(out) && regexp.MustCompile(`NOT REACHED, heard of last (\d+m)?\d+s ago: `).MatchString(out) &&
				strings.Contains(out, " does not answer since ") && strings.Contains(out, " ago is in force"), fmt.Sprint(err, out)
		})
	})
	p.change(t, "API server back after "+away(t).String(), p.inner, func() {
		s.c.StartServer(t)
		s.apply(pools(false))
	})
	p.change(t, "pools changed back", p.own, func() { s.apply(pools(true)) })
	for _, n := range s.nodes {
		eventually(t, "status of "+n.name+" says that the API server answers", func() (bool, string) {
			out, err := n.sallyport("status")
			return err == nil && strings.Contains(out, "answers, heard of last ") && !strings.Contains(out, "does not answer"), out
		})
	}
}

func (v *disturbances) etcdRestarted(t *testing.T) {
	v.probes.hold(t, "etcd restarted", func() { v.site.c.RestartEtcd(t) })
	v.flip(t, "after a restart of etcd")
}

// booted takes all from a node that a boot does but its disk, and starts the agent without an API server.
func (v *disturbances) booted(t *testing.T) {
	s, p, n := v.site, v.probes, v.site.nodes[0]
	s.c.StopServer(t)
	p.allow(func(f flow) []netip.Addr { // as any that has just booted, the node translates nothing at first
		if f.node == 0 {
			return []netip.Addr{p.own(f), p.inner(f)}
		}
		return p.now(f)
	})
	n.end(syscall.SIGKILL)
	out, err := n.sallyport("cleanup")
	labtest.Must(t, err)
	p.await(t, "nothing is left in the kernel: "+out, p.either(of(0), p.inner, p.own))
	p.change(t, "booted without an API server", p.own, n.start)
	out, err = n.sallyport("status")
	if err != nil || !strings.Contains(out, "NOT REACHED since the agent started: ") {
		t.Errorf("status: %v\n%s", err, out)
	}
	p.hold(t, "API server started", func() { s.c.StartServer(t) })
	v.flip(t, "after a boot")
}

// of are the flows of one node's pod.
func of(node int) func(flow) bool { return func(f flow) bool { return f.node == node } }

// replaced deletes the pools and creates others, of other names.
func (v *disturbances) replaced(natOutgoing bool) {
	spec := fmt.Sprintf("natOutgoing: %t}", natOutgoing)
	v.site.kubectl("", "delete", "ippool", "--all")
	v.site.apply(pool("other-v4", "{cidr: 10.0.0.0/17, "+spec) + "---\n" + pool("other-v6", "{cidr: 'fd00::/52', "+spec))
}

// restored is the opposite of replaced.
func (v *disturbances) restored() {
	v.site.kubectl("", "delete", "ippool", "--all")
	v.site.apply(pools(true))
}

// cutOff pulls a node's cable to the control plane.
func (v *disturbances) cutOff(t *testing.T) {
	s, p, n := v.site, v.probes, v.site.nodes[1]
	s.c.Disconnect(t, n.host)
	p.change(t, "pools replaced while a node is cut off", p.either(of(1), p.own, p.inner), func() { v.replaced(false) })
	p.change(t, "the node is connected again", p.inner, func() { s.c.Reconnect(t, n.host) })
	p.change(t, "pools restored", p.own, v.restored)
}

// agentAway changes pools while an agent does not run.
func (v *disturbances) agentAway(t *testing.T) {
	p, n := v.probes, v.site.nodes[2]
	n.end(syscall.SIGKILL)
	p.change(t, "pools replaced while an agent is away", p.either(of(2), p.own, p.inner), func() { v.replaced(false) })
	p.change(t, "the agent runs again", p.inner, n.start)
	p.change(t, "pools restored", p.own, v.restored)
}
