package workload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// nothingOf checks that a workload has left nothing on the node.
func (n *node) nothingOf(p *pod) {
	n.Helper()
	for _, args := range [][]string{{"link"}, {"route"}, {"-6", "route"}, {"neigh"}} {
		if out := in(n.TB, n.Host, "ip", args...); strings.Contains(out, p.Device()) {
			n.Errorf("what is left of a workload that was not added, ip %v:\n%s", args, out)
		}
	}
	eventually(n.TB, "the rules of the device are deleted", func() bool {
		return !strings.Contains(in(n.TB, n.Host, "nft", "list", "table", "netdev", TableName), p.Device())
	})
	if held := n.held(); len(held) != 0 {
		n.Errorf("held: %v", held)
	}
}

func TestAddInTheWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(*node, *pod)
		says    string
	}{
		{"a foreign device", func(n *node, p *pod) { in(n.TB, n.Host, "ip", "link", "add", p.Device(), "type", "bridge") }, "not Sallyport's: remove it"},
		{"a foreign veth", func(n *node, p *pod) {
			in(n.TB, n.Host, "ip", "link", "add", p.Device(), "type", "veth")
			in(n.TB, n.Host, "ip", "link", "set", p.Device(), "alias", "mine")
		}, "not Sallyport's: remove it"},
		{"the interface", func(n *node, p *pod) { in(n.TB, p.Host, "ip", "link", "add", "eth0", "type", "bridge") }, "device eth0 already"},
		{"a foreign route", func(n *node, p *pod) { in(n.TB, n.Host, "ip", "route", "add", "10.1.0.2", "dev", "uplink") }, "route to 10.1.0.2"},
		{"a default route", func(n *node, p *pod) {
			in(n.TB, p.Host, "ip", "link", "add", "other", "up", "type", "bridge")
			in(n.TB, p.Host, "ip", "route", "add", "default", "dev", "other")
		}, "default route"},
		{"IPv6 off", func(n *node, p *pod) {
			if err := p.Sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
				n.Fatal(err)
			}
		}, "IPv6 is off"},
		{"IPv6 off on the node", func(n *node, p *pod) {
			if err := n.Sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
				n.Fatal(err)
			}
		}, "sysctl -w net.ipv6.conf.all.disable_ipv6=0"},
		{"a long container id", func(n *node, p *pod) { p.ContainerID = strings.Repeat("a", 250) }, "255"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, Options{})
			p := n.newPod(1, own4, own6)
			c.prepare(n, p)
			before := in(t, n.Host, "ip", "link") + in(t, n.Host, "ip", "route")
			if _, err := n.add(p); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one about %q", err, c.says)
			}
			if after := in(t, n.Host, "ip", "link") + in(t, n.Host, "ip", "route"); after != before {
				t.Errorf("changed:\n%s\nfrom\n%s", after, before)
			}
			if gone := n.told(); len(gone) != 0 || len(n.held()) != 0 {
				t.Errorf("told of %v, held %v", gone, n.held())
			}
		})
	}
}

func TestAddBeforeApply(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	n.start(Options{})
	p := n.newPod(1)
	if _, err := n.add(p); !errors.Is(err, ErrNoPlan) {
		t.Error(err)
	}
	n.nothingOf(p)
}

// faulty fails the call with a number, of those that are counted, and all that follow until the context that it is given ends.
type faulty struct {
	nfnetlink.Socket
	calls *atomic.Int64
	fail  func(call int64, sent bool) error
}

func (f *faulty) Send(b []byte) error {
	if err := f.fail(f.calls.Add(1), false); err != nil {
		return err
	}
	return f.Socket.Send(b)
}

func (f *faulty) Receive(b []byte) (int, error) {
	if err := f.fail(f.calls.Add(1), true); err != nil {
		_, _ = f.Socket.Receive(b)
		return 0, err
	}
	return f.Socket.Receive(b)
}

// TestAddIsAllOrNothing fails each call of an Add in turn.
func TestAddIsAllOrNothing(t *testing.T) {
	t.Parallel()
	calls, at := new(atomic.Int64), new(atomic.Int64)
	injected := errors.New("injected")
	n := newNode(t, Options{Wrap: func(s nfnetlink.Socket) nfnetlink.Socket {
		return &faulty{Socket: s, calls: calls, fail: func(call int64, _ bool) error {
			if call == at.Load() {
				return injected
			}
			return nil
		}}
	}})
	for i := int64(1); ; i++ {
		p := n.newPod(int(i))
		calls.Store(0)
		at.Store(i)
		_, err := n.add(p)
		failed := calls.Load() >= i
		at.Store(0)
		if !failed {
			if err != nil || i < 5 {
				t.Errorf("after %d calls that failed in turn: %v", i-1, err)
			}
			return
		}
		if !errors.Is(err, injected) {
			t.Fatalf("call %d failed, and Add said %v", i, err)
		}
		n.nothingOf(p)
	}
}

// TestCancelledAdd leaves nothing, whenever the context ends.
func TestCancelledAdd(t *testing.T) {
	t.Parallel()
	calls, at := new(atomic.Int64), new(atomic.Int64)
	var cancel context.CancelFunc
	n := newNode(t, Options{Wrap: func(s nfnetlink.Socket) nfnetlink.Socket {
		return &faulty{Socket: s, calls: calls, fail: func(call int64, _ bool) error {
			if call == at.Load() {
				cancel()
			}
			return nil
		}}
	}})
	for i := int64(1); ; i++ {
		p := n.newPod(int(i))
		calls.Store(0)
		at.Store(i)
		var ctx context.Context
		ctx, cancel = context.WithCancel(t.Context())
		ns, sock, err := p.files()
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.driver.Add(ctx, p.Workload, ns, sock, 0)
		cut := calls.Load() >= i
		cancel()
		_ = ns.Close()
		at.Store(0)
		switch {
		case err == nil && !cut:
			return
		case err == nil: // the last call of all
			if err := n.driver.Leave(t.Context(), []string{p.Device()}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it has left", func() bool { return len(n.held()) == 0 })
		}
		n.nothingOf(p)
	}
}

// TestKilledAgent makes what an agent leaves that is killed after each of its system calls, and starts another.
func TestKilledAgent(t *testing.T) {
	t.Parallel()
	killed := errors.New("killed")
	for i := int64(1); i < 100; i++ {
		calls, armed := new(atomic.Int64), new(atomic.Bool)
		n := newNode(t, Options{Wrap: func(s nfnetlink.Socket) nfnetlink.Socket {
			return &faulty{Socket: s, calls: calls, fail: func(call int64, _ bool) error {
				if armed.Load() && call >= i { // from then on nothing is done any more, not even what undoes
					return killed
				}
				return nil
			}}
		}})
		p := n.newPod(1)
		calls.Store(0)
		armed.Store(true)
		_, err := n.add(p)
		done := calls.Load() < i
		n.start(Options{}) // the first never wakes again
		n.apply(plan())
		held := n.held()
		if done {
			if err != nil || len(held) != 1 {
				t.Errorf("held %v, %v", held, err)
			}
			return
		}
		switch len(held) {
		case 0:
			eventually(t, "what was half made is removed", func() bool {
				out := in(t, n.Host, "ip", "link")
				return !strings.Contains(out, p.Device())
			})
			n.nothingOf(p)
			if _, err := n.add(p); err != nil { // the plugin tries again
				t.Fatal(err)
			}
		case 1: // all of it stood, and only the answer was lost
			talk(t, n.Host, p.Host, p.Addresses[0])
		}
		talk(t, p.Host, n.Host, node6)
	}
	t.Error("it never ended")
}

func TestRetryAtOnceAfterKill(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	p := n.newPod(1)
	a := alias{Workload: p.Workload, state: making}
	text, err := a.text()
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{text, strings.Replace(text, " making ", " leaving ", 1)} {
		in(t, n.Host, "ip", "link", "add", p.Device(), "type", "veth", "peer", "name", "gone")
		in(t, n.Host, "ip", "link", "set", p.Device(), "alias", left)
		if _, err := n.add(p); err != nil {
			t.Fatal(err)
		}
		talk(t, p.Host, n.Host, node4)
		if err := n.driver.Leave(t.Context(), []string{p.Device()}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has left", func() bool { return len(n.held()) == 0 })
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	const many = 200
	pods := make([]*pod, many)
	for i := range pods {
		pods[i] = n.newPod(i)
	}
	var all sync.WaitGroup
	for _, p := range pods {
		all.Go(func() {
			if _, err := n.add(p); err != nil {
				t.Error(err)
			}
			if !p.takes(t, p.Addresses[1]) {
				t.Errorf("%s is not usable when Add returns", p.Addresses[1])
			}
		})
	}
	all.Wait()
	if held := n.held(); len(held) != many {
		t.Errorf("%d held", len(held))
	}
	if drift, err := n.driver.Observe(t.Context()); drift != 0 || err != nil {
		t.Errorf("drift %d, %v", drift, err)
	}
	transactions := n.driver.rules.netdev.Stats().Transactions
	t.Log(transactions, "transactions of rules")
	for i := range 5 {
		talk(t, pods[i*37].Host, pods[many-1-i].Host, pods[many-1-i].Addresses[i%2])
	}
	var names []string
	for _, p := range pods {
		names = append(names, p.Device())
	}
	if err := n.driver.Leave(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	if out := in(t, n.Host, "ip", "route") + in(t, n.Host, "ip", "-6", "route") + in(t, n.Host, "ip", "neigh"); strings.Contains(out, "sly") {
		t.Errorf("left:\n%s", out)
	}
	eventually(t, "all have left", func() bool { return len(n.held()) == 0 })
	if gone := n.told(); len(gone) != many {
		t.Errorf("told of %d", len(gone))
	}
	eventually(t, "the rules are deleted", func() bool {
		return !strings.Contains(in(t, n.Host, "nft", "list", "table", "netdev", TableName), "sly")
	})
}

// TestNeverUnguarded: a workload that sends what it must not as soon as there is a device never gets a frame past the rules.
func TestNeverUnguarded(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	in(t, n.Host, "nft", "add table ip probe; add chain ip probe in { type filter hook prerouting priority -400; }; "+
		"add rule ip probe in ip saddr "+foreign4+" counter")
	frame := ethernet(unix.ETH_P_IP, ip4(foreign4, out4, 17, 0, udp(53, nil)))
	for i := range 20 {
		p := n.newPod(i+1, fmt.Sprintf("10.1.9.%d", i+1))
		done := make(chan struct{})
		var flood sync.WaitGroup
		flood.Go(func() {
			err := p.Do(func() error {
				fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				for {
					select {
					case <-done:
						return nil
					default:
						_ = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: 2}) // fails until there is a device
					}
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
		_, err := n.add(p)
		before, _ := n.driver.Drops(t.Context())
		eventually(t, "frames are dropped", func() bool {
			drops, err := n.driver.Drops(t.Context())
			return err == nil && drops.Spoofed > before.Spoofed
		})
		if err == nil && i%2 == 0 {
			err = n.driver.Leave(t.Context(), []string{p.Device()})
			eventually(t, "it has left", func() bool { return !strings.Contains(in(t, n.Host, "ip", "link"), p.Device()) })
		}
		close(done)
		flood.Wait()
		if err != nil {
			t.Fatal(err)
		}
	}
	if out := in(t, n.Host, "nft", "list", "table", "ip", "probe"); !strings.Contains(out, "counter packets 0") {
		t.Error("frames got past the rules:", out)
	}
}
