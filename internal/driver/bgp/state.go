package bgp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/sallyport/sallyport/internal/compile"
)

// State is how the sessions stand.
type State struct {
	Running   bool      // a server runs, since there are peers
	Sessions  []Session // one for each peer of the plan, in its order
	Announced []netip.Prefix
	Learned   int    // how many routes are usable
	Complete  bool   // as Learned says it
	Strangers uint64 // connections from addresses that are no peer's, all in all
	// Unusable are learned routes without a next hop that this node can use; at most named.
	Unusable []Refused
}

// Session is how the session with a peer stands.
type Session struct {
	Resource, Node string // as in compile.BGPPeer
	Address        netip.Addr
	ASN            uint32

	Up    bool
	Since time.Time // when it came up; zero: it is not up
	Why   string    // it is not up, in words
	BFD   bool      // it watches the peer, and the peer answers

	In       uint64 // routes that the peer tells of
	Accepted uint64 // those of them that are believed
	Out      uint64 // routes that the peer is told of
	// Refused are routes that the peer tells of and are not believed; at most named.
	Refused []Refused
}

// Refused is a route that is not believed.
type Refused struct {
	Prefix netip.Prefix
	Why    string
}

// named bounds how many refused routes of a session are named.
const named = 10

// State says how the sessions stand.
func (d *Driver) State(ctx context.Context) (State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	routes, complete := d.Learned()
	out := State{Running: d.server != nil, Learned: len(routes), Complete: complete}
	var peers map[netip.Addr]*api.Peer
	if d.server != nil {
		var err error
		if peers, err = d.server.list(ctx); err != nil {
			return State{}, err
		}
		out.Strangers = d.server.heard.count()
		out.Unusable = d.server.learner.refused()
		for p := range d.server.announced {
			out.Announced = append(out.Announced, p)
		}
		slices.SortFunc(out.Announced, netip.Prefix.Compare)
	}
	for i := range d.plan.Peers {
		p := &d.plan.Peers[i]
		s := Session{Resource: p.Resource, Node: p.Node, Address: p.Address, ASN: p.ASN, Why: d.failed[p.Address.String()]}
		if a := peers[p.Address]; a != nil {
			s.read(a)
			var refused uint64
			s.Refused, refused = d.refusedOf(p)
			s.Accepted = s.In - min(s.In, refused)
		}
		out.Sessions = append(out.Sessions, s)
	}
	return out, nil
}

// list asks for all peers.
func (s *server) list(ctx context.Context) (map[netip.Addr]*api.Peer, error) {
	out := map[netip.Addr]*api.Peer{}
	err := s.bgp.ListPeer(ctx, &api.ListPeerRequest{EnableAdvertised: true}, func(p *api.Peer) {
		if a, err := netip.ParseAddr(p.Conf.NeighborAddress); err == nil {
			out[a] = p
		}
	})
	if err != nil {
		return nil, fmt.Errorf("asking for the sessions: %w", err)
	}
	return out, nil
}

// read takes what gobgp says of a peer.
func (s *Session) read(p *api.Peer) {
	s.Up = p.State.SessionState == api.PeerState_SESSION_STATE_ESTABLISHED
	s.BFD = p.State.BfdState.GetSessionState() == api.BfdSessionState_BFD_SESSION_STATE_UP
	for _, f := range p.AfiSafis {
		s.In += f.State.GetReceived()
		s.Out += f.State.GetAdvertised()
	}
	if s.Up {
		if up := p.Timers.GetState().GetUptime(); up != nil {
			s.Since = up.AsTime()
		}
		return
	}
	s.Why = cmp.Or(s.Why, whyDown(p.State))
}

// reasons say in words why a session ended.
var reasons = map[api.PeerState_DisconnectReason]string{
	api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:    "the peer fell silent for longer than the hold time",
	api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT:     "this node ended the session",
	api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED: "the peer ended the session",
	api.PeerState_DISCONNECT_REASON_READ_FAILED:           "the connection broke",
	api.PeerState_DISCONNECT_REASON_WRITE_FAILED:          "the connection broke",
	api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED: "the peer restarted, and was not back in time",
	api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:      "the peer restarts",
	api.PeerState_DISCONNECT_REASON_INVALID_MSG:           "the peer sent a message that is wrong",
	api.PeerState_DISCONNECT_REASON_HARD_RESET:            "the peer reset the session",
	api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:           "the peer has another AS number",
}

// whyDown says in words why a session is not up.
func whyDown(p *api.PeerState) string {
	if p.AdminState == api.PeerState_ADMIN_STATE_PFX_CT {
		return "the peer told of more routes than the maximum"
	}
	why := reasons[p.DisconnectReason]
	if why != "" && p.DisconnectMessage != "" {
		why += " (" + p.DisconnectMessage + ")"
	}
	if why != "" {
		return why
	}
	switch p.SessionState {
	case api.PeerState_SESSION_STATE_OPENSENT, api.PeerState_SESSION_STATE_OPENCONFIRM:
		return "connected; the peer has not agreed to the session yet"
	case api.PeerState_SESSION_STATE_CONNECT, api.PeerState_SESSION_STATE_ACTIVE:
		return "no connection yet: the peer does not answer"
	}
	return "it begins"
}

// refusedOf names routes of a peer that are not believed, and why, and counts them. gobgp could say which it filtered, but would write to
// the peer's table for it.
func (d *Driver) refusedOf(p *compile.BGPPeer) (out []Refused, n uint64) {
	for _, f := range families {
		err := d.server.bgp.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: p.Address.String(), Family: f},
			func(nlri bgp.NLRI, paths []*apiutil.Path) {
				at, ok := nlri.(*bgp.IPAddrPrefix)
				if !ok || len(paths) == 0 {
					return
				}
				taken, why := d.plan.Imports(p, at.Prefix)
				if taken && loops(paths[0], p.LocalASN) > int(p.AllowedLocalASNs) {
					taken, why = false, fmt.Sprintf("its AS path has %d, which is this node's AS number, more often than numAllowedLocalASNumbers", p.LocalASN)
				}
				if taken {
					return
				}
				if n++; len(out) < named {
					out = append(out, Refused{at.Prefix, why})
				}
			})
		if err != nil {
			break // the peer is gone, or does not have the family
		}
	}
	slices.SortFunc(out, func(a, b Refused) int { return a.Prefix.Compare(b.Prefix) })
	return out, n
}

// loops counts how often an AS number is in the AS path of a route.
func loops(p *apiutil.Path, asn uint32) (n int) {
	for _, a := range p.Attrs {
		path, ok := a.(*bgp.PathAttributeAsPath)
		if !ok {
			continue
		}
		for _, segment := range path.Value {
			for _, as := range segment.GetAS() {
				if as == asn {
					n++
				}
			}
		}
	}
	return n
}

// refused names routes without a next hop that this node can use.
func (l *learner) refused() (out []Refused) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, why := range l.unusable {
		out = append(out, Refused{p, why})
	}
	slices.SortFunc(out, func(a, b Refused) int { return a.Prefix.Compare(b.Prefix) })
	return out[:min(len(out), named)]
}

// tell logs that a session came up or ended.
func (s *server) tell(e *apiutil.WatchEventMessage_PeerEvent) {
	if e.Type != apiutil.PEER_EVENT_STATE {
		return
	}
	log := s.driver.opts.Log.With("peer", e.Peer.State.NeighborAddress.String())
	if e.Peer.State.SessionState == bgp.BGP_FSM_ESTABLISHED {
		log.Info("a BGP session is up", "asn", e.Peer.State.PeerASN)
	} else if why := reasons[e.Peer.State.DisconnectReason]; why != "" && e.Peer.State.SessionState == bgp.BGP_FSM_IDLE {
		log.Warn("a BGP session ended", "why", why, "detail", e.Peer.State.DisconnectMessage)
	}
}
