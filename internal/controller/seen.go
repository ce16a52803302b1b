package controller

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
)

// seen remembers by which resourceVersion a pool or NATConfiguration came to its generation, since a later one may be that of a change
// of its status, which agents do not report. A controller that began after such a change knows only its version, until it
// learns from an agent that has seen the same generations by an earlier one.
type seen map[types.UID]reached

type reached struct {
	generation int64
	version    uint64    // by which it had come to that at the latest
	late       bool      // it may have come to that by an earlier one
	numbered   bool      // the version is a number: another says nothing about what came before
	since      time.Time // when it was first seen
}

// Nodes have settling, and settlingPerNode for each of them, to take up a pool before it is said that they have not: so
// a change that comes to all in time is one write, and a node that is named then is really behind.
const (
	settling        = 2 * time.Second
	settlingPerNode = 10 * time.Millisecond
)

// note brings what is remembered up to date with the pools and settings that a look found which began at a time.
func (s seen) note(now time.Time, pools []apiv3.IPPool, configs []v1alpha1.NATConfiguration) {
	there := make(map[types.UID]bool, len(pools)+len(configs))
	for i := range pools {
		there[pools[i].UID] = true
		s.hear(now, &pools[i])
	}
	for i := range configs {
		there[configs[i].UID] = true
		s.hearSettings(now, &configs[i])
	}
	for uid, r := range s {
		if !there[uid] && r.since.Before(now) { // heard of later, it may be new
			delete(s, uid)
		}
	}
}

// hear takes what was heard of one pool. All that is heard should come here, be it after a look that found more: a look
// may find the pool after its status was written too.
func (s seen) hear(now time.Time, p *apiv3.IPPool) {
	s.hearOf(now, &p.ObjectMeta, find(conditions(p), apiv3.IPPoolConditionProgrammed))
}

// hearSettings takes what was heard of one NATConfiguration, as hear does of a pool.
func (s seen) hearSettings(now time.Time, c *v1alpha1.NATConfiguration) {
	s.hearOf(now, &c.ObjectMeta, find(c.Status.Conditions, programmedType))
}

func (s seen) hearOf(now time.Time, o *metav1.ObjectMeta, programmed *metav1.Condition) {
	version, numbered := datastore.VersionNumber(o.ResourceVersion)
	was, known := s[o.UID]
	switch {
	case known && was.generation > o.Generation:
		return
	case known && was.generation == o.Generation:
		if numbered && was.numbered {
			was.version = min(was.version, version)
		}
		s[o.UID] = was
		return
	}
	r := reached{o.Generation, version, numbered, numbered, now}
	// What every node held when another controller looked, every node holds.
	if c := programmed; c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == o.Generation && numbered {
		r.version, r.late = 0, false
	}
	s[o.UID] = r
}

// learn takes from what agents have seen by which version the objects of a kind had come to their generations: an agent whose
// digest is that of the objects as they are has seen each of them as it is. observed is how far an agent was, and its digest.
func (s seen) learn(objects []*metav1.ObjectMeta, said []v1alpha1.SallyportNode, observed func(*v1alpha1.Observed) (version, digest string)) {
	if !slices.ContainsFunc(objects, func(o *metav1.ObjectMeta) bool { return s[o.UID].late }) {
		return
	}
	var sum uint64
	for _, o := range objects {
		sum += datastore.GenerationDigest(string(o.UID), o.Generation)
	}
	var by []uint64
	for i := range said {
		version, digest := observed(&said[i].Status.Observed)
		if n, numbered := datastore.VersionNumber(version); numbered && digest == datastore.DigestText(sum) {
			by = append(by, n)
		}
	}
	if len(by) == 0 {
		return
	}
	for _, o := range objects {
		if r := s[o.UID]; r.late && r.generation == o.Generation {
			r.version, r.late = min(r.version, slices.Min(by)), false
			s[o.UID] = r
		}
	}
}

// learnAll learns of pools and of settings.
func (s seen) learnAll(pools []apiv3.IPPool, configs []v1alpha1.NATConfiguration, said []v1alpha1.SallyportNode) {
	var of []*metav1.ObjectMeta
	for i := range pools {
		of = append(of, &pools[i].ObjectMeta)
	}
	s.learn(of, said, func(o *v1alpha1.Observed) (version, digest string) { return o.IPPools, o.IPPoolsDigest })
	of = nil
	for i := range configs {
		of = append(of, &configs[i].ObjectMeta)
	}
	s.learn(of, said, func(o *v1alpha1.Observed) (version, digest string) {
		return o.NATConfigurations, o.NATConfigurationsDigest
	})
}

// settles says for how long nothing is to be said yet about an object that nodes have not taken up; 0: it is.
func (s seen) settles(now time.Time, uid types.UID, nodes int) time.Duration {
	return settle(nodes) - now.Sub(s[uid].since)
}

func settle(nodes int) time.Duration { return settling + time.Duration(nodes)*settlingPerNode }

// unsettled are the nodes that are unknown, and since when the controller has seen them so. A node that boots is unknown until
// its agent reports: only one that stays unknown for as long as nodes have to take up a pool is news about pools.
type unsettled map[string]time.Time

// settle leaves out the nodes that have not been unknown for that long, and says when the next one will have been; 0: there
// are none.
func (u *unsettled) settle(now time.Time, nodes []standing) (settled []standing, left time.Duration) {
	next := unsettled{}
	for _, n := range nodes {
		if n.unknown {
			since, known := (*u)[n.node]
			if !known {
				since = now
			}
			next[n.node] = since
			if wait := settle(len(nodes)) - now.Sub(since); wait > 0 {
				left = sooner(left, wait)
				continue
			}
		}
		settled = append(settled, n)
	}
	*u = next
	return settled, left
}
