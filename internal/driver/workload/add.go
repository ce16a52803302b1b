package workload

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

// Made says what Add has made.
type Made struct{ Host, Pod cni.Link }

// ExistsError says that the link of a workload is there already, and in use.
type ExistsError struct{ Held Held }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s has the device %s already: delete it first (DEL)", &e.Held.Workload, e.Held.Link)
}

// ErrNoPlan says that nothing was applied yet.
var ErrNoPlan = errors.New("this node's network is not programmed yet")

// undoAtMost bounds the removal of what a failed Add has made.
const undoAtMost = 10 * time.Second

// Add makes the link of a workload, or nothing. The workload's network namespace is given by a file of it (ns), and by an
// rtnetlink socket that was opened inside of it (sock), which Add closes. MTU is that of both sides, in bytes; 0: the
// kernel's default. When Add returns, the rules against spoofing stand and packets can flow. The error is an *ExistsError if
// the workload has a link, ErrNoPlan before the first Apply, and else names what is in the way.
func (d *Driver) Add(ctx context.Context, w Workload, ns, sock *os.File, mtu int) (Made, error) {
	if err := d.apart(ns, sock); err != nil {
		return Made{}, fmt.Errorf("%s: %w", &w, errors.Join(err, sock.Close()))
	}
	pod, err := rtnetlink.Adopt(sock)
	if err != nil {
		return Made{}, fmt.Errorf("%s: the rtnetlink socket of its network namespace: %w", &w, err)
	}
	defer pod.Close()
	m := &maker{driver: d, pod: pod, name: w.Device(), alias: alias{Workload: w, state: making, mac: drawMAC()}, mtu: mtu}
	if _, err := m.alias.text(); err != nil {
		return Made{}, err
	}
	if err := d.begin(m.name); err != nil {
		return Made{}, err
	}
	defer d.end(m.name)
	err = d.with(func(c *rtnetlink.Conn) error {
		m.host = c
		err := m.make(ctx, ns)
		if err != nil {
			err = errors.Join(err, m.undo(ctx))
		}
		return err
	})
	if err != nil {
		return Made{}, fmt.Errorf("%s: %w", &w, err)
	}
	host := hostMAC()
	return Made{Host: cni.Link{Name: m.name, MAC: host.String(), MTU: m.node.mtu},
		Pod: cni.Link{Name: w.Interface, MAC: m.alias.mac.String(), MTU: m.node.mtu}}, nil
}

// drawMAC draws a MAC address of one device, locally administered, as the kernel does for a device that is given none.
func drawMAC() (m mac) {
	_, _ = rand.Read(m[:]) // never fails
	m[0] = m[0]&^1 | 2
	return m
}

// begin takes note that a link is being made.
func (d *Driver) begin(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.adding[name] {
		return fmt.Errorf("device %s is being made by another request", name)
	}
	d.adding[name] = true
	return nil
}

func (d *Driver) end(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.adding, name)
}

// maker makes one link.
type maker struct {
	driver    *Driver
	host, pod *rtnetlink.Conn
	name      string // of the device on the node
	alias     alias
	mtu       int

	made bool   // the devices are there
	lost bool   // it is not known whether they are
	link *link  // as the driver knows it; nil before
	node device // on the node
}

// make makes the link. The node's side stays down until all else stands: until then no packet passes.
func (m *maker) make(ctx context.Context, ns *os.File) error {
	if err := m.create(ctx, ns); err != nil {
		return err
	}
	var err error
	if m.node, err = getDevice(ctx, m.host, m.name); err != nil {
		return err
	}
	m.register()
	if err := m.furnish(ctx); err != nil {
		return err
	}
	if err := m.driver.rules.guard(ctx, m.link); err != nil {
		return err
	}
	if err := m.await(ctx); err != nil {
		return err
	}
	return m.open(ctx)
}

// create makes the devices. The alias is set by the same system call, which no signal interrupts: no agent leaves a device
// without one. The kernel carries out the messages of a call one by one, also after one that it refused, so what has the name
// is looked for before.
func (m *maker) create(ctx context.Context, ns *os.File) error {
	if err := m.makeRoom(ctx); err != nil {
		return err
	}
	text, err := m.alias.text()
	if err != nil {
		return err
	}
	var r request
	r.create(m.name, m.alias.Interface, ns.Fd(), m.alias.mac, m.mtu, "making device "+m.name)
	r.alias(m.name, text)
	r.configure(m.name, m.v6())
	refused, err := m.host.Execute(ctx, &r.Batch)
	m.made, m.lost = err == nil && (len(refused) == 0 || refused[0].Index > 0), err != nil
	switch {
	case err != nil || len(refused) == 0:
		return err
	case !m.made && refused[0].Errno == unix.EEXIST:
		return fmt.Errorf("its network namespace has a device %s already: remove it, or give the container another interface name", m.alias.Interface)
	}
	return refused[0].Error(r.doing[refused[0].Index])
}

// v6 says whether the node's side can have to do with IPv6, for which 1280 bytes is the least MTU (RFC 8200).
func (m *maker) v6() bool { return m.driver.v6 && (m.mtu == 0 || m.mtu >= 1280) }

// makeRoom removes what an earlier attempt has left in the way, or a workload that is leaving.
func (m *maker) makeRoom(ctx context.Context) error {
	found, err := getDevice(ctx, m.host, m.name)
	if err != nil {
		return unlessAbsent(err)
	}
	a := found.ours()
	switch {
	case a == nil:
		return fmt.Errorf("the node has a device %s that is not Sallyport's: remove it", m.name)
	case a.state == held:
		return &ExistsError{Held{Workload: a.Workload, Link: found.name, Index: found.index}}
	}
	var r request
	r.remove(found.index, "removing the device "+m.name+" that was left")
	if err := send(ctx, m.host, &r, absent); err != nil {
		return err
	}
	m.driver.vanished(found.index)
	return nil
}

// register takes note of the link, so that its end is noticed from now on.
func (m *maker) register() {
	m.link = &link{Held: Held{Workload: m.alias.Workload, Link: m.name, Index: m.node.index}, alias: m.alias, pending: true}
	m.driver.mu.Lock()
	defer m.driver.mu.Unlock()
	m.driver.know(m.link)
}

// furnish gives the container's side all that it needs.
func (m *maker) furnish(ctx context.Context) error {
	var r request
	index, inside := m.node.peer, " in the network namespace"
	r.up(index, "setting "+m.alias.Interface+" up"+inside)
	routed := map[netip.Addr]bool{}
	for _, a := range m.alias.Addresses {
		r.address(index, a, "adding address "+a.String()+inside)
		if g := gatewayOf(a); !routed[g] {
			routed[g] = true
			r.routeTo(unix.NLM_F_EXCL, index, g, netip.Addr{}, unix.RTPROT_BOOT, "adding the route to the gateway "+g.String()+inside)
			r.routeVia(index, g, "adding the default route by "+g.String()+inside)
			r.neighbour(index, g, hostMAC(), "adding the neighbour "+g.String()+inside)
		}
	}
	if err := send(ctx, m.pod, &r, nil); err != nil {
		return explainInside(err)
	}
	return nil
}

// explainInside says what is to be done where a family is off.
func explainInside(err error) error {
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: IPv6 is off in the network namespace, turn it on (net.ipv6.conf.all.disable_ipv6=0)", err)
	}
	return err
}

// explainNode does so for the node.
func explainNode(err error) error {
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: IPv6 is off on this node's interfaces, turn it on (sysctl -w net.ipv6.conf.all.disable_ipv6=0), or delete the IPv6 pools that serve it", err)
	}
	return err
}

// open lets packets pass: from here on the workload holds its addresses.
func (m *maker) open(ctx context.Context) error {
	d := m.driver
	d.gate.RLock()
	defer d.gate.RUnlock()
	plan := d.plan.Load()
	if plan == nil {
		return ErrNoPlan
	}
	m.alias.state = held
	text, err := m.alias.text()
	if err != nil {
		return err
	}
	var r request
	r.alias(m.name, text)
	r.up(m.node.index, "setting "+m.name+" up")
	for _, a := range m.alias.Addresses {
		r.routeTo(unix.NLM_F_EXCL, m.node.index, a, sourceFor(plan, a), rtnetlink.RouteProtocol, "adding the route to "+a.String())
		r.neighbour(m.node.index, a, m.alias.mac, "adding the neighbour "+a.String())
	}
	if err := explainNode(send(ctx, m.host, &r, nil)); err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("%w: the node has a route to that address already, which is not this workload's", err)
		}
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.link.gone {
		return errors.New("the device was deleted by another program")
	}
	m.link.alias, m.link.pending = m.alias, false
	d.place(m.link)
	return nil
}

// await waits until the container's side takes packets to its IPv6 addresses: a work queue of the kernel's adds their routes
// (addrconf_dad_work of net/ipv6/addrconf.c), mostly before this looks.
func (m *maker) await(ctx context.Context) error {
	const first, atMost = 100 * time.Microsecond, 30 * time.Second
	for _, a := range m.alias.Addresses {
		if a.Is4() {
			continue
		}
		end := time.Now().Add(atMost)
		for pause := first; ; pause = min(2*pause, 10*time.Millisecond) {
			local, err := m.local(ctx, a)
			if err != nil || local {
				if err != nil {
					return err
				}
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("address %s is not usable in the network namespace after %s", a, atMost)
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(pause):
			}
		}
	}
	return nil
}

// local says whether the container's side takes packets to an address for its own.
func (m *maker) local(ctx context.Context, a netip.Addr) (yes bool, err error) {
	var b rtnetlink.Batch
	b.Message(unix.RTM_GETROUTE, 0, rtnetlink.RouteFixed{Destination: single(a)}.Encode())
	b.Addr(unix.RTA_DST, a)
	err = m.pod.Get(ctx, "asking for the route to "+a.String()+" in the network namespace", &b, func(r nfnetlink.Message) error {
		yes = len(r.Body) >= unix.SizeofRtMsg && r.Body[7] == unix.RTN_LOCAL
		return nil
	})
	if errors.Is(err, unix.ENETUNREACH) {
		return false, nil
	}
	return yes, err
}

func unlessAbsent(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// undo removes what was made, whatever the context.
func (m *maker) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoAtMost)
	defer cancel()
	d := m.driver
	if m.link != nil {
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			m.link.pending = false // Gone is not told of a link that was never held
			d.forget(m.link)
			d.remover.tidy()
		}()
	}
	if !m.made && !m.lost {
		return nil
	}
	index := m.node.index
	if index == 0 {
		found, err := getDevice(ctx, m.host, m.name)
		if err != nil {
			return unlessAbsent(err)
		}
		if a := found.ours(); m.lost && (a == nil || a.state != making) {
			return nil // it was there before
		}
		index = found.index
	}
	var r request
	r.remove(index, "removing device "+m.name+" again")
	return send(ctx, m.host, &r, absent)
}
