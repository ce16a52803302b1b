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
	"github.com/sallyport/sallyport/internal/cli/podlab"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show real connections being translated, in network namespaces that vanish afterwards",
		Long: `Build two nodes with three pods, an "internet" and a "corporate" host out of network namespaces, run the real
agent in each node, make real HTTP connections and print which source address each server saw, and why. Then
show how the pods of one pool reach each other across the nodes, and what of it is seen on the wire. At last,
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
	net    *podlab.Demo
	out    io.Writer
	dir    string // of manifests
	agents [2]*demoAgent
}

// demoAgent is the agent of a node of the demo.
type demoAgent struct {
	cmd    *exec.Cmd
	log    *os.File
	client *agent.Client
}

func runDemo(ctx context.Context, out io.Writer) (err error) {
	scratch, err := lab.Scratch()
	if err != nil {
		return err
	}
	network, err := podlab.NewDemo(ctx)
	if err != nil {
		return err
	}
	d := &demo{net: network, out: out, dir: filepath.Join(scratch, "resources")}
	defer func() { err = errors.Join(err, d.stop(), network.Close()) }()

	fmt.Fprintf(out, `Two nodes with pods, in network namespaces of this machine:

  private pod %-13s ──┐
                              ├── node-1 %-11s ──┐            ┌── internet  %s
  public pod  %-13s ──┘                        ├── router ──┤
                                                       │            └── corporate %s
  second pod  %-13s ───── node-2 %-11s ──┘

`, network.Private.IPv4, network.Nodes[0].IPv4, network.Internet.IPv4, network.Public.IPv4, network.Corporate.IPv4, network.Second.IPv4, network.Nodes[1].IPv4)
	if err := d.start(ctx, scratch); err != nil {
		return err
	}
	fmt.Fprintf(out, `Each node runs the real agent (sallyport run) on these pools, in IPv4 and IPv6:

  private    %-16s natOutgoing: true    its addresses mean nothing outside; both nodes have pods of it
  public     %-16s natOutgoing: false   its addresses are routed to node-1
  corporate  %-16s disabled: true       reachable without translation

Real HTTP connections, and the source address that each server saw:

`, podlab.DemoPrivatePool[0], podlab.DemoPublicPool[0], podlab.DemoCorporatePool[0])
	if err := d.table(ctx, []*podlab.Machine{d.net.Private, d.net.Second, d.net.Public}); err != nil {
		return err
	}
	if err := d.between(ctx); err != nil {
		return err
	}
	return d.flip(ctx)
}

// start writes the manifests and runs an agent in each node until both are ready.
func (d *demo) start(ctx context.Context, scratch string) error {
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"private.yaml":   demoPool("private", podlab.DemoPrivatePool, "  natOutgoing: true\n  vxlanMode: CrossSubnet\n"),
		"public.yaml":    demoPublic("false"),
		"corporate.yaml": demoPool("corporate", podlab.DemoCorporatePool, "  disabled: true\n"),
	} {
		if err := d.write(name, text); err != nil {
			return err
		}
	}
	for i, node := range d.net.Nodes {
		a, err := startDemoAgent(ctx, node, d.dir, filepath.Join(scratch, node.Name()))
		d.agents[i] = a
		if err != nil {
			return err
		}
	}
	for _, a := range d.agents {
		if err := a.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

func demoPublic(natOutgoing string) string {
	return demoPool("public", podlab.DemoPublicPool, "  natOutgoing: "+natOutgoing+"\n  vxlanMode: CrossSubnet\n")
}

func startDemoAgent(ctx context.Context, node *podlab.Machine, resources, home string) (*demoAgent, error) {
	if err := os.Mkdir(home, 0o755); err != nil {
		return nil, err
	}
	socket := filepath.Join(home, "agent.sock")
	a := &demoAgent{client: agent.NewClient(socket)}
	a.cmd = node.Command(ctx, "/proc/self/exe", "run", "--dir", resources, "--socket", socket,
		"--state-dir", filepath.Join(home, "state"), "--node-name", node.Name(), "--metrics-address", "")
	var err error
	if a.log, err = os.Create(filepath.Join(home, "agent.log")); err != nil {
		return a, err
	}
	a.cmd.Stderr = a.log
	a.cmd.Cancel = func() error { return a.cmd.Process.Signal(syscall.SIGTERM) }
	return a, node.Start(a.cmd)
}

// ready waits until the kernel holds what the manifests mean.
func (a *demoAgent) ready(ctx context.Context) error {
	const patience = 10 * time.Second
	for end := time.Now().Add(patience); ; {
		s, err := a.client.WaitReady(ctx, time.Until(end))
		if err == nil && s.Ready {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(a.log.Name())
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
func (d *demo) table(ctx context.Context, pods []*podlab.Machine) error {
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  FROM\tTO\tSEEN AS\tWHY")
	ipv6Connections := 0
	for _, from := range pods {
		for _, to := range []*podlab.Machine{d.net.Internet, d.net.Corporate, d.net.Public, d.net.Private, d.net.Second} {
			if to == from {
				continue
			}
			seen, why, err := d.connect(ctx, from, to, func(m *podlab.Machine) netip.Addr { return m.IPv4 })
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "  %s\t%s %s\t%s\t%s\n", from.Name(), to.Name(), to.IPv4, seen, why)
			if _, _, err := d.connect(ctx, from, to, func(m *podlab.Machine) netip.Addr { return m.IPv6 }); err != nil {
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
func (d *demo) connect(ctx context.Context, from, to *podlab.Machine, family func(*podlab.Machine) netip.Addr) (seen, why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	node := d.net.NodeOf(from)
	e, err := d.agents[node].client.Explain(ctx, compile.Flow{Source: family(from), Destination: family(to), Protocol: compile.TCP, DestinationPort: 80})
	if err != nil {
		return "", "", err
	}
	source, err := d.net.Ask(ctx, from, family(to))
	if err != nil {
		return "", "", err
	}
	as, want := "itself", family(from)
	if e.Verdict.Action == compile.Translate {
		as, want = d.net.Nodes[node].Name(), family(d.net.Nodes[node])
	}
	if source != want {
		return "", "", fmt.Errorf("%s was seen as %s by %s, but should have been seen as %s", family(from), source, family(to), want)
	}
	return fmt.Sprintf("%s, %s", as, source), e.Verdict.Reason, nil
}

// between shows how pods of both nodes reach each other.
func (d *demo) between(ctx context.Context) error {
	private, second := d.net.Private, d.net.Second
	fmt.Fprintf(d.out, `The pool private spans both nodes: each gives out addresses of a block of its own. The nodes are in two subnets, so that
vxlanMode: CrossSubnet has their pods reach each other by VXLAN. In a cluster, agents make these links and routes by themselves
(sallyport run --network). No cluster is here to tell them of each other, so the demo has the drivers of the agent make them:

`)
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  NODE\tHAS\tREACHES\tBY")
	for i, node := range d.net.Nodes {
		r, ok := d.net.RouteFrom(i, []*podlab.Machine{second, private}[i].IPv4)
		if !ok {
			return fmt.Errorf("%s has no route to the pods of the other node", node.Name())
		}
		fmt.Fprintf(w, "  %s\t%s\t%s of %s\t%s, via %s\n", node.Name(), podlab.Block([]*podlab.Machine{private, second}[i].IPv4), r.CIDR, r.Node, r.Device, r.Via)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	frames, open, err := d.net.Overheard(private.IPv4, second.IPv4, func() error {
		_, _, err := d.connect(ctx, private, second, func(m *podlab.Machine) netip.Addr { return m.IPv4 })
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nThe private pod asks the second pod once more. What the router sees of it, on the wire between the nodes:\n\n")
	w = tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  OUTSIDE: THE NODES\tINSIDE: THE PODS")
	for _, f := range frames {
		fmt.Fprintf(w, "  %s → %s, UDP port %d, VNI %d\t%s → %s\n", f.From, f.To, f.Port, f.VNI, f.InnerFrom, f.InnerTo)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(frames) == 0 || open > 0 {
		return fmt.Errorf("on the wire there were %d kinds of VXLAN packets, and %d packets between the pods outside of VXLAN", len(frames), open)
	}
	_, err = fmt.Fprintf(d.out, "\nNo packet between them passed outside of VXLAN.\n\n")
	return err
}

// flip switches natOutgoing on for the public pools and measures how long packets take to show it.
func (d *demo) flip(ctx context.Context) error {
	fmt.Fprintf(d.out, "Now the public pools get natOutgoing: true, by a new version of their manifest:\n\n")
	start := time.Now()
	if err := d.write("public.yaml", demoPublic("true")); err != nil {
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
		if seen == d.net.Nodes[0].IPv4 {
			break
		}
		if time.Since(start) > patience {
			return fmt.Errorf("%s after the change, the public pod is still seen as %s", patience, seen)
		}
	}
	took := time.Since(start)
	if err := d.table(ctx, []*podlab.Machine{d.net.Public}); err != nil {
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
	var errs []error
	for _, a := range d.agents {
		if a != nil {
			errs = append(errs, a.stop())
		}
	}
	return errors.Join(errs...)
}

func (a *demoAgent) stop() error {
	if a.cmd.Process == nil {
		return nil
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var exit *exec.ExitError
	err := a.cmd.Wait()
	if errors.As(err, &exit) {
		err = nil // it was told to end
	}
	return errors.Join(err, a.log.Close())
}
