package podlab

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
)

// Frame is what was seen of a VXLAN packet (RFC 7348) on the wire between two nodes.
type Frame struct {
	From, To           netip.Addr // the nodes
	Port               uint16     // UDP
	VNI                uint32
	InnerFrom, InnerTo netip.Addr // the pods
}

// Overheard does something, and returns what passes between the first node and the router meanwhile from one address to another
// and back: each kind of VXLAN packet once, those there first, and the number of packets that are not in VXLAN.
func (d *Demo) Overheard(a, b netip.Addr, do func() error) (frames []Frame, open int, err error) {
	fd, err := listen(d.router, d.Nodes[0].Name())
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(fd)
	if err := do(); err != nil {
		return nil, 0, err
	}
	between := func(from, to netip.Addr) bool { return from == a && to == b || from == b && to == a }
	for buf := make([]byte, 1<<16); ; {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			slices.SortFunc(frames, func(x, y Frame) int { return cmp.Compare(rank(x, a), rank(y, a)) })
			return frames, open, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("reading what passes the router: %w", err)
		}
		if f, ok := parseVXLAN(buf[:n]); ok && between(f.InnerFrom, f.InnerTo) && !slices.Contains(frames, f) {
			frames = append(frames, f)
		}
		if from, to, _, _ := parseIP(buf[:n]); between(from, to) {
			open++
		}
	}
}

// rank puts packets from an address first.
func rank(f Frame, from netip.Addr) int {
	if f.InnerFrom == from {
		return 0
	}
	return 1
}

// listen opens a socket that gets each frame that passes an interface, in both directions.
func listen(h *lab.Host, name string) (fd int, err error) {
	index, err := h.Index(name)
	if err != nil {
		return -1, err
	}
	err = h.Do(func() error {
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return -1, fmt.Errorf("listening on interface %s of host %s: %w", name, h.Name(), err)
	}
	return fd, nil
}

const (
	etherLen = 14 // of an Ethernet header, in bytes
	udpLen   = 8
	vxlanLen = 8
)

// parseVXLAN reads an Ethernet frame.
func parseVXLAN(frame []byte) (f Frame, ok bool) {
	var protocol byte
	var rest []byte
	if f.From, f.To, protocol, rest = parseIP(frame); protocol != unix.IPPROTO_UDP || len(rest) < udpLen+vxlanLen {
		return Frame{}, false
	}
	const valid = 0x08 // the flag that says that there is a VNI
	f.Port = binary.BigEndian.Uint16(rest[2:])
	header := rest[udpLen:]
	f.VNI = binary.BigEndian.Uint32(header[4:]) >> 8
	f.InnerFrom, f.InnerTo, _, _ = parseIP(header[vxlanLen:])
	return f, header[0] == valid && f.InnerFrom.IsValid()
}

// parseIP reads the addresses, the protocol and what comes behind the header of the packet in an Ethernet frame; the zero values where there is no
// packet of IP in it.
func parseIP(frame []byte) (from, to netip.Addr, protocol byte, rest []byte) {
	if len(frame) < etherLen {
		return
	}
	p := frame[etherLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		if len(p) < 20 || len(p) < int(p[0]&15)*4 {
			return
		}
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[9], p[int(p[0]&15)*4:]
	case unix.ETH_P_IPV6:
		if len(p) < 40 {
			return
		}
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[6], p[40:]
	}
	return
}
