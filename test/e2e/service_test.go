package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// service is a path on whose node the real program runs.
type service struct {
	*path
	t                  *testing.T
	dir, state, socket string
	agent              *exec.Cmd
	log                *os.File
	far                [2]net.PacketConn // servers on wide that notice who sends
}

func newService(t *testing.T) *service {
	t.Helper()
	home := t.TempDir()
	s := &service{
		path: newPath(t), t: t,
		dir: filepath.Join(home, "resources"), state: filepath.Join(home, "state"), socket: filepath.Join(home, "agent.sock"),
	}
	labtest.Must(t, os.Mkdir(s.dir, 0o755))
	var err error
	s.log, err = os.Create(filepath.Join(home, "log"))
	labtest.Must(t, err)
	for family, server := range pathWide {
		s.far[family], err = s.wide.ListenPacket("udp", netip.AddrPortFrom(server, 9).String())
		labtest.Must(t, err)
	}
	t.Cleanup(func() {
		if s.agent != nil {
			s.end(syscall.SIGKILL)
		}
		for _, far := range s.far {
			labtest.Must(t, far.Close())
		}
		if said, err := os.ReadFile(s.log.Name()); t.Failed() || err != nil {
			t.Logf("the agent said (%v):\n%s", err, said)
		}
		labtest.Must(t, s.log.Close())
	})
	return s
}

// command is the program with arguments, to be run on the node.
func (s *service) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := s.node.Command(ctx, "/proc/self/exe", append([]string{"--dir", s.dir, "--socket", s.socket}, args...)...)
	cmd.Env = append(os.Environ(), programEnv+"=1")
	return cmd
}

// launch runs the agent.
func (s *service) launch(environment ...string) {
	s.t.Helper()
	s.agent = s.command(context.Background(), "run", "--state-dir", s.state, "--node-name", "node", "--metrics-address", "127.0.0.1:9470")
	s.agent.Env = append(s.agent.Env, environment...)
	s.agent.Stderr = s.log
	labtest.Must(s.t, s.node.Start(s.agent))
}

// start runs the agent and waits until it is ready.
func (s *service) start() {
	s.t.Helper()
	s.launch()
	if out, err := s.sallyport("status", "--wait", "10s"); err != nil {
		s.t.Fatalf("the agent is not ready: %v\n%s", err, out)
	}
}

// end sends the agent a signal and waits until it is gone.
func (s *service) end(by os.Signal) {
	s.t.Helper()
	labtest.Must(s.t, s.agent.Process.Signal(by))
	err := s.agent.Wait()
	if by == syscall.SIGTERM && err != nil {
		s.t.Errorf("after SIGTERM the agent ended with: %v", err)
	}
	s.agent = nil
}

// sallyport runs a command on the node and returns what it prints on both outputs.
func (s *service) sallyport(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := s.command(ctx, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.node.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// write puts a manifest into its place by rename.
func (s *service) write(name, text string) {
	s.t.Helper()
	aside := filepath.Join(s.dir, "."+name)
	labtest.Must(s.t, os.WriteFile(aside, []byte(text), 0o644), os.Rename(aside, filepath.Join(s.dir, name)))
}

// poolsOfPod are the manifests of one pool in each family that hold the pod.
func poolsOfPod(natOutgoing bool) string {
	const manifest = "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: %s\nspec:\n  cidr: %s\n  natOutgoing: %t\n"
	return fmt.Sprintf(manifest, "pods-v4", "10.0.0.0/16", natOutgoing) + fmt.Sprintf(manifest, "pods-v6", "fd00::/64", natOutgoing)
}

// seen opens a new connection from the pod and says who the server saw. Where a packet is lost it tries
// again: of the pod's ports, one may be that of an open connection that a change has just cut off.
func (s *service) seen(family int) netip.Addr {
	s.t.Helper()
	for start := time.Now(); ; {
		conn, err := s.pod.Dial(context.Background(), "udp", s.far[family].LocalAddr().String())
		labtest.Must(s.t, err)
		_, err = conn.Write([]byte("who am I?"))
		labtest.Must(s.t, err, s.far[family].SetReadDeadline(time.Now().Add(patience/20)))
		_, from, err := s.far[family].ReadFrom(make([]byte, 100))
		labtest.Must(s.t, conn.Close())
		if err == nil {
			return netip.MustParseAddrPort(from.String()).Addr()
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > patience {
			s.t.Fatal(err)
		}
	}
}

// expect makes sure that new connections of both families are seen as coming from the given addresses.
func (s *service) expect(when string, want [2]netip.Addr) {
	s.t.Helper()
	for family := range want {
		if got := s.seen(family); got != want[family] {
			s.t.Errorf("%s: the server saw %s, want %s", when, got, want[family])
		}
	}
}

// expectSoon waits until new connections are seen as coming from the given addresses, and says how long
// that took.
func (s *service) expectSoon(when string, want [2]netip.Addr) time.Duration {
	s.t.Helper()
	start := time.Now()
	for s.seen(0) != want[0] || s.seen(1) != want[1] {
		if time.Since(start) > patience {
			s.t.Fatalf("%s: the servers saw %s and %s, want %s", when, s.seen(0), s.seen(1), want)
		}
	}
	return time.Since(start)
}

// talk is a TCP connection from the pod to a server that lasts.
type talk struct{ near, far net.Conn }

func (s *service) talk(family int) talk {
	s.t.Helper()
	l, err := s.wide.Listen("tcp", netip.AddrPortFrom(pathWide[family], 80).String())
	labtest.Must(s.t, err)
	near, err := s.pod.Dial(context.Background(), "tcp", l.Addr().String())
	labtest.Must(s.t, err)
	far, err := l.Accept()
	labtest.Must(s.t, err, l.Close())
	s.t.Cleanup(func() { labtest.Must(s.t, near.Close(), far.Close()) })
	return talk{near, far}
}

// goesOn makes sure that the connections still carry data both ways.
func (s *service) goesOn(when string, talks ...talk) {
	s.t.Helper()
	for _, c := range talks {
		for _, way := range []talk{c, {c.far, c.near}} {
			labtest.Must(s.t, way.near.SetDeadline(time.Now().Add(patience)), way.far.SetDeadline(time.Now().Add(patience)))
			_, err := io.WriteString(way.near, when)
			labtest.Must(s.t, err)
			if _, err := io.ReadFull(way.far, make([]byte, len(when))); err != nil {
				s.t.Errorf("%s: the connection from %s broke: %v", when, c.near.LocalAddr(), err)
			}
		}
	}
}

// connections asks the agent how many connections it has seen translated.
func (s *service) connections() uint64 {
	s.t.Helper()
	out, err := s.sallyport("status", "-o", "json")
	var status struct {
		Pools []struct {
			TranslatedConnections uint64 `json:"translatedConnections"`
		} `json:"pools"`
	}
	labtest.Must(s.t, err, json.Unmarshal([]byte(out), &status))
	sum := uint64(0)
	for _, p := range status.Pools {
		sum += p.TranslatedConnections
	}
	return sum
}
