package rtnetlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// counting counts what is sent, and answers.
type counting struct {
	nfnetlink.Socket
	sent, received int
}

func (c *counting) Send(b []byte) error { c.sent++; return c.Socket.Send(b) }
func (c *counting) Receive(b []byte) (int, error) {
	c.received++
	return c.Socket.Receive(b)
}

// open opens a connection in a host that has a link "eth0", and says its index.
func open(t *testing.T) (*lab.Host, *Conn, *counting, int) {
	t.Helper()
	h := labtest.NewHost(t, "host")
	s, err := nfnetlink.DialProtocol(unix.NETLINK_ROUTE, h.FD())
	if err != nil {
		t.Fatal(err)
	}
	if err := strict(s); err != nil {
		t.Fatal(err)
	}
	count := &counting{Socket: s}
	c := New(count)
	t.Cleanup(func() { _ = c.Close() })
	var b Batch
	b.Message(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, Link(0, unix.IFF_UP, unix.IFF_UP))
	b.Text(unix.IFLA_IFNAME, "eth0")
	b.Nest(unix.IFLA_LINKINFO, func() { b.Text(unix.IFLA_INFO_KIND, "veth") })
	b.Message(unix.RTM_NEWLINK, 0, Link(0, unix.IFF_UP, unix.IFF_UP))
	b.Text(unix.IFLA_IFNAME, "veth0")
	if refused, err := c.Execute(t.Context(), &b); err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	index, err := h.Index("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return h, c, count, index
}

// routes appends n routes of a protocol, from 10.0.0.0/26 on.
func routes(b *Batch, index, n int, protocol uint8) {
	for i := range n {
		raw := [4]byte{10}
		binary.BigEndian.PutUint32(raw[:], 10<<24+uint32(i)<<6)
		to := netip.PrefixFrom(netip.AddrFrom4(raw), 26)
		b.Message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, RouteFixed{
			Destination: to, Table: unix.RT_TABLE_MAIN, Protocol: protocol, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST,
		}.Encode())
		b.Addr(unix.RTA_DST, to.Addr())
		b.Uint32(unix.RTA_OIF, uint32(index))
	}
}

// dumpOf counts the routes of a protocol.
func dumpOf(t *testing.T, c *Conn, protocol uint8) int {
	t.Helper()
	var b Batch
	b.Message(unix.RTM_GETROUTE, 0, RouteFixed{Destination: netip.MustParsePrefix("0.0.0.0/0"), Protocol: protocol}.Encode())
	n := 0
	if err := c.Dump(t.Context(), "reading routes", &b, func(nfnetlink.Message) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestManyMessagesAreFewSystemCalls(t *testing.T) {
	t.Parallel()
	_, c, count, index := open(t)
	count.sent, count.received = 0, 0
	const n = 10_000
	var b Batch
	routes(&b, index, n, 115)
	refused, err := c.Execute(t.Context(), &b)
	if err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	if count.sent > 5 || count.received > 5 {
		t.Errorf("%d sent and %d received for %d routes", count.sent, count.received, n)
	}
	if got := dumpOf(t, c, 115); got != n {
		t.Errorf("the kernel has %d routes", got)
	}
	if got := dumpOf(t, c, 116); got != 0 {
		t.Errorf("the kernel has %d routes of a protocol that none has", got)
	}
}

func TestRefusedMessagesAreNamedAndTheOthersCarriedOut(t *testing.T) {
	t.Parallel()
	_, c, _, index := open(t)
	var b Batch
	routes(&b, index, 3000, 115)
	routes(&b, index, 1, 115)   // message 3000: there already
	routes(&b, index+7, 1, 115) // message 3001: no such link
	routes(&b, index, 3001, 115)
	refused, err := c.Execute(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	if len(refused) != 3002 || refused[0].Index != 3000 || refused[0].Errno != unix.EEXIST || refused[1].Index != 3001 {
		t.Fatalf("%d refused, first %v", len(refused), refused[:2])
	}
	if got := dumpOf(t, c, 115); got != 3001 {
		t.Errorf("the kernel has %d routes", got)
	}
	if err := refused[0].Error("adding the route"); !errors.Is(err, unix.EEXIST) || err.Error() != "adding the route: file exists" {
		t.Error(err)
	}
}

func TestAdoptedSocketStaysInItsNamespace(t *testing.T) {
	t.Parallel()
	h, _, _, _ := open(t)
	adopt := func(protocol int) (*Conn, error) {
		var file *os.File
		labtest.Must(t, h.Do(func() error {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
			if err != nil {
				return err
			}
			file = os.NewFile(uintptr(fd), "netlink")
			return nil
		}))
		return Adopt(file)
	}
	if c, err := adopt(unix.NETLINK_NETFILTER); err == nil {
		t.Error("a socket of netfilter was taken for one of rtnetlink")
		_ = c.Close()
	}
	c, err := adopt(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b Batch
	b.Message(unix.RTM_GETLINK, 0, Link(0, 0, 0))
	b.Text(unix.IFLA_IFNAME, "eth0")
	found := 0
	if err := c.Get(t.Context(), "reading eth0", &b, func(nfnetlink.Message) error { found++; return nil }); err != nil || found != 1 {
		t.Errorf("eth0 was found %d times: %v", found, err)
	}
}

func TestNotificationsComeFromAllGroups(t *testing.T) {
	t.Parallel()
	h, c, _, index := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	began, seen, done := make(chan struct{}), map[uint16]bool{}, make(chan error, 1)
	go func() {
		done <- Subscribe(ctx, h.FD(), []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE}, Unheard{}, func() { close(began) }, func(m nfnetlink.Message) {
			if seen[m.Kind] = true; seen[unix.RTM_NEWLINK] && seen[unix.RTM_NEWROUTE] {
				cancel()
			}
		})
	}()
	<-began
	var b Batch
	routes(&b, index, 1, 115)
	b.Message(unix.RTM_NEWLINK, 0, Link(index, 0, 0))
	b.Uint32(unix.IFLA_MTU, 1400)
	if refused, err := c.Execute(t.Context(), &b); err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	if err := <-done; err != nil || len(seen) < 2 {
		t.Error(fmt.Sprint(seen), err)
	}
}
