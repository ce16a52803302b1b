package verify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// echo asks by UDP which address arrives, and fetches a cookie.
func (c *client) echo(ctx context.Context, e *Evidence) Echo {
	out := Echo{Local: c.local}
	wait := firstWait
	for range tries {
		a, err := c.exchange(ctx, requestLen, 1, wait, func(*message) {})
		if wait *= 2; err != nil {
			out.Error = err.Error()
			continue
		}
		if !a.mapped.IsValid() {
			out.Error = "the answer has no address"
			return out
		}
		out.Arrived, out.Error = a.mapped, ""
		e.Ours, c.cookie = a.ours == protocolVersion, a.cookie
		return out
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if r := c.in.find(func(v *event) bool { return v.kind == errorUnreachable && v.to == c.Server }); r != nil {
		out.Error = fmt.Sprintf("%s says that it is unreachable", r.by)
		if out.Refused = r.port && r.by == c.Server.Addr(); out.Refused {
			out.Error = fmt.Sprintf("%s says that nothing listens there", r.by)
		}
	}
	return out
}

// echoTCP does so by TCP. The connection, if there is one, is the caller's to close: as long as it is open, its conntrack entry
// stands.
func (c *client) echoTCP(ctx context.Context, e *Evidence) (net.Conn, Echo) {
	out := Echo{Local: netip.AddrPortFrom(c.local.Addr(), 0)}
	conn, err := c.dial(ctx, c.Options)
	if err != nil {
		out.Error, out.Refused = err.Error(), errors.Is(err, unix.ECONNREFUSED)
		return nil, out
	}
	out.Local = unmapped(conn.LocalAddr().(*net.TCPAddr).AddrPort())
	m := c.request()
	m.cookie = cookie{}
	a, err := overStream(conn, &m)
	switch {
	case err != nil:
		out.Error = "the connection stands, but " + err.Error()
	case !a.mapped.IsValid():
		out.Error = "the answer has no address"
	default:
		out.Arrived, e.Ours = a.mapped, e.Ours || a.ours == protocolVersion
	}
	return conn, out
}

// dial connects to the server from the namespace of o.
func (c *client) dial(ctx context.Context, o Options) (conn net.Conn, err error) {
	c.paced(ctx)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err = inside(o.Namespace, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", c.Server.String())
		return err
	})
	return conn, err
}

// overStream exchanges a request for an answer on a connection.
func overStream(conn net.Conn, m *message) (*message, error) {
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(m.padTo(requestLen)); err != nil {
		return nil, err
	}
	b, err := readMessage(conn)
	if err != nil {
		return nil, err
	}
	a, err := decode(b)
	if err == nil && (a.id != m.id || a.kind != bindingSuccess) {
		err = errors.New("the answer is to another request")
	}
	return a, err
}

// readFlows reads this node's conntrack entries of both flows.
func (c *client) readFlows(ctx context.Context, e *Evidence) {
	echoes := []*Echo{&e.UDP, &e.TCP}
	found, err := c.Flows(ctx, []FlowKey{
		{unix.IPPROTO_UDP, e.UDP.Local, c.Server},
		{unix.IPPROTO_TCP, e.TCP.Local, c.Server},
	})
	for i, to := range echoes {
		if err != nil {
			to.Node = NodeFlow{State: FlowUnread, Reason: err.Error()}
		} else {
			to.Node = found[i]
		}
	}
}

// ask asks the server, from the caller's own namespace, what came of this run.
func (c *client) ask(ctx context.Context) *Asked {
	o := c.Options
	o.Namespace = nil
	for _, by := range []func(context.Context, Options) (*message, netip.Addr, error){c.askUDP, c.askTCP} {
		m, from, err := by(ctx, o)
		if err != nil {
			continue
		}
		a := Asked{State: AskedForeign, By: from}
		if s := m.seen; s != nil {
			a.UDP, a.TCP, a.From = int(s.udp), int(s.tcp), s.from
			switch s.state {
			case tokenUnknown:
				a.State = AskedFull
			case tokenSeen, tokenUnseen:
				a.State = AskedSaid
			}
		}
		return &a
	}
	return &Asked{State: AskedNoAnswer}
}

func (c *client) askUDP(ctx context.Context, o Options) (*message, netip.Addr, error) {
	other, err := newClient(ctx, o)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	defer other.close()
	a, err := other.exchange(ctx, requestLen, tries, firstWait, func(m *message) { m.token, m.query = token{}, c.token })
	return a.message, other.local.Addr(), err
}

func (c *client) askTCP(ctx context.Context, o Options) (*message, netip.Addr, error) {
	conn, err := c.dial(ctx, o)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	defer conn.Close()
	m := c.request()
	m.token, m.cookie, m.query = token{}, cookie{}, c.token
	a, err := overStream(conn, &m)
	return a, unmapped(conn.LocalAddr().(*net.TCPAddr).AddrPort()).Addr(), err
}

// syn sends a TCP SYN of a given TTL to the server, from a socket that it returns with its address.
func (c *client) syn(ttl int) (fd int, local netip.AddrPort, err error) {
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(c.Server.Port()), Addr: c.server4()})
	if c.v6 {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(c.Server.Port()), Addr: c.Server.Addr().As16()}
	}
	err = inside(c.Namespace, func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, local, err
	}
	o := c.hopLimit(ttl)
	if err = unix.SetsockoptInt(fd, o.level, o.name, o.value); err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1)
	}
	if err == nil {
		if err = unix.Connect(fd, to); errors.Is(err, syscall.EINPROGRESS) {
			err = nil
		}
	}
	var at unix.Sockaddr
	if err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, local, err
	}
	return fd, endpointOf(at), nil
}

func (c *client) server4() [4]byte {
	if c.v6 {
		return [4]byte{}
	}
	return c.Server.Addr().As4()
}
