package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/agent"
)

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
	cmd.Env = append(os.Environ(), o.env...)
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
