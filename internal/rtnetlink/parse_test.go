package rtnetlink

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// body makes the only message of a batch.
func body(kind uint16, fixed []byte, attributes func(*Batch)) nfnetlink.Message {
	var b Batch
	b.Message(kind, 0, fixed)
	attributes(&b)
	return b.At(0)
}

// examples are messages as the kernel sends them, one of each kind.
func examples() []nfnetlink.Message {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	return []nfnetlink.Message{
		body(unix.RTM_NEWLINK, Link(7, unix.IFF_UP, 0), func(b *Batch) {
			b.Text(unix.IFLA_IFNAME, "sly0")
			b.Text(unix.IFLA_IFALIAS, "alias")
			b.Bytes(unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 1})
			b.Uint32(unix.IFLA_MTU, 1450)
			b.Uint32(unix.IFLA_GROUP, 3)
			b.Uint32(unix.IFLA_MASTER, 9)
			b.Uint32(unix.IFLA_LINK, 2)
			b.Nest(unix.IFLA_LINKINFO, func() { b.Text(unix.IFLA_INFO_KIND, "veth"); b.Bytes(unix.IFLA_INFO_DATA, []byte{1, 2, 3, 4}) })
		}),
		body(unix.RTM_NEWADDR, Address(7, netip.PrefixFrom(four, 24)), func(b *Batch) {
			b.Addr(unix.IFA_ADDRESS, netip.MustParseAddr("192.0.2.9"))
			b.Addr(unix.IFA_LOCAL, four)
			b.Uint32(unix.IFA_FLAGS, unix.IFA_F_PERMANENT|unix.IFA_F_SECONDARY)
		}),
		body(unix.RTM_NEWROUTE, RouteFixed{Destination: netip.PrefixFrom(six, 64), Table: unix.RT_TABLE_MAIN, Protocol: RouteProtocol, Type: unix.RTN_UNICAST}.Encode(), func(b *Batch) {
			b.Addr(unix.RTA_DST, six)
			b.Addr(unix.RTA_GATEWAY, netip.MustParseAddr("fe80::1"))
			b.Addr(unix.RTA_PREFSRC, six.Next())
			b.Uint32(unix.RTA_PRIORITY, 1024)
			b.Uint32(unix.RTA_OIF, 7)
		}),
		body(unix.RTM_NEWNEIGH, Neighbour(unix.AF_INET, 7, unix.NUD_PERMANENT, unix.NTF_SELF), func(b *Batch) {
			b.Addr(unix.NDA_DST, four)
			b.Bytes(unix.NDA_LLADDR, []byte{2, 0, 0, 0, 0, 1})
		}),
		body(unix.RTM_NEWNETCONF, []byte{unix.AF_INET, 0, 0, 0}, func(b *Batch) {
			b.Uint32(1, 1<<32-1)
			b.Uint32(2, 0)
		}),
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	m := examples()
	l, err := ParseLink(m[0])
	if string(l.Options) != "\x01\x02\x03\x04" || err != nil {
		t.Errorf("options %v, %v", l.Options, err)
	}
	l.Options = nil
	mac := [6]byte{2, 0, 0, 0, 0, 1}
	if want := (LinkMessage{Index: 7, Peer: 2, Up: true, Name: "sly0", Alias: "alias", Kind: "veth", MAC: mac, MTU: 1450, Group: 3, Master: 9}); l.Name != want.Name ||
		l.Alias != want.Alias || l.Kind != want.Kind || l.MAC != want.MAC || l.MTU != want.MTU || l.Group != want.Group || l.Master != want.Master || l.Index != want.Index || l.Peer != want.Peer || !l.Up {
		t.Errorf("%+v, want %+v", l, want)
	}
	if a, err := ParseAddress(m[1]); err != nil || a != (AddressMessage{7, netip.MustParsePrefix("192.0.2.1/24"), unix.IFA_F_PERMANENT}) {
		t.Errorf("%+v, %v", a, err)
	}
	want := RouteMessage{To: netip.MustParsePrefix("2001:db8::1/64"), Via: netip.MustParseAddr("fe80::1"), From: netip.MustParseAddr("2001:db8::2"), Index: 7, Metric: 1024,
		Table: unix.RT_TABLE_MAIN, Protocol: RouteProtocol, Type: unix.RTN_UNICAST}
	if r, err := ParseRoute(m[2]); err != nil || r != want {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
	if f, err := ParseForwarding(m[4]); err != nil || f != (ForwardingMessage{All: true, Off: true}) {
		t.Errorf("forwarding %+v, %v", f, err)
	}
	if n, err := ParseNeighbour(m[3]); err != nil || n != (NeighbourMessage{7, netip.MustParseAddr("192.0.2.1"), mac, unix.NUD_PERMANENT, unix.NTF_SELF}) {
		t.Errorf("%+v, %v", n, err)
	}
}

// TestParseOtherFamilies reads messages of families whose addresses are not of IPv4 or IPv6, though as long.
func TestParseOtherFamilies(t *testing.T) {
	t.Parallel()
	m := examples()
	m[1].Body[0], m[2].Body[0] = unix.AF_PHONET, unix.AF_MPLS
	if a, err := ParseAddress(m[1]); err != nil || a.Prefix.IsValid() {
		t.Errorf("%+v, %v", a, err)
	}
	if r, err := ParseRoute(m[2]); err != nil || r.To.IsValid() {
		t.Errorf("%+v, %v", r, err)
	}
}

// parsers read a message as each kind.
func parsers() []func(nfnetlink.Message) error {
	return []func(nfnetlink.Message) error{
		func(m nfnetlink.Message) error { _, err := ParseLink(m); return err },
		func(m nfnetlink.Message) error { _, err := ParseAddress(m); return err },
		func(m nfnetlink.Message) error { _, err := ParseRoute(m); return err },
		func(m nfnetlink.Message) error { _, err := ParseNeighbour(m); return err },
		func(m nfnetlink.Message) error { _, err := ParseForwarding(m); return err },
	}
}

// TestParseCutMessages cuts each message at each byte: it is refused, or the cut is between two attributes.
func TestParseCutMessages(t *testing.T) {
	t.Parallel()
	for i, parse := range parsers() {
		whole := examples()[i].Body
		refused := 0
		for n := range whole {
			if err := parse(nfnetlink.Message{Body: whole[:n]}); err != nil {
				refused++
				if !errors.Is(err, nfnetlink.ErrMalformed) {
					t.Errorf("kind %d, cut at %d: %v", i, n, err)
				}
			}
		}
		if refused < len(whole)/2 {
			t.Errorf("kind %d: of %d cut messages, %d are refused", i, len(whole), refused)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range examples() {
		f.Add(m.Body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range parsers() {
			if err := parse(nfnetlink.Message{Body: b}); err != nil && !errors.Is(err, nfnetlink.ErrMalformed) {
				t.Fatal(err)
			}
		}
		if r, err := ParseRoute(nfnetlink.Message{Body: b}); err == nil && r.To.IsValid() && r.To.Addr().Is4() != (b[0] == unix.AF_INET) {
			t.Fatalf("family %d, route %+v", b[0], r)
		}
	})
}
