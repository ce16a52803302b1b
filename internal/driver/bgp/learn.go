package bgp

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/waiting"
)

// gather is how long the learner waits for more news after the first.
const gather = 20 * time.Millisecond

// learner keeps what Learned says. gobgp's queue of events has no bound: the learner takes out each at once, and keeps only that there
// was one. What there is to know it then reads from the table.
type learner struct {
	server *server
	news   chan struct{} // of capacity 1

	mu       sync.Mutex
	ended    bool            // it could not read the table
	waiting  map[answer]bool // what the first peers still have to say; nil: nothing is waited for
	awaited  bool            // waiting was set once
	own      []netip.Prefix
	unusable map[netip.Prefix]string // routes without a next hop that this node can use, and why
	accepted map[netip.Addr]uint64   // routes that are believed, by the peer that told of them
	counted  map[netip.Addr]mark     // when accepted was asked for and read; nil: it may be another one by now
}

// mark is what peers have said: while it stays the same, as many routes of them are believed.
type mark struct {
	updates uint64 // messages
	up      bool
}

// answer is that of a peer about a family: all that it knows.
type answer struct {
	peer   netip.Addr
	family bgp.Family
}

func newLearner(s *server) *learner { return &learner{server: s, news: make(chan struct{}, 1)} }

// watch has gobgp tell of what it learns until the context ends.
func (l *learner) watch(ctx context.Context) error {
	return l.server.bgp.WatchEvent(ctx, gobgp.WatchEventMessageCallbacks{
		OnBestPath: func([]*apiutil.Path, time.Time) { l.wake() },
		OnPathEor: func(p *apiutil.Path, _ time.Time) {
			l.mu.Lock()
			delete(l.waiting, answer{p.PeerAddress, p.Family})
			l.mu.Unlock()
			l.wake()
		},
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) { l.server.tell(e) },
	}, gobgp.WatchBestPath(true), gobgp.WatchEor(true), gobgp.WatchPeer())
}

func (l *learner) wake() { waiting.Signal(l.news) }

// know takes what the learner needs of a plan, and the first time the peers whose answers are waited for.
func (l *learner) know(plan *compile.BGP, wanted []session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own = plan.Own
	if l.awaited {
		there := map[netip.Addr]bool{}
		for i := range wanted {
			there[wanted[i].plan.Address] = true
		}
		for a := range l.waiting {
			if !there[a.peer] {
				delete(l.waiting, a)
			}
		}
	} else {
		l.waiting, l.awaited = map[answer]bool{}, true
		for i := range wanted {
			for f, on := range []bool{wanted[i].plan.V4, wanted[i].plan.V6} {
				if on {
					l.waiting[answer{wanted[i].plan.Address, families[f]}] = true
				}
			}
		}
	}
	l.wake()
}

// blind says that the learner has ended, since it could not read the table.
func (l *learner) blind() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// run reads the table whenever there is news, until the context ends, or it cannot read.
func (l *learner) run(ctx context.Context) {
	patience := time.NewTimer(l.server.driver.opts.Deferral)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-patience.C:
			l.mu.Lock()
			l.waiting = nil
			l.mu.Unlock()
		case <-l.news:
			select {
			case <-ctx.Done():
				return
			case <-time.After(gather):
			}
		}
		l.mu.Lock()
		complete := l.awaited && len(l.waiting) == 0
		l.mu.Unlock()
		routes, err := l.read()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.mu.Lock()
			l.ended = true
			l.mu.Unlock()
			l.server.driver.opts.Log.Error("the routes that peers told of cannot be read; BGP is started again", "error", err)
			return
		}
		if d := l.server.driver; d.learn(routes, complete) {
			d.opts.Changed()
		}
	}
}

// read reads the routes that peers told of.
func (l *learner) read() ([]Route, error) {
	var out []Route
	l.mu.Lock()
	own := l.own
	l.mu.Unlock()
	unusable, accepted := map[netip.Prefix]string{}, map[netip.Addr]uint64{}
	l.server.judging.Lock()
	defer l.server.judging.Unlock()
	for _, f := range families {
		err := l.server.bgp.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f}, func(nlri bgp.NLRI, paths []*apiutil.Path) {
			at, ok := nlri.(*bgp.IPAddrPrefix)
			if !ok {
				return
			}
			r := Route{Prefix: at.Prefix.Masked()}
			for _, p := range paths {
				if p.PeerAddress.IsValid() {
					accepted[p.PeerAddress]++
				}
				if !p.Best || !p.PeerAddress.IsValid() { // another is better, or it originates here
					continue
				}
				hop, why := hopOf(p, own)
				if why != "" {
					unusable[r.Prefix] = why
					continue
				}
				r.Hops = append(r.Hops, hop)
			}
			if len(r.Hops) > 0 {
				slices.SortFunc(r.Hops, compareHops)
				r.Hops = slices.Compact(r.Hops)
				out = append(out, r)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	l.mu.Lock()
	l.unusable, l.accepted = unusable, accepted
	l.mu.Unlock()
	return out, nil
}

// acceptedBy counts the routes that are believed by the peer that told of them. It reads the table only where peers have said something
// since it was asked last: gobgp tells of the best routes alone, and does not count by what policies say.
func (l *learner) acceptedBy(peers map[netip.Addr]*api.Peer) (map[netip.Addr]uint64, error) {
	marks := make(map[netip.Addr]mark, len(peers))
	for a, p := range peers {
		marks[a] = mark{p.State.GetMessages().GetReceived().GetUpdate(), p.State.GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED}
	}
	l.mu.Lock()
	same := l.counted != nil && maps.Equal(l.counted, marks)
	l.counted = marks
	l.mu.Unlock()
	if !same {
		if _, err := l.read(); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted, nil
}

// judged notes that gobgp has judged routes again.
func (l *learner) judged() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counted = nil
}

func compareHops(a, b netip.Addr) int {
	return cmp.Or(a.WithZone("").Compare(b.WithZone("")), cmp.Compare(a.Zone(), b.Zone()))
}

// hopOf is the next hop of a route, or says why this node cannot use it.
func hopOf(p *apiutil.Path, own []netip.Prefix) (hop netip.Addr, why string) {
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			hop = a.Value
		case *bgp.PathAttributeMpReachNLRI:
			hop = a.Nexthop
		}
	}
	hop = hop.Unmap().WithZone("")
	switch {
	case !hop.IsValid():
		return hop, "it has no next hop"
	case hop.IsUnspecified(): // BIRD gives a link-local one beside it, which gobgp does not keep
		hop = p.PeerAddress
	case hop.IsLinkLocalUnicast() && hop.Is6():
		if p.PeerAddress.Zone() == "" {
			return hop, "its next hop " + hop.String() + " is link-local, and the session is not, so that its interface is not known"
		}
		hop = hop.WithZone(p.PeerAddress.Zone())
	case hop.IsLoopback() || hop.IsMulticast():
		return hop, "its next hop " + hop.String() + " is that of no router"
	}
	for _, o := range own {
		if o.Contains(hop) {
			return hop, "its next hop " + hop.String() + " is an address of this node"
		}
	}
	return hop, ""
}
