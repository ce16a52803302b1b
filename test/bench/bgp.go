package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// bgpSide is a node that speaks BGP with the router: by BIRD, or by the driver.
type bgpSide struct {
	name         string // of its protocols and its table in the router
	node, router netip.Addr
	host         *lab.Host
	bird         *birdProcess    // one of the two
	speaker      *speakerProcess // is set
	kernel       *rtnetlink.Conn
	protocol     uint8 // that its routes have in the kernel
	plan         compile.BGP
}

// bgpLab is a router, which runs BIRD, and two nodes.
type bgpLab struct {
	o      options
	router *birdProcess
	sides  [2]*bgpSide // BIRD, and the driver
}

// AS numbers.
const (
	nodeASN   = 64512
	routerASN = 64513
)

// learnedAt is the i-th route that the router tells of; the nodes tell of blockAt.
func learnedAt(i int) netip.Prefix {
	a := blockAt(i).Addr().As4()
	a[1] += 64
	return netip.PrefixFrom(netip.AddrFrom4(a), blockBits)
}

// measureBGP measures how long ten thousand routes take to a router and from it into the kernel, what one of them costs, and the
// memory that they take; BIRD does the same in turn.
func measureBGP(ctx context.Context, o options, tmp string) (out []result, err error) {
	err = within(ctx, tmp, func(s *scope) error {
		l := &bgpLab{o: o}
		if err := l.build(s); err != nil {
			return err
		}
		out, err = l.measure(s.ctx)
		return err
	})
	return out, err
}

// withStatic is a BIRD protocol that has routes, and begins without them.
func withStatic(name, table string, n int, at func(int) netip.Prefix) string {
	var out strings.Builder
	fmt.Fprintf(&out, "protocol static %s { disabled; ipv4 { table %s; };\n", name, table)
	for i := range n {
		fmt.Fprintf(&out, "route %s unreachable;\n", at(i))
	}
	return out.String() + "}\n"
}

// birdBegin begins the configuration of each BIRD.
func birdBegin(id netip.Addr) string {
	return fmt.Sprintf("router id %s;\nprotocol device {}\n", id)
}

// birdSession is a BGP protocol of BIRD.
func birdSession(name string, local, peer netip.Addr, localASN, peerASN int, more string) string {
	return fmt.Sprintf("protocol bgp %s { local %s as %d; neighbor %s as %d; connect delay time 0; connect retry time 1; error wait time 1,2; hold time 90; %s }\n", name, local, localASN, peer, peerASN, more)
}

// build builds the hosts, and waits for both sessions.
func (l *bgpLab) build(s *scope) error {
	router, err := newHost(s, "router")
	if err != nil {
		return err
	}
	config := birdBegin(netip.MustParseAddr("192.0.2.1"))
	for i, name := range []string{"theirs", "ours"} {
		side := &bgpSide{name: name, router: netip.AddrFrom4([4]byte{192, 0, 2, byte(4*i + 1)}), node: netip.AddrFrom4([4]byte{192, 0, 2, byte(4*i + 2)})}
		l.sides[i] = side
		if side.host, err = newHost(s, name); err != nil {
			return err
		}
		if err := lab.Link(lab.Port{Host: router, Name: "eth" + name, Addresses: []netip.Prefix{netip.PrefixFrom(side.router, 30)}},
			lab.Port{Host: side.host, Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(side.node, 30)}}); err != nil {
			return err
		}
		if side.kernel, err = rtnetlink.Dial(side.host.FD()); err != nil {
			return err
		}
		s.Cleanup(func() { _ = side.kernel.Close() })
		config += fmt.Sprintf("ipv4 table %s;\n", name) + withStatic("many"+name, name, l.o.bgpRoutes, learnedAt) +
			withStatic("one"+name, name, 1, func(int) netip.Prefix { return learnedAt(l.o.bgpRoutes) }) +
			birdSession("to"+name, side.router, side.node, routerASN, nodeASN, fmt.Sprintf("ipv4 { table %s; import all; export where source = RTS_STATIC; next hop self; };", name))
	}
	if l.router, err = newBird(s, router, config); err != nil {
		return err
	}
	bird, ours := l.sides[0], l.sides[1]
	bird.protocol, ours.protocol = unix.RTPROT_BIRD, rtnetlink.RouteProtocol
	bird.bird, err = newBird(s, bird.host, birdBegin(bird.node)+"protocol kernel { ipv4 { export where source = RTS_BGP; }; }\n"+withStatic("many", "master4", l.o.bgpRoutes, blockAt)+
		birdSession("torouter", bird.node, bird.router, nodeASN, routerASN, "ipv4 { import all; export where source = RTS_STATIC; next hop self; };"))
	if err != nil {
		return err
	}
	if ours.speaker, err = newSpeaker(s, ours.host); err != nil {
		return err
	}
	ours.plan = compile.BGP{Run: true, RouterID: ours.node, ASN: nodeASN, Listen: []netip.Addr{ours.node}, ListenPort: 179, Own: []netip.Prefix{netip.PrefixFrom(ours.node, 32)},
		Peers: []compile.BGPPeer{{Resource: "router", Address: ours.router, Port: 179, ASN: routerASN, LocalASN: nodeASN, V4: true, Source: ours.node,
			Keepalive: 30 * time.Second, Hold: 90 * time.Second, Restart: 120 * time.Second, MaxPrefixes: uint32(2 * l.o.bgpRoutes)}}}
	return nil
}

func newHost(s *scope, name string) (*lab.Host, error) {
	h, err := lab.NewHost(name)
	if err == nil {
		s.Cleanup(func() { s.failed(h.Close()) })
	}
	return h, err
}

func newBird(s *scope, h *lab.Host, config string) (*birdProcess, error) {
	b, err := startBird(context.WithoutCancel(s.ctx), h, filepath.Clean(s.TempDir()), config)
	if err == nil {
		s.Cleanup(func() { s.failed(b.stop()) })
	}
	return b, err
}

func newSpeaker(s *scope, h *lab.Host) (*speakerProcess, error) {
	p, err := startSpeaker(context.WithoutCancel(s.ctx), h)
	if err == nil {
		s.Cleanup(func() { s.failed(p.stop()) })
	}
	return p, err
}

// bgpTimes are those of one side.
type bgpTimes struct{ out, withdrawn, in, gone, one []time.Duration }

func (l *bgpLab) measure(ctx context.Context) ([]result, error) {
	ours := l.sides[1].speaker
	before, _, err := ours.memory()
	if err != nil {
		return nil, err
	}
	if err := ours.do(order{Plan: &l.sides[1].plan}, order{Do: "apply"}); err != nil {
		return nil, err
	}
	for _, side := range l.sides {
		if err := l.up(side); err != nil {
			return nil, err
		}
	}
	idle, _, err := ours.memory()
	if err != nil {
		return nil, err
	}
	var times [2]bgpTimes
	for round := range l.o.rounds {
		for _, i := range rotated(2, round) {
			if err := l.once(l.sides[i], &times[i]); err != nil {
				return nil, err
			}
		}
	}
	var cpu [2]time.Duration
	for i, side := range l.sides {
		if err := l.tell(side, "many", true); err != nil {
			return nil, err
		}
		if cpu[i], err = l.changes(ctx, side, &times[i]); err != nil {
			return nil, err
		}
	}
	out := l.lines(&times[0], &times[1], cpu)
	after, most, err := ours.memory()
	if err != nil {
		return nil, err
	}
	mib := func(what string, v float64) result { return one(what, "MiB", v) }
	birds, _, err := memoryOf(l.sides[0].bird.cmd)
	return append(out, mib("BGP: idle session, memory more than without", idle-before),
		mib(fmt.Sprintf("BGP: %d routes learned, memory more than without", l.o.bgpRoutes), after-before), mib("BGP: the most meanwhile, with as many announced, more than without", most-before),
		mib("the same: BIRD, all of it", birds)), err
}

// lines are the times as results, ours beside BIRD's.
func (l *bgpLab) lines(bird, ours *bgpTimes, cpu [2]time.Duration) []result {
	var out []result
	n := l.o.bgpRoutes
	for _, line := range []struct {
		what         string
		theirs, ours []time.Duration
	}{
		{fmt.Sprintf("BGP: %d routes announced to BIRD", n), bird.out, ours.out},
		{fmt.Sprintf("BGP: %d routes withdrawn from BIRD", n), bird.withdrawn, ours.withdrawn},
		{fmt.Sprintf("BGP: %d routes from BIRD into the kernel", n), bird.in, ours.in},
		{fmt.Sprintf("BGP: %d routes withdrawn by BIRD, gone from the kernel", n), bird.gone, ours.gone},
		{fmt.Sprintf("BGP: one route more or less among %d learned, from BIRD into the kernel", n), bird.one, ours.one},
	} {
		out = append(out, milliseconds(line.what, line.ours), milliseconds("the same: BIRD to BIRD", line.theirs).against(line.ours, line.theirs))
	}
	each := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) / float64(2*l.o.changes) }
	return append(out, one(fmt.Sprintf("BGP: CPU of one route more or less among %d learned", n), "ms", each(cpu[1])), one("the same: BIRD", "ms", each(cpu[0])))
}

// up waits until the router has a session with a side.
func (l *bgpLab) up(side *bgpSide) error {
	return awaitThat("the session with "+side.name, 1, 10*time.Millisecond, func() (int, error) {
		out, err := l.router.ask("show protocols to" + side.name)
		return strings.Count(out, "Established"), err
	})
}

// tell has the router tell a side of routes, or withdraw them, and waits until they are in the kernel, or gone.
func (l *bgpLab) tell(side *bgpSide, which string, on bool) error {
	verb, want := "disable", 0
	if on {
		verb, want = "enable", l.o.bgpRoutes
	}
	if _, err := l.router.ask(verb + " " + which + side.name); err != nil {
		return err
	}
	return awaitThat("routes in the kernel of "+side.name, want, 5*time.Millisecond, side.programmed)
}

// programmed counts the routes by BGP that the kernel of a side has.
func (s *bgpSide) programmed() (n int, err error) {
	var b rtnetlink.Batch
	b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: everywhere, Protocol: s.protocol}.Encode())
	err = s.kernel.Dump(context.Background(), "listing routes", &b, func(nfnetlink.Message) error { n++; return nil })
	if errors.Is(err, nfnetlink.ErrInterrupted) { // they are just coming
		err = nil
	}
	return n, err
}

// announce has a side tell the router of its blocks, or withdraw them, and waits until the router has heard.
func (l *bgpLab) announce(side *bgpSide, on bool) (time.Duration, error) {
	verb, want := "disable", 0
	if on {
		verb, want = "enable", l.o.bgpRoutes
	}
	heard := func() error {
		return awaitThat("routes of "+side.name+" at the router", want, time.Millisecond, func() (int, error) { return l.router.routes(side.name) })
	}
	if side.bird != nil {
		begin := time.Now()
		_, err := side.bird.ask(verb + " many")
		if err == nil {
			err = heard()
		}
		return time.Since(begin), err
	}
	plan := side.plan
	for i := range want {
		plan.Announcements = append(plan.Announcements, compile.Announcement{Prefix: blockAt(i)})
	}
	if err := side.speaker.do(order{Plan: &plan}); err != nil {
		return 0, err
	}
	begin := time.Now()
	err := side.speaker.send(order{Do: "apply"})
	if err == nil {
		err = heard()
	}
	took := time.Since(begin)
	return took, errors.Join(err, side.speaker.answer())
}

// once has all routes go to and fro on a side.
func (l *bgpLab) once(side *bgpSide, times *bgpTimes) error {
	for _, step := range []struct {
		to *[]time.Duration
		do func() (time.Duration, error)
	}{
		{&times.out, func() (time.Duration, error) { return l.announce(side, true) }},
		{&times.withdrawn, func() (time.Duration, error) { return l.announce(side, false) }},
		{&times.in, func() (time.Duration, error) {
			begin := time.Now()
			err := l.tell(side, "many", true)
			return time.Since(begin), err
		}},
		{&times.gone, func() (time.Duration, error) {
			begin := time.Now()
			err := l.tell(side, "many", false)
			return time.Since(begin), err
		}},
	} {
		took, err := step.do()
		if err != nil {
			return err
		}
		*step.to = append(*step.to, took)
		time.Sleep(20 * time.Millisecond) // idle before the next one
	}
	return nil
}

// changes has the router tell of one route more, and withdraw it, again and again, and returns the CPU that the side used for it.
func (l *bgpLab) changes(ctx context.Context, side *bgpSide, times *bgpTimes) (cpu time.Duration, err error) {
	pid := 0
	if side.bird != nil {
		pid = side.bird.cmd.Process.Pid
	} else {
		pid = side.speaker.cmd.Process.Pid
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	once, err := followRoute(ctx, side.host, learnedAt(l.o.bgpRoutes))
	if err != nil {
		return 0, err
	}
	before, err := cpuOf(pid)
	if err != nil {
		return 0, err
	}
	for range l.o.changes {
		for _, step := range []struct {
			verb string
			kind uint16
		}{{"enable", unix.RTM_NEWROUTE}, {"disable", unix.RTM_DELROUTE}} {
			took, err := once(step.kind, func() error { _, err := l.router.ask(step.verb + " one" + side.name); return err })
			if err != nil {
				return 0, err
			}
			times.one = append(times.one, took)
		}
	}
	after, err := cpuOf(pid)
	return after - before, err
}
