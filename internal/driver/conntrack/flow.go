package conntrack

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
)

// Tuple is one direction of a flow. For ICMP both ports are the identifier; where a protocol has no ports
// they are 0.
type Tuple struct {
	Source, Destination netip.AddrPort
}

// Flow is an entry of the table.
type Flow struct {
	Protocol compile.Protocol
	Original Tuple // of the packet that opened the flow
	Reply    Tuple // of an answer to it, as it comes from outside
	ID       uint32
	Timeout  time.Duration // until the entry ends, if no packet comes
	Start    time.Time     // zero unless net.netfilter.nf_conntrack_timestamp is on

	family uint8
	status uint32
	state  uint8 // of TCP and SCTP
	// The directions and the zone, as the kernel wrote them. They are valid while the flow is visited.
	orig, reply, zone []byte
}

// The bits of an entry's status that are looked at (enum ip_conntrack_status of
// linux/netfilter/nf_conntrack_common.h).
const (
	statusAnswered = 1 << 1 // IPS_SEEN_REPLY
	statusDying    = 1 << 9 // IPS_DYING
)

// Translated says whether the flow's source was translated, by whomever.
func (f *Flow) Translated() bool { return f.Reply.Destination != f.Original.Source }

// Tracked is the flow as plans judge it.
func (f *Flow) Tracked() compile.Tracked {
	return compile.Tracked{Protocol: f.Protocol, Source: f.Original.Source, Peer: f.Reply.Source.Addr(), Seen: f.Reply.Destination,
		Answered: f.status&statusAnswered != 0}
}

// The states of a flow (enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h, enum sctp_conntrack of
// nf_conntrack_sctp.h).
var (
	tcpStates  = [...]string{"none", "syn-sent", "syn-recv", "established", "fin-wait", "close-wait", "last-ack", "time-wait", "close", "syn-sent2"}
	sctpStates = [...]string{"none", "closed", "cookie-wait", "cookie-echoed", "established", "shutdown-sent", "shutdown-recv", "shutdown-ack-sent", "heartbeat-sent", "heartbeat-acked"}
)

// State is a word for how the flow stands: the connection's state for TCP and SCTP, else "answered" or
// "unanswered".
func (f *Flow) State() string {
	switch {
	case f.Protocol == compile.TCP && int(f.state) < len(tcpStates):
		return tcpStates[f.state]
	case f.Protocol == compile.SCTP && int(f.state) < len(sctpStates):
		return sctpStates[f.state]
	case f.status&statusAnswered != 0:
		return "answered"
	default:
		return "unanswered"
	}
}

// connects says whether the protocol has connections.
func (f *Flow) connects() bool { return f.Protocol == compile.TCP || f.Protocol == compile.SCTP }

// over says whether the connection has ended and the entry waits for its time only.
func (f *Flow) over() bool {
	return f.Protocol == compile.TCP && (f.state == 7 || f.state == 8) || f.Protocol == compile.SCTP && f.state == 1
}
