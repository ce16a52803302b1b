package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// bfd has BIRD do BFD as watched peers ask for it.
const bfd = "protocol bfd { interface \"eth0\" { min rx interval 300 ms; min tx interval 300 ms; multiplier 3; }; }\n"

// slow has BIRD agree to a hold time that no test waits for.
const slow = "hold time 240; "

// watched is a router that is watched by BFD, of which nothing else tells in time that it has fallen silent.
func watched(address string) compile.BGPPeer {
	p := peer(address)
	p.Hold, p.Keepalive, p.Multihop = 240*time.Second, 80*time.Second, false
	p.BFD = model.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}
	return p
}

// bfdUp waits until BFD watches all peers.
func bfdUp(t *testing.T, d *Driver) {
	t.Helper()
	labtest.Eventually(t, func() string {
		for _, s := range state(t, d).Sessions {
			if !s.BFD {
				return fmt.Sprintf("BFD with %s is not up: %+v", s.Address, s)
			}
		}
		return ""
	})
}

// nft runs nft on a host.
func nft(t *testing.T, h *lab.Host, rules string) {
	t.Helper()
	cmd := h.Command(t.Context(), "/usr/sbin/nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var said strings.Builder
	cmd.Stderr = &said
	labtest.Must(t, h.Start(cmd))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
}

// silence loses all that comes to a host, and all that it sends, without a sign on the link.
const silence = "table inet lost { chain in { type filter hook input priority 0; policy drop; }\nchain out { type filter hook output priority 0; policy drop; }; }\n"

// guarded says whether the guard stands, as the nft command sees it.
func guarded(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command("/usr/sbin/nft", "list", "tables").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Contains(string(out), TableName)
}

// noticesSilence has a router fall silent for a while.
func noticesSilence(t *testing.T, d *Driver, router *lab.Host, routes ...string) {
	t.Helper()
	learns(t, d, routes...)
	bfdUp(t, d)
	nft(t, router, silence)
	begun := time.Now()
	learns(t, d)
	t.Logf("the routes of a router that fell silent went after %d ms, with BFD 3 × 300 ms", time.Since(begun).Milliseconds())
	for _, s := range state(t, d).Sessions {
		if s.Up || !strings.Contains(s.Why, "BFD") {
			t.Errorf("of a router that fell silent it is said: %+v", s)
		}
	}
	nft(t, router, "delete table inet lost\n")
	learns(t, d, routes...)
	bfdUp(t, d)
}

func TestBFDNoticesSilence(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24", "fe80::1/64"), prefixes("192.0.2.254/24", "fe80::fe/64"),
		bfd+statics+sessionOf("192.0.2.1", slow+"bfd on; ", channel4)+sessionOf("fe80::1", slow+"interface \"eth0\"; bfd on; ", channel6))
	four, six := watched("192.0.2.254"), watched("fe80::fe%r1")
	six.V4, six.Source = false, netip.MustParseAddr("fe80::1")
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), plan(four, six)))
	noticesSilence(t, d, r.host, "10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254", "2001:db8:9::/48 via fe80::fe%r1")
}

// TestTheHoldTimeNoticesSilence without BFD, though gobgp would keep the routes as those of a router that restarts.
func TestTheHoldTimeNoticesSilence(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), statics+sessionOf("192.0.2.1", graceful+"hold time 3; ", channel4))
	p := peer("192.0.2.254")
	p.Hold, p.Keepalive = 3*time.Second, time.Second
	d := newDriver(t, Options{})
	keeping(t, d)
	labtest.Must(t, d.Apply(t.Context(), plan(p)))
	routes := []string{"10.1.0.0/16 via 192.0.2.254", "203.0.113.0/24 via 192.0.2.254"}
	learns(t, d, routes...)
	nft(t, r.host, silence)
	learns(t, d)
	if s := state(t, d).Sessions[0]; s.Up || !strings.Contains(s.Why, "longer than the hold time") {
		t.Errorf("of a router that fell silent it is said: %+v", s)
	}
	nft(t, r.host, "delete table inet lost\n")
	learns(t, d, routes...)
}

// TestBFDEndsWithTheAgent has a router keep the routes of an agent that restarts, though BFD with it ends.
func TestBFDEndsWithTheAgent(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), bfd+statics+sessionOf("192.0.2.1", slow+graceful+"bfd graceful; ", channel4))
	p := plan(watched("192.0.2.254"))
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), p))
	up(t, d)
	bfdUp(t, d)
	r.has("show route protocol node192021", "10.1.0.0/26")
	labtest.Must(t, d.Close())
	r.has("show bfd sessions", "Down")
	r.has("show protocols all node192021", "Neighbor graceful restart active")
	r.has("show route protocol node192021", "10.1.0.0/26")
	if !guarded(t) {
		t.Error("the guard went with the agent")
	}
	next := newDriver(t, Options{Held: true})
	labtest.Must(t, next.Apply(t.Context(), p))
	up(t, next)
	bfdUp(t, next)
	r.has("show route protocol node192021", "10.1.0.0/26")
	r.has("show protocols all node192021", "!Neighbor graceful restart active")
}

// TestTheGuardOfBFD stands only where a peer is watched, and says why another one is not.
func TestTheGuardOfBFD(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24", "2001:db8::1/64"), prefixes("192.0.2.254/24", "2001:db8::fe/64"),
		bfd+statics+sessionOf("192.0.2.1", slow+"bfd on; ", channel4))
	far := watched("203.0.113.77")
	far.Multihop = true
	plain := peer("192.0.2.254")
	d := newDriver(t, Options{})
	for _, step := range []struct {
		name  string
		peers []compile.BGPPeer
		want  bool
		fault string
	}{
		{"a peer without BFD", []compile.BGPPeer{plain}, false, ""},
		{"a peer with it, off the link", []compile.BGPPeer{far}, false, "BFD is not used: the peer is in no subnet"},
		{"a peer with it, on the link", []compile.BGPPeer{watched("192.0.2.254")}, true, ""},
		{"none", nil, false, ""},
		{"a peer on the link again", []compile.BGPPeer{watched("192.0.2.254")}, true, ""},
	} {
		p := plan(step.peers...)
		p.Run = len(step.peers) > 0
		labtest.Must(t, d.Apply(t.Context(), p))
		if got := guarded(t); got != step.want {
			t.Errorf("%s: the guard stands: %v", step.name, got)
		}
		for _, s := range state(t, d).Sessions {
			if (s.Fault != "") != (step.fault != "") || !strings.Contains(s.Fault, step.fault) {
				t.Errorf("%s: the fault %q", step.name, s.Fault)
			}
		}
	}
	up(t, d)
	bfdUp(t, d)

	t.Log("packets that a router has forwarded are dropped")
	for i, to := range []string{"192.0.2.1", "2001:db8::1"} {
		for _, ttl := range []int{255, 254, 1} {
			sendBFD(t, r.host, to, ttl)
		}
		labtest.Eventually(t, func() string {
			if s := state(t, d); s.Forwarded != uint64(2*(i+1)) {
				return fmt.Sprintf("after packets to %s: %d were dropped", to, s.Forwarded)
			}
			return ""
		})
	}
	if s := state(t, d); !s.Sessions[0].Up || !s.Sessions[0].BFD || s.Sessions[0].Resets != 0 {
		t.Errorf("the session after that: %+v", s.Sessions[0])
	}

	t.Log("what another agent has left is removed, and by a cleanup")
	labtest.Must(t, d.Close())
	next := newDriver(t, Options{})
	labtest.Must(t, next.Apply(t.Context(), plan(plain)))
	if guarded(t) {
		t.Error("the guard of an earlier agent stands where no peer is watched")
	}
	labtest.Must(t, next.Apply(t.Context(), plan(watched("192.0.2.254"))))
	if n, err := next.Observe(t.Context()); n != 0 || err != nil || !guarded(t) {
		t.Errorf("the guard differs: %d, %v", n, err)
	}
	labtest.Must(t, next.Cleanup(t.Context()))
	if guarded(t) {
		t.Error("a cleanup leaves the guard")
	}
}

// sendBFD sends a packet from a host to the port of BFD.
func sendBFD(t *testing.T, from *lab.Host, to string, ttl int) {
	t.Helper()
	c, err := from.Dial(t.Context(), "udp", net.JoinHostPort(to, "3784"))
	labtest.Must(t, err)
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	labtest.Must(t, err)
	var failed error
	labtest.Must(t, raw.Control(func(fd uintptr) {
		if strings.Contains(to, ":") {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl)
		}
	}))
	labtest.Must(t, failed)
	_, err = c.Write([]byte("forged"))
	labtest.Must(t, err)
}

// frrConfig is a router that restarts gracefully, watched by BFD.
const frrConfig = `router bgp 64513
 bgp router-id 192.0.2.254
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 neighbor 192.0.2.1 remote-as 64512
 neighbor 192.0.2.1 timers 80 240
 neighbor 192.0.2.1 timers connect 1
 neighbor 192.0.2.1 update-source 192.0.2.254
 neighbor 192.0.2.1 bfd 3 300 300
 address-family ipv4 unicast
  network 203.0.113.0/24
 exit-address-family
`

func TestBFDWithFRR(t *testing.T) {
	node := here(t)
	r := newFRR(t, "r1", node, "192.0.2.1/24", "192.0.2.254/24", frrConfig)
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), plan(watched("192.0.2.254"))))
	noticesSilence(t, d, r.host, "203.0.113.0/24 via 192.0.2.254")
	labtest.Eventually(t, func() string {
		if out := r.ask("show ip bgp"); !strings.Contains(out, "10.1.0.0/26") {
			return out
		}
		return ""
	})
	restarts(t, d, r.restart, "203.0.113.0/24 via 192.0.2.254")
}

// restarts has a router restart gracefully, and its BFD with it: its routes stay, and of sessions the one alone ends that ended with it.
func restarts(t *testing.T, d *Driver, restart func(), route string) {
	t.Helper()
	resets := state(t, d).Sessions[0].Resets
	watch, stop := make(chan []Route, 1), make(chan struct{})
	go func() {
		defer close(watch)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if routes, _ := d.Learned(); len(routes) != 1 {
				watch <- routes
				return
			}
		}
	}()
	restart()
	labtest.Eventually(t, func() string {
		if s := state(t, d).Sessions[0]; !s.Up || !s.BFD || s.Resets == resets {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	learns(t, d, route)
	close(stop)
	if routes, lost := <-watch; lost {
		t.Errorf("meanwhile %v were learned", routes)
	}
	if s := state(t, d).Sessions[0]; s.Resets != resets+1 {
		t.Errorf("%d sessions ended with one restart: %+v", s.Resets-resets, s)
	}
}

func TestARouterWithBFDRestarts(t *testing.T) {
	node := here(t)
	r := newBird(t, "r1", node, prefixes("192.0.2.1/24"), prefixes("192.0.2.254/24"), bfd+"protocol static s4 { ipv4; route 203.0.113.0/24 unreachable; }\n"+
		sessionOf("192.0.2.1", slow+graceful+"bfd graceful; ", channel4))
	d := newDriver(t, Options{})
	labtest.Must(t, d.Apply(t.Context(), plan(watched("192.0.2.254"))))
	learns(t, d, "203.0.113.0/24 via 192.0.2.254")
	bfdUp(t, d)
	restarts(t, d, r.restart, "203.0.113.0/24 via 192.0.2.254")
}
