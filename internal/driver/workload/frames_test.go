package workload

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// What follows builds frames, from the inside out. Checksums are left 0: nothing that is tested looks at them.

func ethernet(kind uint16, payload []byte) []byte {
	b := append(append(make([]byte, 0, 64+len(payload)), 0xee, 0xee, 0xee, 0xee, 0xee, 0xee), probeMAC[:]...)
	return append(binary.BigEndian.AppendUint16(b, kind), payload...)
}

// probeMAC is the source of frames of tests, by which they are told from what the kernel sends.
var probeMAC = mac{2, 0, 0, 0, 0, 0x99}

func vlan(id, kind uint16, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, id), kind), payload...)
}

// ip4 is an IPv4 packet; fragment is its word of flags and offset.
func ip4(from, to string, protocol uint8, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[4:], 7) // the identification
	binary.BigEndian.PutUint16(b[6:], fragment)
	src, dst := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return append(b, payload...)
}

func ip6(from, to string, next, hops uint8, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, next, hops
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	src, dst := netip.MustParseAddr(from).As16(), netip.MustParseAddr(to).As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return append(b, payload...)
}

// options is an extension header of eight bytes, which pads.
func options(next uint8, payload []byte) []byte {
	return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...)
}

// fragment6 is a fragment header: an offset in units of eight bytes.
func fragment6(next uint8, offset uint16, more bool, payload []byte) []byte {
	word := offset << 3
	if more {
		word |= 1
	}
	return append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16([]byte{next, 0}, word), 9), payload...)
}

func udp(port uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 40000), port)
	return append(binary.BigEndian.AppendUint32(b, uint32(8+len(payload))<<16), payload...)
}

func arp(operation uint16, sender, target string) []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4}, byte(operation>>8), byte(operation))
	b = append(b, probeMAC[:]...)
	b = append(b, netip.MustParseAddr(sender).AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, netip.MustParseAddr(target).AsSlice()...)
}

func icmp6(kind uint8) []byte { return append([]byte{kind, 0, 0, 0}, make([]byte, 20)...) }

// send sends frames from the pod's interface.
func (p *pod) send(t testing.TB, frames ...[]byte) {
	t.Helper()
	err := p.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		index, err := p.Index(p.Interface)
		if err != nil {
			return err
		}
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal("sending frames:", err)
	}
}
