package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/hostaddr"
	"github.com/sallyport/sallyport/internal/model"
)

// explanation is what `explain -o json` prints: the verdict, and what a running agent adds.
type explanation struct {
	compile.Verdict
	// Agent is absent where no agent answers.
	Agent *agentView `json:"agent,omitempty"`
}

// agentView is how the verdict compares with what the agent holds in the kernel.
type agentView struct {
	// Same says that the kernel was read back and does just this.
	Same   bool   `json:"same"`
	Reason string `json:"reason,omitempty"` // why not
}

func explainCommand(g *global) *cobra.Command {
	var proto, outInterface, node, output string
	var dport uint16
	cmd := &cobra.Command{
		Use:   "explain SRC DST",
		Short: "Say what happens to a connection from SRC to DST, and which pool decides",
		Long: `Say whether a connection that SRC opens to DST is translated, and why. It reads the manifests or, with
--datastore kubernetes, the API of a cluster, and needs neither an agent nor root; where an agent answers, it adds
whether the kernel holds the same.

DST is the address after any service translation. Without --out-interface, an interface that
outInterfaces covers is assumed. For another node than this one, the node's own addresses are those of
its Node.`,
		Example: "  sallyport explain 10.244.1.10 198.51.100.7\n  sallyport explain 10.244.1.10 198.51.100.7 --proto udp --dport 53 -o json",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			f, err := parseFlow(args[0], args[1], proto)
			if err != nil {
				return err
			}
			f.DestinationPort, f.OutInterface = dport, outInterface
			e, plan, err := explain(cmd.Context(), g, f, node, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), e)
			}
			return printExplanation(cmd.OutOrStdout(), e, f, plan)
		},
	}
	cmd.Flags().StringVar(&proto, "proto", "tcp", "tcp, udp, sctp, icmp, or a protocol number")
	cmd.Flags().Uint16Var(&dport, "dport", 0, "destination port")
	cmd.Flags().StringVar(&outInterface, "out-interface", "", "interface by which the connection leaves")
	cmd.Flags().StringVar(&node, "node-name", "", "node that hosts SRC (default: this one, by its host name)")
	datastoreFlags(cmd, g)
	outputFlag(cmd, &output, "json")
	must(cmd.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"tcp", "udp", "sctp", "icmp"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
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
		return 0, fmt.Errorf("--proto: %q is none of tcp, udp, sctp, icmp, nor a protocol number from 0 to 255", s)
	}
	return compile.Protocol(n), nil
}

// explain decides by the manifests, and compares with the agent of this machine where there is one. While
// a manifest is faulty only an agent knows what is in force, so it is asked instead.
func explain(ctx context.Context, g *global, f compile.Flow, node string, warn io.Writer) (explanation, *compile.Plan, error) {
	running, agentErr := g.client().Explain(ctx, f)
	if agentErr != nil {
		running = nil
	}
	local, here, err := localOf(node, running)
	if err != nil {
		return explanation{}, nil, err
	}
	loaded, err := g.load(ctx)
	if err != nil {
		return explanation{}, nil, err
	}
	g.sayFaults(warn, loaded.Faults)
	if len(loaded.Faults) > 0 && g.datastore != string(agent.Kubernetes) {
		if !here {
			return explanation{}, nil, errors.New("there are faulty manifests, and only that node's agent knows which good state is in force there: mend them first")
		}
		if running == nil {
			return explanation{}, nil, fmt.Errorf("there are faulty manifests, and no agent said which good state is in force (%w): mend them first", agentErr)
		}
		return explanation{running.Verdict, &agentView{running.Ready, running.Reason}}, nil, nil
	}
	if node == "" && running == nil && g.datastore == string(agent.Kubernetes) && !isNode(loaded.Snapshot.Nodes, local.Name) {
		return explanation{}, nil, fmt.Errorf("this machine, %s, is no node of the cluster: say with --node-name which one hosts %s", local.Name, f.Source)
	}
	if !here {
		local.Interfaces = declared(loaded.Snapshot.Nodes, local.Name)
	}
	plan := compile.Compile(loaded.Snapshot, local)
	e := explanation{Verdict: plan.Decide(f)}
	if here && running != nil {
		e.Agent = compare(e.Verdict, running)
	}
	return e, plan, nil
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

func compare(v compile.Verdict, r *agent.ExplainResponse) *agentView {
	same := v.Action == r.Verdict.Action && (v.To == nil) == (r.Verdict.To == nil) && (v.To == nil || *v.To == *r.Verdict.To)
	switch {
	case !r.Ready:
		return &agentView{Reason: "the agent is not ready: " + r.Reason}
	case !same:
		return &agentView{Reason: fmt.Sprintf("the agent says %s, because %s", r.Verdict.Action, r.Verdict.Reason)}
	default:
		return &agentView{Same: true}
	}
}

func printExplanation(w io.Writer, e explanation, f compile.Flow, plan *compile.Plan) error {
	var s strings.Builder
	if e.Action == compile.Keep {
		fmt.Fprintf(&s, "Kept: the connection from %s to %s leaves with the pod's address, since %s.", e.Source.Address, e.Destination.Address, e.Reason)
	} else {
		to := "the node's address on the interface it leaves by"
		if e.To.Address != "node" {
			to = e.To.Address
		}
		if e.To.Ports != "" {
			to += ", ports " + e.To.Ports
		}
		fmt.Fprintf(&s, "Translated: the connection from %s to %s leaves with %s, since %s.", e.Source.Address, e.Destination.Address, to, e.Reason)
	}
	if plan != nil && f.OutInterface == "" && len(plan.NAT.OutInterfaces) > 0 && e.Action == compile.Translate {
		fmt.Fprintf(&s, " This assumes that it leaves by %s.", strings.Join(plan.NAT.OutInterfaces, " or "))
	}
	if e.Agent != nil && e.Agent.Same {
		s.WriteString("\nThe kernel of this node holds the same.")
	} else if e.Agent != nil {
		s.WriteString("\nThe kernel of this node may do otherwise: " + e.Agent.Reason + ".")
	}
	_, err := fmt.Fprintln(w, s.String())
	return err
}
