package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/osrg/gobgp/v4/api"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// watch has gobgp do BFD, in a server of its own that has no session with anybody. In the server that has the sessions, each end of BFD
// with a peer would end the session, or, where none is up, the next one as soon as it is up (bfd_peer.go of v4.8.0): a router that restarts
// ends BFD too, and a session that ends, as BIRD's does, ends BFD again.
//
// Here the session ends only where a peer falls silent. A peer that says that it ends BFD, or that it has found this node to be silent,
// can be heard, and ends the session itself where it means to (RFC 5882, section 4.2). A peer is watched while the session is up: FRR makes
// BFD again when one comes up, and takes the end of the one before for that of the peer.
type watch struct {
	server *server
	silent chan netip.Addr // peers that fell silent
	news   chan struct{}   // of capacity 1: a session came up or ended

	bgp *gobgp.BgpServer

	mu     sync.Mutex
	wanted map[netip.Addr]*compile.BGPPeer
	has    map[netip.Addr]model.BFD
}

// maxSilent bounds how many peers that fell silent at once are noticed by BFD. The hold time of others tells later.
const maxSilent = 1024

// newWatch starts a server that watches no peer, and then does not listen. It is called before the server of the sessions starts, also
// where no peer asks for BFD: gobgp writes to variables of its package when a server starts, and reads them while one works.
func newWatch(ctx context.Context, s *server) (*watch, error) {
	w := &watch{server: s, silent: make(chan netip.Addr, maxSilent), news: make(chan struct{}, 1), has: map[netip.Addr]model.BFD{}}
	log := slog.New(listener{&heard{keyless: map[string]string{}, bfd: w.hear}, s.driver.opts.Log.Handler(), ""})
	w.bgp = gobgp.NewBgpServer(gobgp.LoggerOption(log, nil))
	go w.bgp.Serve()
	if err := w.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{Asn: s.global.ASN, RouterId: s.global.RouterID.String(), ListenPort: -1,
		UseMultiplePaths: true, Families: []uint32{0, 1}}}); err != nil {
		w.bgp.Stop()
		return nil, fmt.Errorf("starting BFD: %w", err)
	}
	return w, nil
}

// want has BFD watch some peers, and no others.
func (w *watch) want(ctx context.Context, peers map[netip.Addr]*compile.BGPPeer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = peers
	return w.bring(ctx)
}

// hear takes note of a peer that fell silent.
func (w *watch) hear(peer string) {
	a, err := netip.ParseAddr(peer)
	if err != nil {
		return
	}
	select {
	case w.silent <- a:
	default:
	}
}

// stop ends BFD with all peers, without a word.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted, w.has = nil, nil
	w.bgp.Stop()
}

// bring begins BFD with the peers whose sessions are up, and ends it with the others. mu is held.
func (w *watch) bring(ctx context.Context) error {
	for a, has := range w.has {
		if p := w.wanted[a]; p != nil && p.BFD == has && w.server.driver.past(a).up {
			continue
		}
		if err := w.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: a.String()}); err != nil {
			return fmt.Errorf("ending BFD with %s: %w", a, err)
		}
		delete(w.has, a)
	}
	for a, p := range w.wanted {
		if _, has := w.has[a]; has || !w.server.driver.past(a).up {
			continue
		}
		interval := uint32(p.BFD.Interval.Microseconds())
		err := w.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: &api.Peer{
			Conf:      &api.PeerConf{NeighborAddress: a.String(), PeerAsn: p.ASN},
			Transport: &api.Transport{PassiveMode: true}, // and nothing listens: there is no session
			Bfd:       &api.BfdPeerConfig{Enabled: true, DesiredMinimumTxInterval: interval, RequiredMinimumReceive: interval, DetectionMultiplier: uint32(p.BFD.Multiplier)},
		}})
		if err != nil {
			return fmt.Errorf("beginning BFD with %s: %w", a, err)
		}
		w.has[a] = p.BFD
	}
	return nil
}

// answering are the peers that answer.
func (w *watch) answering(ctx context.Context) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	_ = w.bgp.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		if a, err := netip.ParseAddr(p.Conf.NeighborAddress); err == nil {
			out[a] = p.State.BfdState.GetSessionState() == api.BfdSessionState_BFD_SESSION_STATE_UP
		}
	}) // a server that has ended watches no peer
	return out
}

// run begins and ends BFD as sessions come and go, and ends the sessions of peers that fell silent, until the context ends.
func (w *watch) run(ctx context.Context) {
	d := w.server.driver
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-w.news:
			w.mu.Lock()
			err = w.bring(ctx)
			w.mu.Unlock()
		case a := <-w.silent:
			if d.silence(a) {
				err = w.server.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: a.String(), Communication: "BFD is down"})
			}
		}
		if err != nil && ctx.Err() == nil {
			d.opts.Log.Error("BFD does not do all that it should; the hold time tells when a peer is lost", "error", err)
		}
	}
}

// watchPeers has BFD watch those peers that ask for it, and no other. A packet from afar could end BFD with a peer: none is watched
// before the guard stands.
func (s *server) watchPeers(ctx context.Context, wanted []session) error {
	keep, links := map[netip.Addr]*compile.BGPPeer{}, subnets()
	for i := range wanted {
		p := &wanted[i].plan
		switch {
		case p.BFD.Interval == 0:
		case !onLink(p.Address, links):
			s.driver.fail(p, true, errors.New("BFD is not used: the peer is in no subnet of this node's interfaces, and BFD is for peers on a link alone, so that only the hold time tells that it is lost"))
		default:
			keep[p.Address] = p
		}
	}
	if len(keep) == 0 {
		return errors.Join(s.watch.want(ctx, nil), s.driver.guard.put(ctx, false))
	}
	err := s.driver.guard.put(ctx, true)
	if err == nil {
		err = s.watch.want(ctx, keep)
	}
	if err != nil { // those that are watched stay so: they would take the end of BFD for that of this node
		for _, p := range keep {
			s.driver.fail(p, true, fmt.Errorf("BFD may not be used: %w", err))
		}
	}
	return nil
}

// subnets are those of this node's interfaces.
func subnets() (out []netip.Prefix) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, at := range addresses {
		if p, err := netip.ParsePrefix(at.String()); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// onLink says whether an address is on a link of this node. Single-hop BFD (RFC 5881) is for those alone.
func onLink(a netip.Addr, links []netip.Prefix) bool {
	if a.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range links {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
