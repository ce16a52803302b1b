package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/waiting"
)

// The pause before what failed of a single peer is tried again doubles from retryMin to retryMax.
const (
	retryMin = time.Second
	retryMax = time.Minute
)

// fault is what keeps this node from having a session as the plan wants it.
type fault struct {
	why    string
	passes bool // it may pass without another plan
}

// Run tries again what failed of single peers, less and less often, reads passwords again, and tries sessions again that a flood of
// routes has ended, until the context ends.
func (d *Driver) Run(ctx context.Context) {
	passwords := time.NewTicker(d.opts.Reread / often)
	defer passwords.Stop()
	var pause time.Duration
	var due <-chan time.Time // nil: nothing that may pass has failed
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.again:
			if due == nil {
				pause = retryMin
				due = time.After(pause)
			}
		case <-due:
			due = nil
			if d.retry(ctx) {
				pause = min(2*pause, retryMax)
				due = time.After(pause)
			}
		case <-passwords.C:
			d.readAgain(ctx)
		case <-d.takeAway:
			d.renew(ctx)
		case <-time.After(d.tryNext()):
			d.renew(ctx)
		}
	}
}

// renew has the server do again what the plan says.
func (d *Driver) renew(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bring(ctx)
}

// retry tries again, and says whether a fault is left that may pass.
func (d *Driver) retry(ctx context.Context) (left bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.passing() {
		return false
	}
	return d.bring(ctx)
}

// bring has the server do again what the plan says, and says whether there is a fault that may pass. mu is held.
func (d *Driver) bring(ctx context.Context) (left bool) {
	if d.closed || d.server == nil {
		return false
	}
	defer d.publish()
	if err := d.converge(ctx); err != nil && ctx.Err() == nil {
		d.opts.Log.Error("BGP sessions could not be brought up to date; it is tried again", "error", err)
		return true
	}
	return d.passing()
}

// passing says whether there is a fault that may pass.
func (d *Driver) passing() bool {
	for _, f := range d.faults {
		if f.passes {
			return true
		}
	}
	return false
}

// converge has the server do what the plan says, and notes the faults of single peers.
func (d *Driver) converge(ctx context.Context) error {
	was := d.faults
	d.faults = map[netip.Addr]fault{}
	err := d.server.converge(ctx, &d.plan)
	turned := len(was) != len(d.faults)
	for i := range d.plan.Peers {
		p := &d.plan.Peers[i]
		if f, faulty := d.faults[p.Address]; faulty && f != was[p.Address] {
			turned = true
			d.opts.Log.Warn("a BGP session cannot be as it is asked for", "peer", name(p), "why", f.why, "tried_again", f.passes)
		}
	}
	if turned {
		d.opts.Turned()
	}
	if d.passing() {
		waiting.Signal(d.again)
	}
	return err
}

// fail notes why a peer has no session, or not the one that the plan wants.
func (d *Driver) fail(p *compile.BGPPeer, passes bool, why error) {
	d.faults[p.Address] = fault{why.Error(), passes}
}

// history is what became of the sessions with a peer.
type history struct {
	up      bool
	since   time.Time // when that turned; zero: none was up yet
	resets  uint64    // times that one ended that was up
	silent  bool      // BFD has found the peer of the one that is up to be silent
	why     string    // the last one ended, or did not begin, in words; empty: one is up, or none was tried
	expired bool      // the last one ended since the peer was silent for the hold time
	drop    bool      // and its routes are to go
	flooded time.Time // when one ended since the peer told of too many routes; zero: none did
}

// remember forgets peers and passwords that a plan does not have. mu is held.
func (d *Driver) remember(plan *compile.BGP) {
	there, named := make(map[netip.Addr]bool, len(plan.Peers)), map[model.BGPPassword]bool{}
	for i := range plan.Peers {
		there[plan.Peers[i].Address], named[plan.Peers[i].Password] = true, true
	}
	d.learning.Lock()
	defer d.learning.Unlock()
	maps.DeleteFunc(d.known, func(ref model.BGPPassword, _ reading) bool { return !named[ref] })
	d.forgetFloods(there)
	for a := range d.history {
		if !there[a] {
			delete(d.history, a)
		}
	}
}

// silence notes that BFD has found a peer to be silent, and says whether a session with it is up that is to end.
func (d *Driver) silence(a netip.Addr) (ends bool) {
	d.learning.Lock()
	defer d.learning.Unlock()
	h := d.history[a]
	if !h.up || h.silent { // gobgp would end the next one, too
		return false
	}
	h.silent = true
	d.history[a] = h
	return true
}

// expire notes that a peer was silent for the hold time. gobgp takes that for a restart of the peer, and would keep its routes for the
// time of one (gobgp#2174): the peer is taken away instead, and added again.
func (d *Driver) expire(peer string) {
	a, err := netip.ParseAddr(peer)
	if err != nil {
		return
	}
	d.learning.Lock()
	defer d.learning.Unlock()
	h := d.history[a]
	h.expired, h.drop = true, true
	d.history[a] = h
	waiting.Signal(d.takeAway)
}

// drops says once whether the routes of a peer are to go.
func (d *Driver) drops(a netip.Addr) (drops bool) {
	d.learning.Lock()
	defer d.learning.Unlock()
	h, known := d.history[a]
	if drops = h.drop; known {
		h.drop = false
		d.history[a] = h
	}
	return drops
}

// turn notes that a session is up, or is not, and why not as far as gobgp knows; and whether the peer told of too many routes. It says
// why, and whether that it is up or not is news.
func (d *Driver) turn(a netip.Addr, up, flooded bool, why string) (said string, news bool) {
	d.learning.Lock()
	defer d.learning.Unlock()
	h := d.history[a]
	switch {
	case flooded:
		why = "the peer told of more routes than the maximum"
		if h.flooded.IsZero() {
			h.flooded = time.Now()
			waiting.Signal(d.takeAway)
		}
	case h.silent && !up:
		why = "the peer fell silent, as BFD has found"
	case h.expired && !up:
		why = reasons[api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED]
	}
	if up || why != "" {
		h.why = why
	}
	if news = h.up != up; news && h.up {
		h.resets++
	}
	if news {
		h.since = time.Now()
	}
	h.up, h.silent, h.expired = up, false, h.expired && !up
	d.history[a] = h
	return why, news
}

// ended notes that no session is up any more.
func (d *Driver) ended() {
	d.learning.Lock()
	for a, h := range d.history {
		if h.up {
			d.history[a] = history{since: time.Now(), resets: h.resets + 1}
		}
	}
	d.learning.Unlock()
	d.opts.Turned()
}

// past is what became of the sessions with a peer.
func (d *Driver) past(a netip.Addr) history {
	d.learning.Lock()
	defer d.learning.Unlock()
	return d.history[a]
}

// name names a peer, for messages.
func name(p *compile.BGPPeer) string {
	switch {
	case p.Resource != "":
		return fmt.Sprintf("BGPPeer %s, %s", p.Resource, p.Address)
	case p.Node != "":
		return fmt.Sprintf("node %s, %s", p.Node, p.Address)
	}
	return p.Address.String()
}
