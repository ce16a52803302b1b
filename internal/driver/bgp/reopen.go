package bgp

import (
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
)

// reopen is how long no session is tried with a peer that told of more routes than the maximum.
const reopen = 5 * time.Minute

// flood is a session that ended since the peer told of more routes than the maximum. gobgp would keep those routes for the time of a
// graceful restart, and never try another session: the peer is taken away instead, and added again.
type flood struct {
	plan  compile.BGPPeer
	until time.Time
}

// floods says whether a peer has none for now, since it told of too many routes: for a while, or until its plan is another one. mu is held.
func (d *Driver) floods(p *compile.BGPPeer) bool {
	f, known := d.flooded[p.Address]
	if !known {
		at := d.past(p.Address).flooded
		if at.IsZero() {
			return false
		}
		f = flood{*p, at.Add(d.opts.Reopen)}
		d.flooded[p.Address] = f
	}
	if !time.Now().Before(f.until) || !reflect.DeepEqual(f.plan, *p) {
		delete(d.flooded, p.Address)
		d.learning.Lock()
		defer d.learning.Unlock()
		h := d.history[p.Address]
		h.flooded = time.Time{}
		d.history[p.Address] = h
		return false
	}
	d.fail(p, false, fmt.Errorf("the peer told of more routes than the maximum, %d; the next session is tried at %s", p.MaxPrefixes, f.until.UTC().Format(time.RFC3339)))
	return true
}

// tryNext is how long it is until a session is tried again that ended so; at least retryMin, since there may be no server now that could.
func (d *Driver) tryNext() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := time.Hour
	for _, f := range d.flooded {
		next = min(next, time.Until(f.until))
	}
	return max(next, retryMin)
}

// forgetFloods forgets those of peers that a plan does not have. mu is held.
func (d *Driver) forgetFloods(has map[netip.Addr]bool) {
	for a := range d.flooded {
		if !has[a] {
			delete(d.flooded, a)
		}
	}
}
