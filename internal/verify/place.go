package verify

import (
	"fmt"
	"net/netip"
)

// place says where the flow of UDP is translated further on, by three pieces of evidence. Each could mislead alone, so
// that a contradiction among them leaves the place unknown:
//
//   - The errors that the server's answers bring. From a translator with state on, each bears the translated address,
//     whoever owns it, since the translator passes it on as a part of the flow. A stateless one does not touch the quote,
//     which then shows another destination than the server's.
//   - The trace to the address that arrived, which ends at the box that owns it.
//   - The sources that errors quote on the path to the server, which show stateless rewriting only.
//
// A distance from the server tells one from the node only where both directions have as many hops.
func (e *Evidence) place(of string) (Place, []string) {
	unknown := Place{Known: PlaceUnknown}
	if of != "udp" {
		if e.UDP.answered() && e.UDP.Arrived.Addr() == e.TCP.Arrived.Addr() {
			return unknown, []string{"The flow of UDP arrived with the same address; only that flow was traced."}
		}
		return unknown, []string{"Only the flow of UDP is traced."}
	}
	var because []string
	if e.ToArrived.End > 0 {
		because = append(because, fmt.Sprintf("A trace to %s ends %s away.", e.ToArrived.To, hops(e.ToArrived.End)))
	}
	if e.Path.End == 0 {
		return unknown, append(because, "The path to the server was not traced to its end.")
	}
	first, last, how := e.back()
	if how == "" {
		first, last, how = e.quoted()
	}
	switch {
	case how == "":
		return unknown, append(because, "No ICMP error shows where.")
	case last == 0:
		return unknown, append(because, how)
	}
	because = append(because, how)
	if end := e.ToArrived.End; end > 0 && end < e.Path.End {
		if end < first || end > last {
			return unknown, append(because, "These do not agree.")
		}
		first, last = end, end
	}
	return e.between(first, last), because
}

// between is the place of what translates at one of some distances.
func (e *Evidence) between(first, last int) Place {
	p := Place{Known: PlaceHop, First: first, Last: last, Hop: e.Path.at(first).Address}
	if e.ToArrived.End == first {
		p.Owns = e.ToArrived.To
	}
	if first == last {
		return p
	}
	p = Place{Known: PlaceBetween, First: first, Last: last}
	for d := first - 1; d > 0 && !p.After.IsValid(); d-- {
		p.After = e.Path.at(d).Address
	}
	for d := last + 1; d < e.Path.End && !p.Before.IsValid(); d++ {
		p.Before = e.Path.at(d).Address
	}
	if !p.After.IsValid() && !p.Before.IsValid() {
		return Place{Known: PlaceUnknown}
	}
	return p
}

// back is between which distances from the node the errors for the server's answers say that the translator is, and how;
// last is 0 where they do not tell, and how is empty where they show nothing.
func (e *Evidence) back() (first, last int, how string) {
	arrived, before := e.UDP.Arrived, 0
	for i, h := range e.Back.Hops {
		distance := i + 1
		stateless := h.Quoted.IsValid() && h.Quoted != arrived
		switch {
		case !h.By.IsValid():
			continue
		case h.By != arrived.Addr() && !stateless:
			before = distance
			continue
		case stateless:
			how = fmt.Sprintf("The error for the server's answer with TTL %d quotes %s as its destination", distance, h.Quoted)
		default:
			how = fmt.Sprintf("The error for the server's answer with TTL %d bears %s", distance, h.By)
		}
		how += ", " + sayBefore(before)
		if e.Back.End != e.Path.End {
			return 0, 0, fmt.Sprintf("%s; but the way there has %s, and the way back %s.", how, hops(e.Path.End), sayEnd(e.Back.End))
		}
		first, last = e.Path.End-distance, e.Path.End-before-1
		if first < 1 {
			return 0, 0, how + "; no router is so far away."
		}
		return first, last, fmt.Sprintf("%s; both ways have %s.", how, hops(e.Path.End))
	}
	return 0, 0, ""
}

func sayBefore(distance int) string {
	if distance == 0 {
		return "the first that came"
	}
	return fmt.Sprintf("that for TTL %d does not", distance)
}

func sayEnd(end int) string {
	if end == 0 {
		return "an unknown number"
	}
	return hops(end)
}

// hops says how far away something is.
func hops(n int) string {
	if n == 1 {
		return "1 hop"
	}
	return fmt.Sprintf("%d hops", n)
}

// quoted is the same of the sources that errors on the path to the server quote.
func (e *Evidence) quoted() (first, last int, how string) {
	before := 0
	for i, h := range e.Path.Hops {
		switch {
		case !h.Address.IsValid():
		case h.Rewritten:
			return max(before, 1), i + 1, fmt.Sprintf("Hop %d quotes probes as from %s.", i+1, h.shown(e.UDP.Local))
		default:
			before = i + 1
		}
	}
	return 0, 0, ""
}

// shown is another source than the probe's, as a hop quotes it.
func (h Hop) shown(local netip.AddrPort) string {
	switch {
	case h.QuotedUDP.IsValid() && h.QuotedUDP != local:
		return h.QuotedUDP.String()
	case h.QuotedICMP.IsValid() && h.QuotedICMP != local.Addr():
		return h.QuotedICMP.String()
	default:
		return h.QuotedTCP.String()
	}
}
