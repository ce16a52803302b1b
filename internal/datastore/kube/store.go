package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/lastgood"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/waiting"
)

// dbName is the name of the file that keeps the last good view.
const dbName = "kubernetes.db"

// kindDefinition is that of the entries that remember by which definition a kind was read.
const kindDefinition = "CustomResourceDefinition"

// networkRequests is how many requests an agent of the pod network makes in a second, on average, beside watches.
const networkRequests = 50

// Options say what a Store reads and where it keeps its last good view. All but Network are required.
type Options struct {
	Config *rest.Config
	Node   string // the name of this node
	// LeaseNamespace is where the Lease is that Renew renews.
	LeaseNamespace string
	StateDir       string // made where it is missing
	Version        string // of this program
	Log            *slog.Logger
	// Network says that Sallyport is the pod network, so that what that needs is read too. It need not be set.
	Network bool
	// BootID names this boot of the node, by which two agents that answer to one name are told apart. Only the pod network
	// needs it.
	BootID string
	// Machine names this machine, the same after each boot and unlike any other; empty: that is not known. Booted is when it
	// booted, by its clock as that goes now. With both, the pod network goes on at once after a boot.
	Machine string
	Booted  func() time.Time
}

// Store watches the resources of an API server. Its fields belong to the goroutine of Run.
type Store struct {
	api     *API
	node    string
	version string
	network bool

	namespace string // of the Lease
	reported  reported

	log     *slog.Logger
	saver   *lastgood.Saver
	wake    chan struct{}
	looks   chan chan struct{}
	located chan located

	kinds        []*kind // of each source
	self, others *view
	selfWatch    *watch
	othersWatch  *watch // nil while no setting needs other nodes
	othersLabels bool   // it keeps their labels

	// What follows is for the pod network.
	claims        chan claimed
	usage         usage
	announcements announcements
	workloads     *workloads // nil: Sallyport is not the pod network
	alone         alone
	because       error // what Alone said when a State was published last

	snapshot   *model.Snapshot // in force; nil: there is none yet
	number     uint64          // of snapshot
	conditions map[string]compile.Condition
	stale      bool   // what was published is not what holds now
	whole      bool   // a snapshot was saved or published: from then on there is always one
	trouble    string // the last that was logged
}

// Open loads the last good view. It asks the API server for nothing yet. It fails as lastgood.Open does.
func Open(o Options) (*Store, error) {
	cfg := o.Config
	if o.Network { // where each address is a block, each pod is four requests
		cfg = rest.CopyConfig(cfg)
		cfg.QPS, cfg.Burst = networkRequests, 2*networkRequests
	}
	a, err := Connect(cfg, "sallyport-agent/"+o.Version)
	if err != nil {
		return nil, err
	}
	saver, saved, ok, err := lastgood.Open(lastgood.Options{Dir: o.StateDir, Name: dbName, Version: o.Version, Log: o.Log}, decode)
	if err != nil {
		return nil, err
	}
	s := &Store{api: a, node: o.Node, namespace: o.LeaseNamespace, version: o.Version, log: o.Log, saver: saver, wake: make(chan struct{}, 1), looks: make(chan chan struct{}), located: make(chan located),
		claims: make(chan claimed), usage: usage{said: map[netip.Prefix]datastore.BlockUsage{}}, announcements: announcements{wake: make(chan struct{}, 1)},
		self: newView(datastore.KindNode), others: newView(datastore.KindNode)}
	if a.network, s.network = o.Network, o.Network; o.Network {
		s.alone = alone{boot: o.BootID, machine: o.Machine, booted: o.Booted, why: errNotSettled}
		if s.workloads, err = newWorkloads(a, o.Node); err != nil {
			return nil, errors.Join(err, saver.Close())
		}
	}
	for _, from := range sources(o.Network) {
		s.kinds = append(s.kinds, newKind(from))
	}
	a.contact.patient, a.contact.changed = true, s.signal
	if ok {
		s.adopt(saved)
	}
	return s, nil
}

// adopt makes what was saved the view in force.
func (s *Store) adopt(saved []*entry) {
	for _, e := range saved {
		switch {
		case e.fault != nil: // another version has written it, and it holds back no other
			s.log.Error("what was in force before cannot be used, and is left out until the API server is heard of", "kind", e.Kind, "name", e.Name, "error", e.fault)
		case e.Kind == kindDefinition:
			if k := s.kindOf(e.Name); k != nil {
				k.uid = string(e.UID)
			}
		case e.Kind != datastore.KindNode:
			if k := s.kindOf(e.Kind); k != nil { // else another version knew it
				k.force[e.Name] = e
			}
		case e.Name == s.node:
			s.self.force[e.Name] = e
		default:
			s.others.force[e.Name] = e
		}
	}
	s.build(changes{differ: true, moves: true})
	s.whole = true
}

// kindOf is the kind of a name; nil for Nodes, and for what is no kind of the API.
func (s *Store) kindOf(name string) *kind {
	for _, k := range s.kinds {
		if k.kind == name {
			return k
		}
	}
	return nil
}

// Close lets go of the state directory. Call it after Run has returned.
func (s *Store) Close() error { return s.saver.Close() }

// Contact says how the API server answers.
func (s *Store) Contact() datastore.Contact {
	c := s.api.contact
	problems := c.problems(time.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	return datastore.Contact{Where: s.api.config.Host, Heard: c.heard, Lost: c.lost, Error: c.why, Problems: problems}
}

// Look returns when what was heard of the API so far is published.
func (s *Store) Look(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case s.looks <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run watches the API, and publishes the first State at once where one was saved.
func (s *Store) Run(ctx context.Context, publish func(datastore.State)) error {
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, logr.FromSlogHandler(s.log.Handler()))) // for the library
	defer cancel()
	background.Go(func() { s.saver.Run(ctx) })
	s.stale = true
	var err error
	if s.selfWatch, err = s.api.start(ctx, datastore.KindNode, resourceNodes, s.node, true, s.signal); err != nil {
		return err
	}
	defer s.end()
	if s.network {
		background.Go(func() { s.workloads.pods.Run(ctx) })
		background.Go(func() { s.workloads.namespaces.Run(ctx) })
		background.Go(func() { s.keepAnnounced(ctx) })
		background.Go(func() { s.settle(ctx) })
	}
	var looked chan struct{}
	for {
		if err := s.step(ctx, time.Now(), &background); err != nil {
			return err
		}
		s.publish(publish)
		if looked != nil {
			close(looked)
			looked = nil
		}
		timer := time.NewTimer(time.Until(s.due()))
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-s.saver.Changed:
			s.stale = true
		case looked = <-s.looks:
		case c := <-s.claims:
			looked = c.done
			if k := s.kindOf(datastore.KindIPBlock); k.watch != nil {
				k.watch.learn(c.entry, c.entry.ResourceVersion)
			}
		case l := <-s.located:
			err = s.learn(ctx, l, time.Now())
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end waits for the watches, which have ended with their context.
func (s *Store) end() {
	all := []*watch{s.selfWatch, s.othersWatch}
	for _, k := range s.kinds {
		all = append(all, k.watch)
	}
	for _, w := range all {
		if w != nil {
			w.end()
		}
	}
}

func (s *Store) signal() {
	waiting.Signal(s.wake)
}

// step takes what was heard, and asks about what is not clear.
func (s *Store) step(ctx context.Context, now time.Time, background *sync.WaitGroup) error {
	var c changes
	if why := s.Alone(); (why == nil) != (s.because == nil) || why != nil && why.Error() != s.because.Error() {
		s.because, s.stale = why, true
	}
	for _, k := range s.kinds {
		c.add(k.take())
		c.add(k.expire(now))
		if k.settle() {
			c.keys = append(c.keys, datastore.Key{Kind: kindDefinition, Name: k.kind})
		}
		if k.asks(now, s.api.contact) {
			s.ask(ctx, k, background)
		}
	}
	if news, _, all, ok := s.selfWatch.take(); ok {
		was, wasGone := s.self.force[s.node], s.selfGone()
		c.add(s.self.absorb(news, all)) // a node that is gone from the API is one all the same
		s.stale = s.stale || s.selfGone() != wasGone
		if now := s.self.force[s.node]; now != was {
			s.stale = true // it may have another UID, or a taint
			s.announcements.see(s.selfNode())
		}
	}
	if s.othersWatch != nil {
		if news, _, all, ok := s.othersWatch.take(); ok {
			delete(news, s.node)
			c.add(s.others.absorb(news, all))
			c.add(s.others.confirmAll())
		}
	}
	s.apply(c)
	return s.watchOthers(ctx)
}

// selfNode is this node as its Node says; nil: there is none.
func (s *Store) selfNode() *model.Node {
	e := s.self.force[s.node]
	if e == nil {
		return nil
	}
	n := e.value.(model.Node)
	return &n
}

// selfGone says whether the API has the Node of this node no more.
func (s *Store) selfGone() bool {
	_, gone := s.self.gone[s.node]
	return gone
}

// complete says whether there is a whole view: one that was saved, or all that the API has.
func (s *Store) complete() bool {
	return s.snapshot != nil || s.read()
}

// read says whether all was heard of the kinds and of this node.
func (s *Store) read() bool {
	return s.self.fresh && !slices.ContainsFunc(s.kinds, func(k *kind) bool { return !k.fresh && !(k.from.optional && k.missing) })
}

// watchOthers begins to watch other nodes when a setting needs their addresses, and ends it when none does any more.
func (s *Store) watchOthers(ctx context.Context) (err error) {
	if s.snapshot == nil {
		return nil
	}
	needs, labels := s.network || compile.NeedsNodes(s.snapshot, s.node), compile.NeedsLabels(s.snapshot)
	switch {
	case needs && (s.othersWatch == nil || s.othersLabels != labels): // labels of thousands of nodes are kept only for a reason
		if s.othersWatch != nil {
			s.othersWatch.end()
		}
		s.othersLabels = labels
		s.othersWatch, err = s.api.start(ctx, datastore.KindNode, resourceNodes, "", labels, s.signal)
	case !needs && s.othersWatch != nil:
		s.othersWatch.end()
		s.othersWatch = nil
		s.forgetOthers()
	case !needs && len(s.others.force) > 0: // saved before
		s.forgetOthers()
	}
	return err
}

func (s *Store) forgetOthers() {
	for name := range s.others.force {
		s.others.goes(name)
	}
	s.apply(s.others.confirmAll())
	s.others.fresh = false
	clear(s.others.bad)
}

// fresh says whether all was heard of the API that the snapshot is made of.
func (s *Store) fresh() bool {
	return s.read() && (s.othersWatch == nil || s.others.fresh)
}

// due is when step has something to do without any event.
func (s *Store) due() time.Time {
	at := time.Now().Add(time.Hour)
	for _, k := range s.kinds {
		at = k.due(at)
	}
	return at
}

// publish publishes the state if it is not the one that was published last.
func (s *Store) publish(publish func(datastore.State)) {
	if !s.stale {
		return
	}
	s.stale = false
	state := datastore.State{Fresh: s.fresh(), Followed: map[string]datastore.Followed{}}
	for _, k := range s.kinds {
		state.Followed[k.kind] = k.followed
	}
	// The first one waits for other nodes, if it needs them: what is exempt is not to be translated at first.
	if s.whole = s.whole || s.snapshot != nil && state.Fresh; s.whole {
		state.Snapshot, state.Version, state.Conditions = s.snapshot, s.number, s.conditions
	}
	for _, v := range []*view{s.self, s.others} {
		_, warnings := v.exceptions()
		state.Warnings = append(state.Warnings, warnings...)
	}
	for _, k := range s.kinds {
		exceptions, warnings := k.exceptions()
		state.Exceptions = append(state.Exceptions, exceptions...)
		state.Warnings = append(state.Warnings, warnings...)
		if w := k.lostWarning(); w != "" {
			state.Warnings = append(state.Warnings, model.Fault{Message: w})
		}
		if k.trouble == "" {
			continue
		}
		f := model.Fault{Kind: k.kind, Message: k.trouble}
		if s.snapshot == nil || k.refused {
			state.Faults = append(state.Faults, f)
		} else {
			state.Warnings = append(state.Warnings, f)
		}
	}
	if err := s.saver.Failure(); err != nil {
		state.Warnings = append(state.Warnings, model.Fault{Message: fmt.Sprintf("the last good view cannot be saved, so that a restart while the API server is away would find none: %v", err)})
	}
	if err := s.Alone(); err != nil && !errors.Is(err, errNotSettled) {
		state.Warnings = append(state.Warnings, model.Fault{Message: "this node gives out no addresses to pods: " + err.Error()})
	}
	if e := s.self.force[s.node]; e != nil {
		state.Self = datastore.Self{UID: string(e.UID), Gone: s.selfGone(), Taints: e.taints}
	}
	s.report(state.Faults, state.Warnings)
	publish(state)
}

// report logs what is wrong, once.
func (s *Store) report(faults, warnings []model.Fault) {
	said := ""
	for _, f := range append(append([]model.Fault(nil), faults...), warnings...) {
		said += f.String() + "\n"
	}
	if said == s.trouble {
		return
	}
	s.trouble = said
	if said == "" {
		s.log.Info("nothing is wrong with the resources any more")
	}
	for i, f := range faults {
		if i < logged {
			s.log.Error("the resources cannot be used as they are", "fault", f.String())
		}
	}
	for i, f := range warnings {
		if i < logged {
			s.log.Warn("something is wrong with the resources", "fault", f.String())
		}
	}
}

// logged bounds the log lines about one change.
const logged = 10
