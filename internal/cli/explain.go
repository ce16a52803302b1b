package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/hostaddr"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
)

// explanation is what `explain -o json` prints: the verdict, what it follows from, and whether the kernel was found to
// hold the same.
type explanation struct {
	compile.Verdict
	Settings  []compile.Setting `json:"settings"`
	DecidedBy string            `json:"decidedBy"` // one of those below
	// Fault is why the agent, which has decided, holds the last good state and not what the manifests say.
	Fault  *model.Fault `json:"fault,omitempty"`
	Kernel kernelView   `json:"kernel"`
	// Route is how the agent's plan reaches the block of the destination; absent without one, or where no agent answers.
	Route string `json:"route,omitempty"`
	// BGP is what BGP has to do with it, by the same agent.
	BGP []string `json:"bgp,omitempty"`
}

// What a verdict was decided by.
const (
	byAgent     = "agent"     // the plan of the agent, which watches the manifests
	byManifests = "manifests" // the manifests, which were read
	byAPI       = "api"       // the API of the cluster, which was read
)

// kernelView says how a verdict compares with what the kernel of the node holds.
type kernelView struct {
	State  string `json:"state"`            // one of those below
	Reason string `json:"reason,omitempty"` // why it is not kernelSame
}

// What is known of a kernel. The agent tells same and differs by what it has read back.
const (
	kernelSame       = "same"
	kernelDiffers    = "differs"
	kernelNotChecked = "notChecked"
)

func explainCommand(g *global) *cobra.Command {
	var pod, proto, outInterface, node, output string
	var dport uint16
	cmd := &cobra.Command{
		Use:   "explain SRC DST | --pod NAMESPACE/NAME DST",
		Short: "Say what happens to a connection from SRC to DST, and which pool decides",
		Long: `Say whether a connection that SRC opens to DST is translated, and why. The agent decides, if it watches the same
manifests and holds them as they are, or holds the last good state since they have a fault. Else the command reads the
manifests or, with --datastore kubernetes, the API of a cluster; for that it needs neither an agent nor root. The last
line says which of them decided, and whether the kernel holds the same, differs, or was not checked, and why.

DST is the address after any service translation. Without --out-interface, an interface that
outInterfaces covers is assumed. For another node than this one, the node's own addresses are those of
its Node.

With --pod, SRC is the address that the agent of this node, which is the pod network, has given to that pod.`,
		Example: "  sallyport explain 10.244.1.10 198.51.100.7\n  sallyport explain 10.244.1.10 198.51.100.7 --proto udp --dport 53 -o json\n  sallyport explain --pod default/web 198.51.100.7",
		Args:    func(_ *cobra.Command, args []string) error { return explainArgs(pod, args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			if pod != "" {
				source, err := addressOfPod(cmd.Context(), g, pod, args[0])
				if err != nil {
					return err
				}
				args = []string{source, args[0]}
			}
			f, err := parseFlow(args[0], args[1], proto)
			if err != nil {
				return err
			}
			f.DestinationPort, f.OutInterface = dport, outInterface
			e, err := explain(cmd.Context(), g, f, node, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), e)
			}
			return printExplanation(human(cmd), e, f)
		},
	}
	cmd.Flags().StringVar(&pod, "pod", "", "take the address of this pod of this node, NAMESPACE/NAME, for SRC")
	cmd.Flags().StringVar(&proto, "proto", "tcp", "tcp, udp, sctp, icmp, or a protocol number")
	cmd.Flags().Uint16Var(&dport, "dport", 0, "destination port")
	cmd.Flags().StringVar(&outInterface, "out-interface", "", "interface by which the connection leaves")
	cmd.Flags().StringVar(&node, "node-name", "", "node that hosts SRC (default: this one, by its host name)")
	datastoreFlags(cmd, g)
	outputFlag(cmd, &output, "json")
	must(cmd.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"tcp", "udp", "sctp", "icmp"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// explainArgs says which arguments are missing or too many.
func explainArgs(pod string, args []string) error {
	switch {
	case pod != "" && len(args) != 1:
		return errors.New("with --pod, give the destination alone: sallyport explain --pod NAMESPACE/NAME DST")
	case pod == "" && len(args) != 2:
		return errors.New("give a source and a destination: sallyport explain SRC DST")
	}
	return nil
}

// addressOfPod is the address of a pod of this node, of the family of a destination.
func addressOfPod(ctx context.Context, g *global, pod, dst string) (string, error) {
	to, err := parseAddr("DST", dst)
	if err != nil {
		return "", err
	}
	r, err := g.client().IPAM(ctx)
	if err != nil {
		return "", err
	}
	for _, w := range r.Workloads {
		for _, a := range w.Addresses {
			if w.Pod == pod && !w.Leaving && a.Is4() == to.Is4() {
				return a.String(), nil
			}
		}
	}
	return "", fmt.Errorf("--pod %s: the agent of node %s has given no address of the family of %s to a pod of that name: see sallyport ipam show, or ask on the pod's node", pod, r.Node, to)
}

func parseFlow(src, dst, proto string) (compile.Flow, error) {
	var f compile.Flow
	var err error
	if f.Source, err = parseAddr("SRC", src); err != nil {
		return f, err
	}
	if f.Destination, err = parseAddr("DST", dst); err != nil {
		return f, err
	}
	if f.Source.Is4() != f.Destination.Is4() {
		return f, fmt.Errorf("SRC %s and DST %s are of different families: give two IPv4 or two IPv6 addresses", f.Source, f.Destination)
	}
	f.Protocol, err = parseProtocol(proto, f.Source.Is4())
	return f, err
}

func parseAddr(what, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("%s: %q is not an IP address such as 10.244.1.10 or fd00::10", what, s)
	}
	return a.Unmap(), nil
}

func parseProtocol(s string, v4 bool) (compile.Protocol, error) {
	switch strings.ToLower(s) {
	case "tcp":
		return compile.TCP, nil
	case "udp":
		return compile.UDP, nil
	case "sctp":
		return compile.SCTP, nil
	case "icmp", "icmpv6":
		if v4 {
			return compile.ICMP, nil
		}
		return compile.ICMPv6, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("--proto: %q is not known: give tcp, udp, sctp, icmp or a protocol number from 0 to 255", s)
	}
	return compile.Protocol(n), nil
}

// explain decides by the agent of this machine where it holds the manifests as they are, and else by what is declared,
// and compares with the agent. While a manifest is faulty only an agent knows what is in force, so it is asked instead.
func explain(ctx context.Context, g *global, f compile.Flow, node string, warn io.Writer) (explanation, error) {
	if err := g.checkDatastore(); err != nil {
		return explanation{}, err
	}
	if node != "" {
		if _, err := nodeName(node); err != nil {
			return explanation{}, err
		}
	}
	running, agentErr := g.client().Explain(ctx, f)
	if agentErr != nil {
		running = nil
	}
	inCluster := g.datastore == string(agent.Kubernetes)
	if running != nil && (running.Current || running.Fault != nil) && !inCluster && (node == "" || node == running.Node) && sameDir(running.Dir, g.dir) {
		return saidBy(running), nil
	}
	local, here, err := localOf(node, running)
	if err != nil {
		return explanation{}, err
	}
	loaded, err := g.load(ctx, false)
	if err != nil {
		return explanation{}, err
	}
	g.sayFaults(warn, loaded.Faults)
	if len(loaded.Faults) > 0 && !inCluster {
		return explainFaulty(g, here, running, agentErr)
	}
	if node == "" && running == nil && inCluster && !isNode(loaded.Snapshot.Nodes, local.Name) {
		return explanation{}, fmt.Errorf("this machine, %s, is no node of the cluster: say with --node-name which one hosts %s", local.Name, f.Source)
	}
	return byDeclared(f, loaded.Snapshot, inCluster, local, here, running, agentErr), nil
}

// byDeclared decides by what is declared, and compares with the agent.
func byDeclared(f compile.Flow, declaredIn *model.Snapshot, inCluster bool, local model.Local, here bool, running *agent.ExplainResponse, agentErr error) explanation {
	if !here {
		local.Interfaces = declared(declaredIn.Nodes, local.Name)
	}
	plan := compile.Compile(declaredIn, local)
	e := explanation{Verdict: plan.Decide(f), Settings: plan.Settings, DecidedBy: byManifests}
	if here && running != nil {
		e.Route, e.BGP = running.Route, running.BGP
	}
	if inCluster {
		e.DecidedBy = byAPI
	}
	switch {
	case !here:
		e.Kernel = kernelView{kernelNotChecked, fmt.Sprintf("node %s is not this one; ask there", local.Name)}
	case running == nil:
		e.Kernel = kernelView{kernelNotChecked, agentErr.Error()}
	default:
		e.Kernel = compareAll(e, f, running)
	}
	return e
}

// compareAll compares a verdict by what is declared with that of the agent, and where no interface was given, also the
// interfaces, since the verdict assumes one that is covered.
func compareAll(e explanation, f compile.Flow, running *agent.ExplainResponse) kernelView {
	k := compare(e.Verdict, running)
	if others := valueOf(running.Settings, "outInterfaces"); k.State == kernelSame && f.OutInterface == "" && valueOf(e.Settings, "outInterfaces") != others {
		return kernelView{kernelDiffers, "the agent, whose plan it holds, has other outInterfaces: " + cmp.Or(others, "all")}
	}
	return k
}

// valueOf is the value of a setting, by its field.
func valueOf(settings []compile.Setting, field string) string {
	for _, s := range settings {
		if s.Field == field {
			return s.Value
		}
	}
	return ""
}

// explainFaulty asks the agent, since while a manifest is faulty only the agent of the node knows what is in force.
func explainFaulty(g *global, here bool, running *agent.ExplainResponse, agentErr error) (explanation, error) {
	switch {
	case !here:
		return explanation{}, errors.New("there are faulty manifests, and only that node's agent knows which good state is in force there: fix them first")
	case running == nil:
		return explanation{}, fmt.Errorf("there are faulty manifests, and no agent said which good state is in force (%w): fix them first", agentErr)
	case !sameDir(running.Dir, g.dir):
		return explanation{}, fmt.Errorf("there are faulty manifests, and the agent that answers watches another directory (%s), not %s: fix them first, or give the agent's --dir", text.Line(running.Dir), g.dir)
	}
	return saidBy(running), nil
}

// saidBy is the verdict of the agent itself.
func saidBy(running *agent.ExplainResponse) explanation {
	return explanation{Verdict: running.Verdict, Settings: running.Settings, DecidedBy: byAgent, Fault: running.Fault, Kernel: compare(running.Verdict, running), Route: running.Route, BGP: running.BGP}
}

// localOf is what is known here of a node, and whether it is this machine. An agent, where one answers,
// knows this machine's name as a node better than the machine does.
func localOf(name string, running *agent.ExplainResponse) (local model.Local, here bool, err error) {
	own := ""
	if running != nil {
		own = running.Node
	} else if own, err = nodeName(""); err != nil && name == "" {
		return local, false, err
	}
	if name != "" && name != own {
		return model.Local{Name: name}, false, nil
	}
	addrs, err := hostaddr.List()
	return model.Local{Name: own, Interfaces: addrs}, true, err
}

func isNode(nodes []model.Node, name string) bool {
	return slices.ContainsFunc(nodes, func(n model.Node) bool { return n.Name == name })
}

func declared(nodes []model.Node, name string) []netip.Prefix {
	var out []netip.Prefix
	for i := range nodes {
		if nodes[i].Name == name {
			for _, a := range nodes[i].Addresses {
				out = append(out, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return out
}

func compare(v compile.Verdict, r *agent.ExplainResponse) kernelView {
	same := v.Action == r.Verdict.Action && (v.To == nil) == (r.Verdict.To == nil) && (v.To == nil || *v.To == *r.Verdict.To)
	switch {
	case !r.Ready:
		return kernelView{kernelNotChecked, "the agent is not ready: " + r.Reason}
	case !same:
		return kernelView{kernelDiffers, fmt.Sprintf("the agent, whose plan it holds, says %s, because %s", r.Verdict.Action, r.Verdict.Reason)}
	default:
		return kernelView{State: kernelSame}
	}
}

func printExplanation(w io.Writer, e explanation, f compile.Flow) error {
	var s strings.Builder
	if e.Action == compile.Keep {
		say(&s, "Kept: the connection from %s to %s leaves with the pod's address, since %s.", e.Source.Address, e.Destination.Address, e.Reason)
	} else {
		to := "the node's address on the interface it leaves by"
		if e.To.Address != "node" {
			to = e.To.Address
		}
		if e.To.Ports != "" {
			to += ", ports " + e.To.Ports
		}
		say(&s, "Translated: the connection from %s to %s leaves with %s, since %s.", e.Source.Address, e.Destination.Address, to, e.Reason)
	}
	if out := outInterfaces(e.Settings); f.OutInterface == "" && out != "" && e.Action == compile.Translate {
		say(&s, " This assumes that it leaves by %s.", strings.ReplaceAll(out, ",", " or "))
	}
	if by := decidedBy(e.Settings); by != "" {
		say(&s, "\nSettings: %s.", by)
	}
	if e.Route != "" {
		say(&s, "\nRoute: block %s.", e.Route)
	}
	for _, b := range e.BGP {
		say(&s, "\nBGP: %s.", b)
	}
	say(&s, "\nThis is by %s.", map[string]string{byAgent: "the agent", byManifests: "the manifests", byAPI: "the API"}[e.DecidedBy])
	if e.Fault != nil {
		say(&s, " It holds the LAST GOOD STATE, since there is a fault: %s.", e.Fault)
	}
	switch e.Kernel.State {
	case kernelSame:
		s.WriteString(" The kernel of this node holds the same.")
	case kernelDiffers:
		say(&s, " The kernel of this node DIFFERS: %s.", e.Kernel.Reason)
	default:
		say(&s, " The kernel was NOT CHECKED: %s.", e.Kernel.Reason)
	}
	_, err := fmt.Fprintln(w, s.String())
	return err
}

// outInterfaces is the value of that setting.
func outInterfaces(settings []compile.Setting) string {
	for _, s := range settings {
		if s.Field == "outInterfaces" {
			return s.Value
		}
	}
	return ""
}

// decidedBy names the NATConfigurations that decide something, each with what it decides; "" where all is by default.
func decidedBy(settings []compile.Setting) string {
	said := map[string][]string{}
	for _, s := range settings {
		if s.NATConfiguration == "" {
			continue
		}
		text := s.Field
		if s.Family != "" {
			text += " (" + s.Family + ")"
		}
		said[s.NATConfiguration] = append(said[s.NATConfiguration], text+" "+cmp.Or(s.Value, "(none)"))
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(said)) {
		out = append(out, strings.Join(said[name], ", ")+" by NATConfiguration "+name)
	}
	return strings.Join(out, "; ")
}
