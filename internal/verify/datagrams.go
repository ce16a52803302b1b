package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// datagrams is the server's UDP socket of one family. It keeps the ICMP errors that come for its answers (IP_RECVERR of
// ip(7)), so that no raw socket is needed, and sends from the address that was asked.
type datagrams struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
	v6    bool
}

// option sets an option of a socket.
type option struct{ level, name, value int }

// dontFragment makes packets leave with DF, in any size up to the MTU of the interface, whatever the kernel knows of the path.
func dontFragment(v6 bool) []option {
	if v6 {
		return []option{{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE}, {unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1}}
	}
	return []option{{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE}}
}

func setOptions(raw syscall.RawConn, options ...option) error {
	var err error
	ctl := raw.Control(func(fd uintptr) {
		for _, o := range options {
			if e := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); e != nil {
				err = errors.Join(err, fmt.Errorf("setting option %d of level %d of a socket: %w", o.name, o.level, e))
			}
		}
	})
	return errors.Join(ctl, err)
}

func listenDatagrams(ctx context.Context, at netip.AddrPort) (*datagrams, error) {
	d := &datagrams{v6: at.Addr().Is6()}
	p, err := new(net.ListenConfig).ListenPacket(ctx, d.family("udp"), at.String())
	if err != nil {
		return nil, err
	}
	d.conn = p.(*net.UDPConn)
	d.local = unmapped(d.conn.LocalAddr().(*net.UDPAddr).AddrPort())
	options := append(dontFragment(false), option{unix.IPPROTO_IP, unix.IP_RECVERR, 1}, option{unix.IPPROTO_IP, unix.IP_PKTINFO, 1})
	if d.v6 {
		options = append(dontFragment(true), option{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1}, option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1})
	}
	if d.raw, err = d.conn.SyscallConn(); err == nil {
		err = setOptions(d.raw, options...)
	}
	if err != nil {
		return nil, errors.Join(err, d.conn.Close())
	}
	return d, nil
}

func (d *datagrams) family(protocol string) string {
	if d.v6 {
		return protocol + "6"
	}
	return protocol + "4"
}

// noFamily says whether the kernel has no addresses of a family.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// serveDatagrams answers requests.
func (s *Server) serveDatagrams(d *datagrams) error {
	b, oob := make([]byte, maxMessage+1), make([]byte, 256)
	for {
		n, control, _, from, err := d.conn.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		s.errors(d) // what is pending makes calls fail
		if err != nil {
			continue // it is that of an ICMP error, which the call has cleared
		}
		from = unmapped(from)
		now := s.now()
		if !s.allowed(from.Addr()) || !s.limits.take(from.Addr(), now) {
			continue
		}
		if out, ttl := s.answer(b[:n], from, false, now); out != nil {
			s.send(d, out, from, ttl, oob[:control])
		}
	}
}

// sends bounds how often an answer is sent: an error that is pending for another one makes the call fail first.
const sends = 4

// send sends an answer from the address that was asked.
func (s *Server) send(d *datagrams, out []byte, to netip.AddrPort, ttl uint8, asked []byte) {
	control := source(asked)
	if ttl != 0 && d.v6 {
		control = appendControl(control, unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, binary.NativeEndian.AppendUint32(nil, uint32(ttl)))
	} else if ttl != 0 {
		control = appendControl(control, unix.IPPROTO_IP, unix.IP_TTL, binary.NativeEndian.AppendUint32(nil, uint32(ttl)))
	}
	for range sends {
		_, _, err := d.conn.WriteMsgUDPAddrPort(out, control, to)
		if err == nil {
			return
		}
		if errors.Is(err, unix.EMSGSIZE) { // as an ICMP error, but from here
			s.sessions.note(transaction(out[8:headerLen]), hopError{kind: errorTooBig})
		}
		s.errors(d)
	}
}

// source makes of the control messages of a request those that send the answer from the address that was asked.
func source(asked []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(asked)
	if err != nil {
		return nil
	}
	var out []byte
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			info := make([]byte, unix.SizeofInet4Pktinfo) // without the interface: routes say which one
			copy(info[4:8], m.Data[4:8])                  // ipi_spec_dst
			out = appendControl(out, unix.IPPROTO_IP, unix.IP_PKTINFO, info)
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := make([]byte, unix.SizeofInet6Pktinfo)
			copy(info[:16], m.Data[:16])
			if m.Data[0] == 0xfe && m.Data[1]&0xc0 == 0x80 { // link-local
				copy(info[16:], m.Data[16:])
			}
			out = appendControl(out, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info)
		}
	}
	return out
}

// appendControl appends a control message: its length as a size_t, level, kind and data (struct cmsghdr of cmsg(3)).
func appendControl(b []byte, level, kind int, data []byte) []byte {
	m := make([]byte, unix.CmsgSpace(len(data)))
	size := unix.SizeofCmsghdr - 8
	if size == 8 {
		binary.NativeEndian.PutUint64(m, uint64(unix.CmsgLen(len(data))))
	} else {
		binary.NativeEndian.PutUint32(m, uint32(unix.CmsgLen(len(data))))
	}
	binary.NativeEndian.PutUint32(m[size:], uint32(level))
	binary.NativeEndian.PutUint32(m[size+4:], uint32(kind))
	copy(m[unix.CmsgLen(0):], data)
	return append(b, m...)
}

// errors reads the ICMP errors that have come, until there are none.
func (s *Server) errors(d *datagrams) {
	b, oob := make([]byte, 256), make([]byte, 512)
	_ = d.raw.Control(func(fd uintptr) { // it fails once the socket is closed
		for {
			n, control, _, to, err := unix.Recvmsg(int(fd), b, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			if e, ok := parseError(oob[:control]); ok && n >= headerLen {
				e.to = endpointOf(to)
				s.sessions.note(transaction(b[8:headerLen]), e)
			}
		}
	})
}

func endpointOf(s unix.Sockaddr) netip.AddrPort {
	switch a := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// parseError reads struct sock_extended_err of linux/errqueue.h, after which the address stands that the error came from.
func parseError(control []byte) (e hopError, ok bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return e, false
	}
	const size, from = 16, 8 // of the struct; the offset of the address in a sockaddr_in6
	for _, m := range messages {
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !v6 && (m.Header.Level != unix.IPPROTO_IP || m.Header.Type != unix.IP_RECVERR) || len(m.Data) < size+8 {
			continue
		}
		origin, kind, code := m.Data[4], m.Data[5], m.Data[6]
		switch {
		case !v6 && origin == unix.SO_EE_ORIGIN_ICMP:
			e.kind, e.by = kindOf4(kind, code), netip.AddrFrom4([4]byte(m.Data[size+4:size+8]))
		case v6 && origin == unix.SO_EE_ORIGIN_ICMP6 && len(m.Data) >= size+from+16:
			e.kind, e.by = kindOf6(kind), netip.AddrFrom16([16]byte(m.Data[size+from:size+from+16]))
		default:
			continue
		}
		e.mtu = uint16(min(binary.NativeEndian.Uint32(m.Data[8:]), 1<<16-1)) // ee_info
		return e, e.kind != 0
	}
	return e, false
}

// kindOf4 and kindOf6 are the kinds of ICMP errors of RFC 792 and RFC 4443; 0 is one that says nothing here.
func kindOf4(kind, code uint8) uint8 {
	switch {
	case kind == 11 && code == 0:
		return errorExpired
	case kind == 3 && code == 4:
		return errorTooBig
	case kind == 3:
		return errorUnreachable
	}
	return 0
}

func kindOf6(kind uint8) uint8 {
	switch kind {
	case 1:
		return errorUnreachable
	case 2:
		return errorTooBig
	case 3:
		return errorExpired
	}
	return 0
}

// readMessage reads one message from a stream.
func readMessage(r io.Reader) ([]byte, error) {
	header := make([]byte, headerLen)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	n, err := messageLen(header)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	copy(b, header)
	_, err = io.ReadFull(r, b[headerLen:])
	return b, err
}
