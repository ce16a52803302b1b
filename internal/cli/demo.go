package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show real connections being translated, in network namespaces that vanish afterwards",
		Long: `Build a node with two pods, an "internet" and a "corporate" host out of network namespaces, run the real
agent in the node, make real HTTP connections and print who saw which source address, and why. Then
natOutgoing is switched on for the other pool, live.

This machine's own network, rules and files are not touched, and nothing is left behind. It runs as root,
and without root where the kernel allows user namespaces.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			inside, status, err := lab.Isolate(cmd.Context())
			switch {
			case err != nil:
				return err
			case inside:
				return runDemo(cmd.Context(), cmd.OutOrStdout())
			case status != 0:
				return errSilent
			default:
				return nil
			}
		},
	}
}

// demoPool is the manifest of one pool in both families.
func demoPool(name string, cidrs [2]netip.Prefix, more string) string {
	var b bytes.Buffer
	for i, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: %s-%s\nspec:\n  cidr: %s\n%s",
			name, family, cidrs[i], more)
	}
	return b.String()
}

// demo is a running demo.
type demo struct {
	net    *lab.Demo
	out    io.Writer
	dir    string // of manifests
	agent  *exec.Cmd
	log    *os.File // of the agent
	client *agent.Client
}

func runDemo(ctx context.Context, out io.Writer) (err error) {
	scratch, err := lab.Scratch()
	if err != nil {
		return err
	}
	network, err := lab.NewDemo()
	if err != nil {
		return err
	}
	socket := filepath.Join(scratch, "agent.sock")
	d := &demo{net: network, out: out, dir: filepath.Join(scratch, "resources"), client: agent.NewClient(socket)}
	defer func() { err = errors.Join(err, d.stop(), network.Close()) }()

	fmt.Fprintf(out, `A node with two pods, in network namespaces of this machine:

  private pod %-14s ──┐                              ┌── internet  %s
                               ├── node ──────── router ──────┤
  public pod  %-14s ──┘   %-12s               └── corporate %s

`, network.Private.IPv4, network.Internet.IPv4, network.Public.IPv4, network.Node.IPv4, network.Corporate.IPv4)
	if err := d.start(ctx, scratch, socket); err != nil {
		return err
	}
	fmt.Fprintf(out, `The node runs the real agent (sallyport run) on these pools, in IPv4 and IPv6:

  private    %-16s natOutgoing: true    its addresses mean nothing outside
  public     %-16s natOutgoing: false   its addresses are routed to the node
  corporate  %-16s disabled: true       reachable without translation

Real HTTP connections, and the source address that each server saw:

`, lab.DemoPrivatePool[0], lab.DemoPublicPool[0], lab.DemoCorporatePool[0])
	if err := d.table(ctx, []*lab.Machine{d.net.Private, d.net.Public}); err != nil {
		return err
	}
	return d.flip(ctx)
}

// start writes the manifests and runs the agent in the node until it is ready.
func (d *demo) start(ctx context.Context, scratch, socket string) error {
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"private.yaml":   demoPool("private", lab.DemoPrivatePool, "  natOutgoing: true\n"),
		"public.yaml":    demoPool("public", lab.DemoPublicPool, "  natOutgoing: false\n"),
		"corporate.yaml": demoPool("corporate", lab.DemoCorporatePool, "  disabled: true\n"),
	} {
		if err := d.write(name, text); err != nil {
			return err
		}
	}
	d.agent = d.net.Node.Command(ctx, "/proc/self/exe", "run", "--dir", d.dir, "--socket", socket,
		"--state-dir", filepath.Join(scratch, "state"), "--node-name", "node", "--metrics-address", "")
	var err error
	if d.log, err = os.Create(filepath.Join(scratch, "agent.log")); err != nil {
		return err
	}
	d.agent.Stderr = d.log
	d.agent.Cancel = func() error { return d.agent.Process.Signal(syscall.SIGTERM) }
	if err := d.net.Node.Start(d.agent); err != nil {
		return err
	}
	const patience = 10 * time.Second
	for end := time.Now().Add(patience); ; {
		s, err := d.client.WaitReady(ctx, time.Until(end))
		if err == nil && s.Ready {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(d.log.Name())
			return fmt.Errorf("the agent was not ready after %s; it says:\n%s", patience, said)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// write puts a manifest in its place as careful tools do: aside first, then by rename.
func (d *demo) write(name, text string) error {
	aside := filepath.Join(d.dir, "."+name)
	if err := os.WriteFile(aside, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(aside, filepath.Join(d.dir, name))
}

// table makes connections in both families and prints what the servers saw, IPv4 line by line.
func (d *demo) table(ctx context.Context, pods []*lab.Machine) error {
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  FROM\tTO\tSEEN AS\tWHY")
	ipv6Connections := 0
	for _, from := range pods {
		for _, to := range []*lab.Machine{d.net.Internet, d.net.Corporate, d.net.Public, d.net.Private} {
			if to == from {
				continue
			}
			seen, why, err := d.connect(ctx, from, to, func(m *lab.Machine) netip.Addr { return m.IPv4 })
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "  %s\t%s %s\t%s\t%s\n", from.Name(), to.Name(), to.IPv4, seen, why)
			if _, _, err := d.connect(ctx, from, to, func(m *lab.Machine) netip.Addr { return m.IPv6 }); err != nil {
				return err
			}
			ipv6Connections++
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(d.out, "\nThe same %d connections over IPv6 were seen alike.\n\n", ipv6Connections)
	return err
}

// connect makes one connection, and holds what was seen against what the agent says.
func (d *demo) connect(ctx context.Context, from, to *lab.Machine, family func(*lab.Machine) netip.Addr) (seen, why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	e, err := d.client.Explain(ctx, compile.Flow{Source: family(from), Destination: family(to), Protocol: compile.TCP, DestinationPort: 80})
	if err != nil {
		return "", "", err
	}
	source, err := d.net.Ask(ctx, from, family(to))
	if err != nil {
		return "", "", err
	}
	as, want := "itself", family(from)
	if e.Verdict.Action == compile.Translate {
		as, want = "the node", family(d.net.Node)
	}
	if source != want {
		return "", "", fmt.Errorf("%s was seen as %s by %s, but should have been seen as %s", family(from), source, family(to), want)
	}
	return fmt.Sprintf("%s, %s", as, source), e.Verdict.Reason, nil
}

// flip switches natOutgoing on for the public pools and measures how long packets take to show it.
func (d *demo) flip(ctx context.Context) error {
	fmt.Fprintf(d.out, "Now the public pools get natOutgoing: true, by a new version of their manifest:\n\n")
	start := time.Now()
	if err := d.write("public.yaml", demoPool("public", lab.DemoPublicPool, "  natOutgoing: true\n")); err != nil {
		return err
	}
	const patience = 5 * time.Second
	tries := 0
	for {
		seen, err := d.net.Ask(ctx, d.net.Public, d.net.Internet.IPv4)
		if err != nil {
			return err
		}
		tries++
		if seen == d.net.Node.IPv4 {
			break
		}
		if time.Since(start) > patience {
			return fmt.Errorf("%s after the change, the public pod is still seen as %s", patience, seen)
		}
	}
	took := time.Since(start)
	if err := d.table(ctx, []*lab.Machine{d.net.Public}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(d.out, "%.1f ms from writing the manifest to the first answer to a translated connection (the %s that was made).\nEverything is removed with the namespaces; this machine's own rules were never touched.\n",
		float64(took)/float64(time.Millisecond), ordinal(tries))
	return err
}

func ordinal(n int) string {
	suffix := "th"
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		suffix = "st"
	case n%10 == 2:
		suffix = "nd"
	case n%10 == 3:
		suffix = "rd"
	}
	return fmt.Sprint(n, suffix)
}

func (d *demo) stop() error {
	if d.agent == nil || d.agent.Process == nil {
		return nil
	}
	if err := d.agent.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var exit *exec.ExitError
	err := d.agent.Wait()
	if errors.As(err, &exit) {
		err = nil // it was told to end
	}
	return errors.Join(err, d.log.Close())
}
