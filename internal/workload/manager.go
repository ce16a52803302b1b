package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/datastore"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/waiting"
)

// Links makes, removes and lists the links of workloads: the driver.
type Links interface {
	Held(ctx context.Context) ([]links.Held, error)
	Add(ctx context.Context, w links.Workload, ns, sock *os.File, mtu int) (links.Made, error)
	Leave(ctx context.Context, names []string) error
	Check(ctx context.Context, w links.Workload, sock *os.File) error
}

// Options say what a Manager works with. All are required but those that say otherwise.
type Options struct {
	Node  string
	Links Links
	// Claims keeps blocks in a cluster, and Pods knows its pods; nil: there is no cluster, and the node is alone.
	Claims datastore.Claims
	Pods   datastore.Pods
	// Tunnels are the addresses that this node's VXLAN devices have; nil without a cluster.
	Tunnels func(ctx context.Context) ([]netip.Addr, error)
	// Owns is told the blocks of a node without a cluster whenever they change. It does not wait.
	Owns func([]model.Block)
	// Stands waits until the kernel holds the rules of a version of the snapshot, or a newer one, and says why not where it
	// does not in time.
	Stands func(ctx context.Context, version uint64) error
	// Forget ends the tracked connections of these addresses.
	Forget func(ctx context.Context, of func(netip.Addr) bool) error
	Random func() uint64
	Log    *slog.Logger
}

// Manager gives out the addresses of a node. Make one with New.
type Manager struct {
	opts    Options
	leaving leaving
	names   keyed // one request at a time for each link

	reportAt time.Time // of Run: before that, nothing is reported

	claiming chan struct{} // holds a token while a request claims a block: one at a time does

	news  sync.Mutex // guards state and near; taken before mu
	state datastore.State
	near  []ipam.Kept // what the node's interfaces have; nil: they are not known yet

	mu       sync.Mutex
	space    *ipam.Space
	held     map[string]links.Held   // by the name of the link: the workloads that have addresses
	removing map[string][]chan error // by the name of the link: what requests remove right now
	declared *declared               // nil before the first snapshot
	pending  map[netip.Prefix]pending
	refused  map[string]refusal // pools that the API refused to claim from, by name
	began    bool               // what the kernel held at the start is known
	cleared  bool               // the connections of what went before that have ended
	changed  chan struct{}      // closed and replaced when what is declared, or began, changes
	told     []model.Block      // what Owns was told last
	tunnels  []netip.Addr       // of this node's VXLAN devices, at most one of each family
}

// New is a manager that serves nothing before Run.
func New(o Options) *Manager {
	return &Manager{opts: o, space: ipam.NewSpace(o.Random), held: map[string]links.Held{},
		pending: map[netip.Prefix]pending{}, refused: map[string]refusal{}, changed: make(chan struct{}), claiming: make(chan struct{}, 1), names: keyed{held: map[string]chan struct{}{}},
		leaving: leaving{wake: make(chan struct{}, 1), wakeBehind: make(chan struct{}, 1)}}
}

// lookEvery is the time between two looks at which blocks can go back, and at how much of them is in use.
const lookEvery = 10 * time.Second

// beginAgain is the pause after the links of the kernel could not be listed.
const beginAgain = time.Second

// Run works until the context ends: it reads what the kernel holds, gives back blocks that are not needed, and finishes what
// requests have begun.
func (m *Manager) Run(ctx context.Context) {
	for !m.begin(ctx) {
		if !waiting.Sleep(ctx, nil, beginAgain) {
			return
		}
	}
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { m.leave(ctx) })
	others.Go(func() { m.follow(ctx) })
	others.Go(func() { m.clear(ctx) })
	tick, look := time.NewTicker(lookEvery), time.NewTicker(compareEvery)
	defer tick.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.tend(ctx)
		case <-look.C:
			m.compare(ctx)
		}
	}
}

// begin learns which workloads the kernel has.
func (m *Manager) begin(ctx context.Context) bool {
	var tunnels []netip.Addr
	var held []links.Held
	var err error
	if m.opts.Tunnels != nil {
		tunnels, err = m.opts.Tunnels(ctx)
	}
	if err == nil {
		held, err = m.opts.Links.Held(ctx)
	}
	if err != nil {
		m.opts.Log.Error("reading which addresses of this node are in use failed; no pod can start before that; it is tried again", "error", err, "retry_in", beginAgain)
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []links.Held
	for _, h := range held {
		if h.Leaving {
			left = append(left, h)
		} else {
			m.hold(h)
		}
	}
	for _, a := range tunnels {
		if m.space.Use(a, tunnelName(a.Is6())) == "" {
			m.tunnels = append(m.tunnels, a)
		}
	}
	for _, h := range left { // nothing else gets their addresses before their connections have ended
		for _, a := range h.Addresses {
			m.space.Use(a, h.Link)
		}
	}
	m.began = true
	m.restore()
	m.notify()
	m.leaving.late(left...)
	return true
}

// hold notes the workload of a link. mu is held.
func (m *Manager) hold(h links.Held) {
	m.held[h.Link] = h
	for _, a := range h.Addresses {
		if other := m.space.Use(a, h.Link); other != "" {
			m.opts.Log.Error("two workloads of this node have one address: only one of them is reached by it; delete one of both",
				"address", a, "link", h.Link, "other", other)
		}
	}
}

// notify wakes those who wait for what is declared. mu is held.
func (m *Manager) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Gone notes that the kernel has a link no more, whatever removed it.
func (m *Manager) Gone(h links.Held) {
	m.mu.Lock()
	was, known := m.held[h.Link]
	delete(m.held, h.Link)
	_, asked := m.removing[h.Link]
	m.mu.Unlock()
	switch {
	case !known:
		return // a request has removed it
	case asked: // the same, but the kernel tells of it before the request goes on
		m.leaving.late(was)
		return
	}
	m.opts.Log.Info("the link of a workload is gone without a request to remove it; its addresses are given back", "link", h.Link, "container", h.ContainerID)
	m.leaving.late(was)
}

// compare finds links that have gone unnoticed, such as between the moment when they were listed and that when they were noted.
func (m *Manager) compare(ctx context.Context) {
	m.mu.Lock()
	known := maps.Clone(m.held)
	m.mu.Unlock()
	held, err := m.opts.Links.Held(ctx)
	if err != nil {
		m.opts.Log.Warn("listing the links of workloads failed; it is tried again", "error", err, "retry_in", compareEvery)
		return
	}
	for _, h := range held {
		delete(known, h.Link)
	}
	for _, h := range known {
		m.Gone(h)
	}
}

// compareEvery is the time between two looks at which links the kernel has.
const compareEvery = time.Minute

// ready waits until addresses can be given out, or the context ends.
func (m *Manager) ready(ctx context.Context) (*declared, error) {
	return m.await(ctx, func() string {
		if !m.cleared {
			return "the connections of workloads that went while no agent ran have not ended yet"
		}
		return ""
	})
}

// await waits until what is in use and what is declared are known, and missing says that nothing else is missing. That is called
// while mu is held.
func (m *Manager) await(ctx context.Context, missing func() string) (*declared, error) {
	for {
		m.mu.Lock()
		d, changed, why := m.declared, m.changed, ""
		switch {
		case !m.began:
			why = "the links of workloads are not known yet"
		case d == nil:
			why = "no valid resources were read yet"
		case !d.linked:
			why = "the node's interfaces were not read yet"
		case !d.fresh:
			why = "the API server was not heard of since the agent started"
		default:
			why = missing()
		}
		m.mu.Unlock()
		if why == "" && !m.standalone() {
			if err := m.opts.Claims.Alone(); err != nil {
				why = err.Error()
			}
		}
		if why == "" {
			return d, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.New(why)
		case <-changed:
		case <-time.After(aloneAgain):
		}
	}
}

// clear ends the connections of addresses of this node's blocks that nothing has: of workloads that went while no agent ran.
func (m *Manager) clear(ctx context.Context) {
	if _, err := m.await(ctx, func() string { return "" }); err != nil {
		return
	}
	for ctx.Err() == nil {
		free := map[netip.Addr]bool{} // by whether it is in a block of this node and nothing has it
		err := m.opts.Forget(ctx, func(a netip.Addr) bool {
			is, known := free[a]
			if !known {
				m.mu.Lock()
				is = m.space.Free(a)
				m.mu.Unlock()
				free[a] = is
			}
			return is
		})
		if err == nil {
			m.mu.Lock()
			m.cleared = true
			m.notify()
			m.mu.Unlock()
			return
		}
		m.opts.Log.Error("ending the connections of workloads that went while no agent ran failed; no pod can start before that; it is tried again", "error", err, "retry_in", finishAgain)
		waiting.Sleep(ctx, nil, finishAgain)
	}
}

// aloneAgain is the pause before it is asked again whether the node's name is its own.
const aloneAgain = 100 * time.Millisecond

// settle is how long a request waits for what is usually there in a moment.
const settle = 5 * time.Second

// Status says whether a pod can start now.
func (m *Manager) Status(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	d, err := m.ready(ctx)
	if err != nil {
		return limited(err)
	}
	if err := m.opts.Stands(ctx, d.version); err != nil {
		return limited(err)
	}
	return nil
}

// linkName is the name of the link of a workload.
func linkName(network, container, iface string) string {
	return cni.LinkName(cni.NetworkHash(network), container, iface)
}

// keyed lets one at a time work on each name.
type keyed struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when it is let go
}

// take waits for a name. The error is that of the context.
func (k *keyed) take(ctx context.Context, name string) (free func(), err error) {
	for {
		k.mu.Lock()
		busy, taken := k.held[name]
		if !taken {
			mine := make(chan struct{})
			k.held[name] = mine
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, name)
				k.mu.Unlock()
				close(mine)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, fmt.Errorf("another request for link %s is at work: %w", name, ctx.Err())
		}
	}
}
