package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
)

// routesOfClient is how many routes each client of a reflector has.
const routesOfClient = 20

// reflectorID is the reflector's router ID.
var reflectorID = reflectorAt(0)

// reflectorAt is the address of the reflector for its i-th client, and clientAt the client's: one BIRD has one session with an address.
func reflectorAt(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)}) }

func clientAt(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 1, byte(i + 1)}) }

// measureReflector measures how long a route reflector takes from the start of its clients to all having the routes of all, and its
// memory. BIRD is the reflector in turn. One process of BIRD is all of the clients.
func measureReflector(ctx context.Context, o options, tmp string) (out []result, err error) {
	err = within(ctx, tmp, func(s *scope) error {
		host, err := newHost(s, "clients")
		if err != nil {
			return err
		}
		var at, there []netip.Prefix
		for i := range o.clients {
			at, there = append(at, netip.PrefixFrom(clientAt(i), 16)), append(there, netip.PrefixFrom(reflectorAt(i), 16))
		}
		reflector, err := newHost(s, "reflector")
		if err != nil {
			return err
		}
		if err := lab.Link(lab.Port{Host: host, Name: "eth0", Addresses: at}, lab.Port{Host: reflector, Name: "eth0", Addresses: there}); err != nil {
			return err
		}
		clients, err := newBird(s, host, birdClients(o.clients))
		if err != nil {
			return err
		}
		var took [2][]time.Duration
		var now, most [2][]float64
		for round := range min(o.rounds, mostStarts) {
			for _, i := range rotated(2, round) {
				reflect := reflectByBird
				if i == 1 {
					reflect = reflectByDriver
				}
				d, a, b, err := reflect(s.ctx, s, reflector, o.clients, func() (time.Duration, error) { return meet(clients, o.clients) })
				if err != nil {
					return err
				}
				took[i], now[i], most[i] = append(took[i], d), append(now[i], a), append(most[i], b)
			}
		}
		what := fmt.Sprintf("BGP: route reflector, %d clients with %d routes each", o.clients, routesOfClient)
		out = []result{milliseconds(what+": from their start to all routes at all", took[1]), milliseconds("the same: BIRD", took[0]).against(took[1], took[0]),
			summary(what+": memory more than without", "MiB", now[1]), summary(what+": the most meanwhile, more than without", "MiB", most[1]),
			summary("the same: BIRD, all of it", "MiB", now[0])}
		return nil
	})
	return out, err
}

// birdClients is the configuration of the BIRD that is all clients, each with a table of its own.
func birdClients(n int) string {
	var out strings.Builder
	out.WriteString(birdBegin(clientAt(0)))
	for i := range n {
		fmt.Fprintf(&out, "ipv4 table t%d;\nprotocol static s%d { ipv4 { table t%d; };\n", i, i, i)
		for j := range routesOfClient {
			fmt.Fprintf(&out, "route %s unreachable;\n", blockAt(routesOfClient*i+j))
		}
		out.WriteString("}\n" + birdSession(fmt.Sprintf("c%d", i), clientAt(i), reflectorAt(i), nodeASN, nodeASN,
			fmt.Sprintf("disabled; router id %s; ipv4 { table t%d; import all; export where source = RTS_STATIC; next hop self; };", clientAt(i), i)))
	}
	return out.String()
}

// meet starts the clients, waits until all have the routes of all, and ends them.
func meet(clients *birdProcess, n int) (time.Duration, error) {
	begin := time.Now()
	if _, err := clients.ask("enable \"c*\""); err != nil {
		return 0, err
	}
	count := func() (int, error) { return clients.routes("all") }
	if err := awaitThat("routes of the clients", n*n*routesOfClient, 5*time.Millisecond, count); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	if _, err := clients.ask("disable \"c*\""); err != nil {
		return 0, err
	}
	return took, awaitThat("routes of the clients themselves", n*routesOfClient, 5*time.Millisecond, count)
}

// reflectByBird has BIRD reflect, and says how long that took, and its memory then and at most.
func reflectByBird(ctx context.Context, s *scope, h *lab.Host, n int, meet func() (time.Duration, error)) (took time.Duration, now, most float64, err error) {
	var config strings.Builder
	config.WriteString(birdBegin(reflectorID))
	for i := range n {
		config.WriteString(birdSession(fmt.Sprintf("c%d", i), reflectorAt(i), clientAt(i), nodeASN, nodeASN, fmt.Sprintf("direct; rr client; rr cluster id %s; ipv4 { import all; export all; };", reflectorID)))
	}
	b, err := startBird(ctx, h, s.TempDir(), config.String())
	if err != nil {
		return 0, 0, 0, err
	}
	if took, err = meet(); err == nil {
		now, most, err = memoryOf(b.cmd)
	}
	return took, now, most, errors.Join(err, b.stop())
}

// reflectByDriver is reflectByBird with the driver. Memory is more than it has without.
func reflectByDriver(ctx context.Context, _ *scope, h *lab.Host, n int, meet func() (time.Duration, error)) (took time.Duration, now, most float64, err error) {
	p, err := startSpeaker(ctx, h)
	if err != nil {
		return 0, 0, 0, err
	}
	plan := compile.BGP{Run: true, RouterID: reflectorID, ASN: nodeASN, Listen: []netip.Addr{netip.IPv4Unspecified()}, ListenPort: 179, Reflected: []netip.Prefix{blockPool}}
	for i := range n {
		plan.Peers = append(plan.Peers, compile.BGPPeer{Resource: "clients", Node: nodeName(i), Address: clientAt(i), Port: 179, ASN: nodeASN, LocalASN: nodeASN, V4: true, Source: reflectorAt(i),
			Keepalive: 30 * time.Second, Hold: 90 * time.Second, Restart: 120 * time.Second, MaxPrefixes: 10_000, Reflect: true, ClusterID: reflectorID})
	}
	before, _, err := p.memory()
	if err == nil {
		err = p.do(order{Plan: &plan}, order{Do: "apply"})
	}
	if err == nil {
		took, err = meet()
	}
	if err == nil {
		now, most, err = p.memory()
	}
	return took, now - before, most - before, errors.Join(err, p.stop())
}
