package bgp

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// frr is a router that runs FRR's daemons, each by itself.
type frr struct {
	t         *testing.T
	host      *lab.Host
	dir, file string
	bgpd      *exec.Cmd
}

// newFRR makes a router, joined to this node by a link, with FRR configured by some lines.
func newFRR(t *testing.T, name string, node *lab.Host, at, router string, config string) *frr {
	t.Helper()
	dir := t.TempDir()
	f := &frr{t: t, host: labtest.NewHost(t, name), dir: dir, file: filepath.Join(dir, "frr.conf")}
	labtest.Must(t, os.WriteFile(f.file, []byte(config), 0o600),
		lab.Link(lab.Port{Host: node, Name: name, Addresses: prefixes(at)}, lab.Port{Host: f.host, Name: "eth0", Addresses: prefixes(router)}))
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	labtest.JoinGroup(t, "frrvty")
	f.start("zebra", "/dev/null")
	labtest.Eventually(t, func() string {
		if _, err := os.Stat(filepath.Join(dir, "zserv")); err != nil {
			return err.Error()
		}
		return ""
	})
	f.start("bfdd", f.file, "--bfdctl", filepath.Join(dir, "bfdd.sock"))
	f.bgpd = f.start("bgpd", f.file)
	return f
}

// start starts a daemon, which ends with the test.
func (f *frr) start(name, config string, more ...string) *exec.Cmd {
	f.t.Helper()
	cmd := f.host.Command(context.Background(), "/usr/lib/frr/"+name, append([]string{"-f", config, "-i", filepath.Join(f.dir, name+".pid"),
		"-z", filepath.Join(f.dir, "zserv"), "--vty_socket", f.dir, "-P", "0", "-u", "root", "-g", "root", "--log", "stdout"}, more...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := f.host.Start(cmd); err != nil {
		f.t.Fatalf("%v: run hack/install-deps bgpd", err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if f.t.Failed() {
			f.t.Log(name, ": ", out.String())
		}
	})
	return cmd
}

// restart kills bgpd and starts it again.
func (f *frr) restart() {
	_ = f.bgpd.Process.Kill()
	_ = f.bgpd.Wait()
	f.bgpd = f.start("bgpd", f.file)
}

// ask asks FRR.
func (f *frr) ask(command string) string {
	out, err := exec.Command("/usr/bin/vtysh", "--vty_socket", f.dir, "-c", command).CombinedOutput()
	if err != nil {
		return fmt.Sprint(err, ": ", string(out))
	}
	return string(out)
}
