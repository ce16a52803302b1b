package bgp

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/waiting"
)

// State is how the sessions stand.
type State struct {
	Running   bool                   // a server runs, since there are peers
	Sessions  []Session              // one for each peer of the plan, in its order
	Announced []compile.Announcement // sorted by Prefix
	Learned   int                    // how many routes are usable
	Complete  bool                   // as Learned says it
	Strangers uint64                 // connections from addresses that are no peer's, all in all
	Forwarded uint64                 // packets of BFD that were dropped, since they did not come from a link of this node
	// Unusable are learned routes without a next hop that this node can use; at most named.
	Unusable []Refused
	// Plan is what Apply was given last, which need not be in force yet.
	Plan compile.BGP
}

// Session is how the session with a peer stands.
type Session struct {
	Resource, Node string // as in compile.BGPPeer
	Address        netip.Addr
	ASN            uint32

	Up     bool
	State  string    // in BGP's words (RFC 4271, section 8.2.2), such as Established; empty: gobgp does not have the peer
	Since  time.Time // when it came up or ended; zero: it never was up
	Why    string    // it is not up, in words
	Fault  string    // what keeps the node from having it as the plan asks, in words: also one that is up may have a fault
	Resets uint64    // times that it ended and was up, since the agent started
	BFD    bool      // it watches the peer, and the peer answers

	In uint64 // routes that the peer tells of
	// Accepted are those of them that are believed; of a session that is not up, those that are kept while the peer restarts.
	Accepted uint64
	// Out are routes of this node that the peer is told of. To a client of a reflector State counts those of others too, and Glance
	// does not.
	Out uint64
	// Refused are routes that the peer tells of and are not believed; at most named. Glance names none.
	Refused []Refused
}

// Refused is a route that is not believed.
type Refused struct {
	Prefix netip.Prefix
	Why    string
}

// named bounds how many refused routes of a session are named.
const named = 10

// view is what State goes by: that of the newest Apply. One that takes long, since it reads passwords, holds up no State.
type view struct {
	plan      compile.BGP
	server    *server
	guard     *nftables.Engine // nil: it does not stand
	faults    map[netip.Addr]fault
	announced []compile.Announcement
}

// publish makes the view that of this moment.
func (d *Driver) publish() {
	v := &view{plan: d.plan, server: d.server, faults: maps.Clone(d.faults)}
	if d.guard.stands {
		v.guard = d.guard.engine
	}
	if d.server != nil {
		v.announced = slices.Collect(maps.Values(d.server.announcer.has))
		slices.SortFunc(v.announced, func(a, b compile.Announcement) int { return a.Prefix.Compare(b.Prefix) })
	}
	d.view.Store(v)
}

// State says how the sessions stand. It reads all routes that peers tell of, to name those that are not believed.
func (d *Driver) State(ctx context.Context) (State, error) { return d.state(ctx, true) }

// Glance says so too, but for refused and reflected routes: its cost grows with the peers, not with what is done to each route.
func (d *Driver) Glance(ctx context.Context) (State, error) { return d.state(ctx, false) }

func (d *Driver) state(ctx context.Context, whole bool) (State, error) {
	v := d.view.Load()
	routes, complete := d.Learned()
	out := State{Running: v.server != nil, Announced: v.announced, Learned: len(routes), Complete: complete, Plan: v.plan}
	var peers map[netip.Addr]*api.Peer
	var accepted map[netip.Addr]uint64
	var answering map[netip.Addr]bool
	if v.server != nil {
		var err error
		if peers, err = v.server.list(ctx); err != nil {
			return State{}, err
		}
		if accepted, err = v.server.learner.acceptedBy(peers); err != nil {
			return State{}, fmt.Errorf("counting learned routes: %w", err)
		}
		answering = v.server.watch.answering(ctx)
		out.Strangers, out.Unusable = v.server.heard.count(), v.server.learner.refused()
	}
	if v.guard != nil {
		counts, err := v.guard.Tallies(ctx)
		if err != nil {
			return State{}, fmt.Errorf("counting packets of BFD that were dropped: %w", err)
		}
		out.Forwarded = counts[chainInput]
	}
	for i := range v.plan.Peers {
		p := &v.plan.Peers[i]
		past := d.past(p.Address)
		s := Session{Resource: p.Resource, Node: p.Node, Address: p.Address, ASN: p.ASN, Fault: v.faults[p.Address].why,
			Accepted: accepted[p.Address], Since: past.since, Resets: past.resets}
		if a := peers[p.Address]; a != nil {
			s.read(a, past.why)
			s.BFD = answering[p.Address]
			s.Out = v.told(p, s.Up)
			if whole {
				v.details(ctx, p, &s)
			}
		}
		if s.Why = cmp.Or(s.Fault, s.Why); s.Up {
			s.Why = ""
		}
		out.Sessions = append(out.Sessions, s)
	}
	return out, nil
}

// told counts the announcements that a peer is told of.
func (v *view) told(p *compile.BGPPeer, up bool) (n uint64) {
	for i := range v.announced {
		if told, _ := v.plan.Tells(p, v.announced[i].Prefix); told && up {
			n++
		}
	}
	return n
}

// details are those that Glance leaves out.
func (v *view) details(ctx context.Context, p *compile.BGPPeer, s *Session) {
	s.Refused = v.refusedOf(p)
	if !p.Reflect || !s.Up {
		return
	}
	s.Out = 0
	_ = v.server.bgp.ListPeer(ctx, &api.ListPeerRequest{Address: p.Address.String(), EnableAdvertised: true}, func(a *api.Peer) {
		for _, f := range a.AfiSafis {
			s.Out += f.State.GetAdvertised()
		}
	}) // one that has gone is told of nothing
}

// list asks for all peers.
func (s *server) list(ctx context.Context) (map[netip.Addr]*api.Peer, error) {
	out := map[netip.Addr]*api.Peer{}
	err := s.bgp.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		if a, err := netip.ParseAddr(p.Conf.NeighborAddress); err == nil {
			out[a] = p
		}
	})
	if err != nil {
		return nil, fmt.Errorf("asking for the sessions: %w", err)
	}
	return out, nil
}

// read takes what gobgp says of a peer, and why the last session with it ended.
func (s *Session) read(p *api.Peer, ended string) {
	s.Up = p.State.SessionState == api.PeerState_SESSION_STATE_ESTABLISHED
	s.State = states[p.State.SessionState]
	for _, f := range p.AfiSafis {
		s.In += f.State.GetReceived()
	}
	if !s.Up {
		s.Why = whyDown(p.State, ended)
	}
}

// states are the states of a session by their names.
var states = map[api.PeerState_SessionState]string{
	api.PeerState_SESSION_STATE_IDLE: "Idle", api.PeerState_SESSION_STATE_CONNECT: "Connect", api.PeerState_SESSION_STATE_ACTIVE: "Active",
	api.PeerState_SESSION_STATE_OPENSENT: "OpenSent", api.PeerState_SESSION_STATE_OPENCONFIRM: "OpenConfirm",
	api.PeerState_SESSION_STATE_ESTABLISHED: "Established",
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

// whyEnded says in words why a session ended, as far as gobgp knows.
func whyEnded(p *apiutil.PeerState) string {
	why := reasons[p.DisconnectReason]
	if why != "" && p.DisconnectMessage != "" {
		why += " (" + p.DisconnectMessage + ")"
	}
	return why
}

// whyDown says in words why a session is not up: why the last one ended, or else how it stands.
func whyDown(p *api.PeerState, ended string) (why string) {
	switch {
	case ended != "":
		return ended
	case p.SessionState == api.PeerState_SESSION_STATE_OPENSENT || p.SessionState == api.PeerState_SESSION_STATE_OPENCONFIRM:
		return "connected; the peer has not agreed to the session yet"
	case p.SessionState == api.PeerState_SESSION_STATE_CONNECT || p.SessionState == api.PeerState_SESSION_STATE_ACTIVE:
		return "no connection yet: the peer does not answer"
	}
	return "it begins"
}

// refusedOf names routes of a peer that are not believed, and why. gobgp could say which it filtered, but would write to the peer's table
// for it.
func (v *view) refusedOf(p *compile.BGPPeer) (out []Refused) {
	v.server.judging.Lock()
	defer v.server.judging.Unlock()
	for _, f := range families {
		err := v.server.bgp.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: p.Address.String(), Family: f},
			func(nlri bgp.NLRI, paths []*apiutil.Path) {
				at, ok := nlri.(*bgp.IPAddrPrefix)
				if !ok || len(paths) == 0 {
					return
				}
				taken, why := v.plan.Imports(p, at.Prefix)
				if taken && loops(paths[0], p.LocalASN) > int(p.AllowedLocalASNs) {
					taken, why = false, fmt.Sprintf("its AS path has %d, which is this node's AS number, more often than numAllowedLocalASNumbers", p.LocalASN)
				}
				if !taken {
					out = append(out, Refused{at.Prefix, why})
				}
			})
		if err != nil {
			break // the peer is gone, or does not have the family
		}
	}
	slices.SortFunc(out, func(a, b Refused) int { return a.Prefix.Compare(b.Prefix) })
	return slices.Clip(out[:min(len(out), named)])
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

// tell notes and logs that a session came up or ended.
func (s *server) tell(e *apiutil.WatchEventMessage_PeerEvent) {
	if e.Type != apiutil.PEER_EVENT_STATE {
		return
	}
	state := &e.Peer.State
	up, why := state.SessionState == bgp.BGP_FSM_ESTABLISHED, ""
	if state.SessionState == bgp.BGP_FSM_IDLE {
		why = whyEnded(state)
	}
	flooded := state.AdminState == api.PeerState_ADMIN_STATE_PFX_CT
	why, news := s.driver.turn(state.NeighborAddress, up, flooded, why)
	if news {
		waiting.Signal(s.watch.news)
		s.driver.opts.Turned()
	}
	log := s.driver.opts.Log.With("peer", state.NeighborAddress.String())
	if up {
		s.resender.up(state.NeighborAddress)
		log.Info("a BGP session is up", "asn", state.PeerASN)
	} else if why != "" {
		log.Warn("a BGP session ended", "why", why)
	}
}
