package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/skew"
)

// How long after a definition could not be found, or was not as it should be, it is looked for again; doubling from
// one to the other, give or take a half.
const (
	askMin = time.Second
	askMax = 30 * time.Second
	// lookEvery is the time, give or take a half, until a definition that is followed is looked at again where another
	// may take its place: there are two, or Calico's own store is followed, or objects went with an older one.
	lookEvery = 10 * time.Minute
)

// kind is a kind that a CustomResourceDefinition defines: its view, and where that comes from.
type kind struct {
	*view
	from    source
	watch   *watch // nil: its definition was not found yet
	version schema.GroupVersion

	asking  bool
	asked   time.Time     // when it was begun last
	askAt   time.Time     // not before; zero: at any time
	lookAt  time.Time     // then at the latest; zero: not without a reason
	pause   time.Duration // after a failure
	trouble string        // why it is not watched, or what is gone is not dropped; empty: all is well
	missing bool          // there is no definition
	refused bool          // its definition is of a version too far from ours
}

func newKind(from source) *kind { return &kind{view: newView(from.kind), from: from} }

// resource is what is watched.
func (k *kind) resource() string { return resourceName(k.from.at.Resource, k.version.Group) }

// take takes what was heard.
func (k *kind) take() changes {
	if k.watch == nil {
		return changes{}
	}
	news, freed, all, ok := k.watch.take()
	if !ok {
		return changes{}
	}
	c := k.absorb(news, all)
	c.add(k.free(freed))
	return c
}

// asks says whether the definition is to be looked at now: there is no watch, or it is answered by 404, or objects
// are gone.
func (k *kind) asks(now time.Time, c *contact) bool {
	back := k.missing && c.served(k.resource()) // it is there again, maybe as another one
	if soon := k.asked.Add(askMin); back && soon.Before(k.askAt) {
		k.askAt = soon
	}
	if k.asking || now.Before(k.askAt) {
		return false
	}
	k.askAt = time.Time{}
	look := !k.lookAt.IsZero() && !now.Before(k.lookAt)
	return back || look || k.watch == nil || len(k.gone) > 0 || c.missing(k.resource())
}

// due is when asks or expire has something to do, at the latest at.
func (k *kind) due(at time.Time) time.Time {
	for _, ask := range []time.Time{k.askAt, k.lookAt} {
		if !k.asking && !ask.IsZero() && ask.Before(at) {
			at = ask
		}
	}
	for _, until := range k.lost {
		if until.Before(at) {
			at = until
		}
	}
	return at
}

// located is what was found out about the definition of a kind.
type located struct {
	kind *kind
	gone map[string]uint64 // what was gone when it was asked for
	*definition
	err error
}

// ask looks for a kind's definition, in the background.
func (s *Store) ask(ctx context.Context, k *kind, background *sync.WaitGroup) {
	k.asking, k.asked = true, time.Now()
	gone, was := maps.Clone(k.gone), followed{uid: k.uid}
	if k.watch != nil {
		was.version = k.version
	}
	background.Go(func() {
		d, err := s.api.locate(ctx, k.kind, s.version, was)
		select {
		case s.located <- located{k, gone, d, err}:
		case <-ctx.Done():
		}
	})
}

// learn goes by what was found out about a definition.
func (s *Store) learn(ctx context.Context, l located, now time.Time) error {
	k := l.kind
	k.asking = false
	before, held := k.trouble, ""
	if s.whole {
		held = ": the last good view stays in force"
	}
	defer func() { s.stale = s.stale || k.trouble != before }()
	var far *skew.Error
	k.missing, k.refused = isMissing(l.err), errors.As(l.err, &far)
	switch {
	case l.err != nil:
		k.trouble = l.err.Error() + held + remedy(l.err.Error())
	case l.deleting:
		k.trouble = fmt.Sprintf("the CustomResourceDefinition of %s is being deleted, and all %ss with it%s", k.kind, k.kind, held)
	default:
		if before != "" {
			k.pause = 0 // it grew while there was trouble
		}
		k.trouble = l.doubt
		err := s.found(ctx, l, now)
		k.lookAt = time.Time{}
		if l.doubt != "" || l.version == legacyVersion || len(k.lost) > 0 || !k.replaced.IsZero() {
			k.lookAt = now.Add(wait.Jitter(lookEvery/2, 2))
		}
		return err
	}
	k.pause = min(max(2*k.pause, askMin), askMax)
	k.askAt = now.Add(wait.Jitter(k.pause/2, 2))
	k.lookAt = k.askAt
	return nil
}

// found goes by a definition that is as it should be.
func (s *Store) found(ctx context.Context, l located, now time.Time) error {
	k := l.kind
	var c changes
	switch {
	case k.uid == l.uid:
		c.add(k.confirm(l.gone))
	case k.uid == "":
		k.uid = l.uid
		c.keys = append(c.keys, datastore.Key{Kind: kindDefinition, Name: k.kind})
	default:
		s.log.Warn("the CustomResourceDefinition was deleted and made again: what went with it stays in force for a while", "kind", k.kind, "until", now.Add(lostGrace).UTC())
		c.add(k.confirm(k.since(l.gone, l.created))) // what was made by the new one was not lost with the old one
		k.remade(l.uid, now)
		c.keys, c.followed = append(c.keys, datastore.Key{Kind: kindDefinition, Name: k.kind}), true
		if k.watch != nil {
			k.watch.end()
			k.watch = nil
		}
	}
	s.apply(c)
	if k.watch != nil && k.version == l.version && !s.api.contact.missing(k.resource()) {
		k.pause = 0
		return nil
	}
	if k.watch != nil { // its own next try may be half a minute away
		k.watch.end()
	}
	s.api.contact.forget(k.resource())
	k.version = l.version
	k.pause = min(max(2*k.pause, askMin), askMax)
	k.askAt = now.Add(k.pause) // a definition that has just come may not be served yet, and some never are
	var err error
	k.watch, err = s.api.start(ctx, k.kind, l.version.WithResource(k.from.at.Resource), "", false, s.signal)
	s.log.Info("watching", "kind", k.kind, "of", l.version.String())
	return err
}

func isMissing(err error) bool {
	var missing *missingError
	return errors.As(err, &missing)
}
