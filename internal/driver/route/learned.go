package route

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
	"github.com/sallyport/sallyport/internal/waiting"
)

// metricLearned is that of learned routes. Any route of others to the same prefix has a lower one and wins, and so do those to blocks,
// but for unreachable ones: where this node knows no way, a router may.
const metricLearned = 1 << 29

// Learned is a route that routers told of.
type Learned struct {
	Prefix netip.Prefix
	Hops   []netip.Addr // the next hops, at least one; a link-local one of IPv6 has its interface as zone
}

// Refused is a learned route that the kernel does not take, in whole or in part.
type Refused struct {
	Prefix netip.Prefix
	Why    string
}

// Keeper keeps learned routes in the main tables: those of protocol 115 with metricLearned. They are no part of a plan, come and go by
// the thousand, and may be wrong without this node being: so they have a keeper beside the Driver.
//
// Some the kernel drops by itself, with a link that goes down, and does not bring back. The keeper does.
type Keeper struct {
	netns int
	log   *slog.Logger
	wake  chan struct{} // of capacity 1
	// beside are the sockets whose changes matter to no learned route: the keeper's own, and that of the driver.
	beside []uint32

	mu       sync.Mutex
	conn     *rtnetlink.Conn
	batch    rtnetlink.Batch
	told     bool // Set was called
	wanted   []Learned
	complete bool
	refused  []Refused
	stands   int
}

// NewKeeper opens a keeper. It changes nothing before Run. Close it after use; what it programmed stays.
func NewKeeper(o Options) (*Keeper, error) {
	conn, err := rtnetlink.Dial(o.NetNS)
	if err != nil {
		return nil, err
	}
	k := &Keeper{netns: o.NetNS, log: o.Log, conn: conn, wake: make(chan struct{}, 1), beside: []uint32{conn.PortID()}}
	if o.Beside != nil {
		k.beside = append(k.beside, o.Beside.conn.PortID())
	}
	return k, nil
}

// Close closes the keeper.
func (k *Keeper) Close() error { return k.conn.Close() }

// Set says which routes there are to be, sorted by prefix. Complete says that others, which an agent before this one may have left, are
// stale; before, they stay. It does not wait for the kernel. The routes must not be changed afterwards.
func (k *Keeper) Set(routes []Learned, complete bool) {
	k.mu.Lock()
	k.told, k.wanted, k.complete = true, routes, complete
	k.mu.Unlock()
	waiting.Signal(k.wake)
}

// State says how many of the routes stand, and why others do not.
func (k *Keeper) State() (stands int, refused []Refused) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stands, k.refused
}

// Held says whether the kernel has learned routes.
func (k *Keeper) Held(ctx context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	held, err := k.read(ctx)
	return len(held) > 0, err
}

// Cleanup removes all learned routes, and keeps none from then on until Set is called.
func (k *Keeper) Cleanup(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told, k.wanted, k.complete = true, nil, true
	return k.converge(ctx)
}

// Times of Run.
const (
	settle   = 50 * time.Millisecond // after the kernel told of a change: more are to come
	tryAgain = 2 * time.Second       // after the kernel refused a route
)

// Run keeps the routes until the context ends, or it cannot hear what the kernel tells. They stay then.
func (k *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		w := &watcher{own: k.conn.PortID(), up: map[int32]bool{}, ours: func(int32) bool { return false }}
		unheard := rtnetlink.Unheard{From: k.beside, Kinds: []uint16{unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH}}
		return rtnetlink.Subscribe(ctx, k.netns, groups(), unheard, func() { waiting.Signal(k.wake) }, func(m nfnetlink.Message) {
			if k.matters(w, m) {
				waiting.Signal(k.wake)
			}
		})
	})
	g.Go(func() error {
		k.keep(ctx)
		return nil
	})
	return g.Wait()
}

// matters says whether a notification may be about a learned route that is gone, or can be again.
func (k *Keeper) matters(w *watcher, m nfnetlink.Message) bool {
	switch m.Kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, err := rtnetlink.ParseRoute(m)
		return m.PortID != w.own && (err != nil || isLearned(r))
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return true
	}
	return false
}

// isLearned says whether a route is a learned one of ours.
func isLearned(r rtnetlink.RouteMessage) bool {
	return r.Protocol == rtnetlink.RouteProtocol && r.Metric == metricLearned && r.Table == unix.RT_TABLE_MAIN && r.To.IsValid()
}

// keep makes the kernel have the routes whenever something may have changed.
func (k *Keeper) keep(ctx context.Context) {
	for {
		k.mu.Lock()
		var err error
		if k.told {
			err = k.converge(ctx)
		}
		again := err != nil || len(k.refused) > 0
		k.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			k.log.Error("learned routes were not programmed; it is tried again", "error", err, "retry_in", tryAgain)
		}
		var retry <-chan time.Time
		if again {
			retry = time.After(tryAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-retry:
		case <-k.wake:
		}
		if !waiting.Sleep(ctx, nil, settle) {
			return
		}
		select {
		case <-k.wake:
		default:
		}
	}
}

// far is a learned route in the form in which two can be compared.
type far struct {
	to   netip.Prefix
	hops string // as text has them
}

func (f far) compare(o far) int { return f.to.Compare(o.to) }

// text is next hops in an order of their own. Interfaces count only where the address alone does not name the hop.
func text(hops []rtnetlink.Hop) string {
	texts := make([]string, 0, len(hops))
	for _, h := range hops {
		if h.Via.Is6() && h.Via.IsLinkLocalUnicast() {
			texts = append(texts, fmt.Sprintf("%s@%d", h.Via, h.Index))
		} else {
			texts = append(texts, h.Via.String())
		}
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// read reads the learned routes that the kernel has, sorted.
func (k *Keeper) read(ctx context.Context) ([]far, error) {
	var out []far
	for _, every := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		before := len(out)
		k.batch.Reset()
		k.batch.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: every, Table: unix.RT_TABLE_MAIN, Protocol: rtnetlink.RouteProtocol}.Encode())
		k.batch.Uint32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)
		err := k.conn.DumpWhole(ctx, "reading learned routes", &k.batch, func() { out = out[:before] }, func(m nfnetlink.Message) error {
			r, err := rtnetlink.ParseRoute(m)
			if err != nil || !isLearned(r) || r.To.Addr().Is6() != every.Addr().Is6() {
				return err
			}
			hops, err := rtnetlink.ParseHops(m)
			out = append(out, far{r.To, text(hops)})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, far.compare)
	return out, nil
}

// converge makes the kernel have the routes, as far as it takes them. New ones come before others go.
func (k *Keeper) converge(ctx context.Context) error {
	held, err := k.read(ctx)
	if err != nil {
		return err
	}
	k.refused = nil
	wanted := make([]far, 0, len(k.wanted))
	hops := map[netip.Prefix][]rtnetlink.Hop{}
	links := map[string]int{}
	for _, r := range k.wanted {
		h, err := k.hopsOf(ctx, r, links)
		if err != nil {
			k.refused = append(k.refused, Refused{r.Prefix, err.Error()})
		}
		if len(h) > 0 {
			hops[r.Prefix] = h
			wanted = append(wanted, far{r.Prefix, text(h)})
		}
	}
	k.batch.Reset()
	var stale []netip.Prefix
	there := map[netip.Prefix]bool{}
	difference(held, wanted, far.compare, func(f far, has bool) {
		there[f.to] = has
		put(&k.batch, f.to, hops[f.to], has)
	}, func(f far) { stale = append(stale, f.to) })
	refused, err := k.conn.Execute(ctx, &k.batch)
	if err != nil {
		return fmt.Errorf("programming learned routes: %w", err)
	}
	k.stands = len(wanted) - len(refused)
	if err := k.singly(ctx, refused, hops, there); err != nil {
		return err
	}
	if !k.complete {
		return nil
	}
	k.batch.Reset()
	for _, to := range stale {
		k.batch.Message(unix.RTM_DELROUTE, 0, learnedFixed(to))
		k.batch.Addr(unix.RTA_DST, to.Addr())
		k.batch.Uint32(unix.RTA_PRIORITY, metricLearned)
	}
	refused, err = k.conn.Execute(ctx, &k.batch)
	for _, r := range refused {
		if r.Errno != unix.ESRCH {
			err = errors.Join(err, r.Error("removing a learned route"))
		}
	}
	return err
}

// hopsOf are the next hops of a route, with the numbers of their interfaces, as far as those are there.
func (k *Keeper) hopsOf(ctx context.Context, r Learned, links map[string]int) (hops []rtnetlink.Hop, err error) {
	for _, a := range r.Hops {
		h := rtnetlink.Hop{Via: a.WithZone("")}
		if zone := a.Zone(); zone != "" {
			if _, known := links[zone]; !known {
				if links[zone], err = k.index(ctx, zone); err != nil {
					return nil, err
				}
			}
			if h.Index = links[zone]; h.Index == 0 {
				err = cmp.Or(err, fmt.Errorf("there is no interface %s", zone))
				continue
			}
		}
		hops = append(hops, h)
	}
	return hops, err
}

// index is the number of an interface; 0: no interface has that name.
func (k *Keeper) index(ctx context.Context, name string) (index int, err error) {
	var b rtnetlink.Batch
	b.GetLink(name)
	err = k.conn.Get(ctx, "reading "+name, &b, func(m nfnetlink.Message) error {
		l, err := rtnetlink.ParseLink(m)
		index = l.Index
		return err
	})
	if errors.Is(err, unix.ENODEV) {
		err = nil
	}
	return index, err
}

func learnedFixed(to netip.Prefix) []byte {
	return rtnetlink.RouteFixed{Destination: to, Table: unix.RT_TABLE_MAIN, Protocol: rtnetlink.RouteProtocol, Type: unix.RTN_UNICAST}.Encode()
}

// put adds a learned route, or replaces that of the same prefix where there is one.
func put(b *rtnetlink.Batch, to netip.Prefix, hops []rtnetlink.Hop, there bool) {
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL) // never one of others
	if there {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	b.Message(unix.RTM_NEWROUTE, flags, learnedFixed(to))
	b.Addr(unix.RTA_DST, to.Addr())
	b.Uint32(unix.RTA_PRIORITY, metricLearned)
	b.Hops(to, hops)
}

// singly tries each next hop of refused routes alone: one that cannot be reached has the kernel refuse all.
func (k *Keeper) singly(ctx context.Context, refused []rtnetlink.Refusal, hops map[netip.Prefix][]rtnetlink.Hop, there map[netip.Prefix]bool) error {
	again := map[netip.Prefix][]rtnetlink.Hop{}
	for _, r := range refused {
		route, err := rtnetlink.ParseRoute(k.batch.At(r.Index))
		if err != nil {
			return err // it is our own message
		}
		k.refused = append(k.refused, Refused{route.To, r.Error("putting the route").Error()})
		if h := hops[route.To]; len(h) > 1 {
			again[route.To] = h
		}
	}
	for i := 0; len(again) > 0; i++ {
		k.batch.Reset()
		for to, h := range again {
			if i == len(h) {
				delete(again, to)
				continue
			}
			put(&k.batch, to, h[i:i+1], there[to])
		}
		failed, err := k.conn.Execute(ctx, &k.batch)
		if err != nil {
			return fmt.Errorf("programming learned routes: %w", err)
		}
		still := map[netip.Prefix]bool{}
		for _, r := range failed {
			if route, err := rtnetlink.ParseRoute(k.batch.At(r.Index)); err == nil {
				still[route.To] = true
			}
		}
		for to := range again {
			if !still[to] {
				delete(again, to)
				k.stands++
			}
		}
	}
	return nil
}
