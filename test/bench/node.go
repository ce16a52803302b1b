package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/lab"
)

// The network: pod — node — outside.
var (
	podAddr     = netip.MustParseAddr("10.244.0.2")
	nodeAddr    = netip.MustParseAddr("198.51.100.1")
	outsideAddr = netip.MustParseAddr("198.51.100.2")
)

const outsidePort = 9

// network is one node with one pod and one host outside, which knows a way back to the pod.
type network struct {
	pod, node, outside *lab.Host
}

func newNetwork() (*network, error) {
	n := &network{}
	var err error
	for name, h := range map[string]**lab.Host{"pod": &n.pod, "node": &n.node, "outside": &n.outside} {
		if *h, err = lab.NewHost(name); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	port := func(h *lab.Host, name, addr string) lab.Port {
		return lab.Port{Host: h, Name: name, Addresses: []netip.Prefix{netip.MustParsePrefix(addr)}}
	}
	all := netip.MustParsePrefix("0.0.0.0/0")
	err = errors.Join(
		lab.Link(port(n.pod, "eth0", "10.244.0.2/24"), port(n.node, "pod0", "10.244.0.1/24")),
		lab.Link(port(n.node, "eth0", "198.51.100.1/24"), port(n.outside, "eth0", "198.51.100.2/24")),
		n.node.Forward(),
		n.pod.AddRoute(lab.Route{To: all, Via: netip.MustParseAddr("10.244.0.1")}),
		n.outside.AddRoute(lab.Route{To: all, Via: nodeAddr}),
	)
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *network) close() error {
	var errs []error
	for _, h := range []*lab.Host{n.pod, n.node, n.outside} {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(errs...)
}

// agentProcess is the real agent in the node.
type agentProcess struct {
	cmd    *exec.Cmd
	client *agent.Client
	log    *os.File
}

// startAgent starts the agent on a directory of manifests; state is its state directory.
func startAgent(ctx context.Context, o options, n *network, manifests, state string) (*agentProcess, error) {
	log, err := os.CreateTemp(filepath.Dir(manifests), "agent-*.log")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(state, "agent.sock")
	cmd := n.node.Command(ctx, o.program, "run", "--dir", manifests, "--state-dir", state, "--socket", socket, "--node-name", "node", "--metrics-address", "")
	cmd.Stderr = log
	if err := n.node.Start(cmd); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &agentProcess{cmd, agent.NewClient(socket), log}, nil
}

// ready waits until the kernel holds the plan.
func (a *agentProcess) ready(ctx context.Context) error {
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		s, err := a.client.WaitReady(ctx, time.Second)
		if err == nil && s.Ready {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	text, _ := os.ReadFile(a.log.Name())
	return fmt.Errorf("the agent was not ready within a minute; its log:\n%s", text)
}

func (a *agentProcess) stop() error {
	err := a.cmd.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, a.cmd.Wait(), a.log.Close())
}

// resident is the memory of the agent in MiB.
func (a *agentProcess) resident() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no VmRSS in /proc/PID/status")
}

// cpu is what the agent's threads have used so far.
func (a *agentProcess) cpu() (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", a.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has just ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// prober opens one new UDP flow after another from the pod, and sees at the outside host from which
// address each arrives.
type prober struct {
	translated chan time.Time // the first translated arrival after arm(true), or untranslated after arm(false)
	want       atomic.Int32   // 0: nothing is awaited; 1: translated; 2: untranslated
	sent       atomic.Uint64
	listener   net.PacketConn
	stop       context.CancelFunc
	done       chan struct{}
}

// gap is the time between two flows, and so the resolution of what the prober measures.
const gap = 50 * time.Microsecond

func startProber(ctx context.Context, n *network) (*prober, error) {
	l, err := n.outside.ListenPacket("udp4", fmt.Sprintf("%s:%d", outsideAddr, outsidePort))
	if err != nil {
		return nil, err
	}
	var fd int
	err = n.pod.Do(func() (err error) {
		// A raw socket writes its own UDP header, and so takes a new source port with each packet.
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	p := &prober{translated: make(chan time.Time, 1), listener: l, stop: stop, done: make(chan struct{}, 2)}
	go func() { p.receive(); p.done <- struct{}{} }()
	go func() { p.send(ctx, fd); p.done <- struct{}{} }()
	return p, nil
}

func (p *prober) close() error {
	p.stop()
	err := p.listener.Close()
	<-p.done
	<-p.done
	return err
}

func (p *prober) send(ctx context.Context, fd int) {
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Addr: outsideAddr.As4()}
	packet := make([]byte, 16)
	binary.BigEndian.PutUint16(packet[2:], outsidePort)
	binary.BigEndian.PutUint16(packet[4:], uint16(len(packet))) // no checksum: it is optional in IPv4
	for port := uint16(1024); ctx.Err() == nil; port = max(port+1, 1024) {
		next := time.Now().Add(gap)
		if p.want.Load() == 0 {
			time.Sleep(time.Millisecond) // leave the machine idle between measurements
			continue
		}
		binary.BigEndian.PutUint16(packet[0:], port)
		if unix.Sendto(fd, packet, 0, to) == nil {
			p.sent.Add(1)
		}
		time.Sleep(time.Until(next))
	}
}

func (p *prober) receive() {
	buf := make([]byte, 64)
	for {
		_, from, err := p.listener.ReadFrom(buf)
		if err != nil {
			return
		}
		now := time.Now()
		want := p.want.Load()
		isNode := from.(*net.UDPAddr).AddrPort().Addr().Unmap() == nodeAddr
		if want == 1 && isNode || want == 2 && !isNode {
			if p.want.CompareAndSwap(want, 0) {
				p.translated <- now
			}
		}
	}
}

// await does something and returns how long after its start the first flow came through as wanted.
func (p *prober) await(translated bool, do func() error) (time.Duration, error) {
	want := int32(2)
	if translated {
		want = 1
	}
	start := time.Now()
	p.want.Store(want)
	if err := do(); err != nil {
		return 0, err
	}
	select {
	case at := <-p.translated:
		return at.Sub(start), nil
	case <-time.After(10 * time.Second):
		return 0, fmt.Errorf("no flow came through as wanted (translated: %t) within 10 s; %d were sent", translated, p.sent.Load())
	}
}
