package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
	"github.com/sallyport/sallyport/internal/waiting"
)

// screen is how many lines a status that a person reads may have; -o json has all. Pools take what the rest leaves,
// and poolsShown lines in any case.
const (
	screen     = 40
	poolsShown = 5
)

// busyFrom is the share of source ports in use, in percent, from which a destination is shown.
const busyFrom = 10

// problemsShown bounds the problems likewise: the worst come first.
const problemsShown = 4

// These bound faults, warnings, and what the pod network cannot do, in the same way.
const (
	faultsShown   = 5
	warningsShown = 3
	reasonsShown  = 3
)

// settle is how long status waits for what is about to come into force.
const settle = time.Second

func statusCommand(g *global) *cobra.Command {
	var output string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether this node is ready, and if not why",
		Long: `Ask the agent how the node stands: whether the kernel was read back and equals the manifests, what each
pool translates, what is wrong with the files, and what on the node stands in the way. It waits a moment for
a change that was just made. The exit code is 0 when the node is ready and every file is in force, 1 when the agent
says that it is not, and 3 when no agent answers. Without an answer, the command looks itself whether the kernel has
Sallyport's table, which translates without an agent too; that needs CAP_NET_ADMIN.`,
		Example: "  sallyport status\n  sallyport status --wait 5s -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			s, err := waitStatus(cmd.Context(), g.client(), wait)
			if err != nil {
				return printUnanswered(cmd, output, err)
			}
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), s)
			} else {
				err = printStatus(human(cmd), s)
			}
			if err == nil && (!s.Ready || len(s.Faults)+len(s.Pending) > 0) {
				return errSilent
			}
			return err
		},
	}
	waitFlag(cmd, &wait, "wait up to this long until the node is ready and every file is in force, such as 5s")
	outputFlag(cmd, &output, "json")
	return cmd
}

// waitStatus asks for the status once the node is ready, or after the time given; an agent that is not there yet is
// waited for too. Without a time, a change that was just made has a moment to come into force.
func waitStatus(ctx context.Context, c *agent.Client, wait time.Duration) (*agent.Status, error) {
	if wait == 0 {
		return c.Status(ctx, settle)
	}
	deadline := time.Now().Add(wait)
	for {
		s, err := c.WaitReady(ctx, time.Until(deadline))
		if err == nil || !errors.Is(err, agent.ErrNoAgent) {
			return s, err
		}
		if !waiting.Sleep(ctx, nil, min(50*time.Millisecond, time.Until(deadline))) {
			return nil, ctx.Err()
		}
		if !time.Now().Before(deadline) {
			return nil, err
		}
	}
}

func printStatus(w io.Writer, s *agent.Status) error {
	var b bytes.Buffer
	if err := printCondition(&b, s); err != nil {
		return err
	}
	const around = 3 // an empty line, the heading, and how many more there are
	if err := printPools(&b, s.Pools, max(poolsShown, screen-around-bytes.Count(b.Bytes(), []byte("\n")))); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// printCondition prints all but the pools.
func printCondition(w io.Writer, s *agent.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	say(t, "Node:\t%s\nReady:\t%s\n", s.Node, readiness(s))
	if s.API != nil {
		say(t, "API server:\t%s: %s\nResources:\t%s\n", s.API.Server, contact(s.API), counted(s.Resources))
	} else {
		say(t, "Manifests:\t%s: %s\n", s.Dir, counted(s.Resources))
	}
	if n := s.NAT; n != nil {
		say(t, "Translates:\t%d source ranges, %d exempt ranges, %s\n", n.SourceRanges, n.ExemptRanges, target(n))
		if by := decidedBy(n.Settings); by != "" {
			say(t, "Settings:\t%s; all else by default\n", by)
		}
	}
	if f := s.Flows; f != nil {
		say(t, "Flows:\t%d of %d live under an older decision, %d were ended (existingFlows: %s)\n", f.OlderDecision, f.Tracked, f.Ended, f.ExistingFlows)
	}
	if g := s.LeakGuard; g != nil {
		say(t, "Leak guard:\tdropped %d packets that would have left untranslated, %d from outside for no connection\n", g.DroppedOut, g.DroppedIn)
	} else if s.NAT != nil {
		say(t, "Leak guard:\toff\n")
	}
	if n := s.Network; n != nil {
		say(t, "Pod network:\t%d workloads; %d addresses of %d blocks are in use, %d cool down; node address %s, tunnel %s\n",
			n.Workloads, n.InUse, n.Blocks, n.Cooling, orNone(addressList(n.Addresses)), orNone(addressList(n.Tunnels)))
	}
	if n := s.Network; n != nil && n.Dropped != nil {
		say(t, "Pods' packets:\tdropped %d from addresses that are not the pod's, %d for the overlay between nodes\n", n.Dropped.Spoofed, n.Dropped.Injected)
	}
	if n := s.Network; n != nil && n.BGP != nil {
		say(t, "BGP:\t%d of %d sessions are up; %d blocks are announced, %d withheld; %d routes are learned\n",
			n.BGP.Up, n.BGP.Sessions, n.BGP.Announced, n.BGP.Withheld, n.BGP.Learned)
	}
	for _, d := range s.Drivers {
		state := "ready"
		if !d.Ready {
			state = "NOT READY: " + d.Error
		}
		say(t, "Driver %s:\t%s (%d applied, %d failed, %d repaired)\n", d.Name, state, d.Applies, d.Failures, d.Repairs)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	printFirst(w, "The last good state stays in force until these faults are fixed:", s.Faults, faultsShown)
	printFirst(w, "Warnings, which hold nothing back:", s.Warnings, warningsShown)
	if n := s.Network; n != nil {
		printFirst(w, "This node does not reach all workloads of others:", n.Problems, reasonsShown)
		printFirst(w, "This node does not speak BGP as it is asked to:", n.BGPProblems, reasonsShown)
		printFirst(w, "BGP sessions that are not up, or not as asked:", faultySessions(n.BGP), reasonsShown)
	}
	printProblems(w, s.Problems)
	return printBusiest(w, s.Ports)
}

// faultySessions says what is wrong with sessions of BGP.
func faultySessions(b *agent.BGPStatus) (out []string) {
	if b == nil {
		return nil
	}
	for i := range b.Down {
		s := &b.Down[i]
		out = append(out, fmt.Sprintf("%s: %s", cmp.Or(s.BGPPeer, "mesh")+", "+s.Peer.String(), cmp.Or(s.Why, s.Fault)))
	}
	return out
}

func orNone(text string) string { return cmp.Or(text, "none") }

// printFirst prints the first few of a list with a heading.
func printFirst[T string | model.Fault](w io.Writer, heading string, list []T, most int) {
	if len(list) == 0 {
		return
	}
	say(w, "\n%s\n", heading)
	for _, item := range list[:min(len(list), most)] {
		say(w, "  %v\n", item)
	}
	if more := len(list) - most; more > 0 {
		say(w, "  and %d more: sallyport status -o json\n", more)
	}
}

// contact says in words how an API server answers.
func contact(a *agent.APIStatus) string {
	switch {
	case a.Heard.IsZero() && a.Error == "":
		return "not heard of yet"
	case a.Heard.IsZero():
		return "NOT REACHED since the agent started: " + a.Error
	case !a.Lost.IsZero():
		return fmt.Sprintf("NOT REACHED, heard of last %s ago: %s", time.Since(a.Heard).Round(time.Second), a.Error)
	default:
		return fmt.Sprintf("answers, heard of last %s ago", time.Since(a.Heard).Round(time.Second))
	}
}

// readiness says in words what the kernel holds.
func readiness(s *agent.Status) string {
	switch {
	case !s.Ready:
		return "NO: " + s.Reason
	case s.API != nil && len(s.Faults) > 0:
		return "yes, with an old view: the kernel was read back and equals the last good one"
	case s.API != nil:
		return "yes: the kernel was read back and equals the API as it was heard"
	case len(s.Faults) > 0:
		return "yes, with old manifests: the kernel was read back and equals the last good state"
	case len(s.Pending) > 0:
		return "yes, but for a change of the manifests that is not in force yet: " + text.Few(s.Pending)
	default:
		return "yes: the kernel was read back and equals the manifests"
	}
}

// printProblems prints what on the node stands in the way of the plan, the worst first.
func printProblems(w io.Writer, problems []diagnose.Problem) {
	if len(problems) == 0 {
		return
	}
	say(w, "\nProblems on this node, which do not make it unready:\n")
	for _, p := range problems[:min(len(problems), problemsShown)] {
		say(w, "  %s: %s.\n    Remedy: %s.\n", p.Kind, p, p.Remedy)
	}
	if more := len(problems) - problemsShown; more > 0 {
		say(w, "  and %d more: sallyport status -o json\n", more)
	}
}

// printBusiest prints the destinations towards which many of the source ports are in use.
func printBusiest(w io.Writer, p *diagnose.Ports) error {
	if p == nil || len(p.Destinations) == 0 || p.Destinations[0].Percent() < busyFrom {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BUSIEST DESTINATION\tPROTOCOL\tFROM\tPORTS IN USE")
	for i := range p.Destinations {
		if d := &p.Destinations[i]; d.Percent() >= busyFrom {
			say(t, "%s\t%s\t%s\t%d of %d (%d%%)\n", d.Destination, d.Protocol, d.Address, d.Used, d.Available, d.Percent())
		}
	}
	return t.Flush()
}

func printPools(w io.Writer, pools []agent.PoolStatus, most int) error {
	if len(pools) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POOL\tCIDR\tNATOUTGOING\tALLOCATABLE\tTRANSLATED")
	for _, p := range pools[:min(len(pools), most)] {
		allocatable := "yes"
		if !p.Allocatable {
			allocatable = "no: " + p.Reason
		}
		translated := "-"
		if p.NATOutgoing {
			translated = fmt.Sprint(p.TranslatedConnections)
		}
		say(t, "%s\t%s\t%t\t%s\t%s\n", p.Name, p.CIDR, p.NATOutgoing, allocatable, translated)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := len(pools) - most; more > 0 {
		say(w, "and %d more: sallyport status -o json\n", more)
	}
	return nil
}

func counted(r agent.ResourceStatus) string {
	return fmt.Sprintf("%d pools, %d NAT configurations, %d nodes", r.Pools, r.NATConfigurations, r.Nodes)
}

// target says in words what connections are translated to.
func target(n *agent.NATStatus) string {
	s := "to " + n.To4
	if n.To6 != n.To4 {
		s = fmt.Sprintf("to %s (IPv4) and %s (IPv6)", n.To4, n.To6)
	} else if n.To4 == "node" {
		s = "to the address of the interface they leave by"
	}
	if n.Ports != "" {
		s += ", ports " + n.Ports
	}
	if n.UDPPorts != n.Ports {
		s += ", UDP ports " + n.UDPPorts
	}
	return s + fmt.Sprintf(", %s", n.PortAllocation)
}

// printJSON prints the form for programs. Names and messages come from files that anyone may have written: what would
// command a terminal is escaped, which programs read as it was.
func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text.Show(string(b))+"\n")
	return err
}
