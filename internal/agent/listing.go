package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/text"
)

// listingPatience bounds how long a listing of flows may take, its reader included.
const listingPatience = 30 * time.Second

// maxFlow bounds a line of a listing, in bytes. That of a flow has a few hundred.
const maxFlow = 1 << 16

// Flow is a translated connection that the kernel tracks; `sallyport flows -o json` prints one a line. For
// ICMP the identifier stands in place of the source's port; where there is no port it is 0.
type Flow struct {
	Source netip.AddrPort `json:"source"` // the pod
	// Pod is its NAMESPACE/NAME, where the agent is the pod network of a cluster.
	Pod string `json:"pod,omitempty"`
	// Destination is who answers; Service is what the pod has asked, where that is another address.
	Destination netip.AddrPort  `json:"destination"`
	Service     *netip.AddrPort `json:"service,omitempty"`
	SeenAs      netip.AddrPort  `json:"seenAs"` // what the destination takes for the source
	Pool        string          `json:"pool"`
	Protocol    string          `json:"protocol"`
	State       string          `json:"state"` // as the kernel calls it; "answered" or "unanswered" without connections
	// AgeSeconds is absent where the kernel does not record when flows begin (net.netfilter.nf_conntrack_timestamp).
	AgeSeconds *int64 `json:"ageSeconds,omitempty"`
	// ExpiresSeconds is when the kernel forgets the flow, if no packet comes.
	ExpiresSeconds int64 `json:"expiresSeconds"`
	// Older says that the plan would not translate it so: it lives under an older decision, or somebody else
	// has translated it.
	Older bool `json:"older,omitempty"`
}

// FlowFilter chooses flows. The zero value chooses all.
type FlowFilter struct {
	Source, Destination, SeenAs Ends
	Pool                        string
	Protocol                    string // as in Flow; "icmp" is that of both families
	Limit                       int    // most flows; 0: no limit
}

// Ends are addresses, with a port or with all. The zero value stands for every one.
type Ends struct {
	Prefix netip.Prefix
	Port   uint16 // 0: every port
}

// ParseEnds reads an address, a prefix, or an address with a port.
func ParseEnds(s string) (Ends, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return Ends{Prefix: p.Masked()}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap().WithZone("")
		return Ends{Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		a := ap.Addr().Unmap().WithZone("")
		return Ends{netip.PrefixFrom(a, a.BitLen()), ap.Port()}, nil
	}
	return Ends{}, fmt.Errorf("%q is not an address, a range or an address with a port, such as 10.244.1.10, 10.244.0.0/16, 192.0.2.1:40000 or [2001:db8::1]:40000", s)
}

// String is what ParseEnds reads, and "" for every one.
func (e Ends) String() string {
	switch {
	case !e.Prefix.IsValid():
		return ""
	case e.Port != 0:
		return netip.AddrPortFrom(e.Prefix.Addr(), e.Port).String()
	default:
		return e.Prefix.String()
	}
}

func (e Ends) holds(a netip.AddrPort) bool {
	return !e.Prefix.IsValid() || e.Prefix.Contains(a.Addr()) && (e.Port == 0 || e.Port == a.Port())
}

// query is the filter as part of a URL.
func (f FlowFilter) query() url.Values {
	return url.Values{"source": {f.Source.String()}, "destination": {f.Destination.String()}, "seenAs": {f.SeenAs.String()},
		"pool": {f.Pool}, "protocol": {f.Protocol}, "limit": {strconv.Itoa(f.Limit)}}
}

func filterOf(r *http.Request) (f FlowFilter, err error) {
	for name, e := range map[string]*Ends{"source": &f.Source, "destination": &f.Destination, "seenAs": &f.SeenAs} {
		if s := r.FormValue(name); s != "" {
			if *e, err = ParseEnds(s); err != nil {
				return f, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if s := r.FormValue("limit"); s != "" {
		if f.Limit, err = strconv.Atoi(s); err != nil || f.Limit < 0 {
			return f, fmt.Errorf("limit: %q is not a number from 0 on", s)
		}
	}
	f.Pool, f.Protocol = r.FormValue("pool"), r.FormValue("protocol")
	return f, nil
}

// chooses says whether a flow passes by what is cheap to ask.
func (f *FlowFilter) chooses(t *conntrack.Flow) bool {
	p := t.Protocol.String()
	return t.Translated() && f.Source.holds(t.Original.Source) && f.SeenAs.holds(t.Reply.Destination) &&
		(f.Destination.holds(t.Reply.Source) || f.Destination.holds(t.Original.Destination)) &&
		(f.Protocol == "" || f.Protocol == p || f.Protocol == compile.ICMP.String() && p == compile.ICMPv6.String())
}

// errEnough ends a listing that is as long as was asked for.
var errEnough = errors.New("as many flows as were asked for")

// serveFlows lists translated flows, one JSON object a line, as the kernel gives them. An answer that is not
// complete has a last line with an error.
func (a *Agent) serveFlows(w http.ResponseWriter, r *http.Request) {
	filter, err := filterOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s, _ := a.loop.State()
	if s.Plan == nil {
		_, reason := s.Ready()
		http.Error(w, reason, http.StatusServiceUnavailable)
		return
	}
	ctx, stop := context.WithCancelCause(r.Context())
	defer stop(nil)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(listingPatience)) // without it the reader bounds it
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	holder, count, walks := s.Plan.Holders(), 0, 0
	var pods map[netip.Addr]string
	if a.network != nil {
		pods = a.network.manager.Pods()
	}
	_, err = a.table.Walk(ctx, func() conntrack.Visit {
		if walks++; walks > 1 {
			stop(errors.New("the kernel interrupted the listing; ask again"))
		}
		return func(t *conntrack.Flow) conntrack.Action {
			if ctx.Err() != nil || !filter.chooses(t) {
				return conntrack.Leave
			}
			pool := holder(t.Original.Source.Addr())
			if pool == "" || filter.Pool != "" && filter.Pool != pool {
				return conntrack.Leave
			}
			if filter.Limit > 0 && count == filter.Limit {
				stop(errEnough)
				return conntrack.Leave
			}
			count++
			described := describe(t, pool, s.Plan)
			described.Pod = pods[described.Source.Addr()]
			if err := out.Encode(described); err != nil {
				stop(err)
			}
			return conntrack.Leave
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		_ = out.Encode(listingEnd{Error: err.Error(), More: errors.Is(err, errEnough)}) // a caller that has gone away needs no answer
	}
}

// listingEnd is the last line of a listing that is not complete.
type listingEnd struct {
	Error string `json:"error,omitempty"`
	More  bool   `json:"more,omitempty"` // it is as long as was asked for, and there are more
}

func describe(t *conntrack.Flow, pool string, plan *compile.Plan) Flow {
	tracked := t.Tracked()
	f := Flow{Source: t.Original.Source, Destination: t.Reply.Source, SeenAs: t.Reply.Destination, Pool: pool,
		Protocol: t.Protocol.String(), State: t.State(), ExpiresSeconds: int64(t.Timeout / time.Second), Older: !plan.Wants(&tracked)}
	asked := t.Original.Destination
	if t.Protocol == compile.ICMP || t.Protocol == compile.ICMPv6 {
		f.Destination, asked = netip.AddrPortFrom(f.Destination.Addr(), 0), netip.AddrPortFrom(asked.Addr(), 0)
	}
	if asked != f.Destination {
		f.Service = &asked
	}
	if !t.Start.IsZero() {
		age := int64(max(0, time.Since(t.Start)) / time.Second) // the clock may have been set back since
		f.AgeSeconds = &age
	}
	return f
}

// Flows hands each translated flow that the filter chooses to each, as the kernel gives them, and says
// whether there are more than the filter's limit.
func (c *Client) Flows(ctx context.Context, filter FlowFilter, each func(Flow) error) (more bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listingPatience+patience, c.silence(listingPatience+patience))
	defer cancel()
	resp, err := c.do(ctx, http.MethodGet, "/v1/flows?"+filter.query().Encode(), nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, maxFlow)
	for count := 0; in.Scan(); count++ {
		var line struct {
			Flow
			listingEnd
		}
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return false, fmt.Errorf("reading the agent's answer: %w", err)
		}
		switch {
		case line.More:
			return true, nil
		case line.Error != "":
			return false, fmt.Errorf("the agent could not list all flows: %s", text.Line(line.Error))
		case filter.Limit > 0 && count == filter.Limit:
			return true, nil
		}
		if err := each(line.Flow); err != nil {
			return false, err
		}
	}
	switch err := in.Err(); {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, bufio.ErrTooLong):
		return false, c.tooLong("answer with a line", maxFlow)
	case err != nil:
		return false, fmt.Errorf("reading the agent's answer: %w", err)
	}
	return false, nil
}
