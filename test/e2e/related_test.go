package e2e

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
)

// tooBig is an ICMP error by which somebody asks the sender of a packet for shorter ones.
func tooBig(from, to netip.Addr, about []byte) []byte {
	b := make([]byte, 8, 8+len(about))
	proto := compile.ICMP
	if from.Is4() {
		b[0], b[1] = 3, 4
		binary.BigEndian.PutUint16(b[6:], 1280)
	} else {
		proto, b[0] = compile.ICMPv6, 2
		binary.BigEndian.PutUint32(b[4:], 1280)
	}
	b = append(b, about...)
	binary.BigEndian.PutUint16(b[2:], packet{src: from, dst: to, proto: proto}.checksum(b))
	return ipPacket(from, to, proto, b)
}

// TestErrorsOfLivingConnections has a pod, with a narrow link behind it, ask the server of a connection that
// finishes under an older decision for shorter packets: the error goes where the connection goes.
func TestErrorsOfLivingConnections(t *testing.T) {
	t.Parallel()
	r := newGuardedRig(t)
	r.program(t, snapshot(nil, pool("a 10.1.0.0/16"), pool("b fd00:1::/64")))
	var ps probes
	for family := range 2 {
		pod, server := guardedPod[family], stranger[family]
		for _, s := range []segment{
			{src: pod, dst: server, sport: 4000, dport: 80, seq: 100, flags: tcpSYN},
			{src: server, dst: pod, sport: 80, dport: 4000, seq: 500, ack: 101, flags: tcpSYN | tcpACK},
			{src: pod, dst: server, sport: 4000, dport: 80, seq: 101, ack: 501, flags: tcpACK},
		} {
			by := r.pod[0]
			if s.src == server {
				by = r.out[0]
			}
			if err := by.send(s.marshal()); err != nil {
				t.Fatal(err)
			}
			r.flush(t, &ps, by)
		}
	}
	r.program(t, guarded(nil))
	for family := range 2 {
		pod, server := guardedPod[family], stranger[family]
		long := segment{src: server, dst: pod, sport: 80, dport: 4000, seq: 501, ack: 101, flags: tcpACK}
		if err := r.pod[0].send(tooBig(pod, server, long.marshal())); err != nil {
			t.Fatal(err)
		}
		arrived := false
		for _, ip := range r.flush(t, &ps, r.pod[0]) {
			_, _, ok := quoted(ip)
			src, dst := addressesOf(ip)
			arrived = arrived || ok && src == pod && dst == server
		}
		if !arrived || r.dropped(t) != (nat.Dropped{}) {
			t.Errorf("%s: the error arrived: %t; dropped %+v", pod, arrived, r.dropped(t))
		}
	}
}
