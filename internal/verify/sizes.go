package verify

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// smallest is the shortest packet whose fate is asked for, in bytes: those of the echo are no longer.
const smallest = 256

// sizes finds out what passes with DF in both directions, up to the MTU of the interface, or the longest message.
func (c *client) sizes(ctx context.Context) (*Sizes, string) {
	mtu, err := c.mtu()
	if err != nil {
		return nil, "the MTU of the interface was not read: " + err.Error()
	}
	longest := min(mtu, maxMessage)
	s := &Sizes{MTU: mtu}
	s.Up = c.size(longest, func(n int) (bool, *hopError, error) { return c.up(ctx, n) })
	reported := len(c.report(ctx, 0))
	s.Down = c.size(longest, func(n int) (bool, *hopError, error) { return c.down(ctx, n, s.Up.Passes, &reported) })
	if ctx.Err() != nil {
		return nil, ctx.Err().Error()
	}
	return s, ""
}

// mtu is that of the interface which has the flow's address.
func (c *client) mtu() (mtu int, err error) {
	err = inside(c.Namespace, func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			addresses, _ := l.Addrs() // of one that has just gone: none
			for _, a := range addresses {
				if n, ok := a.(*net.IPNet); ok && n.IP.Equal(c.local.Addr().AsSlice()) {
					mtu = l.MTU
				}
			}
		}
		return err
	})
	if err == nil && mtu == 0 {
		err = fmt.Errorf("no interface has %s", c.local.Addr())
	}
	return mtu, err
}

// headers is the length of the headers of IP and UDP, in bytes.
func (c *client) headers() int {
	if c.v6 {
		return 40 + 8
	}
	return 20 + 8
}

// up sends a packet of n bytes, and says whether an answer came, or which ICMP error. An error says that neither was found out.
func (c *client) up(ctx context.Context, n int) (passed bool, said *hopError, err error) {
	c.in.mu.Lock()
	before := len(c.in.events)
	c.in.mu.Unlock()
	if _, err = c.exchange(ctx, n-c.headers(), tries, c.hopWait(), func(*message) {}); err == nil {
		return true, nil, nil
	}
	if !errors.Is(err, errNoAnswer) {
		return false, nil, err
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	for _, e := range c.in.events[before:] {
		if e.kind == errorTooBig && e.to == c.Server && e.protocol == unix.IPPROTO_UDP && e.length == n-c.headers()+8 {
			return false, &hopError{mtu: uint16(min(e.mtu, 1<<16-1)), by: e.by}, nil
		}
	}
	return false, nil, nil
}

// down has the server send a packet of n bytes. What is sent for it may be shorter, so that several requests pay for it.
func (c *client) down(ctx context.Context, n, passes int, reported *int) (passed bool, said *hopError, err error) {
	want, paid := n-c.headers(), min(n, passes)-c.headers()
	for range tries + want/max(paid, 1) {
		a, err := c.exchange(ctx, paid, tries, c.hopWait(), func(m *message) { m.size = uint16(want) })
		if errors.Is(err, errNoAnswer) {
			break
		}
		if err != nil {
			return false, nil, err
		}
		if a.length >= want {
			return true, nil, nil
		}
	}
	more := c.report(ctx, *reported)
	*reported += len(more)
	for _, e := range more {
		if e.kind == errorTooBig {
			return false, &e, nil
		}
	}
	return false, nil, nil
}

// size finds the longest packet that passes and the shortest that does not.
func (c *client) size(mtu int, ask func(n int) (bool, *hopError, error)) Size {
	var failed error
	try := func(n int) (bool, *hopError) {
		if failed != nil {
			return false, nil
		}
		passed, said, err := ask(n)
		failed = err
		return passed, said
	}
	out := c.search(mtu, try)
	if failed != nil {
		return Size{Reason: failed.Error()}
	}
	return out
}

func (c *client) search(mtu int, try func(n int) (bool, *hopError)) Size {
	passed, said := try(mtu)
	if passed {
		return Size{Passes: mtu}
	}
	low, high := smallest, mtu
	result := func() Size {
		s := Size{Passes: low, Fails: high}
		if said != nil {
			s.SaidBy, s.SaidMTU, s.AtServer = said.by, int(said.mtu), !said.by.IsValid()
		}
		return s
	}
	if said != nil && int(said.mtu) > low && int(said.mtu) < high {
		m := int(said.mtu)
		passed, next := try(m)
		if passed {
			low = m
			return result()
		}
		high, said = m, next
	}
	for high-low > 1 {
		middle := (low + high) / 2
		passed, next := try(middle)
		if passed {
			low = middle
		} else {
			high, said = middle, next
		}
	}
	lower, _ := try(low)
	higher, next := try(high)
	if !lower || higher {
		return Size{Passes: low, Fails: high, Reason: "answers to packets of the same size came unevenly"}
	}
	if next != nil {
		said = next
	}
	return result()
}
