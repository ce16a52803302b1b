package verify

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Kind is a verdict.
type Kind string

// The verdicts, the worst first: the one of a report is the worst of its findings.
const (
	NeverArrived      Kind = "never arrived"
	NoWayBack         Kind = "no way back"
	BlackHole         Kind = "MTU black hole"
	TranslatedFurther Kind = "translated further on"
	Translated        Kind = "translated" // by this node or further on: the node's conntrack table was not read
	TranslatedHere    Kind = "translated by this node"
	PortRewritten     Kind = "port rewritten"
	Unknown           Kind = "unknown"
	Kept              Kind = "kept"
)

// severity is the order of the verdicts.
var severity = [...]Kind{NeverArrived, NoWayBack, BlackHole, TranslatedFurther, Translated, TranslatedHere, PortRewritten, Unknown, Kept}

// Report is what follows from evidence.
type Report struct {
	Verdict  Kind      `json:"verdict"`
	Findings []Finding `json:"findings"`
	Evidence Evidence  `json:"evidence"`
}

// Finding is one thing that follows, with what it follows from.
type Finding struct {
	Of      string   `json:"of"` // udp, tcp or size
	Verdict Kind     `json:"verdict"`
	Place   *Place   `json:"place,omitempty"` // of what translates further on
	Because []string `json:"because"`
}

// Judge says what follows from evidence.
func Judge(e Evidence) Report {
	r := Report{Evidence: e, Findings: slices.Concat(e.flow("udp", &e.UDP), e.flow("tcp", &e.TCP), e.sizes())}
	counted := slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool {
		return f.Of == "tcp" && e.TCP.Refused && e.UDP.answered() && !e.Ours // a server for UDP alone
	})
	worst := slices.MinFunc(counted, func(a, b Finding) int {
		return cmp.Compare(slices.Index(severity[:], a.Verdict), slices.Index(severity[:], b.Verdict))
	})
	r.Verdict = worst.Verdict
	if e.Incomplete != "" && (r.Verdict == Kept || r.Verdict == BlackHole) { // both take silence for a sign
		r.Verdict = Unknown
	}
	return r
}

// flow is what follows about the flow of one protocol.
func (e *Evidence) flow(of string, echo *Echo) []Finding {
	if !echo.answered() {
		return []Finding{e.unanswered(of, echo)}
	}
	arrived := fmt.Sprintf("The server %s saw %s, and the socket sent from %s.", e.Server, echo.Arrived, echo.Local)
	left, node := echo.Local, ""
	var out []Finding
	switch n := echo.Node; n.State {
	case FlowTranslated:
		left, node = n.As, fmt.Sprintf("This node's conntrack entry of the flow translates %s to %s.", echo.Local, n.As)
		here := TranslatedHere
		if n.As.Addr() == echo.Local.Addr() {
			here = PortRewritten
		}
		out = append(out, Finding{Of: of, Verdict: here, Because: []string{node, arrived}})
	case FlowKept:
		node = "This node's conntrack entry of the flow shows no translation."
	case FlowUntracked:
		node = "This node's conntrack table has no entry of the flow, so that no connection tracking translates it here."
	default:
		node = "This node's conntrack table was not read: " + n.Reason + "."
	}
	if echo.Arrived == left {
		if len(out) == 0 {
			out = append(out, Finding{Of: of, Verdict: Kept, Because: []string{arrived, node}})
		}
		return out
	}
	f := Finding{Of: of, Verdict: TranslatedFurther, Because: []string{node, arrived}}
	switch {
	case echo.Arrived.Addr() == left.Addr():
		f.Verdict = PortRewritten
	case echo.Node.State == FlowUnread:
		f.Verdict = Translated
	}
	place, because := e.place(of)
	if echo.Node.State == FlowKept || echo.Node.State == FlowUntracked {
		f.Because = append(f.Because, "A stateless rule or an eBPF program of this node would not show there.")
	}
	f.Place, f.Because = &place, append(f.Because, because...)
	return append(out, f)
}

// unanswered is what follows where no answer came.
func (e *Evidence) unanswered(of string, echo *Echo) Finding {
	f := Finding{Of: of, Verdict: Unknown, Because: []string{fmt.Sprintf("No answer came from %s: %s.", e.Server, echo.Error)}}
	if echo.Refused {
		return f
	}
	a := e.Asked
	if a == nil {
		f.Because = append(f.Because, "The server was not asked whether the request came.")
		return f
	}
	count := a.UDP
	if of == "tcp" {
		count = a.TCP
	}
	switch {
	case a.State == AskedForeign:
		f.Because = append(f.Because, "The server answers this node, but remembers no requests: it is not sallyport verify serve.")
	case a.State == AskedFull:
		f.Because = append(f.Because, "The server had no room to remember the request.")
	case a.State != AskedSaid:
		f.Because = append(f.Because, "The server did not answer this node's question either, whether the request came.")
	case count > 0:
		f.Verdict = NoWayBack
		f.Because = append(f.Because, fmt.Sprintf("Asked from %s, the server says that the request came, from %s.", a.By, a.From))
	case of == "tcp":
		f.Because = append(f.Because, "Asked from "+a.By.String()+", the server says that it took no request; where the handshake fails, this does not tell in which direction.")
	default:
		f.Verdict = NeverArrived
		f.Because = append(f.Because, "Asked from "+a.By.String()+", the server says that it took no request: none came, or it came from an address that --allow or the bound of ten a second refuses.")
	}
	return f
}

// sizes is what follows about sizes.
func (e *Evidence) sizes() []Finding {
	s := e.Sizes
	if s == nil {
		return nil
	}
	f := Finding{Of: "size", Verdict: Kept}
	for _, d := range []struct {
		to   string
		size Size
	}{{"to the server", s.Up}, {"from the server", s.Down}} {
		switch z := d.size; {
		case z.Reason != "":
			if f.Verdict == Kept {
				f.Verdict = Unknown
			}
			f.Because = append(f.Because, fmt.Sprintf("What passes %s was not found out: %s.", d.to, z.Reason))
		case z.Fails == 0:
			most := "the MTU of the interface"
			if z.Passes < s.MTU {
				most = "the longest that is tried"
			}
			f.Because = append(f.Because, fmt.Sprintf("A packet of %d bytes with DF, %s, passed %s.", z.Passes, most, d.to))
		case z.blackHole():
			f.Verdict = BlackHole
			f.Because = append(f.Because, fmt.Sprintf("Packets of %d bytes with DF passed %s, those of %d vanished, and no ICMP error came.", z.Passes, d.to, z.Fails))
		case z.AtServer:
			f.Because = append(f.Because, fmt.Sprintf("Packets of %d bytes with DF passed %s; its own interface carries none of %d.", z.Passes, d.to, z.Fails))
		default:
			f.Because = append(f.Because, fmt.Sprintf("Packets of %d bytes with DF passed %s; for those of %d an ICMP error with MTU %d came from %s, as it should.", z.Passes, d.to, z.Fails, z.SaidMTU, z.SaidBy))
		}
	}
	return []Finding{f}
}

// Place is where a flow is translated.
type Place struct {
	// Known is one of those below.
	Known string `json:"known"`
	// First and Last are the distances that come into question; equal where the place is known.
	First int `json:"first,omitempty"`
	Last  int `json:"last,omitempty"`
	// Hop is what answers at the distance on the path to the server; absent where that is silent.
	Hop netip.Addr `json:"hop,omitzero"`
	// Owns is the address that arrived, where a trace to it ends at that distance.
	Owns netip.Addr `json:"owns,omitzero"`
	// After and Before are what answers next to the distances in question.
	After  netip.Addr `json:"after,omitzero"`
	Before netip.Addr `json:"before,omitzero"`
}

// What is known of a place.
const (
	PlaceHop     = "hop"
	PlaceBetween = "between"
	PlaceUnknown = "unknown"
)

// String says where, to follow a verdict.
func (p *Place) String() string {
	switch {
	case p.Known == PlaceUnknown:
		return "where is unknown"
	case p.Known == PlaceBetween:
		return fmt.Sprintf("between %s and %s", named(p.After, "this node"), named(p.Before, "the server"))
	case p.Hop.IsValid():
		return fmt.Sprintf("by hop %d, %s", p.First, p.Hop)
	case p.Owns.IsValid():
		return fmt.Sprintf("by hop %d, which owns %s", p.First, p.Owns)
	default:
		return fmt.Sprintf("by hop %d, which answers no probe", p.First)
	}
}

func named(a netip.Addr, otherwise string) string {
	if a.IsValid() {
		return a.String()
	}
	return otherwise
}
