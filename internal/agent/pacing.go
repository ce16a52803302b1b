package agent

import (
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// How soon a node's status is written. What differs is written within a time that grows with the cluster, so that
// all of it makes about writesPerSecond writes a second after a change that is everybody's; that an object is gone, much later;
// and all of it again now and then, in case a third party has changed it.
const (
	writesPerSecond = 100
	followAfter     = time.Minute
	followPerNode   = 100 * time.Millisecond
	refreshAfter    = time.Hour
	retryMin        = time.Second
	retryMax        = 30 * time.Second // or what the cluster's size asks for: an API server that is back is not to wait for long
	// unreadyAfter is how long a node must be unready before it says so: each change makes it so for a moment.
	unreadyAfter = 3 * time.Second
)

// written is a status as it was written, or is to be.
type written struct {
	owner   string // the UID of the Node
	status  v1alpha1.SallyportNodeStatus
	changed v1alpha1.Observed // as far as objects changed that the node goes by
}

// urgency says how soon something is to be written.
type urgency int

const (
	idle urgency = iota
	refresh
	follow
	soon
)

// pacing decides when a status is written. It is for one goroutine.
type pacing struct {
	nodes int // about how many there are
	last  *written
	due   time.Time
	as    urgency       // why then
	pause time.Duration // after a failure; 0: there was none
}

// plan returns when what is wanted should be written.
func (p *pacing) plan(now time.Time, want *written) time.Time {
	u := p.urgency(want)
	if p.pause > 0 || u == p.as && !p.due.IsZero() {
		return p.due
	}
	if u < p.as && p.as != idle && !p.due.IsZero() && u != refresh {
		return p.due
	}
	p.as = u
	switch u {
	case soon:
		p.due = now.Add(chance(time.Duration(p.nodes) * time.Second / writesPerSecond))
	case follow:
		p.due = now.Add(around(followAfter + time.Duration(p.nodes)*followPerNode))
	default:
		p.due = now.Add(around(refreshAfter))
	}
	return p.due
}

// forget has what was written be written again soon: something else has taken its place.
func (p *pacing) forget() { p.last = nil }

// urgency says how soon what is wanted should be written.
func (p *pacing) urgency(want *written) urgency {
	if p.last == nil {
		return soon
	}
	a, b := p.last.status, want.status
	seen, held := b.Observed, a.Observed
	a.Observed, b.Observed = v1alpha1.Observed{}, v1alpha1.Observed{}
	said, stands := b.BGP, a.BGP
	a.BGP, b.BGP = turns(a.BGP), turns(b.BGP)
	switch {
	case p.last.owner != want.owner || !reflect.DeepEqual(a, b),
		later(want.changed.IPPools, held.IPPools), later(want.changed.NATConfigurations, held.NATConfigurations):
		return soon
	case !reflect.DeepEqual(said, stands), seen.IPPoolsDigest != held.IPPoolsDigest, seen.NATConfigurationsDigest != held.NATConfigurationsDigest:
		return follow // a deletion; a change of a status alone is not written at all
	default:
		return refresh
	}
}

// turns is what is news of BGP at once: not how many routes there are, nor the words for why a session is down, which change all the time.
func turns(b *v1alpha1.NodeBGP) *v1alpha1.NodeBGP {
	if b == nil {
		return nil
	}
	b = b.DeepCopy()
	for i := range b.Peers {
		b.Peers[i].Why = ""
	}
	for i := range b.List {
		s := &b.List[i]
		s.Why, s.Received, s.Accepted, s.Told = "", 0, 0, 0
	}
	return b
}

// wrote notes how a write went.
func (p *pacing) wrote(now time.Time, w *written, err error) {
	if err != nil {
		p.pause = min(max(2*p.pause, retryMin), max(retryMax, time.Duration(p.nodes)*time.Second/writesPerSecond))
		p.due = now.Add(around(p.pause))
		return
	}
	p.last, p.pause, p.as, p.due = w, 0, idle, time.Time{}
}

// later says whether one resourceVersion is later than another; both are decimal numbers, or empty.
func later(a, b string) bool {
	return len(a) > len(b) || len(a) == len(b) && a > b
}

// chance is a time up to d.
func chance(d time.Duration) time.Duration { return wait.Jitter(d, 1) - d }

// around is d, give or take a half.
func around(d time.Duration) time.Duration { return d/2 + chance(d) }
