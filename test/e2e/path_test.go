package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// path is a pod behind a node, and two servers behind a router: one on a link of 1500
// bytes and one on a narrow link.
//
//	pod ── node ── router ── wide
//	                     └── narrow (MTU 1300)
type path struct {
	pod, node, router, wide, narrow *lab.Host
}

// narrowMTU is the MTU of the narrow link, in bytes: at least IPv6's minimum of 1280.
const narrowMTU = 1300

// Addresses of the path, IPv4 and IPv6.
var (
	pathPod    = [2]netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	pathNode   = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:f0::1")}
	pathWide   = [2]netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:f1::2")}
	pathNarrow = [2]netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("2001:db8:f2::2")}
)

func newPath(t *testing.T) *path {
	t.Helper()
	p := &path{
		pod: labtest.NewHost(t, "pod"), node: labtest.NewHost(t, "node"), router: labtest.NewHost(t, "router"),
		wide: labtest.NewHost(t, "wide"), narrow: labtest.NewHost(t, "narrow"),
	}
	port := func(h *lab.Host, name string, a [2]netip.Addr, mtu int) lab.Port {
		return lab.Port{Host: h, Name: name, MTU: mtu, Addresses: []netip.Prefix{netip.PrefixFrom(a[0], 24), netip.PrefixFrom(a[1], 64)}}
	}
	// The other end of a link has the address before, or on the node's way out the one after.
	gateway := func(a [2]netip.Addr) [2]netip.Addr { return [2]netip.Addr{a[0].Prev(), a[1].Prev()} }
	next := func(a [2]netip.Addr) [2]netip.Addr { return [2]netip.Addr{a[0].Next(), a[1].Next()} }
	labtest.Must(t,
		lab.Link(port(p.pod, "eth0", pathPod, 0), port(p.node, "pod", gateway(pathPod), 0)),
		lab.Link(port(p.node, "eth0", pathNode, 0), port(p.router, "node", next(pathNode), 0)),
		lab.Link(port(p.wide, "eth0", pathWide, 0), port(p.router, "wide", gateway(pathWide), 0)),
		lab.Link(port(p.narrow, "eth0", pathNarrow, narrowMTU), port(p.router, "narrow", gateway(pathNarrow), narrowMTU)),
		p.node.Forward(), p.router.Forward(),
	)
	for family, to := range everything {
		labtest.Must(t,
			p.pod.AddRoute(lab.Route{To: to, Via: gateway(pathPod)[family]}),
			p.node.AddRoute(lab.Route{To: to, Via: next(pathNode)[family]}),
			p.wide.AddRoute(lab.Route{To: to, Via: gateway(pathWide)[family]}),
			p.narrow.AddRoute(lab.Route{To: to, Via: gateway(pathNarrow)[family]}),
		)
	}
	return p
}

// newTranslatingPath is a path whose node translates the pod.
func newTranslatingPath(t *testing.T) *path {
	t.Helper()
	p := newPath(t)
	p.program(t, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat"))
	return p
}

// nat is a driver for the node, until the test ends.
func (p *path) nat(t *testing.T) *nat.Driver {
	t.Helper()
	nat, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: p.node.FD()})
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, nat.Close()) })
	return nat
}

// program puts what pools come to into the node's kernel, until the test ends.
func (p *path) program(t *testing.T, pools ...*model.Pool) *compile.Plan {
	t.Helper()
	nat := p.nat(t)
	plan := compile.Compile(snapshot(nil, pools...), model.Local{Name: "node"})
	labtest.Must(t, nat.Apply(t.Context(), plan.NAT))
	return plan
}

// TestPacketTooBig sends a datagram that may not be fragmented through the narrow link: the router's
// error reaches the pod, quoting the packet as the pod has sent it, and the pod's kernel believes it.
func TestPacketTooBig(t *testing.T) {
	t.Parallel()
	p := newTranslatingPath(t)
	pod := newTap(t, p.pod, "eth0", p.node, "pod")
	for family, server := range pathNarrow {
		conn, err := p.pod.Dial(t.Context(), "udp", netip.AddrPortFrom(server, 9).String())
		labtest.Must(t, err, neverFragment(conn))
		_, err = conn.Write(make([]byte, 1400))
		labtest.Must(t, err)
		err = watch([]*tap{pod}, patience, func(_ *tap, ip []byte) (bool, error) {
			inner, mtu, ok := quoted(ip)
			if !ok {
				return false, nil
			}
			local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			got := fmt.Sprintf("%s to %s MTU %d", netip.AddrPortFrom(inner.src, inner.sport), netip.AddrPortFrom(inner.dst, inner.dport), mtu)
			want := fmt.Sprintf("%s to %s MTU %d", local, netip.AddrPortFrom(server, 9), narrowMTU)
			if got != want {
				t.Errorf("the error quotes a packet from %s, want %s", got, want)
			}
			return true, errDone
		})
		if !errors.Is(err, errDone) {
			t.Fatalf("family %d: no error reached the pod (%v)", family, err)
		}
		if _, err = conn.Write(make([]byte, 1400)); err == nil { // a pending error comes first
			_, err = conn.Write(make([]byte, 1400))
		}
		if !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("family %d: the pod may still send 1400 bytes: %v", family, err)
		}
		labtest.Must(t, conn.Close())
	}
}

// errDone ends a watch that has seen what it waited for.
var errDone = errors.New("done")

// neverFragment sets "do not fragment" on a socket and makes too long datagrams an error.
func neverFragment(conn net.Conn) error {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if conn.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			return
		}
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	})
	return errors.Join(err, failed)
}

// quoted reads an ICMP error "fragmentation needed" (RFC 792) or "packet too big" (RFC 4443): the
// addresses and ports of the packet that it quotes, and the MTU.
func quoted(ip []byte) (inner packet, mtu int, ok bool) {
	if ip[0]>>4 == 4 && len(ip) >= 2*ipv4Header+16 && ip[9] == byte(compile.ICMP) && ip[20] == 3 && ip[21] == 4 {
		in := ip[ipv4Header+8:]
		inner.src, inner.dst = netip.AddrFrom4([4]byte(in[12:])), netip.AddrFrom4([4]byte(in[16:]))
		inner.sport, inner.dport = binary.BigEndian.Uint16(in[ipv4Header:]), binary.BigEndian.Uint16(in[ipv4Header+2:])
		return inner, int(binary.BigEndian.Uint16(ip[ipv4Header+6:])), true
	}
	if ip[0]>>4 == 6 && len(ip) >= 2*ipv6Header+16 && ip[6] == byte(compile.ICMPv6) && ip[40] == 2 {
		in := ip[ipv6Header+8:]
		inner.src, inner.dst = netip.AddrFrom16([16]byte(in[8:])), netip.AddrFrom16([16]byte(in[24:]))
		inner.sport, inner.dport = binary.BigEndian.Uint16(in[ipv6Header:]), binary.BigEndian.Uint16(in[ipv6Header+2:])
		return inner, int(binary.BigEndian.Uint32(ip[ipv6Header+4:])), true
	}
	return inner, 0, false
}

// TestPathMTUDiscovery sends half a megabyte by TCP through the narrow link, which only works if the
// pod learns of it.
func TestPathMTUDiscovery(t *testing.T) {
	t.Parallel()
	p := newTranslatingPath(t)
	for family, server := range pathNarrow {
		l, err := p.narrow.Listen("tcp", netip.AddrPortFrom(server, 80).String())
		labtest.Must(t, err)
		// The server offers segments of 1460 bytes, as if its own link were wide.
		labtest.Must(t, p.narrow.SetMTU("eth0", 1500))
		received := make(chan string, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				received <- err.Error()
				return
			}
			n, err := io.Copy(io.Discard, conn)
			host := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr()
			received <- fmt.Sprint(n, " bytes from ", host, " ", err)
			_ = conn.Close()
		}()
		conn, err := p.pod.Dial(t.Context(), "tcp", l.Addr().String())
		labtest.Must(t, err, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write(make([]byte, 1<<19))
		labtest.Must(t, err, conn.Close())
		if got, want := <-received, fmt.Sprint(1<<19, " bytes from ", pathNode[family], " <nil>"); got != want {
			t.Errorf("the server received %s, want %s", got, want)
		}
		labtest.Must(t, l.Close())
	}
}

// TestFragments sends datagrams that are longer than any link's MTU there and back: they arrive whole
// and translated.
func TestFragments(t *testing.T) {
	t.Parallel()
	p := newTranslatingPath(t)
	for family, server := range pathWide {
		far, err := p.wide.ListenPacket("udp", netip.AddrPortFrom(server, 9).String())
		labtest.Must(t, err, far.SetDeadline(time.Now().Add(patience)))
		conn, err := p.pod.Dial(t.Context(), "udp", far.LocalAddr().String())
		labtest.Must(t, err, conn.SetDeadline(time.Now().Add(patience)))
		for _, size := range []int{1473, 4000, 20000, 60000} {
			sent := make([]byte, size)
			for i := range sent {
				sent[i] = byte(i % 251)
			}
			_, err = conn.Write(sent)
			labtest.Must(t, err)
			got := make([]byte, 65536)
			n, from, err := far.ReadFrom(got)
			labtest.Must(t, err)
			if string(got[:n]) != string(sent) {
				t.Errorf("the server got %d bytes, want the %d that were sent", n, size)
			}
			if a := netip.MustParseAddrPort(from.String()).Addr(); a != pathNode[family] {
				t.Errorf("the server saw %s, want the node's address %s", a, pathNode[family])
			}
			_, err = far.WriteTo(got[:n], from)
			labtest.Must(t, err)
			n, err = conn.Read(got)
			labtest.Must(t, err)
			if string(got[:n]) != string(sent) {
				t.Errorf("the pod got %d bytes back, want %d", n, size)
			}
		}
		labtest.Must(t, conn.Close(), far.Close())
	}
}
