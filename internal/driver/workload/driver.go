package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Options say where a driver works. Log is required.
type Options struct {
	Log *slog.Logger
	// NetNS is a file descriptor of the network namespace to work in; 0 is that of the calling thread.
	NetNS int
	// Gone is told of each link that was held and vanishes, exactly once, by Driver.Watch or by the call that finds out. It
	// must not wait, and not call the driver.
	Gone func(Held)
	// Unowned is nftables.Options.Unowned.
	Unowned bool
	// Wrap, if set, puts something between the driver and rtnetlink. It is for tests that make calls fail.
	Wrap func(nfnetlink.Socket) nfnetlink.Socket
}

// Driver makes, keeps and removes the links of workloads. Its methods may be called from several goroutines.
type Driver struct {
	log  *slog.Logger
	opts Options
	v6   bool // the node knows IPv6

	conns conns
	rules *rules

	// gate is held by those who make the kernel equal to what is known, against Add and Leave, which hold it shared while they
	// change routes: so a repair never brings back what has just gone.
	gate sync.RWMutex
	// plan is the one last handed to Apply; nil before. It changes while the gate is held.
	plan atomic.Pointer[compile.Workloads]
	// standing is what RulesStand tells; nil before the first Apply, and after Cleanup.
	standing atomic.Pointer[standing]
	// settled says that the kernel holds the plan, as far as is known. Guarded by gate.
	settled bool

	mu     sync.Mutex // guards all below
	links  map[int]*link
	byAddr map[netip.Addr]*link // of links that are held
	adding map[string]bool      // names of links that are being made

	remover remover
}

// link is what is known of a link.
type link struct {
	Held
	alias alias
	// pending says that it is being made; gone, that it vanished meanwhile.
	pending, gone bool
}

// New makes a driver. It changes nothing. Close it after use; the links stay.
func New(o Options) (*Driver, error) {
	d := &Driver{log: o.Log, opts: o, links: map[int]*link{}, byAddr: map[netip.Addr]*link{}, adding: map[string]bool{}}
	d.conns.dial = d.dial
	d.remover.driver = d
	d.remover.ctx, d.remover.stop = context.WithCancel(context.Background())
	c, err := d.conns.take()
	if err != nil {
		return nil, fmt.Errorf("opening an rtnetlink socket: %w", err)
	}
	d.conns.give(c)
	if d.rules, err = newRules(d); err != nil {
		return nil, errors.Join(err, d.conns.close())
	}
	if s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		d.v6 = true
		_ = unix.Close(s) // nothing was sent by it
	}
	return d, nil
}

func (d *Driver) dial() (*rtnetlink.Conn, error) {
	c, err := rtnetlink.Dial(d.opts.NetNS)
	if err == nil && d.opts.Wrap != nil {
		c.Wrap(d.opts.Wrap)
	}
	return c, err
}

// Close waits for links that are being removed, and closes the driver. The kernel keeps what it holds.
func (d *Driver) Close() error {
	d.remover.stop()
	d.remover.wait()
	return errors.Join(d.rules.close(), d.conns.close())
}

// conns keeps connections for those who need one for a while.
type conns struct {
	dial func() (*rtnetlink.Conn, error)
	mu   sync.Mutex
	free []*rtnetlink.Conn
}

// mostIdle is how many connections are kept.
const mostIdle = 8

func (p *conns) take() (*rtnetlink.Conn, error) {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return c, nil
	}
	p.mu.Unlock()
	return p.dial()
}

func (p *conns) give(c *rtnetlink.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < mostIdle {
		p.free = append(p.free, c)
		return
	}
	_ = c.Close() // all that it was asked has been answered
}

func (p *conns) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []error
	for _, c := range p.free {
		all = append(all, c.Close())
	}
	p.free = nil
	return errors.Join(all...)
}

// with calls do with a connection to the node's network namespace.
func (d *Driver) with(do func(*rtnetlink.Conn) error) error {
	c, err := d.conns.take()
	if err != nil {
		return fmt.Errorf("opening an rtnetlink socket: %w", err)
	}
	defer d.conns.give(c)
	return do(c)
}

// send has the kernel carry out a request, and returns an error for each message that it refused, unless forgive says that it
// does not matter.
func send(ctx context.Context, c *rtnetlink.Conn, r *request, forgive func(unix.Errno) bool) error {
	if r.Len() == 0 {
		return nil
	}
	refused, err := c.Execute(ctx, &r.Batch)
	all := []error{err}
	for _, f := range refused {
		if forgive == nil || !forgive(f.Errno) {
			all = append(all, f.Error(r.doing[f.Index]))
		}
	}
	return errors.Join(all...)
}

// absent says whether the kernel refused something since what it is about is not there, as it should be.
func absent(e unix.Errno) bool {
	return e == unix.ENODEV || e == unix.ESRCH || e == unix.ENOENT || e == unix.EADDRNOTAVAIL
}

// Held is what the kernel holds: the links of workloads, sorted by name. Links that are being made are not among them.
func (d *Driver) Held(ctx context.Context) ([]Held, error) {
	if err := d.relist(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Held, 0, len(d.links))
	for _, l := range d.links {
		if !l.pending {
			list = append(list, l.Held)
		}
	}
	slices.SortFunc(list, func(a, b Held) int { return cmp.Compare(a.Link, b.Link) })
	return list, nil
}

// know takes note of a link.
func (d *Driver) know(l *link) {
	if !l.pending {
		d.rules.add(l)
	}
	d.links[l.Index] = l
	d.place(l)
}

// place takes note of where addresses are. Only those of links that are held are anywhere.
func (d *Driver) place(l *link) {
	for _, a := range l.Addresses {
		switch {
		case !l.pending && !l.Leaving:
			d.byAddr[a] = l
		case d.byAddr[a] == l:
			delete(d.byAddr, a)
		}
	}
}

// forget forgets a link that is gone. It reports whether that is to be told: a link that is being made was never held.
func (d *Driver) forget(l *link) bool {
	d.rules.drop(l)
	if l.pending {
		l.gone = true
		return false
	}
	delete(d.links, l.Index)
	for _, a := range l.Addresses {
		if d.byAddr[a] == l {
			delete(d.byAddr, a)
		}
	}
	return true
}

// tell tells of links that are gone.
func (d *Driver) tell(gone []Held) {
	for _, h := range gone {
		if d.opts.Gone != nil {
			d.opts.Gone(h)
		}
	}
}

// vanished takes note that there is no device with an index any more.
func (d *Driver) vanished(index ...int) {
	var gone []Held
	d.mu.Lock()
	for _, i := range index {
		if l := d.links[i]; l != nil && d.forget(l) {
			gone = append(gone, l.Held)
		}
	}
	d.mu.Unlock()
	if len(gone) > 0 {
		d.remover.tidy()
	}
	d.tell(gone)
}

// relist brings what is known of links in line with what the kernel has. Half-made links that a killed agent has left, and
// links that are leaving, are handed to those who remove them.
func (d *Driver) relist(ctx context.Context) error {
	var gone []Held
	err := d.with(func(c *rtnetlink.Conn) (err error) {
		// Notifications wait meanwhile: what they tell is as new as this reading, or newer.
		d.mu.Lock()
		defer d.mu.Unlock()
		list, err := readDevices(ctx, c)
		if err == nil {
			gone = d.merge(list)
		}
		return err
	})
	if len(gone) > 0 {
		d.remover.tidy()
	}
	d.tell(gone)
	return err
}

// Drops reads what the rules have dropped. On error the numbers are those last read.
func (d *Driver) Drops(ctx context.Context) (Drops, error) { return d.rules.drops(ctx) }

// merge takes over what was read. It returns the links that are gone.
func (d *Driver) merge(list []device) (gone []Held) {
	seen := make(map[int]bool, len(list))
	var remove []int
	for i := range list {
		dev := &list[i]
		a := dev.claims(list)
		if known := d.links[dev.index]; known != nil && (known.Link == dev.name || known.renamed(dev)) {
			seen[dev.index] = true
			if a != nil && a.state == leaving && !known.pending && !known.Leaving { // another agent's word
				d.leave(known)
			}
			if known.Leaving && !known.pending {
				remove = append(remove, dev.index)
			}
			continue
		}
		switch {
		case a == nil || d.adding[a.Device()]:
			continue
		case a.state == making:
			d.log.Info("a link that was not finished is removed", "link", dev.name, "container", a.ContainerID)
			remove = append(remove, dev.index)
			continue
		case a.state == leaving:
			remove = append(remove, dev.index)
		}
		seen[dev.index] = true
		d.know(&link{Held: Held{Workload: a.Workload, Link: a.Device(), Index: dev.index, Leaving: a.state == leaving}, alias: *a})
	}
	for index, l := range d.links {
		if !seen[index] && d.forget(l) {
			gone = append(gone, l.Held)
		}
	}
	d.remover.add(remove...)
	return gone
}

// renamed says whether another program has given a link's device another name. What is held goes on under it until a repair.
func (l *link) renamed(dev *device) bool {
	a := dev.workload()
	return a != nil && !l.pending && dev.name != l.Link && a.Device() == l.Link
}

// leave takes note that a link is leaving.
func (d *Driver) leave(l *link) {
	l.Leaving, l.alias.state = true, leaving
	d.place(l)
}
