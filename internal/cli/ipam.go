package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
)

func ipamCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ipam",
		Short: "Show, check and release the addresses that this node gives to workloads",
		Long: `Show, check and release the addresses that the agent of this node, which is the pod network, gives to workloads. The
kernel is the record of what is in use, so that no address has to be released by hand: it is free once its link is gone. An
empty block goes back to its pool by itself, unless it is the node's last one of its family.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(ipamShowCommand(g), ipamCheckCommand(g), ipamReleaseCommand(g))
	return cmd
}

func ipamShowCommand(g *global) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show the blocks of this node and the workloads that have addresses of them",
		Example: "  sallyport ipam show\n  sallyport ipam show -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			r, err := g.client().IPAM(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printIPAM(human(cmd), r)
		},
	}
	outputFlag(cmd, &output, "json")
	return cmd
}

func ipamCheckCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say where the kernel, the agent and the datastore do not agree about addresses",
		Long: `Say where the kernel, the agent and the datastore do not agree about the addresses of this node's workloads. A pod that is
just starting or ending can look like a fault: check again. The exit code is 1 where there is a fault.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := g.client().IPAM(cmd.Context())
			if err != nil {
				return err
			}
			w := human(cmd)
			for _, f := range r.Faults {
				fmt.Fprintln(w, saying("%s", f))
			}
			if len(r.Faults) > 0 {
				return errSilent
			}
			fmt.Fprintln(w, saying("The kernel, the agent and the datastore agree about %d blocks and %d workloads of node %s.", len(r.Blocks), len(r.Workloads), r.Node))
			return nil
		},
	}
}

func ipamReleaseCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "release BLOCK",
		Short: "Give a block of this node back to its pool now",
		Long: `Give a block of this node back to its pool now, so that another node can have it: also the last one of its family, and
also while addresses of it cool down. A block in which an address is in use stays. The agent claims a block again
when a workload needs one. The blocks of a node that is gone come free by themselves, 15 minutes after its Node was deleted.`,
		Example: "  sallyport ipam release 10.244.1.0/26",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			block, err := netip.ParsePrefix(args[0])
			if err != nil {
				return fmt.Errorf("%q is not a block: name one as \"sallyport ipam show\" does, such as 10.244.1.0/26", args[0])
			}
			if err := g.client().Release(cmd.Context(), block); err != nil {
				return err
			}
			fmt.Fprintln(human(cmd), saying("Block %s went back to its pool.", block))
			return nil
		},
	}
}

func printIPAM(w io.Writer, r *agent.IPAMResponse) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BLOCK\tPOOL\tIN USE\tCOOLING DOWN\tSIZE")
	for _, b := range r.Blocks {
		fmt.Fprintln(t, saying("%s\t%s\t%d\t%d\t%d", b.CIDR, b.Pool, b.InUse, b.Cooling, b.Size))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "ADDRESSES\tPOD\tCONTAINER\tINTERFACE\tLINK")
	for _, l := range r.Workloads {
		state := ""
		if l.Leaving {
			state = " (leaving)"
		}
		fmt.Fprintln(t, saying("%s\t%s\t%.13s\t%s\t%s%s", addressList(l.Addresses), cmp.Or(l.Pod, l.UID, "-"), l.Container, l.Interface, l.Link, state))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.Faults {
		fmt.Fprintln(w, saying("FAULT: %s", f))
	}
	return nil
}

func addressList(list []netip.Addr) string {
	text := make([]string, len(list))
	for i, a := range list {
		text[i] = a.String()
	}
	return strings.Join(text, ",")
}
