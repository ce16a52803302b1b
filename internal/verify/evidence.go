package verify

import "net/netip"

// Evidence is what a client has seen. Distances count hops: 1 is the first router, and an end is the distance of what
// answered there.
type Evidence struct {
	Server netip.AddrPort `json:"server"`
	// Ours says that the server is `sallyport verify serve`, which traces, remembers tokens and answers in any size.
	Ours bool `json:"ours"`
	UDP  Echo `json:"udp"`
	TCP  Echo `json:"tcp"`
	// Path is the trace to the server in the flow of UDP; ToArrived is the trace to the address that arrived.
	Path      Trace `json:"path"`
	ToArrived Trace `json:"toArrived"`
	// Back are the answers of rising TTL that the server sent into the flow of UDP.
	Back Back `json:"back"`
	// Asked is what the server said to the node, where an echo had no answer.
	Asked *Asked `json:"asked,omitempty"`
	// Sizes is absent where they were not probed, and SizesReason then says why.
	Sizes       *Sizes `json:"sizes,omitempty"`
	SizesReason string `json:"sizesReason,omitempty"`
	// Incomplete says why evidence may be missing that there is: silence proves nothing then.
	Incomplete string `json:"incomplete,omitempty"`
}

// Echo is how a request fared by one protocol.
type Echo struct {
	Local   netip.AddrPort `json:"local"`            // of the client's socket
	Arrived netip.AddrPort `json:"arrived,omitzero"` // as the server saw it; absent without an answer
	Error   string         `json:"error,omitempty"`  // why there was no answer
	Refused bool           `json:"refused,omitempty"`
	Node    NodeFlow       `json:"node"`
}

// answered says whether an answer came.
func (e *Echo) answered() bool { return e.Arrived.IsValid() }

// NodeFlow is this node's conntrack entry of a flow.
type NodeFlow struct {
	State  string         `json:"state"`            // one of those below
	As     netip.AddrPort `json:"as,omitzero"`      // the source by which it leaves this node, where it is tracked
	Reason string         `json:"reason,omitempty"` // why it was not read
}

// The states of a NodeFlow.
const (
	FlowKept       = "kept"
	FlowTranslated = "translated"
	FlowUntracked  = "untracked" // the table was read, and has no such entry
	FlowUnread     = "unread"
)

// Trace are the ICMP errors that TTL-limited probes brought.
type Trace struct {
	To   netip.Addr `json:"to,omitzero"`
	End  int        `json:"end,omitempty"` // the distance at which To itself answered; 0: it never did
	Hops []Hop      `json:"hops,omitempty"`
}

// Hop is what answered at a distance, and what it quoted of the probes.
type Hop struct {
	Address netip.Addr `json:"address,omitzero"` // absent: nothing answered
	// The source of the probe, as the error quotes it, by protocol. ICMP has no port.
	QuotedUDP  netip.AddrPort `json:"quotedUDP,omitzero"`
	QuotedTCP  netip.AddrPort `json:"quotedTCP,omitzero"`
	QuotedICMP netip.Addr     `json:"quotedICMP,omitzero"`
	// Rewritten says that a quote shows another source than the probe had.
	Rewritten bool `json:"rewritten,omitempty"`
}

// at is the hop at a distance.
func (t *Trace) at(distance int) Hop {
	if distance < 1 || distance > len(t.Hops) {
		return Hop{}
	}
	return t.Hops[distance-1]
}

// Back are the errors that answers of rising TTL brought to the server. Distances count from the server.
type Back struct {
	End  int       `json:"end,omitempty"` // the lowest TTL with which an answer came; 0: none did, or none was asked for
	Hops []BackHop `json:"hops,omitempty"`
}

// BackHop is the error that the answer of one TTL brought.
type BackHop struct {
	By     netip.Addr     `json:"by,omitzero"`     // absent: none came
	Quoted netip.AddrPort `json:"quoted,omitzero"` // the destination of the answer, as the error quotes it
}

// Asked is what the server said about the token of a run.
type Asked struct {
	State string     `json:"state"`         // one of those below
	By    netip.Addr `json:"by,omitzero"`   // the node's own address, from which it was asked
	UDP   int        `json:"udp,omitempty"` // requests with the token that came
	TCP   int        `json:"tcp,omitempty"`
	// From is where the first of them came from.
	From netip.AddrPort `json:"from,omitzero"`
}

// The states of Asked.
const (
	AskedSaid     = "said"     // the counts are the server's
	AskedFull     = "full"     // the server had no room to remember tokens
	AskedForeign  = "foreign"  // another server, which knows no tokens
	AskedNoAnswer = "noAnswer" // it did not answer the node either
)

// Sizes are packets with DF, by their length with the IP header, in bytes.
type Sizes struct {
	MTU  int  `json:"mtu"` // of the interface
	Up   Size `json:"up"`
	Down Size `json:"down"`
}

// Size is what passes in one direction.
type Size struct {
	Passes int    `json:"passes"`           // the longest packet that passed
	Fails  int    `json:"fails,omitempty"`  // the shortest that did not; 0: none was found up to the longest that is tried
	Reason string `json:"reason,omitempty"` // why this was not found out
	// SaidBy is what sent an ICMP error for a packet that was too big, with the MTU that it gave.
	SaidBy  netip.Addr `json:"saidBy,omitzero"`
	SaidMTU int        `json:"saidMTU,omitempty"`
	// AtServer says that the server's own interface carries no more.
	AtServer bool `json:"atServer,omitempty"`
}

// blackHole says whether packets vanish for their size without a word.
func (s Size) blackHole() bool {
	return s.Fails > 0 && s.Reason == "" && !s.SaidBy.IsValid() && !s.AtServer
}
