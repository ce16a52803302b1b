package agent

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/bgp"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// BGPResponse is how BGP stands on a node; `sallyport bgp -o json` prints it.
type BGPResponse struct {
	Node    string `json:"node"`
	Running bool   `json:"running"` // the agent speaks BGP
	// Reason is why it does not; absent where it does.
	Reason   string     `json:"reason,omitempty"`
	ASN      uint32     `json:"asn,omitempty"`
	RouterID netip.Addr `json:"routerID,omitzero"`
	Listens  []string   `json:"listens"` // addresses with ports
	// Sessions are those that the plan asks for, sorted by address.
	Sessions  []BGPSession      `json:"sessions"`
	Announced []BGPAnnouncement `json:"announced"` // sorted by prefix
	Withheld  []BGPWithheld     `json:"withheld"`  // likewise
	Learned   []BGPRoute        `json:"learned"`   // likewise: the routes that are believed
	// Complete says that all peers have told all that they know, or were waited for long enough.
	Complete bool `json:"complete"`
	// Refused are routes that peers tell of and that the node does not have by BGP; at most 10 for each peer and reason.
	Refused []BGPRefusal `json:"refused"`
	// Strangers counts connections from addresses that are no peer's, since BGP runs.
	Strangers uint64 `json:"strangers"`
	// Forwarded counts packets of BFD that were dropped, since a router had forwarded them; 0 while BFD watches no peer.
	Forwarded uint64 `json:"forwarded"`
	// Problems are what keeps the node from speaking BGP as it is asked to, and Ignored the fields on which Sallyport does not act.
	Problems []string `json:"problems"`
	Ignored  []string `json:"ignored"`
}

// BGPSession is a session with a peer.
type BGPSession struct {
	Peer     netip.Addr `json:"peer"`
	BGPPeer  string     `json:"bgpPeer,omitempty"`  // the object that asks for it; absent: the mesh between nodes does
	PeerNode string     `json:"peerNode,omitempty"` // absent: the peer is a router
	ASN      uint32     `json:"asn"`                // of the peer
	Up       bool       `json:"up"`
	State    string     `json:"state,omitempty"` // in BGP's words, such as Established; absent: there is no session
	Since    time.Time  `json:"since,omitzero"`  // since when it is up, or is not; absent: it never was
	Why      string     `json:"why,omitempty"`   // it is not up
	Fault    string     `json:"fault,omitempty"` // what keeps the node from having it as asked; it is tried again
	Resets   uint64     `json:"resets"`          // times that it ended, since the agent started
	BFD      bool       `json:"bfd,omitempty"`   // BFD watches the peer, which answers
	Received uint64     `json:"received"`        // routes that the peer tells of
	Accepted uint64     `json:"accepted"`        // those that are believed; of a session that is down, kept while the peer restarts
	Told     uint64     `json:"told"`            // routes that the peer is told of
}

// BGPAnnouncement is a route of this node that peers are told of.
type BGPAnnouncement struct {
	Prefix      netip.Prefix `json:"prefix"`
	Pool        string       `json:"pool"`
	Why         string       `json:"why"`
	Communities []string     `json:"communities"`
	Told        []netip.Addr `json:"told"`   // the peers that are told, where the session is up
	Untold      []BGPUntold  `json:"untold"` // those that are not told
}

// BGPUntold is a peer that is not told of a route.
type BGPUntold struct {
	Peer netip.Addr `json:"peer"`
	Why  string     `json:"why"`
}

// BGPWithheld is a block of this node that is not announced.
type BGPWithheld struct {
	Prefix netip.Prefix `json:"prefix"`
	Pool   string       `json:"pool"`
	Why    string       `json:"why"`
}

// BGPRoute is a route that peers told of.
type BGPRoute struct {
	Prefix netip.Prefix `json:"prefix"`
	Hops   []netip.Addr `json:"hops"`
}

// BGPRefusal is a route that the node does not have, though a peer tells of it.
type BGPRefusal struct {
	Prefix netip.Prefix `json:"prefix"`
	Peer   netip.Addr   `json:"peer,omitzero"` // absent where it is not the peer that makes the difference
	By     string       `json:"by"`            // one of those below
	Why    string       `json:"why"`
}

// What refuses a route.
const (
	refusedByPolicy  = "policy"  // what the node believes: a BGPFilter, or one of the rules that always hold
	refusedByNextHop = "nextHop" // the node cannot use its next hop
	refusedByKernel  = "kernel"  // the kernel does not take it, or has another route that it prefers
)

// BGPStatus is how BGP stands on a node, in short.
type BGPStatus struct {
	Sessions  int `json:"sessions"` // that the plan asks for
	Up        int `json:"up"`
	Announced int `json:"announced"` // blocks
	Withheld  int `json:"withheld"`  // blocks of this node that are not announced
	Learned   int `json:"learned"`   // routes that are believed
	// Down are sessions that are not up, or have a fault; at most 10.
	Down []BGPSession `json:"down"`
}

// maxDown bounds the sessions that a status names.
const maxDown = 10

// status is how BGP stands, in short; nil where the node has no peer.
func (s *speaker) status(ctx context.Context) (*BGPStatus, error) {
	st, err := s.driver.Glance(ctx)
	if err != nil || !st.Plan.Run {
		return nil, err
	}
	out := &BGPStatus{Sessions: len(st.Sessions), Announced: len(st.Announced), Withheld: withheld(&st), Learned: st.Learned, Down: []BGPSession{}}
	for i := range st.Sessions {
		s := &st.Sessions[i]
		if s.Up {
			out.Up++
		}
		if (!s.Up || s.Fault != "") && len(out.Down) < maxDown {
			out.Down = append(out.Down, sessionOf(s))
		}
	}
	return out, nil
}

// withheld counts the blocks of this node that are not announced.
func withheld(st *bgp.State) int {
	return max(0, len(st.Plan.Withheld)+len(st.Plan.Announcements)-len(st.Announced))
}

func sessionOf(s *bgp.Session) BGPSession {
	return BGPSession{Peer: s.Address, BGPPeer: s.Resource, PeerNode: s.Node, ASN: s.ASN, Up: s.Up, State: s.State, Since: s.Since, Why: s.Why, Fault: s.Fault,
		Resets: s.Resets, BFD: s.BFD, Received: s.In, Accepted: s.Accepted, Told: s.Out}
}

// show is how BGP stands, in whole.
func (s *speaker) show(ctx context.Context, node string, loop reconcile.State) (*BGPResponse, error) {
	st, err := s.driver.State(ctx)
	if err != nil {
		return nil, err
	}
	plan := &st.Plan
	if loop.Plan != nil { // its problems, also where BGP does not run
		plan = &loop.Plan.BGP
	}
	out := &BGPResponse{Node: node, Running: st.Running, Listens: []string{}, Sessions: []BGPSession{}, Announced: []BGPAnnouncement{}, Withheld: []BGPWithheld{},
		Learned: []BGPRoute{}, Complete: st.Complete, Refused: []BGPRefusal{}, Strangers: st.Strangers, Forwarded: st.Forwarded,
		Problems: append([]string{}, plan.Problems...), Ignored: append([]string{}, plan.Ignored...)}
	if !st.Running {
		out.Reason = whySilent(plan, loop)
	}
	if plan.Run {
		out.ASN, out.RouterID = plan.ASN, plan.RouterID
		for _, a := range plan.Listen {
			out.Listens = append(out.Listens, netip.AddrPortFrom(a, plan.ListenPort).String())
		}
	}
	for i := range st.Sessions {
		out.Sessions = append(out.Sessions, sessionOf(&st.Sessions[i]))
	}
	out.announcements(&st)
	s.learned(ctx, out, &st)
	return out, nil
}

// whySilent says why an agent does not speak BGP.
func whySilent(plan *compile.BGP, loop reconcile.State) string {
	if loop.Plan == nil {
		_, reason := loop.Ready()
		return "there is no plan yet: " + reason
	}
	if !plan.Run && len(plan.Problems) > 0 {
		return "no session can be made: see the problems"
	}
	if !plan.Run {
		return "no BGPPeer has a session with this node: create one that selects it, or, for a mesh between all nodes, a BGPConfiguration named default"
	}
	if ready, why := loop.ReadyOf(speakerDriver{}.Name()); !ready {
		return why
	}
	return "it is about to begin"
}

// announcements are the blocks that are announced, and those that are not.
func (out *BGPResponse) announcements(st *bgp.State) {
	announced := map[netip.Prefix]bool{}
	for i := range st.Announced {
		a := &st.Announced[i]
		announced[a.Prefix] = true
		v := BGPAnnouncement{Prefix: a.Prefix, Pool: a.Pool, Why: a.Why, Communities: []string{}, Told: []netip.Addr{}, Untold: []BGPUntold{}}
		for _, c := range a.Communities {
			v.Communities = append(v.Communities, c.String())
		}
		for j := range st.Sessions {
			s := &st.Sessions[j]
			told, why := st.Plan.Tells(&st.Plan.Peers[j], a.Prefix)
			switch {
			case told && s.Up:
				v.Told = append(v.Told, s.Address)
			case told:
				v.Untold = append(v.Untold, BGPUntold{s.Address, "the session is down"})
			default:
				v.Untold = append(v.Untold, BGPUntold{s.Address, why})
			}
		}
		out.Announced = append(out.Announced, v)
	}
	for _, w := range st.Plan.Withheld {
		out.Withheld = append(out.Withheld, BGPWithheld{w.Prefix, w.Pool, w.Why})
	}
	for _, a := range st.Plan.Announcements {
		if !announced[a.Prefix] {
			out.Withheld = append(out.Withheld, BGPWithheld{a.Prefix, a.Pool, "not yet: the route that keeps packets to free addresses on this node does not stand, or BGP does not run"})
		}
	}
}

// learned are the routes that peers told of, and those that are refused, by whatever.
func (s *speaker) learned(ctx context.Context, out *BGPResponse, st *bgp.State) {
	routes, _ := s.driver.Learned()
	for _, r := range routes {
		out.Learned = append(out.Learned, BGPRoute{r.Prefix, r.Hops})
	}
	for i := range st.Sessions {
		for _, r := range st.Sessions[i].Refused {
			out.Refused = append(out.Refused, BGPRefusal{r.Prefix, st.Sessions[i].Address, refusedByPolicy, r.Why})
		}
	}
	for _, r := range st.Unusable {
		out.Refused = append(out.Refused, BGPRefusal{Prefix: r.Prefix, By: refusedByNextHop, Why: r.Why})
	}
	refused, err := s.keeper.Overruled(ctx, maxOverruled)
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
	}
	_, untaken := s.keeper.State()
	for _, r := range append(refused, untaken[:min(len(untaken), maxOverruled)]...) {
		out.Refused = append(out.Refused, BGPRefusal{Prefix: r.Prefix, By: refusedByKernel, Why: r.Why})
	}
}

// maxOverruled bounds the learned routes of which it is said why the kernel goes by another, or takes none.
const maxOverruled = 10

func (a *Agent) serveBGP(w http.ResponseWriter, r *http.Request) {
	if a.network == nil {
		http.Error(w, noPodNetwork, http.StatusNotFound)
		return
	}
	loop, _ := a.loop.State()
	out, err := a.network.speaker.show(r.Context(), a.cfg.NodeName, loop)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, out)
}

// BGP asks how BGP stands on the node.
func (c *Client) BGP(ctx context.Context) (*BGPResponse, error) {
	var r BGPResponse
	return &r, c.callWithin(ctx, patience, http.MethodGet, "/v1/bgp", nil, &r, maxList)
}
