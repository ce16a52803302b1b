package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// TCP's other flags (RFC 9293).
const tcpFIN, tcpRST, tcpPSH, tcpURG = 0x01, 0x04, 0x08, 0x20

// segment is a TCP segment with any flags.
type segment struct {
	src, dst     netip.Addr
	sport, dport uint16
	seq, ack     uint32
	flags        byte
}

func (s segment) marshal() []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, s.sport)
	binary.BigEndian.PutUint16(b[2:], s.dport)
	binary.BigEndian.PutUint32(b[4:], s.seq)
	binary.BigEndian.PutUint32(b[8:], s.ack)
	b[12], b[13] = 5<<4, s.flags
	binary.BigEndian.PutUint16(b[14:], 65535)
	binary.BigEndian.PutUint16(b[16:], packet{src: s.src, dst: s.dst, proto: compile.TCP}.checksum(b))
	return ipPacket(s.src, s.dst, compile.TCP, b)
}

// seenSegment is what is told of a TCP segment on the wire.
func seenSegment(ip []byte) (s segment, ok bool) {
	header, proto := ipv6Header, ip[6]
	if ip[0]>>4 == 4 {
		header, proto = ipv4Header, ip[9]
	}
	if proto != byte(compile.TCP) || len(ip) < header+20 {
		return segment{}, false
	}
	b := ip[header:]
	s = segment{sport: binary.BigEndian.Uint16(b), dport: binary.BigEndian.Uint16(b[2:]), seq: binary.BigEndian.Uint32(b[4:]),
		ack: binary.BigEndian.Uint32(b[8:]), flags: b[13]}
	s.src, s.dst = addressesOf(ip)
	return s, true
}

// addressesOf are the source and the destination of a packet.
func addressesOf(ip []byte) (src, dst netip.Addr) {
	at, n := 8, 16
	if ip[0]>>4 == 4 {
		at, n = 12, 4
	}
	src, _ = netip.AddrFromSlice(ip[at : at+n])
	dst, _ = netip.AddrFromSlice(ip[at+n : at+2*n])
	return src, dst
}

// guarded are the pools of the tests of the leak guard: translated ones, and others.
func guarded(settings *model.NATConfiguration) *model.Snapshot {
	return snapshot(settings, pool("a 10.1.0.0/16 nat"), pool("b fd00:1::/64 nat"), pool("c 203.0.113.0/26"), pool("d 2001:db8:113::/64"),
		pool("e 10.0.0.0/8 disabled"), pool("f fd00::/16 disabled"))
}

// Who speaks with whom in the tests of the leak guard, IPv4 and IPv6.
var (
	guardedPod = addresses("10.1.0.2", "fd00:1::2")
	publicPod  = addresses("203.0.113.2", "2001:db8:113::2")
	exemptPeer = addresses("10.9.0.1", "fd00:9::1")
	stranger   = addresses("198.18.9.77", "2001:db8:f9::77")
)

func addresses(ipv4, ipv6 string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(ipv4), netip.MustParseAddr(ipv6)}
}

// newGuardedRig is a rig whose node itself reaches outside by eth0. The test runs on one CPU from then on, so
// that packets come out in the order in which they are sent.
func newGuardedRig(t *testing.T) *rig {
	t.Helper()
	runtime.LockOSThread()
	var cpus unix.CPUSet
	labtest.Must(t, unix.SchedGetaffinity(0, &cpus))
	before := cpus
	t.Cleanup(func() {
		// The thread must not end with the test: it may have started the agent of another one, which the kernel
		// would kill (lab.Host.Command).
		labtest.Must(t, unix.SchedSetaffinity(0, &before))
		runtime.UnlockOSThread()
	})
	for cpu := range 1024 {
		if cpus.IsSet(cpu) {
			cpus.Zero()
			cpus.Set(cpu)
			break
		}
	}
	labtest.Must(t, unix.SchedSetaffinity(0, &cpus))
	r := newRig(t)
	for family, to := range everything {
		labtest.Must(t, r.node.AddRoute(lab.Route{To: to, Via: wires[2].peer[family].Addr(), Dev: "eth0"}))
	}
	return r
}

// flush returns all packets on the rig's taps that came before now: it sends one of its own, and reads until
// that is seen.
func (r *rig) flush(t *testing.T, ps *probes, by *tap) [][]byte {
	t.Helper()
	ps.lastID++
	last := packet{src: netip.MustParseAddr("172.16.0.1"), dst: netip.MustParseAddr("198.51.100.10"), proto: compile.UDP,
		sport: uint16(ps.lastID), dport: 9, id: ps.lastID}
	send(t, by, last)
	var all [][]byte
	arrived := false
	err := watch(r.taps(), patience, func(_ *tap, ip []byte) (bool, error) {
		p, err := parse(ip)
		arrived = arrived || err == nil && p.id == last.id
		if !arrived {
			all = append(all, slices.Clone(ip))
		}
		return arrived, nil
	})
	if err != nil || !arrived {
		t.Fatalf("the last packet did not come out (%v)", err)
	}
	for _, tp := range r.taps() { // what came out before it, elsewhere
		for {
			ip, err := tp.next()
			labtest.Must(t, err)
			if ip == nil {
				break
			}
			all = append(all, slices.Clone(ip))
		}
	}
	return all
}

// segments are the TCP segments among packets.
func segments(packets [][]byte) []segment {
	var out []segment
	for _, ip := range packets {
		if s, ok := seenSegment(ip); ok {
			out = append(out, s)
		}
	}
	return out
}

func (r *rig) dropped(t *testing.T) nat.Dropped {
	t.Helper()
	d, err := r.nat.Dropped(t.Context())
	labtest.Must(t, err)
	return d
}

// TestLeaks sends TCP segments without a connection, of every combination of flags. From a translated
// address none may come out with it, whatever becomes of it; every other may, as without a guard.
func TestLeaks(t *testing.T) {
	t.Parallel()
	for _, way := range []model.LeakGuard{model.LeakGuardEnabled, model.LeakGuardDisabled} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			r := newGuardedRig(t)
			r.program(t, guarded(&model.NATConfiguration{LeakGuard: &way}))
			var ps probes
			for family := range 2 {
				r.sendAllFlags(t, &ps, family, way)
			}
		})
	}
}

func (r *rig) sendAllFlags(t *testing.T, ps *probes, family int, way model.LeakGuard) {
	t.Helper()
	for _, from := range []struct {
		src, dst netip.Addr
		leaks    bool
	}{
		{guardedPod[family], stranger[family], true},
		{guardedPod[family], exemptPeer[family], false},
		{publicPod[family], stranger[family], false},
	} {
		r.flush(t, ps, r.pod[0]) // so that neighbours are known
		before := r.dropped(t)
		for flags := range byte(64) {
			s := segment{src: from.src, dst: from.dst, sport: 1000 + uint16(flags), dport: 80, seq: 1, ack: 1, flags: flags}
			labtest.Must(t, r.pod[0].send(s.marshal()))
		}
		untranslated, translated := 0, 0
		for _, s := range segments(r.flush(t, ps, r.pod[0])) {
			switch s.src {
			case from.src:
				untranslated++
			case nodeAddress("eth0", from.src):
				translated++
			}
		}
		dropped := r.dropped(t).Out - before.Out
		what := fmt.Sprintf("%s to %s: %d untranslated, %d translated, %d dropped", from.src, from.dst, untranslated, translated, dropped)
		switch {
		case !from.leaks && (untranslated != 64 || dropped != 0):
			t.Errorf("%s; want all of them untouched", what)
		case from.leaks && way == model.LeakGuardEnabled && (untranslated != 0 || translated == 0 || int(dropped)+translated != 64):
			t.Errorf("%s; want some translated, the rest dropped and counted", what)
		case from.leaks && way == model.LeakGuardDisabled && (untranslated == 0 || dropped != 0):
			t.Errorf("%s; want leaks without a guard, or this test shows nothing", what)
		}
	}
}

// TestStraySegment lets the server of a translated connection send a segment far outside the window, as a
// network that reorders would. The node must not answer: its reset would end the connection.
func TestStraySegment(t *testing.T) {
	t.Parallel()
	to := addresses("192.0.2.1", "2001:db8:f0::1") // the node's own
	for name, settings := range map[string]model.NATConfiguration{
		"masquerade": {}, "interface": {OutInterfaces: []string{"eth*"}}, "address": {Addresses: to[:]},
		"off": {LeakGuard: ptr(model.LeakGuardDisabled)}, "elsewhere": {OutInterfaces: []string{"eth1"}},
		"other address": {Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8:f0::99")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGuardedRig(t)
			// A connection exists in any case; whether its address is guarded depends on the settings.
			r.program(t, guarded(nil))
			var ps probes
			guards := name == "masquerade" || name == "interface" || name == "address"
			for family := range 2 {
				server, node := stranger[family], nodeAddress("eth0", stranger[family])
				port := r.connect(t, &ps, family, server)
				r.program(t, guarded(&settings))
				before := r.dropped(t).In
				stray := segment{src: server, dst: node, sport: 80, dport: port, seq: 1 << 31, ack: 1, flags: tcpACK}
				labtest.Must(t, r.out[0].send(stray.marshal()))
				resets := 0
				for _, s := range segments(r.flush(t, &ps, r.out[0])) {
					if s.flags&tcpRST != 0 && s.src == node {
						resets++
					}
				}
				dropped := r.dropped(t).In - before
				if guards && (resets != 0 || dropped != 1) || !guards && (resets != 1 || dropped != 0) {
					t.Errorf("%s: the node sent %d resets and dropped %d", server, resets, dropped)
				}
				r.program(t, guarded(nil))
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// connect opens a TCP connection from a translated pod by hand, and says what port outside sees.
func (r *rig) connect(t *testing.T, ps *probes, family int, server netip.Addr) (port uint16) {
	t.Helper()
	pod, node := guardedPod[family], nodeAddress("eth0", server)
	exchange := func(by *tap, s segment) segment {
		t.Helper()
		labtest.Must(t, by.send(s.marshal()))
		for _, seen := range segments(r.flush(t, ps, by)) {
			if seen.seq == s.seq && seen.flags == s.flags {
				return seen
			}
		}
		t.Fatalf("%+v did not come out", s)
		return segment{}
	}
	syn := exchange(r.pod[0], segment{src: pod, dst: server, sport: 4000, dport: 80, seq: 100, flags: tcpSYN})
	exchange(r.out[0], segment{src: server, dst: node, sport: 80, dport: syn.sport, seq: 500, ack: 101, flags: tcpSYN | tcpACK})
	exchange(r.pod[0], segment{src: pod, dst: server, sport: 4000, dport: 80, seq: 101, ack: 501, flags: tcpACK})
	if syn.src != node {
		t.Fatalf("outside sees %s", syn.src)
	}
	return syn.sport
}

// TestStraySegmentOfAService sends a segment that belongs to no connection to an address that the node has on no
// interface towards outside, as that of a service whose answers take another way. It is none of the guard's affair.
func TestStraySegmentOfAService(t *testing.T) {
	t.Parallel()
	r := newGuardedRig(t)
	services := addresses("198.18.77.1", "2001:db8:77::1")
	labtest.Must(t, r.node.SetUp("lo"))
	r.program(t, guarded(nil))
	var ps probes
	for family, service := range services {
		labtest.Must(t, r.node.AddAddress("lo", netip.PrefixFrom(service, service.BitLen())))
		stray := segment{src: stranger[family], dst: service, sport: 5002, dport: 80, seq: 7, ack: 9, flags: tcpSYN | tcpACK}
		labtest.Must(t, r.out[0].send(stray.marshal()))
		reset := false
		for _, s := range segments(r.flush(t, &ps, r.out[0])) {
			reset = reset || s.src == service && s.flags&tcpRST != 0
		}
		if !reset || r.dropped(t) != (nat.Dropped{}) {
			t.Errorf("%s: the node answered: %t; dropped %+v", service, reset, r.dropped(t))
		}
	}
}

// TestNodeSpeaksItself makes sure that the guard leaves the node's own affairs alone: a SYN to a closed port
// is refused at once, and a pool that holds the node's own subnet neither stops nor translates the node.
func TestNodeSpeaksItself(t *testing.T) {
	t.Parallel()
	r := newGuardedRig(t)
	r.program(t, snapshot(nil, pool("lan 192.0.2.0/24 nat"), pool("lan6 2001:db8:f0::/64 nat")))
	var ps probes
	for family := range 2 {
		node := nodeAddress("eth0", stranger[family])
		syn := segment{src: stranger[family], dst: node, sport: 5000, dport: 81, seq: 7, flags: tcpSYN}
		labtest.Must(t, r.out[0].send(syn.marshal()))
		refused := false
		for _, s := range segments(r.flush(t, &ps, r.out[0])) {
			refused = refused || s.src == node && s.flags == tcpRST|tcpACK && s.dport == 5000
		}
		if !refused || r.dropped(t) != (nat.Dropped{}) {
			t.Errorf("%s: the node refused a connection: %t; dropped %+v", stranger[family], refused, r.dropped(t))
		}
		// A reset for no connection, which conntrack calls invalid: the node's own, to say so.
		stray := segment{src: stranger[family], dst: node, sport: 5001, dport: 81, seq: 7, ack: 9, flags: tcpACK}
		labtest.Must(t, r.out[0].send(stray.marshal()))
		reset := false
		for _, s := range segments(r.flush(t, &ps, r.out[0])) {
			reset = reset || s.src == node && s.flags&tcpRST != 0 && s.dport == 5001
		}
		if !reset || r.dropped(t) != (nat.Dropped{}) {
			t.Errorf("%s: the node answered a late segment: %t; dropped %+v", stranger[family], reset, r.dropped(t))
		}
	}
}
