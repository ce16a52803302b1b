package bgp

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// seen opens a TCP connection and says who it comes from, as the other end sees it.
func seen(from *lab.Host, source netip.Addr, to *lab.Host, at netip.Addr) (netip.Addr, error) {
	l, err := to.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer l.Close()
	got := make(chan netip.Addr, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		got <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		_, _ = io.WriteString(c, "x")
		_ = c.Close()
	}()
	var c net.Conn
	err = from.Do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0)), Timeout: 2 * time.Second}
		c, err = d.DialContext(context.Background(), "tcp", l.Addr().String())
		return err
	})
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return netip.Addr{}, err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return netip.Addr{}, err
	}
	return <-got, nil
}

// sees waits until the other end of new connections sees an address.
func sees(t *testing.T, from *lab.Host, source [2]netip.Addr, to *lab.Host, at, want [2]netip.Addr) {
	t.Helper()
	for family := range want {
		labtest.Eventually(t, func() string {
			got, err := seen(from, source[family], to, at[family])
			if err != nil || got != want[family] {
				return fmt.Sprintf("from %s (%s) to %s (%s): seen as %s, want %s (%v)", from.Name(), source[family], to.Name(), at[family], got, want[family], err)
			}
			return ""
		})
	}
}

// reach: outside hosts and pods reach each other, in both families and both ways.
func (r *racks) reach(public, private []*pod) {
	t := r.t
	for i, p := range public {
		sees(t, p.Host, p.at, r.outside, outsideAt, p.at)
		sees(t, r.outside, outsideAt, p.Host, p.at, outsideAt)
		next := public[(i+1)%len(public)]
		sees(t, p.Host, p.at, next.Host, next.at, p.at)
	}
	for i, p := range private {
		sees(t, p.Host, p.at, r.outside, outsideAt, p.node.own)
		next := private[(i+1)%len(private)]
		sees(t, p.Host, p.at, next.Host, next.at, p.at)
		sees(t, p.Host, p.at, public[i].Host, public[i].at, p.at)
	}
}
