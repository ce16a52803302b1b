package workload

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/cni"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/waiting"
)

// leaving collects workloads that go, so that many go at once.
type leaving struct {
	wake, wakeBehind chan struct{}

	mu sync.Mutex
	// asked are the links that requests wait for; behind are workloads whose links are gone or go, and whose connections are
	// to be ended.
	asked  map[string][]chan error
	behind []links.Held
}

// ask returns a channel with what has come of the removal of a link.
func (l *leaving) ask(name string) <-chan error {
	done := make(chan error, 1)
	l.mu.Lock()
	if l.asked == nil {
		l.asked = map[string][]chan error{}
	}
	l.asked[name] = append(l.asked[name], done)
	l.mu.Unlock()
	waiting.Signal(l.wake)
	return done
}

// late notes workloads whose links are gone, or go.
func (l *leaving) late(h ...links.Held) {
	l.mu.Lock()
	l.behind = append(l.behind, h...)
	l.mu.Unlock()
	waiting.Signal(l.wakeBehind)
}

// takeAsked takes all links that requests wait for now.
func (l *leaving) takeAsked() map[string][]chan error {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := l.asked
	l.asked = nil
	return asked
}

// takeBehind takes all workloads whose connections are to be ended now.
func (l *leaving) takeBehind() []links.Held {
	l.mu.Lock()
	defer l.mu.Unlock()
	behind := l.behind
	l.behind = nil
	return behind
}

// Delete removes the link of a workload and gives its addresses back. It succeeds where there is none.
func (m *Manager) Delete(ctx context.Context, r *cni.Request) error {
	return m.remove(ctx, linkName(r.Network, r.ContainerID, r.Interface))
}

func (m *Manager) remove(ctx context.Context, name string) error {
	free, err := m.names.take(ctx, name)
	if err != nil {
		return again("deleting a workload", err)
	}
	defer free()
	select {
	case err := <-m.leaving.ask(name):
		return err
	case <-ctx.Done():
		return again("removing link "+name, ctx.Err())
	}
}

// GC removes the workloads of a network that the runtime does not know any more.
func (m *Manager) GC(ctx context.Context, r *cni.Request) error {
	known := map[string]bool{}
	for _, a := range r.Attachments {
		known[linkName(r.Network, a.ContainerID, a.Interface)] = true
	}
	if _, err := m.ready(ctx); err != nil {
		return again("removing what the runtime does not know", err)
	}
	network := cni.NetworkHash(r.Network)
	m.mu.Lock()
	var names []string
	for name, h := range m.held {
		if h.Network == network && !known[name] {
			names = append(names, name)
		}
	}
	m.mu.Unlock()
	var waits []<-chan error
	for _, name := range names {
		m.opts.Log.Info("removing a workload that the runtime does not know any more", "link", name)
		waits = append(waits, m.leaving.ask(name))
	}
	for _, w := range waits {
		select {
		case err := <-w:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return again("removing what the runtime does not know", ctx.Err())
		}
	}
	return nil
}

// leave removes links, many at a time, until the context ends.
func (m *Manager) leave(ctx context.Context) {
	for waiting.Sleep(ctx, m.leaving.wake, time.Hour) {
		if asked := m.leaving.takeAsked(); len(asked) > 0 {
			m.removeLinks(ctx, asked)
		}
	}
}

// follow ends the connections of workloads that are gone, many at a time, until the context ends. No request waits for that: among
// hundreds of thousands of connections it takes a second.
func (m *Manager) follow(ctx context.Context) {
	for waiting.Sleep(ctx, m.leaving.wakeBehind, time.Hour) {
		if behind := m.leaving.takeBehind(); len(behind) > 0 {
			m.finish(ctx, behind)
		}
	}
}

// removeLinks answers those who asked once the kernel knows that these workloads go.
func (m *Manager) removeLinks(ctx context.Context, asked map[string][]chan error) {
	m.mu.Lock()
	m.removing = asked
	m.mu.Unlock()
	err := m.opts.Links.Leave(ctx, slices.Collect(maps.Keys(asked)))
	m.mu.Lock()
	m.removing = nil
	var left []links.Held
	for name := range asked {
		if h, there := m.held[name]; err == nil && there {
			left = append(left, h)
			delete(m.held, name)
		}
	}
	m.mu.Unlock()
	m.leaving.late(left...)
	for _, waiters := range asked {
		for _, w := range waiters {
			w <- err
		}
	}
}

// finishAgain is the pause after connections could not be ended.
const finishAgain = time.Second

// finish ends the connections of workloads that are gone, and gives their addresses back.
func (m *Manager) finish(ctx context.Context, behind []links.Held) {
	gone := map[netip.Addr]bool{}
	m.mu.Lock()
	for _, h := range behind {
		for _, a := range h.Addresses {
			if by := m.space.User(a); by == "" || by == h.Link {
				gone[a] = true
			}
		}
	}
	m.mu.Unlock()
	if err := m.opts.Forget(ctx, func(a netip.Addr) bool { return gone[a] }); err != nil {
		m.opts.Log.Error("ending the connections of workloads that are gone failed; their addresses are not given out again before that", "addresses", len(gone), "error", err, "retry_in", finishAgain)
		waiting.Sleep(ctx, nil, finishAgain)
		m.leaving.late(behind...)
		return
	}
	for _, h := range behind {
		m.release(h.Link, h.UID, h.Addresses)
	}
}
