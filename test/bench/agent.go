package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/lab"
)

// agentProcess is the real agent in the node.
type agentProcess struct {
	cmd    *exec.Cmd
	node   *lab.Host
	client *agent.Client
	log    *os.File
}

// probes is where an agent of a cluster answers its kubelet.
const probes = "127.0.0.1:9470"

// startAgent starts the agent on a directory of manifests; state is its state directory.
func startAgent(ctx context.Context, o options, n *network, manifests, state string) (*agentProcess, error) {
	return runAgent(ctx, o, n, state, "--dir", manifests, "--node-name", "node", "--metrics-address", "")
}

// startClusterAgent starts the agent of the first Node of a cluster.
func startClusterAgent(ctx context.Context, o options, n *network, kubeconfig, state string) (*agentProcess, error) {
	return runAgent(ctx, o, n, state, "--datastore", "kubernetes", "--kubeconfig", kubeconfig, "--lease-namespace", "default", "--node-name", nodeName(0), "--metrics-address", probes)
}

func runAgent(ctx context.Context, o options, n *network, state string, args ...string) (*agentProcess, error) {
	log, err := os.CreateTemp(filepath.Dir(state), "agent-*.log")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(state, "agent.sock")
	cmd := n.node.Command(ctx, o.program, append([]string{"run", "--state-dir", state, "--socket", socket}, args...)...)
	cmd.Stderr = log
	cmd.Env = append(os.Environ(), o.env...)
	if err := n.node.Start(cmd); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &agentProcess{cmd, n.node, agent.NewClient(socket), log}, nil
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
	return a.late()
}

func (a *agentProcess) late() error {
	text, _ := os.ReadFile(a.log.Name())
	return fmt.Errorf("the agent was not ready within a minute; its log:\n%s", text)
}

// probed waits until the agent tells its kubelet that it is ready.
func (a *agentProcess) probed(ctx context.Context) error {
	client := a.node.HTTPClient()
	defer client.CloseIdleConnections()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := get(ctx, client, "http://"+probes+"/readyz"); err == nil {
			return nil
		}
	}
	return a.late()
}

// scrape reads the agent's metrics, as a monitoring system does.
func (a *agentProcess) scrape(ctx context.Context) error {
	client := a.node.HTTPClient()
	defer client.CloseIdleConnections()
	_, err := get(ctx, client, "http://"+probes+"/metrics")
	return err
}

func (a *agentProcess) stop() error {
	err := a.cmd.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, a.cmd.Wait(), a.log.Close())
}

// resident is the memory of the agent in MiB.
func (a *agentProcess) resident() (float64, error) { return memory(a.cmd.Process.Pid, "VmRSS") }

// residentFile is as much of it as are pages of the program's file, which processes share and the kernel can drop.
func (a *agentProcess) residentFile() (float64, error) { return memory(a.cmd.Process.Pid, "RssFile") }

// peak is the most memory that the agent has had, in MiB.
func (a *agentProcess) peak() (float64, error) { return memory(a.cmd.Process.Pid, "VmHWM") }

// cpu is what the agent's threads have used so far.
func (a *agentProcess) cpu() (time.Duration, error) { return cpuOf(a.cmd.Process.Pid) }
