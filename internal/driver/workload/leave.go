package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Leave ends the use of links, by their names. When it returns, their addresses have neither routes nor neighbours, and their
// aliases say that they are leaving. The links are removed behind it, and Options.Gone is told when each is. A link that is
// not there, or leaves already, is no error.
func (d *Driver) Leave(ctx context.Context, names []string) error {
	d.gate.RLock()
	defer d.gate.RUnlock()
	return d.with(func(c *rtnetlink.Conn) error {
		var r request
		var all []error
		var remove []int
		for _, name := range names {
			l, err := d.find(ctx, c, name)
			if err != nil {
				all = append(all, err)
			}
			if l == nil {
				continue
			}
			if err := r.leave(l); err != nil {
				all = append(all, err)
				continue
			}
			remove = append(remove, l.Index)
		}
		// A link that has no route or neighbour any more, or is gone itself, has left.
		if err := send(ctx, c, &r, absent); err != nil {
			return errors.Join(append(all, err)...)
		}
		d.remover.add(remove...)
		return errors.Join(all...)
	})
}

// find finds a link to leave, and takes note that it does; nil if there is none, or it is being made.
func (d *Driver) find(ctx context.Context, c *rtnetlink.Conn, name string) (*link, error) {
	dev, err := getDevice(ctx, c, name)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.links[dev.index]
	if l == nil {
		a := dev.ours()
		if a == nil {
			return nil, fmt.Errorf("device %s is not Sallyport's: it is left as it is", name)
		}
		if d.adding[name] {
			return nil, beingMade(name)
		}
		l = &link{Held: Held{Workload: a.Workload, Link: name, Index: dev.index}, alias: *a}
		d.know(l)
	}
	if l.pending {
		return nil, beingMade(name)
	}
	d.leave(l)
	copied := *l
	return &copied, nil
}

func beingMade(name string) error {
	return fmt.Errorf("device %s is being made: delete it when that has ended", name)
}

// leave appends what makes a link one that is leaving.
func (r *request) leave(l *link) error {
	text, err := l.alias.text()
	if err != nil {
		return err
	}
	// By the index: another device may have got the name meanwhile.
	r.message(unix.RTM_NEWLINK, 0, rtnetlink.Link(l.Index, 0, 0), "setting the alias of "+l.Link)
	r.Text(unix.IFLA_IFALIAS, text)
	r.Uint32(unix.IFLA_GROUP, leavingGroup)
	for _, a := range l.Addresses {
		r.noRouteTo(l.Index, a, "deleting the route to "+a.String())
		r.noNeighbour(l.Index, a, "deleting the neighbour "+a.String())
	}
	return nil
}

// leavingGroup is the group of links that are leaving ("sly" and 1). The kernel removes all devices of a group at once, and so
// waits only once until nothing uses them any more, for 10 milliseconds and more.
const leavingGroup = 0x736c7901

// remover removes links that are leaving, and those that were never finished, many at once, in a goroutine that runs while
// there are some.
type remover struct {
	driver *Driver
	ctx    context.Context
	stop   context.CancelFunc

	mu      sync.Mutex
	queue   map[int]bool // indices
	rules   bool         // those of devices that are gone may be there
	running bool
	done    sync.WaitGroup
}

// retryRemoval is the pause after a removal that failed.
const retryRemoval = time.Second

func (q *remover) add(index ...int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.queue == nil {
		q.queue = map[int]bool{}
	}
	for _, i := range index {
		q.queue[i] = true
	}
	q.start()
}

// tidy has the rules of devices that are gone deleted.
func (q *remover) tidy() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rules = true
	q.start()
}

func (q *remover) start() {
	if (q.rules || len(q.queue) > 0) && !q.running && q.ctx.Err() == nil {
		q.running = true
		q.done.Go(q.run)
	}
}

func (q *remover) wait() { q.done.Wait() }

// run removes until there is nothing left.
func (q *remover) run() {
	for {
		q.mu.Lock()
		list := make([]int, 0, len(q.queue))
		for i := range q.queue {
			list = append(list, i)
		}
		tidy := q.rules
		if len(list) == 0 && !tidy || q.ctx.Err() != nil {
			q.running = false
			q.mu.Unlock()
			return
		}
		q.queue, q.rules = nil, false
		q.mu.Unlock()
		var err error
		if len(list) > 0 {
			err = q.driver.removeLinks(q.ctx, list)
		} else {
			err = q.driver.rules.tidy(q.ctx)
		}
		if err != nil && q.ctx.Err() == nil {
			q.driver.log.Warn("links that are gone could not be removed to the last; that is tried again", "err", err, "retry_in", retryRemoval)
			q.again(list, tidy)
			select {
			case <-q.ctx.Done():
			case <-time.After(retryRemoval):
			}
		}
	}
}

// again puts back what was not done.
func (q *remover) again(list []int, tidy bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rules = q.rules || tidy
	if q.queue == nil {
		q.queue = map[int]bool{}
	}
	for _, i := range list {
		q.queue[i] = true
	}
}

// removeLinks removes links that are leaving or were never finished. The kernel removes them together, by their group, unless
// others have put a device of theirs into it.
func (d *Driver) removeLinks(ctx context.Context, indices []int) error {
	return d.with(func(c *rtnetlink.Conn) error {
		list, err := readDevices(ctx, c)
		if err != nil {
			return err
		}
		wanted := make(map[int]bool, len(indices))
		for _, i := range indices {
			wanted[i] = true
		}
		var group, single request
		var remove []int
		strangers := false
		for i := range list {
			dev := &list[i]
			a := dev.ours()
			if a == nil || a.state == held || !wanted[dev.index] {
				strangers = strangers || dev.group == leavingGroup && (a == nil || a.state != leaving)
				continue
			}
			remove = append(remove, dev.index)
			single.remove(dev.index, "removing "+dev.name)
			if dev.group != leavingGroup {
				group.message(unix.RTM_NEWLINK, 0, rtnetlink.Link(dev.index, 0, 0), "removing "+dev.name)
				group.Uint32(unix.IFLA_GROUP, leavingGroup)
			}
		}
		group.message(unix.RTM_DELLINK, 0, rtnetlink.Link(0, 0, 0), fmt.Sprintf("removing %d links", len(remove)))
		group.Uint32(unix.IFLA_GROUP, leavingGroup)
		r := &group
		if strangers || len(remove) < 2 {
			r = &single
		}
		if err := send(ctx, c, r, absent); err != nil {
			return err
		}
		d.vanishedAllBut(list, remove, indices)
		return nil
	})
}

// vanishedAllBut takes note that of the links with some indices those are gone that were removed, or were not in a list.
func (d *Driver) vanishedAllBut(list []device, removed, indices []int) {
	there := make(map[int]bool, len(list))
	for i := range list {
		there[list[i].index] = true
	}
	for _, i := range removed {
		there[i] = false
	}
	for _, i := range indices {
		if !there[i] {
			d.vanished(i)
		}
	}
}
