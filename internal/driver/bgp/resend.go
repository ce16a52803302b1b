package bgp

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/sallyport/sallyport/internal/waiting"
)

// young is how old a session is when its peer is told of all routes once more: see resender.
const young = time.Second

// resender has peers told of all routes once more, a moment after their session came up.
//
// gobgp tells a new peer of all routes, and then notes that it has the session (fsm.go of v4.8.0: the callback before state.Store). Of a
// route that comes between the two it tells all peers but this one, for as long as the session lasts: a reflector whose 100 clients come
// at once left out some routes for every sixth of them.
type resender struct {
	judge judge
	// judging is that of the server.
	judging *sync.Mutex
	after   time.Duration
	news    chan struct{} // of capacity 1: a session came up

	mu    sync.Mutex
	fresh map[netip.Addr]time.Time // when sessions came up whose peers are to be told again
}

func newResender(s *server) *resender {
	return &resender{judge: s.bgp, judging: &s.judging, after: young, news: make(chan struct{}, 1), fresh: map[netip.Addr]time.Time{}}
}

// up notes that a session came up.
func (r *resender) up(peer netip.Addr) {
	r.mu.Lock()
	r.fresh[peer] = time.Now()
	r.mu.Unlock()
	waiting.Signal(r.news)
}

// run tells peers again until the context ends.
func (r *resender) run(ctx context.Context) {
	for {
		due, wait := r.due()
		for _, peer := range due {
			r.tell(ctx, peer)
		}
		if len(due) > 0 {
			continue
		}
		var later <-chan time.Time
		if wait > 0 {
			later = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-later:
		case <-r.news:
		}
	}
}

// tell tells a peer again. While this node restarts, and waits for what its peers know, it tells them nothing yet: it tries later. Errors
// say that the peer is gone.
func (r *resender) tell(ctx context.Context, peer netip.Addr) {
	restarting := false
	err := r.judge.ListPeer(ctx, &api.ListPeerRequest{Address: peer.String()}, func(p *api.Peer) { restarting = p.GetGracefulRestart().GetLocalRestarting() })
	if err != nil {
		return
	}
	if restarting {
		r.up(peer)
		return
	}
	r.judging.Lock()
	defer r.judging.Unlock()
	_ = r.judge.ResetPeer(ctx, &api.ResetPeerRequest{Address: peer.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT})
}

// due takes out the peers whose session is old enough, or says how long to wait for the next one; 0: there is none.
func (r *resender) due() (due []netip.Addr, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for peer, since := range r.fresh {
		left := r.after - time.Since(since)
		if left <= 0 {
			due = append(due, peer)
			delete(r.fresh, peer)
		} else if wait == 0 || left < wait {
			wait = left
		}
	}
	return due, wait
}
