package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TestCleanup makes sure that cleanup, after an agent and under one, removes all that is ours and nothing
// else, ends the agent as a signal does, and may be repeated.
func TestCleanup(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	labtest.Must(t, addForeignTable(s))
	before := s.kernelObjects()
	for _, running := range []bool{false, true} {
		s.start()
		s.expect("with the agent", pathNode)
		if len(s.kernelObjects()) == len(before) {
			t.Error("nothing of ours shows in the kernel")
		}
		stopped := fmt.Sprintf("the agent (pid %d) was stopped\n", s.agent.Process.Pid)
		if !running {
			s.end(syscall.SIGTERM)
			stopped = ""
		}
		for range 2 {
			const gone = "nothing of Sallyport's is left in the kernel\n"
			if out, err := s.sallyport("cleanup"); err != nil || out != stopped+gone {
				t.Errorf("cleanup with an agent (%t): %v\n%s", running, err, out)
			}
			if after := s.kernelObjects(); !slices.Equal(before, after) {
				t.Errorf("the kernel held\n%v\nand holds\n%v", before, after)
			}
			if running && stopped != "" {
				if err := s.agent.Wait(); err != nil {
					t.Errorf("the agent that was cleaned up after ended with: %v", err)
				}
				s.agent = nil
			}
			stopped = ""
		}
		s.expect("after cleanup", pathPod)
	}
}

// TestCleanupThatFailsChangesNothing asks an agent to clean up in no time at all, and one that hangs, of which the
// caller then knows nothing any more. The agent must go on and hold its table.
func TestCleanupThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	s.start()
	before := s.kernelObjects()
	goesOn := func(when string) {
		t.Helper()
		if out, err := s.sallyport("status", "--wait", "10s"); err != nil {
			t.Fatalf("%s: %v\n%s", when, err, out)
		}
		if after := s.kernelObjects(); !slices.Equal(before, after) {
			t.Errorf("%s the kernel holds\n%v\nand held\n%v", when, after, before)
		}
		s.expect(when, pathNode)
	}
	if err := agent.NewClient(s.socket).Cleanup(t.Context(), time.Nanosecond); err == nil {
		t.Error("a cleanup has ended before it began")
	}
	goesOn("after a cleanup that had no time")

	labtest.Must(t, s.agent.Process.Signal(syscall.SIGSTOP))
	gone, err := new(net.Dialer).DialContext(t.Context(), "unix", s.socket)
	labtest.Must(t, err)
	_, err = gone.Write([]byte("POST /v1/cleanup HTTP/1.1\r\nHost: agent\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n"))
	labtest.Must(t, err, gone.Close(), s.agent.Process.Signal(syscall.SIGCONT))
	goesOn("after a cleanup that was given up")

	said, err := os.ReadFile(s.log.Name())
	labtest.Must(t, err)
	if n := strings.Count(string(said), "asked to clean up"); n != 1 {
		t.Errorf("the agent has begun %d cleanups, want the one that had no time", n)
	}
}

// TestCleanupAsksTheRightAgent cleans up with the socket of no agent, and with that of an agent of another
// network namespace. Neither agent may be disturbed.
func TestCleanupAsksTheRightAgent(t *testing.T) {
	t.Parallel()
	s, other := newService(t), newService(t)
	for _, s := range []*service{s, other} {
		s.write("pods.yaml", poolsOfPod(true))
		s.start()
	}
	for _, socket := range []string{filepath.Join(t.TempDir(), "none.sock"), other.socket} {
		out, err := s.sallyport("cleanup", "--socket", socket)
		if pid := fmt.Sprintf("pid %d", s.agent.Process.Pid); err == nil || !strings.Contains(out, pid) || !strings.Contains(out, "--socket") {
			t.Errorf("cleanup with the wrong socket: %v: %s; want it to name %s and --socket", err, out, pid)
		}
	}
	for _, s := range []*service{s, other} {
		if out, err := s.sallyport("status"); err != nil {
			t.Errorf("afterwards: %v\n%s", err, out)
		}
		s.expect("afterwards", pathNode)
	}
}

// TestSecondAgent starts a second agent with files of its own on the same node: it must refuse, and say
// which process is in the way and what to do; one that follows the first must start.
func TestSecondAgent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	s.start()
	before := s.kernelObjects()
	second := func() (string, int) {
		home := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := s.command(ctx, "run", "--state-dir", home, "--metrics-address", "", "--socket", filepath.Join(home, "agent.sock"))
		var said strings.Builder
		cmd.Stderr = &said
		labtest.Must(t, s.node.Start(cmd))
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return said.String(), cmd.ProcessState.ExitCode()
	}
	pid := s.agent.Process.Pid
	want := fmt.Sprintf("sallyport: another agent runs in this network namespace (pid %d): stop it first, with \"systemctl stop sallyport\" or \"kill %d\"\n", pid, pid)
	for range 2 {
		if said, code := second(); code != 1 || said != want {
			t.Errorf("exit code %d, %q; want 1, %q", code, said, want)
		}
	}
	if after := s.kernelObjects(); !slices.Equal(before, after) {
		t.Errorf("the kernel held\n%v\nand holds\n%v", before, after)
	}
	if out, err := s.sallyport("status"); err != nil {
		t.Errorf("the first agent is disturbed: %v\n%s", err, out)
	}
	for range 5 { // at once, after an end that lets nothing be tidied up
		s.end(syscall.SIGKILL)
		s.start()
	}
}

// TestWithoutCapability runs the agent without CAP_NET_ADMIN: it must end at once, say how to grant it, and
// leave no trace.
func TestWithoutCapability(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := s.command(ctx, "run", "--state-dir", s.state, "--metrics-address", "")
	var said strings.Builder
	cmd.Stderr = &said
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", withoutEnv, unix.CAP_NET_ADMIN))
	labtest.Must(t, s.node.Start(cmd))
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the agent ended with %v; want exit code 1", err)
	}
	for _, want := range []string{"CAP_NET_ADMIN", "AmbientCapabilities=CAP_NET_ADMIN", "securityContext", "--cap-add NET_ADMIN"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the agent does not say %q:\n%s", want, said.String())
		}
	}
	for _, path := range []string{s.state, s.socket} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was made: %v", path, err)
		}
	}
}

// TestWithOneCapability runs the agent with nothing but CAP_NET_ADMIN, as the systemd unit does: it must become
// ready, and be able to examine the node.
func TestWithOneCapability(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	// Something to examine that takes other rights where it is done wrong.
	legacy := s.node.Command(t.Context(), "iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-j", "RETURN")
	if err := errors.Join(s.node.Start(legacy), legacy.Wait()); err != nil {
		t.Logf("without legacy iptables: %v", err)
	}
	others := withoutEnv + "="
	for c := range unix.CAP_LAST_CAP + 1 {
		if c != unix.CAP_NET_ADMIN {
			others += fmt.Sprint(c, " ")
		}
	}
	s.launch(others)
	if out, err := s.sallyport("status", "--wait", "10s"); err != nil || strings.Contains(out, "NotExamined") {
		t.Errorf("status: %v\n%s", err, out)
	}
	s.expect("with one capability", pathNode)
	s.end(syscall.SIGTERM)
}

// TestTableOfAnother starts the agent while another process owns a table of our name: it must say so, and take
// over as soon as that process lets go.
func TestTableOfAnother(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	other, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: s.node.FD()})
	labtest.Must(t, err, other.Apply(t.Context(), compile.Compile(snapshot(nil), model.Local{Name: "node"}).NAT))
	if !strings.Contains(s.nft("list", "table", "inet", "sallyport"), "flags owner") {
		labtest.Must(t, other.Close())
		t.Skip("needs kernel 6.9: tables with the flags owner and persist")
	}
	s.launch()
	if out, err := s.waitFor(func(out string, err error) bool {
		return err != nil && strings.Contains(out, "owned by another process")
	}); err != nil {
		t.Errorf("status: %v\n%s", err, out)
	}
	s.expect("while another owns the table", pathPod)
	labtest.Must(t, other.Close())
	if out, err := s.sallyport("status", "--wait", "10s"); err != nil {
		t.Errorf("afterwards: %v\n%s", err, out)
	}
	s.expect("afterwards", pathNode)
}

// TestStatusWithoutAnAgent asks for the status before the first agent, after one was killed, and without the right to
// look at the kernel.
func TestStatusWithoutAnAgent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	expect := func(when, state, words string, environment ...string) {
		t.Helper()
		for args, wants := range map[string][]string{"": {words}, "-ojson": {`"ready": false`, `"state": "` + state + `"`}} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			cmd := s.command(ctx, append([]string{"status"}, strings.Fields(args)...)...)
			cmd.Env = append(cmd.Env, environment...)
			var out, said strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &said
			labtest.Must(t, s.node.Start(cmd))
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(said.String(), "no agent is running there") {
				t.Errorf("%s, status %s: %v, want exit code 3; %s", when, args, err, said.String())
			}
			cancel()
			for _, want := range wants {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%s, status %s: want %s in\n%s", when, args, want, out.String())
				}
			}
		}
	}
	unprivileged := fmt.Sprintf("%s=%d", withoutEnv, unix.CAP_NET_ADMIN)
	expect("before the first agent", "absent", "table inet sallyport is not in the kernel")
	s.start()
	s.end(syscall.SIGKILL)
	expect("after the agent was killed", "present", "table inet sallyport stands in the kernel")
	expect("without the right to look", "notChecked", "NOT CHECKED: ", unprivileged)
	if _, err := s.sallyport("cleanup"); err != nil {
		t.Errorf("cleanup: %v", err)
	}
	expect("after a cleanup", "absent", "table inet sallyport is not in the kernel")
	expect("after a cleanup, without the right to look", "notChecked", "CAP_NET_ADMIN", unprivileged)
}

// TestGetIsAnsweredByTheAgent compares what get prints with an agent and without one. Where the agent holds the manifests as
// they are, get must not read them: so it works for one that may not.
func TestGetIsAnsweredByTheAgent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true)+"---\napiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata: {name: mine, annotations: {why: \"<&>\"}}\nspec: {portRange: 2000-2999}\n")
	s.write("node.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: node, labels: {zone: a}}\n")
	s.start()
	get := func(args ...string) string {
		out, err := s.sallyport(append([]string{"get"}, args...)...)
		return fmt.Sprintf("%s\n%v", out, err)
	}
	alone := func(args ...string) string { return get(append(args, "--socket", s.socket+".none")...) }
	same := func(when string, commands ...string) {
		t.Helper()
		for _, args := range commands {
			if by, from := get(strings.Fields(args)...), alone(strings.Fields(args)...); by != from {
				t.Errorf("%s, get %s: by the agent\n%s\nfrom the files\n%s", when, args, by, from)
			}
		}
	}
	same("at first", "pools -o wide", "pools -o json", "pool pods-v6 -o yaml", "pools pods-v6 pods-v4 pods-v6", "pool none", "nat -o yaml", "nodes -o wide")
	s.write("pods.yaml", poolsOfPod(false))
	if out := get("pools"); !strings.Contains(out, "false") || strings.Contains(out, "true") {
		t.Errorf("get after a change:\n%s", out)
	}
	s.write("more.yaml", "{ not yaml")
	same("with a faulty file", "pools")
	labtest.Must(t, os.Remove(filepath.Join(s.dir, "more.yaml")))
	if _, err := s.sallyport("status", "--wait", "10s"); err != nil {
		t.Errorf("without the faulty file: %v", err)
	}
	want := get("pools")
	labtest.Must(t, os.Chown(s.dir, 65534, 65534), os.Chmod(s.dir, 0o700))
	unprivileged := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := s.command(ctx, append([]string{"get", "pools"}, args...)...)
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d %d", withoutEnv, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH))
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		labtest.Must(t, s.node.Start(cmd))
		err := cmd.Wait()
		return out.String(), err
	}
	if out, err := unprivileged("--socket", s.socket+".none"); err == nil {
		t.Errorf("without an agent, get has read a directory that it may not read:\n%s", out)
	}
	if out, err := unprivileged(); fmt.Sprintf("%s\n%v", out, err) != want {
		t.Errorf("get of what only the agent may read: %v, want\n%s\ngot\n%s", err, want, out)
	}
}

// TestDryRun says what other manifests would change under a running agent: exit code 0, 2 or 1, the kernel
// untouched, and the agent too.
func TestDryRun(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	dryRun := func(args ...string) (string, int) {
		out, err := s.sallyport(append([]string{"run", "--dry-run", "--node-name", "node"}, args...)...)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return out, exit.ExitCode()
		}
		labtest.Must(t, err)
		return out, 0
	}
	if out, code := dryRun(); code != 2 || !strings.Contains(out, "would be made") || !strings.Contains(out, "+ 10.0.0.0/16") {
		t.Errorf("before the first agent: exit code %d\n%s", code, out)
	}
	s.start()
	before := s.kernelObjects()
	if out, code := dryRun(); code != 0 || !strings.Contains(out, "nothing to change") {
		t.Errorf("of the manifests in force: exit code %d\n%s", code, out)
	}
	other := t.TempDir()
	labtest.Must(t, os.WriteFile(filepath.Join(other, "pods.yaml"), []byte(poolsOfPod(false)), 0o644))
	if out, code := dryRun("--dir", other); code != 2 || !strings.Contains(out, "- 10.0.0.0/16") || !strings.Contains(out, "- fd00::/64") {
		t.Errorf("of other manifests: exit code %d\n%s", code, out)
	}
	if out, code := dryRun("--dir", other, "-o", "json"); code != 2 || !strings.Contains(out, `"equal": false`) {
		t.Errorf("as JSON: exit code %d\n%s", code, out)
	}
	if after := s.kernelObjects(); !slices.Equal(before, after) {
		t.Errorf("the kernel held\n%v\nand holds\n%v", before, after)
	}
	s.expect("afterwards", pathNode)
}

// TestHangupIsNoEnd sends the signal with which an operator asks a service to reload.
func TestHangupIsNoEnd(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.start()
	labtest.Must(t, s.agent.Process.Signal(syscall.SIGHUP))
	for start := time.Now(); ; {
		said, err := os.ReadFile(s.log.Name())
		labtest.Must(t, err)
		if out, err := s.sallyport("status"); err != nil {
			t.Fatalf("after SIGHUP: %v\n%s", err, out)
		}
		if strings.Contains(string(said), "nothing to reload") {
			return
		}
		if time.Since(start) > patience {
			t.Fatalf("the agent says nothing of SIGHUP: %s", said)
		}
	}
}
