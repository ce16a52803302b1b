package nodes

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

var (
	//go:embed init.sh
	initScript string
	//go:embed enter.sh
	enterScript string
)

const (
	pollInterval = 10 * time.Millisecond
	startAtMost  = 5 * time.Minute // until what is started is there, on a machine that has much else to do
	runAtMost    = 2 * time.Minute // that Run may take
	logTail      = 8 << 10         // bytes of a program's log that a failed test shows
)

// protocols are the names by which nft prints protocols. Where it prints numbers, kube-proxy does not recognize its own
// entries of maps and, whenever it writes all its rules again, deletes them.
const protocols = "tcp 6\nudp 17\nsctp 132\n"

// programPath is where programs of a node are looked for.
const programPath = "/programs:/usr/sbin:/usr/bin"

// Node is a machine of a cluster. Its methods may be called by one goroutine at a time.
type Node struct {
	Name      string
	Addresses [2]netip.Addr // IPv4 and IPv6
	// Host is the node's network since it was booted last: nil while it is off.
	Host *lab.Host
	// Root is the directory of the node's file system, as the test sees it: it outlives Kill. What a node mounts over a
	// directory, such as /run, is not seen in it.
	Root string

	cluster *Cluster
	subnet  subnet
	proxy   string   // the mode of kube-proxy
	cgroups []string // directories
	boots   int
	bootID  string
	first   *exec.Cmd // its first process
	daemons map[string]*daemon
}

// daemon is a program that a node runs until it is killed.
type daemon struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
}

// port is the name of the router's interface towards the node.
func (n *Node) port() string { return fmt.Sprintf("%s.%d", n.Name, n.boots) }

// prepare makes what a node has on its disk before it is booted for the first time.
func (n *Node) prepare() error {
	for _, dir := range []string{"dev", "mnt", "proc", "programs", "root", "run", "shared", "sys", "tmp", "usr", "var/lib", "var/log/pods",
		"etc/alternatives", "etc/cni/net.d", "etc/kubernetes/manifests", "opt/cni/bin"} {
		if err := os.MkdirAll(filepath.Join(n.Root, dir), 0o755); err != nil {
			return err
		}
	}
	links := map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "/run", "etc/os-release": "/usr/lib/os-release"}
	for _, kind := range []string{"iptables", "ip6tables"} { // Debian has several
		for _, program := range []string{kind, kind + "-save", kind + "-restore"} {
			to, err := os.Readlink("/etc/alternatives/" + program)
			if err != nil {
				return fmt.Errorf("%w: run hack/install-deps iptables", err)
			}
			links["etc/alternatives/"+program] = to
		}
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(n.Root, name)); err != nil {
			return err
		}
	}
	id := sha256.Sum256([]byte(n.Name))
	for name, content := range map[string]string{ //nolint:gosec // no password is among them
		"etc/passwd":          "root:x:0:0:root:/root:/bin/sh\n",
		"etc/group":           "root:x:0:\n",
		"etc/hosts":           "127.0.0.1 localhost\n::1 localhost\n",
		"etc/resolv.conf":     "",
		"etc/protocols":       protocols,
		"etc/containerd.toml": containerdConfiguration,
		"etc/machine-id":      fmt.Sprintf("%x\n", id[:16]),
	} {
		if err := n.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile writes a file below the node's root.
func (n *Node) WriteFile(name, content string, mode fs.FileMode) error {
	path := filepath.Join(n.Root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), mode) //nolint:gosec // the test names the file
}

// power makes the node's namespaces, with a network that is linked to the router, and starts its first process and
// containerd.
func (n *Node) power() (err error) {
	if n.first != nil {
		return fmt.Errorf("booting node %s: it is on", n.Name)
	}
	n.boots++
	if n.Host, err = lab.NewHost(n.Name); err != nil {
		return err
	}
	if err := n.link(); err != nil {
		return err
	}
	if n.cgroups, err = n.cluster.cgroups.add(n.Name); err != nil {
		return err
	}
	var mounts []string
	for _, h := range n.cluster.cgroups.hierarchies {
		mounts = append(mounts, filepath.Base(h.dir)+":"+h.options)
	}
	uuid := make([]byte, 16)
	_, _ = rand.Read(uuid) // it never fails
	n.bootID = fmt.Sprintf("%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])
	log, err := n.openLog("init")
	if err != nil {
		return err
	}
	defer log.Close() // the program has it
	cmd := exec.CommandContext(context.Background(), "sh", n.cluster.file("init.sh"), n.Name, n.Root, n.cluster.file("programs"), n.cluster.file("shared"),
		strings.Join(n.cgroups, " "), strings.Join(mounts, " "), n.bootID)
	cmd.Env = []string{"PATH=" + programPath}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID}
	if err := n.Host.Start(cmd); err != nil {
		return err
	}
	n.first, n.daemons = cmd, map[string]*daemon{}
	err = n.await("its file system", func() bool {
		to, err := os.Readlink(n.proc("exe"))
		return err == nil && filepath.Base(to) == "pause"
	})
	if err != nil {
		return err
	}
	return n.contain()
}

// link joins a node that has just been booted to the router.
func (n *Node) link() error {
	prefix := func(family int) netip.Prefix {
		return netip.PrefixFrom(n.Addresses[family], n.subnet.prefixes[family].Bits())
	}
	router := n.cluster.Router
	// Its MAC address outlives a reboot, as a machine's does: the router may take its IPv6 neighbour for reachable for 45 seconds more.
	mac := append(net.HardwareAddr{2, 0}, n.Addresses[0].AsSlice()...)
	err := errors.Join(
		lab.Link(lab.Port{Host: n.Host, Name: "eth0", MAC: mac, Addresses: []netip.Prefix{prefix(0), prefix(1)}}, lab.Port{Host: router, Name: n.port()}),
		router.AddToBridge(n.subnet.bridge, n.port()),
		n.Host.Forward(),
	)
	for family, to := range everywhere {
		err = errors.Join(err, n.Host.AddRoute(lab.Route{To: to, Via: n.subnet.gateway(family).Addr(), Dev: "eth0"}))
	}
	return err
}

// proc is the path of a file in /proc of the node's first process.
func (n *Node) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(n.first.Process.Pid), name)
}

// Now is the path, for the test, of a file of the running node: also of one that lies in /run.
func (n *Node) Now(path string) string { return filepath.Join(n.proc("root"), path) }

// await waits until the node has something, while it is on.
func (n *Node) await(what string, is func() bool) error {
	for start := time.Now(); !is(); time.Sleep(pollInterval) {
		if time.Since(start) > startAtMost {
			return fmt.Errorf("node %s does not have %s after %s", n.Name, what, startAtMost)
		}
	}
	return nil
}

// Command is a program that StartCommand runs on the node, with the arguments of exec.CommandContext. It is killed when
// the context ends, or with the node.
func (n *Node) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := append([]string{n.cluster.file("enter.sh"), strconv.Itoa(n.first.Process.Pid), strings.Join(n.cgroups, " "), name}, args...)
	cmd := exec.CommandContext(ctx, "sh", all...)
	cmd.Env = []string{"PATH=" + programPath, "HOME=/root"}
	return cmd
}

// StartCommand starts what Command has made. The caller waits for it, as after cmd.Start.
func (n *Node) StartCommand(cmd *exec.Cmd) error {
	own, err := os.Open("/proc/self/ns/pid_for_children")
	if err != nil {
		return err
	}
	defer own.Close()
	theirs, err := os.Open(n.proc("ns/pid"))
	if err != nil {
		return fmt.Errorf("entering node %s: %w", n.Name, err)
	}
	defer theirs.Close()
	return n.Host.Do(func() error {
		if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWPID); err != nil {
			return fmt.Errorf("entering node %s: %w", n.Name, err)
		}
		return errors.Join(cmd.Start(), unix.Setns(int(own.Fd()), unix.CLONE_NEWPID))
	})
}

// Run runs a program on the node and returns what it prints. What it says on standard error is in the error. It is killed
// when the test ends, or after a minute.
func (n *Node) Run(t labtest.TB, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runAtMost)
	defer cancel()
	return n.output(n.Command(ctx, name, args...))
}

func (n *Node) output(cmd *exec.Cmd) (string, error) {
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := n.StartCommand(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("on node %s, %s: %w: %s%s", n.Name, strings.Join(cmd.Args[4:], " "), err, out.String(), complaint.String())
	}
	return out.String(), nil
}

// Serve starts a program that runs until the node is killed, or until End. Its output is in a log that a failed test shows.
func (n *Node) Serve(name string, env []string, program string, args ...string) error {
	log, err := n.openLog(name)
	if err != nil {
		return err
	}
	defer log.Close() // the program has it
	cmd := n.Command(context.Background(), program, args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := n.StartCommand(cmd); err != nil {
		return err
	}
	d := &daemon{cmd, make(chan struct{})}
	n.daemons[name] = d
	go func() {
		defer close(d.gone)
		_ = cmd.Wait() // how it ended is in its log
	}()
	return nil
}

// End sends a program that Serve has started a signal, and waits until it is gone.
func (n *Node) End(t labtest.TB, name string, by os.Signal) {
	t.Helper()
	d := n.daemons[name]
	if err := d.cmd.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("ending %s on node %s: %v", name, n.Name, err)
	}
	select {
	case <-d.gone:
		delete(n.daemons, name)
	case <-time.After(startAtMost):
		t.Fatalf("%s on node %s is not gone %s after %s", name, n.Name, startAtMost, by)
	}
}

func (n *Node) openLog(name string) (*os.File, error) {
	return os.OpenFile(n.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

func (n *Node) logFile(name string) string { return n.cluster.file(n.Name + "-" + name + ".log") }

// Kill cuts the node's power, where it is on: all its processes are gone when it returns, and so is its network.
func (n *Node) Kill(t labtest.TB) {
	t.Helper()
	labtest.Must(t, n.kill())
}

func (n *Node) kill() error {
	if n.Host == nil {
		return nil
	}
	var failed []error
	if n.first != nil {
		failed = append(failed, n.first.Process.Kill())
		_ = n.first.Wait() // it was killed
		for _, d := range n.daemons {
			<-d.gone
		}
	}
	for _, dir := range n.cgroups {
		failed = append(failed, removeCgroups(dir))
	}
	failed = append(failed, n.Host.Close())
	n.Host, n.first, n.daemons = nil, nil, nil
	return errors.Join(failed...)
}
