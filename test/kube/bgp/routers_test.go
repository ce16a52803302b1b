package bgp

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// daemon is a program that runs on a host.
type daemon struct {
	t    *testing.T
	host *lab.Host
	argv []string
	log  string
	cmd  *exec.Cmd
}

func newDaemon(t *testing.T, host *lab.Host, log string, argv ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, host: host, argv: argv, log: log}
	if _, err := os.Stat(argv[0]); err != nil {
		t.Fatalf("%v: run hack/install-deps bird bgpd gobgpd", err)
	}
	t.Cleanup(func() {
		d.kill(syscall.SIGKILL)
		if said, err := os.ReadFile(log); t.Failed() && err == nil {
			t.Logf("%s on %s said:\n%s", filepath.Base(argv[0]), host.Name(), said[max(0, len(said)-5_000):])
		}
	})
	d.start()
	return d
}

func (d *daemon) start(more ...string) {
	d.t.Helper()
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	labtest.Must(d.t, err)
	defer out.Close()
	d.cmd = d.host.Command(context.Background(), d.argv[0], append(d.argv[1:], more...)...)
	d.cmd.Stdout, d.cmd.Stderr = out, out
	labtest.Must(d.t, d.host.Start(d.cmd))
}

func (d *daemon) kill(by os.Signal) {
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(by) // it may have ended
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

// wait waits until the program ends by itself.
func (d *daemon) wait() {
	_ = d.cmd.Wait()
	d.cmd = nil
}

// router is a daemon that speaks BGP.
type router interface {
	// sessions waits until all sessions to nodes and other routers are up.
	sessions()
	// restart ends the daemon and starts it again, as it is meant to be restarted.
	restart()
}

// bird is a router with BIRD.
type bird struct {
	*daemon
	socket string
}

func newBird(t *testing.T, host *lab.Host, config string) *bird {
	t.Helper()
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "bird.conf"), filepath.Join(dir, "ctl")
	labtest.Must(t, os.WriteFile(file, []byte(config), 0o600))
	return &bird{newDaemon(t, host, filepath.Join(dir, "log"), "/usr/sbin/bird", "-f", "-c", file, "-s", socket), socket}
}

func (b *bird) ask(args ...string) string {
	out, err := exec.Command("/usr/sbin/birdc", append([]string{"-s", b.socket}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprint(err, ": ", string(out))
	}
	return string(out)
}

// has waits until the answer has all of some texts, and none with an exclamation mark before it.
func (b *bird) has(question string, texts ...string) {
	b.t.Helper()
	labtest.Eventually(b.t, func() string {
		answer := b.ask(strings.Fields(question)...)
		for _, text := range texts {
			text, not := strings.CutPrefix(text, "!")
			if strings.Contains(answer, text) == not {
				return fmt.Sprintf("%s on %s: %v of %q in\n%s", question, b.host.Name(), !not, text, answer)
			}
		}
		return ""
	})
}

func (b *bird) sessions() {
	b.t.Helper()
	labtest.Eventually(b.t, func() string {
		out := b.ask("show", "protocols")
		for line := range strings.Lines(out) {
			if strings.Contains(line, "BGP") && !strings.Contains(line, "Established") {
				return fmt.Sprintf("%s: %s", b.host.Name(), out)
			}
		}
		if !strings.Contains(out, "Established") {
			return fmt.Sprintf("%s: %s", b.host.Name(), out)
		}
		return ""
	})
}

func (b *bird) restart() {
	b.t.Helper()
	if out := b.ask("graceful", "restart"); !strings.Contains(out, "raceful restart") {
		b.t.Fatal(out)
	}
	b.wait()
	b.start("-R")
}

// frr is a router with FRR: its daemons, each by itself.
type frr struct {
	t    *testing.T
	dir  string
	host *lab.Host
	bgp  *daemon
}

func newFRR(t *testing.T, host *lab.Host, config string) *frr {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "frr.conf")
	labtest.Must(t, os.WriteFile(file, []byte(config), 0o600))
	f := &frr{t: t, dir: dir, host: host}
	labtest.JoinGroup(t, "frrvty")
	start := func(name, config string, more ...string) *daemon {
		return newDaemon(t, host, filepath.Join(dir, name+".log"), append([]string{"/usr/lib/frr/" + name, "-f", config, "-i", filepath.Join(dir, name+".pid"),
			"-z", filepath.Join(dir, "zserv"), "--vty_socket", dir, "-P", "0", "-u", "root", "-g", "root", "--log", "stdout"}, more...)...)
	}
	start("zebra", "/dev/null")
	labtest.Eventually(t, func() string {
		if _, err := os.Stat(filepath.Join(dir, "zserv")); err != nil {
			return err.Error()
		}
		return ""
	})
	start("bfdd", file, "--bfdctl", filepath.Join(dir, "bfdd.sock"))
	f.bgp = start("bgpd", file)
	return f
}

func (f *frr) ask(command string) string {
	out, err := exec.Command("/usr/bin/vtysh", "--vty_socket", f.dir, "-c", command).CombinedOutput()
	if err != nil {
		return fmt.Sprint(err, ": ", string(out))
	}
	return string(out)
}

func (f *frr) sessions() {
	f.t.Helper()
	labtest.Eventually(f.t, func() string {
		if out := f.ask("show bgp summary failed"); strings.Count(out, "No failed BGP neighbors") != 2 {
			return out
		}
		return ""
	})
}

func (f *frr) restart() {
	f.t.Helper()
	f.bgp.kill(syscall.SIGKILL)
	f.bgp.start()
}

// gobgpd is a route server with gobgpd.
type gobgpd struct{ *daemon }

func newGobgpd(t *testing.T, host *lab.Host, config string) *gobgpd {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "gobgpd.conf")
	labtest.Must(t, os.WriteFile(file, []byte(config), 0o600))
	return &gobgpd{newDaemon(t, host, filepath.Join(dir, "log"), "/usr/bin/gobgpd", "-f", file, "-p", "--pprof-disable", "--api-hosts", "127.0.0.1:50051")}
}

func (g *gobgpd) ask(args ...string) string {
	cmd := g.host.Command(context.Background(), "/usr/bin/gobgp", args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := g.host.Start(cmd); err != nil {
		return err.Error()
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Sprint(err, ": ", out.String())
	}
	return out.String()
}

func (g *gobgpd) sessions() {
	g.t.Helper()
	labtest.Eventually(g.t, func() string {
		if out := g.ask("neighbor"); strings.Count(out, "Establ") < 4 {
			return out
		}
		return ""
	})
}

func (g *gobgpd) restart() {
	g.t.Helper()
	g.kill(syscall.SIGKILL)
	g.start("-r")
}
