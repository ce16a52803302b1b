package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// server is a gobgp server that runs, and what it was told.
type server struct {
	driver *Driver
	bgp    *gobgp.BgpServer
	heard  *heard
	global compile.BGP // its ASN, RouterID, Listen and ListenPort alone count

	announcer  announcer
	policy     *api.SetPoliciesRequest
	judge      judge
	unjudged   bool // the policies are others than those by which gobgp judged the routes of sessions
	peers      map[netip.Addr]*api.Peer
	passwords  map[netip.Addr]used // those last read
	restarting bool                // peers that are met first, while they may still keep this node's routes, are told that it restarts
	met        map[netip.Addr]bool // peers that were added once

	// judging is held while gobgp judges routes again that its tables have already: it writes to these then, and a reader of the tables
	// would see that half done.
	judging  sync.Mutex
	learner  *learner
	watch    *watch
	resender *resender
	unwatch  context.CancelFunc
	done     chan struct{} // closed when the learner has ended
}

// used is the password of a session, and where it was read.
type used struct {
	ref      model.BGPPassword
	password string
}

// start starts a server without peers.
func start(ctx context.Context, d *Driver, plan *compile.BGP, restarting bool) (*server, error) {
	s := &server{driver: d, heard: &heard{keyless: map[string]string{}, expired: d.expire}, global: *plan, restarting: restarting,
		peers: map[netip.Addr]*api.Peer{}, passwords: map[netip.Addr]used{}, met: map[netip.Addr]bool{}, done: make(chan struct{})}
	var err error
	if s.watch, err = newWatch(ctx, s); err != nil {
		return nil, err
	}
	s.bgp = gobgp.NewBgpServer(gobgp.LoggerOption(slog.New(listener{s.heard, d.opts.Log.Handler(), ""}), nil))
	s.judge = s.bgp
	s.announcer = announcer{to: s.bgp, ready: d.opts.Ready, has: map[netip.Prefix]compile.Announcement{}, maybe: map[netip.Prefix]bool{}}
	go s.bgp.Serve()
	listen := make([]string, 0, len(plan.Listen))
	for _, a := range plan.Listen {
		listen = append(listen, a.String())
	}
	port := int32(plan.ListenPort)
	if len(listen) == 0 {
		port = -1 // none
	}
	err = s.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{Asn: plan.ASN, RouterId: plan.RouterID.String(), ListenPort: port,
		ListenAddresses: listen, UseMultiplePaths: true,
		// All other families cost 9 MB. The numbers are those of oc.AfiSafiType: ipv4-unicast and ipv6-unicast.
		Families: []uint32{0, 1}}})
	if err == nil {
		err = s.setPolicies(ctx, policies(plan, nil))
	}
	if err != nil {
		s.watch.stop()
		s.bgp.Stop()
		return nil, fmt.Errorf("starting BGP at %v, port %d: %w; does another BGP daemon run on this node? Let it have another port (BGPConfiguration, listenPort), or stop it", listen, plan.ListenPort, err)
	}
	watching, unwatch := context.WithCancel(context.Background())
	s.unwatch = unwatch
	s.learner, s.resender = newLearner(s), newResender(s)
	if err := s.learner.watch(watching); err != nil {
		unwatch()
		s.watch.stop()
		s.bgp.Stop()
		return nil, fmt.Errorf("watching BGP: %w", err)
	}
	go func() {
		defer close(s.done)
		var all sync.WaitGroup
		all.Go(func() { s.learner.run(watching) })
		all.Go(func() { s.watch.run(watching) })
		all.Go(func() { s.resender.run(watching) })
		all.Wait()
	}()
	return s, nil
}

// serves says whether the server can do what a plan says without being started again.
func (s *server) serves(plan *compile.BGP) bool {
	g := &s.global
	return g.ASN == plan.ASN && g.RouterID == plan.RouterID && g.ListenPort == plan.ListenPort && slices.Equal(g.Listen, plan.Listen)
}

// broken says that the server must be started again: it does not listen any more, or not tell what it learned.
func (s *server) broken() bool { return s.heard.isDeaf() || s.learner.blind() }

// setPolicies sets the policies of a server. From the second time on that is one step.
func (s *server) setPolicies(ctx context.Context, r *api.SetPoliciesRequest) error {
	first := s.policy == nil
	if err := s.bgp.SetPolicies(ctx, r); err != nil {
		return fmt.Errorf("setting policies: %w", err)
	}
	s.policy = r
	if !first {
		return nil
	}
	for name, direction := range map[string]api.PolicyDirection{importPolicy: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
		exportPolicy: api.PolicyDirection_POLICY_DIRECTION_EXPORT} {
		err := s.bgp.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{Name: "global", Direction: direction,
			Policies: []*api.Policy{{Name: name}}, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT}})
		if err != nil {
			return fmt.Errorf("setting the policy %s: %w", name, err)
		}
	}
	return nil
}

// stop ends BFD and the learner before all else: what the server says while it ends is about itself.
func (s *server) stop() {
	s.watch.stop()
	s.unwatch()
	<-s.done
}

// goodbye ends the server. Its peers forget the routes of this node.
func (s *server) goodbye() {
	s.stop()
	s.bgp.Stop()
}

// leave ends the server without a word.
func (s *server) leave() error {
	s.stop()
	err := s.bgp.StopBgp(context.Background(), &api.StopBgpRequest{AllowGracefulRestart: true})
	s.bgp.Stop()
	return err
}

// session is a peer of a plan, in our form and in gobgp's.
type session struct {
	plan compile.BGPPeer
	api  *api.Peer
}

// converge makes the server do what a plan says. Policies come before the peers that they are about, and announcements before both, so
// that no peer is told less than all, or more.
func (s *server) converge(ctx context.Context, plan *compile.BGP) error {
	wanted := s.usable(ctx, plan)
	if err := s.dropPeers(ctx, wanted); err != nil {
		return err
	}
	failed := s.announcer.announce(ctx, plan)
	s.learner.know(plan, wanted)
	peers := make([]compile.BGPPeer, 0, len(wanted))
	for i := range wanted {
		peers = append(peers, wanted[i].plan)
	}
	if err := s.putPolicies(ctx, policies(plan, peers)); err != nil {
		return errors.Join(failed, err)
	}
	for i := range wanted {
		failed = errors.Join(failed, s.putPeer(ctx, &wanted[i]))
	}
	return errors.Join(failed, s.watchPeers(ctx, wanted))
}

// judge has gobgp judge routes again. Tests have it fail.
type judge interface {
	ListPeer(context.Context, *api.ListPeerRequest, func(*api.Peer)) error
	ResetPeer(context.Context, *api.ResetPeerRequest) error
}

// putPolicies sets policies, and has the routes of sessions judged by them.
func (s *server) putPolicies(ctx context.Context, p *api.SetPoliciesRequest) error {
	if !proto.Equal(p, s.policy) {
		if err := s.setPolicies(ctx, p); err != nil {
			return err
		}
		s.unjudged = true
	}
	if s.unjudged && len(s.peers) > 0 {
		s.judging.Lock()
		err := s.judge.ResetPeer(ctx, &api.ResetPeerRequest{Soft: true, Direction: api.ResetPeerRequest_DIRECTION_BOTH})
		s.judging.Unlock()
		s.learner.judged()
		if err != nil {
			return fmt.Errorf("applying policies to sessions: %w", err)
		}
	}
	s.unjudged = false
	return nil
}

// usable are the peers of a plan that can have a session, as far as is known before it is tried.
func (s *server) usable(ctx context.Context, plan *compile.BGP) (wanted []session) {
	for i := range plan.Peers {
		p := &plan.Peers[i]
		if at := slices.IndexFunc(wanted, func(o session) bool { return shares(&o.plan, p) }); at >= 0 {
			s.driver.fail(p, false, fmt.Errorf("it has the address of %s on another interface, and other filters: give both the same", name(&wanted[at].plan)))
			continue
		}
		if s.driver.floods(p) {
			continue
		}
		password, err := s.driver.passwordOf(ctx, p)
		if err != nil {
			s.driver.fail(p, true, err)
			last := s.passwords[p.Address]
			if _, stands := s.peers[p.Address]; !stands || last.ref != p.Password { // one without that password would be open to others
				continue
			}
			password = last.password // its session goes on
		}
		s.passwords[p.Address] = used{p.Password, password}
		wanted = append(wanted, session{*p, peerOf(p, password, s.driver.opts.Deferral)})
	}
	return wanted
}

// dropPeers ends the sessions that the plan has no more, and those that cannot become what it wants in place.
func (s *server) dropPeers(ctx context.Context, wanted []session) error {
	keep := map[netip.Addr]*api.Peer{}
	for i := range wanted {
		keep[wanted[i].plan.Address] = wanted[i].api
	}
	for address, has := range s.peers {
		if want := keep[address]; want != nil && proto.Equal(lasting(has), lasting(want)) && !s.driver.drops(address) {
			continue
		}
		if err := s.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: address.String()}); err != nil {
			return fmt.Errorf("removing the peer %s: %w", address, err)
		}
		delete(s.peers, address)
	}
	maps.DeleteFunc(s.passwords, func(a netip.Addr, _ used) bool { return keep[a] == nil })
	return nil
}

// putPeer adds a peer, or changes in place what can be changed so. Its error is that of BGP as a whole.
func (s *server) putPeer(ctx context.Context, w *session) error {
	address := w.plan.Address
	has := s.peers[address]
	switch {
	case has == nil:
		sent := proto.CloneOf(w.api)
		sent.GracefulRestart.LocalRestarting = s.restarting && !s.met[address] && time.Since(s.driver.left) < w.plan.Restart
		s.met[address] = true
		if err := s.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: sent}); err != nil {
			s.driver.fail(&w.plan, true, fmt.Errorf("adding the peer: %w", err))
			return nil
		}
		if why, refused := s.heard.noKey(address.String()); refused {
			if err := s.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: address.String()}); err != nil {
				return fmt.Errorf("removing the peer %s, whose password cannot be used: %w", address, err)
			}
			s.driver.fail(&w.plan, true, fmt.Errorf("the kernel refuses its password (%s), which may have 80 bytes at most", why))
			return nil
		}
	case !proto.Equal(has, w.api):
		if _, err := s.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: proto.CloneOf(w.api)}); err != nil {
			s.driver.fail(&w.plan, true, fmt.Errorf("changing the peer: %w", err))
			return nil
		}
	}
	s.peers[address] = w.api
	return nil
}
