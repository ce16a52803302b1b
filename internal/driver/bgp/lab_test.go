package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// The driver's goroutines are in the network namespace of the process, so that this process is the node, and tests run one by one.
func TestMain(m *testing.M) { labtest.Main(m) }

// bird is a router that runs BIRD.
type bird struct {
	t      testing.TB
	host   *lab.Host
	socket string
	config string
	cmd    *exec.Cmd
}

// newBird makes a router, joined to this node by a link, with BIRD configured by the lines of protocols.
func newBird(t testing.TB, name string, node *lab.Host, at, router []netip.Prefix, protocols string) *bird {
	t.Helper()
	if _, err := exec.LookPath("bird"); err != nil {
		if _, err := os.Stat("/usr/sbin/bird"); err != nil {
			t.Fatal("bird is not installed: hack/install-deps bird")
		}
	}
	dir := t.TempDir()
	b := &bird{t: t, host: labtest.NewHost(t, name), socket: filepath.Join(dir, "ctl"), config: filepath.Join(dir, "bird.conf")}
	labtest.Must(t, lab.Link(lab.Port{Host: node, Name: name, Addresses: at}, lab.Port{Host: b.host, Name: "eth0", Addresses: router}))
	t.Cleanup(func() { // the kernel removes that of a namespace later than the next test comes
		if out, err := exec.Command("ip", "link", "del", name).CombinedOutput(); err != nil {
			t.Log(string(out))
		}
	})
	b.write(protocols)
	b.start()
	return b
}

// write writes the configuration.
func (b *bird) write(protocols string) {
	b.t.Helper()
	all := "router id 192.0.2.254;\nprotocol device {}\nprotocol direct { ipv4; ipv6; interface \"none\"; }\n" + protocols
	labtest.Must(b.t, os.WriteFile(b.config, []byte(all), 0o600))
}

func (b *bird) start(more ...string) {
	b.t.Helper()
	b.cmd = b.host.Command(context.Background(), "/usr/sbin/bird", append([]string{"-f", "-c", b.config, "-s", b.socket}, more...)...)
	var out strings.Builder
	b.cmd.Stdout, b.cmd.Stderr = &out, &out
	labtest.Must(b.t, b.host.Start(b.cmd))
	cmd := b.cmd
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b.t.Failed() {
			b.t.Log("bird: ", out.String())
		}
	})
}

// restart has BIRD restart gracefully.
func (b *bird) restart() {
	b.t.Helper()
	if out := b.ask("graceful", "restart"); !strings.Contains(out, "raceful restart") {
		b.t.Fatal(out)
	}
	_ = b.cmd.Wait()
	b.start("-R")
}

// ask asks BIRD.
func (b *bird) ask(args ...string) string {
	out, err := exec.Command("/usr/sbin/birdc", append([]string{"-s", b.socket}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprint(err, ": ", string(out))
	}
	return string(out)
}

// has waits until BIRD's answer has all of some texts, and none with an exclamation mark before it.
func (b *bird) has(question string, texts ...string) {
	b.t.Helper()
	labtest.Eventually(b.t.(*testing.T), func() string {
		answer := b.ask(strings.Fields(question)...)
		for _, text := range texts {
			text, not := strings.CutPrefix(text, "!")
			if strings.Contains(answer, text) == not {
				return fmt.Sprintf("%s: %v of %q in\n%s", question, !not, text, answer)
			}
		}
		return ""
	})
}

// watch asks BIRD again and again. What it returns ends that, and gives the first answer that did not have a text; empty: all had it.
func (b *bird) watch(question, text string) (ended func() string) {
	stop, lost := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(lost)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if answer := b.ask(strings.Fields(question)...); !strings.Contains(answer, text) {
				lost <- answer
				return
			}
		}
	}()
	return func() string { close(stop); return <-lost }
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// here is this node.
func here(t testing.TB) *lab.Host {
	t.Helper()
	labtest.Need(t)
	node, err := lab.Here("node")
	labtest.Must(t, err)
	t.Cleanup(func() { _ = node.Close() })
	return node
}

// newDriver makes a driver that is closed with the test.
func newDriver(t testing.TB, o Options) *Driver {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	d := New(o)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// plan is one with peers: this node is AS 64512, and they are AS 64513.
func plan(peers ...compile.BGPPeer) compile.BGP {
	return compile.BGP{Run: true, RouterID: netip.MustParseAddr("192.0.2.1"), ASN: 64512,
		Listen: []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, ListenPort: 179,
		Announcements: []compile.Announcement{
			{Prefix: netip.MustParsePrefix("10.1.0.0/26"), Pool: "p4", Communities: []model.Community{{Admin: 64512, One: 7}, {Large: true, Admin: 64512, One: 1, Two: 2}}},
			{Prefix: netip.MustParsePrefix("fd00::1:0/112"), Pool: "p6"}},
		Own:       prefixes("10.1.0.0/26", "192.0.2.1/32", "2001:db8::1/128", "fd00::1:0/112"),
		Reflected: prefixes("10.1.0.0/16", "fd00::/64"),
		Peers:     peers}
}

// peer is a router at an address.
func peer(address string) compile.BGPPeer {
	a := netip.MustParseAddr(address)
	return compile.BGPPeer{Resource: "router", Address: a, Port: 179, ASN: 64513, LocalASN: 64512, V4: a.Is4() || a.Zone() != "", V6: a.Is6(),
		Keepalive: 3 * time.Second, Hold: 9 * time.Second, Restart: 120 * time.Second, Multihop: true, MaxPrefixes: 100}
}

// state is how the sessions of a driver stand.
func state(t testing.TB, d *Driver) State {
	t.Helper()
	s, err := d.State(t.Context())
	labtest.Must(t, err)
	return s
}

// up waits until all sessions of a driver are up.
func up(t *testing.T, d *Driver) {
	t.Helper()
	labtest.Eventually(t, func() string {
		for _, s := range state(t, d).Sessions {
			if !s.Up {
				return fmt.Sprintf("the session with %s: %s", s.Address, s.Why)
			}
		}
		return ""
	})
}

// learns waits until a driver has learned routes, written as "prefix via hop,hop".
func learns(t *testing.T, d *Driver, routes ...string) {
	t.Helper()
	labtest.Eventually(t, func() string {
		has, _ := d.Learned()
		var texts []string
		for _, r := range has {
			var hops []string
			for _, h := range r.Hops {
				hops = append(hops, h.String())
			}
			texts = append(texts, r.Prefix.String()+" via "+strings.Join(hops, ","))
		}
		if got, want := strings.Join(texts, "; "), strings.Join(routes, "; "); got != want {
			return fmt.Sprintf("learned %s, not %s", got, want)
		}
		return ""
	})
}
