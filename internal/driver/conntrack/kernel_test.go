package conntrack

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// entry is a flow that a test makes.
type entry struct {
	protocol    compile.Protocol
	from, to    string // addresses and ports of the original direction
	peer        string // who answers; empty: to
	seen        string // what the peer sees; empty: from
	zone        uint16
	answered    bool
	established bool // TCP
}

// tuples are the entry's two directions.
func (e entry) tuples() (original, reply Tuple) {
	or := func(s, def string) string {
		if s == "" {
			return def
		}
		return s
	}
	original = Tuple{netip.MustParseAddrPort(e.from), netip.MustParseAddrPort(e.to)}
	reply = Tuple{netip.MustParseAddrPort(or(e.peer, e.to)), netip.MustParseAddrPort(or(e.seen, e.from))}
	return original, reply
}

// message is the message that makes the entry.
func (e entry) message(b []byte, seq uint32) []byte {
	original, reply := e.tuples()
	return appendEntry(b, seq, e, original, reply)
}

func appendEntry(b []byte, seq uint32, e entry, original, reply Tuple) []byte {
	family := uint8(unix.AF_INET)
	if original.Source.Addr().Is6() {
		family = unix.AF_INET6
	}
	b, at := nfnetlink.AppendHeader(b, messageNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, family, 0, seq)
	b = appendTuple(b, ctaTupleOrig, e.protocol, original)
	b = appendTuple(b, ctaTupleReply, e.protocol, reply)
	status := uint32(1 << 3) // IPS_CONFIRMED
	if e.answered {
		status |= statusAnswered | 1<<2 // IPS_ASSURED
	}
	b = nfnetlink.AppendUint32(b, ctaStatus, status)
	b = nfnetlink.AppendUint32(b, ctaTimeout, 600)
	if e.zone != 0 {
		b = nfnetlink.AppendAttr(b, ctaZone, binary.BigEndian.AppendUint16(nil, e.zone))
	}
	if e.established {
		var outer, inner int
		b, outer = nfnetlink.OpenNest(b, ctaProtoinfo)
		b, inner = nfnetlink.OpenNest(b, ctaProtoinfoTCP)
		b = nfnetlink.AppendAttr(b, ctaProtoinfoState, []byte{3})
		nfnetlink.CloseNest(b, inner)
		nfnetlink.CloseNest(b, outer)
	}
	nfnetlink.EndMessage(b, at)
	return b
}

func appendTuple(b []byte, kind uint16, p compile.Protocol, t Tuple) []byte {
	var outer, inner int
	b, outer = nfnetlink.OpenNest(b, kind)
	b, inner = nfnetlink.OpenNest(b, ctaTupleIP)
	source, destination := uint16(ctaIPv4Source), uint16(ctaIPv4Destination)
	if t.Source.Addr().Is6() {
		source, destination = ctaIPv6Source, ctaIPv6Destination
	}
	b = nfnetlink.AppendAttr(b, source, t.Source.Addr().AsSlice())
	b = nfnetlink.AppendAttr(b, destination, t.Destination.Addr().AsSlice())
	nfnetlink.CloseNest(b, inner)
	b, inner = nfnetlink.OpenNest(b, ctaTupleProto)
	b = nfnetlink.AppendAttr(b, ctaProtoNumber, []byte{byte(p)})
	port := func(kind uint16, v uint16) { b = nfnetlink.AppendAttr(b, kind, binary.BigEndian.AppendUint16(nil, v)) }
	switch p {
	case compile.ICMP:
		echo := byte(8)
		if kind == ctaTupleReply {
			echo = 0
		}
		port(ctaICMPIdentifier, max(t.Source.Port(), t.Destination.Port()))
		b = nfnetlink.AppendAttr(b, 5, []byte{echo})
		b = nfnetlink.AppendAttr(b, 6, []byte{0})
	case compile.ICMPv6:
		echo := byte(128)
		if kind == ctaTupleReply {
			echo = 129
		}
		port(ctaICMPv6Ident, max(t.Source.Port(), t.Destination.Port()))
		b = nfnetlink.AppendAttr(b, 8, []byte{echo})
		b = nfnetlink.AppendAttr(b, 9, []byte{0})
	default:
		port(ctaSourcePort, t.Source.Port())
		port(ctaDestinationPort, t.Destination.Port())
	}
	nfnetlink.CloseNest(b, inner)
	nfnetlink.CloseNest(b, outer)
	return b
}

// track makes the kernel of a host track flows.
func track(t testing.TB, h *lab.Host, entries ...entry) {
	t.Helper()
	make1 := func(i int, b []byte, seq uint32) []byte { return entries[i].message(b, seq) }
	trackMany(t, h, len(entries), make1)
}

// trackMany makes the kernel track n flows, the messages for which message appends.
func trackMany(t testing.TB, h *lab.Host, n int, message func(i int, b []byte, seq uint32) []byte) {
	t.Helper()
	s, err := nfnetlink.Dial(h.FD())
	labtest.Must(t, err)
	c := nfnetlink.NewConn(s)
	defer c.Close()
	var buf []byte
	for i := 0; i < n; {
		buf = buf[:0]
		count := 0
		for ; count < 128 && i < n; count++ {
			c.Seq++
			buf = message(i, buf, c.Seq)
			i++
		}
		labtest.Must(t, c.Send(buf))
		err := c.ReceiveAny(t.Context(), func(m nfnetlink.Message) error {
			r, err := nfnetlink.ParseReply(m)
			if err != nil {
				return err
			}
			if r.Errno != 0 {
				return &nfnetlink.Refusal{Doing: "making a flow", Errno: r.Errno, Text: r.Text}
			}
			if m.Seq == c.Seq {
				return nfnetlink.ErrEnd
			}
			return nil
		})
		labtest.Must(t, err)
	}
}

// most is how many flows the kernel of this machine tracks at most. In a user namespace it may not say.
func most(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return 1 << 15
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	labtest.Must(t, err)
	return n
}

func translateIf(yes bool) Action {
	if yes {
		return Translate
	}
	return Leave
}
